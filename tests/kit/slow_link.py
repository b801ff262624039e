"""A TCP proxy on loopback whose way up carries so many bytes a second and holds few of them, as a phone's does.

Its way down may take a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

#: What the link holds in its own buffers; the sender's kernel has its own beside.
_BUFFER_BYTES: Final = 16 * 1024
_STEP_S: Final = 0.02


class SlowLink:
    """A proxy that runs; `port` is where clients connect."""

    def __init__(self, target_port: int, bytes_per_s: float) -> None:
        self._target_port = target_port
        self.bytes_per_s = bytes_per_s
        #: For how long what goes down is on its way.
        self.delay_s = 0.0
        self.port = 0
        #: Connections that clients made so far.
        self.connections = 0
        #: Bytes that went up so far.
        self.carried = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SlowLink]:
        """Listen while the block runs."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # connections inherit it
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._accepted, sock=listener, limit=_BUFFER_BYTES)
        try:
            yield self
        finally:
            self._ended = True
            server.close()
            for _ in range(
                10
            ):  # what is just being accepted comes to `_accepted`; what was closed gives back its socket
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ended:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._connected(reader, writer), name="slow link")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            up = asyncio.create_task(self._carry(reader, far_writer, slow=True))
            down = asyncio.create_task(self._carry(far_reader, writer, slow=False))
            try:
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            finally:
                far_writer.transport.abort()  # first: a second cancellation ends what follows
                for each in (up, down):
                    each.cancel()
                await asyncio.gather(up, down, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: bool) -> None:
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        while data := await reader.read(max(1, int(self.bytes_per_s * _STEP_S)) if slow else 65536):
            if slow:
                self.carried += len(data)
                free_at = max(free_at, loop.time()) + len(data) / self.bytes_per_s
                await asyncio.sleep(free_at - loop.time())
            elif self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()
