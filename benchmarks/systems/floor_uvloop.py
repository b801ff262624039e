"""The floor of uvloop: `data_received` → `transport.write`, no WebSocket, no JSON."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.systems import Options, Running, listening, process
from tests.kit.ports import free_port


class FloorUvloop:
    name = "floor-uvloop"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        port, log = free_port(), work / "floor.log"
        server = Path(__file__).with_name("floor_uvloop_server.py")
        async with process([sys.executable, server, str(port)], log=log) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "raw")


SYSTEM = FloorUvloop()
