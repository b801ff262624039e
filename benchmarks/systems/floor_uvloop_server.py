"""The uvloop floor: what it costs to read bytes and to write them to others, and nothing else.

`python floor_uvloop_server.py PORT`. The first line of a connection is `P <stream>` or `S <stream>`, answered with
`ok`; whatever a P sends then, every S of the same stream gets, as it was received.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

#: A reader that is behind by so much is dropped: nothing grows without bound.
MAX_UNSENT_BYTES = 64 * 1024 * 1024

viewers: dict[bytes, list[asyncio.Transport]] = {}


class Copy(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._line = b""
        self._to: list[asyncio.Transport] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        for transports in viewers.values():
            if self._transport in transports:
                transports.remove(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._to is not None:
            for transport in self._to:
                transport.write(data)
            return
        self._line += data
        if b"\n" not in self._line:
            return
        line, _, rest = self._line.partition(b"\n")
        transports = viewers.setdefault(line[2:], [])
        self._transport.write(b"ok\n")
        if line.startswith(b"P "):
            self._to = transports
            if rest:
                self.data_received(rest)
        else:
            transports.append(self._transport)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Copy, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
