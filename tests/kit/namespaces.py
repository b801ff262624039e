"""How a process, or a single socket, comes into a network namespace."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from typing import Final

#: linux/sched.h.
_CLONE_NEWNET: Final = 0x40000000


def enter(namespace: str) -> None:
    """Put this thread, and what it starts, into a network namespace. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the namespace {namespace}: {os.strerror(number)}")
    finally:
        os.close(handle)


def socket_in(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a socket of this namespace, where it stays, whoever uses it. Raises `OSError`."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            enter(namespace)
            made.append(socket.socket(family, kind, protocol))
        except OSError as exc:
            made.append(exc)

    thread = threading.Thread(target=make, name=f"socket in {namespace}")  # a namespace is that of a thread
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    return result
