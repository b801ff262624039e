"""Looks host names up, in threads of its own: name servers that do not answer keep no other work waiting.

The threads of the event loop (`asyncio.to_thread`, its `getaddrinfo`) are few, and a look-up cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import weakref
from typing import Any, Final

from watchout.common.toolbox.hosts import is_address
from watchout.common.toolbox.single_flight import SharedCalls

#: Names that are looked up at the same time, each once; more wait for their turn.
MAX_RUNNING: Final = 8

#: An address as `socket.getaddrinfo` returns it: family, kind, protocol, canonical name, address with port.
AddressRow = tuple[Any, ...]


async def look_up(host: str, port: int) -> list[AddressRow]:
    """Return the addresses of a host for TCP; whoever asks while its name is looked up gets the same result.

    An address is not looked up. A caller that has no patience cancels this; the look-up itself goes on.

    Args:
        host: A name or an address.
        port: The port of the result.

    Returns:
        The addresses, at least one, in the order in which the system prefers them.

    Raises:
        OSError: It has none, or the name servers do not answer.

    """
    if is_address(host):
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    loop = asyncio.get_running_loop()
    lookups = _of_loops.get(loop)
    if lookups is None:
        lookups = _of_loops[loop] = _LookUps()
    rows = await asyncio.shield(lookups.calls.join(host, lambda: lookups.run(host)))
    return [(*row[:4], (row[4][0], port, *row[4][2:])) for row in rows]


class _LookUps:
    """The look-ups of one event loop."""

    def __init__(self) -> None:
        self.calls: SharedCalls[str, list[AddressRow]] = SharedCalls("look-up of a name")
        self._free = asyncio.Semaphore(MAX_RUNNING)

    async def run(self, host: str) -> list[AddressRow]:
        async with self._free:
            future: asyncio.Future[list[AddressRow]] = asyncio.get_running_loop().create_future()
            # A daemon: a process that ends does not wait for the name servers.
            thread = threading.Thread(target=_work, args=(host, future), name="look-up of a name", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from None
            return await future


_of_loops: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LookUps]] = weakref.WeakKeyDictionary()


def _work(host: str, future: asyncio.Future[list[AddressRow]]) -> None:
    """Look a name up, and hand the result to the event loop."""
    rows: list[AddressRow] = []
    fault: OSError | None = None
    try:
        rows = list(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM))
    except OSError as error:
        fault = error
    except UnicodeError:
        fault = OSError(errno.EINVAL, "no host name")

    def tell() -> None:
        if future.done():
            return
        if fault is not None:
            future.set_exception(fault)
        else:
            future.set_result(rows)

    with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
        future.get_loop().call_soon_threadsafe(tell)
