"""Connections and servers of tests on loopback of which nothing is left open, whatever happens meanwhile.

A connection that is still open when the loop of its test is closed is reported long after, at a test that has nothing
to do with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from tests.kit.ports import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: Turns of the loop in which what was accepted gets its task, and what was aborted gives back its socket.
_TURNS = 5


@contextlib.asynccontextmanager
async def connected(host: str, port: int, **options: Any) -> AsyncIterator[Streams]:
    """A connection while the block runs; at its end it is aborted."""
    reader, writer = await asyncio.open_connection(host, port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


class Relays:
    """A server on loopback whose connections are its own: `close` ends each of them, at whatever step it is.

    Args:
        serve: What is done with a connection. It may end by an `OSError` or `EOFError` of the peer's; the connection is
            aborted after it.
        options: For `asyncio.start_server`.
    """

    def __init__(self, serve: Serve, **options: Any) -> None:
        self._each = serve
        self._options = options
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Where it listens, kept over `close` and `open`: it is nobody else's meanwhile.
        self.port = 0

    async def __aenter__(self) -> Relays:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen."""
        self.port = self.port or free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, **self._options)

    async def close(self) -> None:
        """Listen no more, and put out who is in."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await _turns()
        await self.put_out()

    async def put_out(self) -> None:
        """End the connections that there are."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await self._each(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until its end, or until either side is lost."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def both_ways(one: Streams, other: Streams) -> None:
    """Pass on what comes, until one of the two ends."""
    await first_of(copy(one[0], other[1]), copy(other[0], one[1]))


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run all of these until the first one ends, however it does; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
