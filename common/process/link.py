"""The two ends of the socket pair between a process and its keeper: reading and writing without blocking."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

#: More than all messages together, which have a byte or two each (`common.process.restarts`).
READ_BYTES: Final = 64


def receive(link: socket.socket) -> bytes | None:
    """Return what the other end sent, empty bytes when it is gone, None when nothing has arrived."""
    try:
        return link.recv(READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def send(link: socket.socket | None, message: bytes) -> None:
    """Send a message; without a link, or when the other end has just ended, it is dropped."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.send(message)
