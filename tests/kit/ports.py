"""Ports for servers that tests and benchmarks start."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port of loopback that nobody has, outside the range from which the kernel takes those of clients."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
