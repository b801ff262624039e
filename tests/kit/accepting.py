"""Closes connections that asyncio accepts just when their server is closed.

CPython 3.11 leaves such a socket to the garbage collector (python/cpython#109564), which reports it at whatever test
runs then.
"""

from __future__ import annotations

import socket
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any, Final

_accept: Final = BaseSelectorEventLoop._accept_connection2  # type: ignore[attr-defined]


async def _accept_or_close(
    loop: BaseSelectorEventLoop, factory: Any, accepted: socket.socket, extra: Any, tls: Any, server: Any, *more: Any
) -> None:
    if server is not None and server._sockets is None:
        accepted.close()
        return
    await _accept(loop, factory, accepted, extra, tls, server, *more)


def install() -> None:
    """For every event loop of asyncio in this process."""
    BaseSelectorEventLoop._accept_connection2 = _accept_or_close  # type: ignore[attr-defined]
