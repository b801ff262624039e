"""An ML service that answers `{}` at once: `python -m benchmarks.sink PORT`. Its CPU counts for nobody.

The answer to any other request than a `POST` says in `X-Requests` how many of those there were. That to a `POST` has
the same head each time, as services have it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final, cast

import uvloop

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,8})[ \t]*\r\n", re.IGNORECASE)


class Sink(asyncio.Protocol):
    """One kept-alive connection."""

    posts = 0

    def __init__(self) -> None:
        self._came = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._came += data
        while (head_end := self._came.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._came, 0, head_end + 2)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if end > MAX_REQUEST_BYTES:
                self._transport.abort()
                return
            if len(self._came) < end:
                return
            is_post = self._came.startswith(b"POST ")
            Sink.posts += is_post
            del self._came[:end]
            told = b"" if is_post else b"X-Requests: %d\r\n" % Sink.posts
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n%b\r\n{}" % told
            )


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
