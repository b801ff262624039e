"""Ports for servers that tests and benchmarks start."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import socket
import sys
from collections.abc import Iterator
from typing import Final

#: Ports of servers: outside the range from which the kernel takes those of clients, so that no client has one of them
#: while its server is away, and nobody who connects to it then meets himself.
FIRST: Final = 20_000
LAST: Final = 32_000
#: A process that asks has so many for itself.
SHARE: Final = 400


def _claimed() -> Iterator[int]:
    """The ports of this process, again and again, so that none is given soon again; any, when all shares are taken.

    A share is claimed by the name of a socket (unix(7), abstract), which the kernel gives back when the process ends.
    """
    if sys.platform == "linux":
        for first in range(FIRST, LAST, SHARE):
            with socket.socket(socket.AF_UNIX) as claim, contextlib.suppress(OSError):
                claim.bind(f"\0watchout-tests-ports-{first}")
                claim.detach()  # stays open
                begin = random.randrange(SHARE)
                return itertools.cycle([first + (begin + at) % SHARE for at in range(SHARE)])
    return iter(lambda: random.randrange(FIRST, LAST), 0)


#: Claimed by the first one that asks.
_claims: Final = functools.cache(_claimed)


def free_port() -> int:
    """A port of loopback that nobody has, and that no other process of tests gets meanwhile."""
    for port in itertools.islice(_claims(), SHARE):
        if _is_free(port):
            return port
    while not _is_free(port := random.randrange(FIRST, LAST)):
        pass
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
