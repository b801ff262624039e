"""Node.js with the npm package `ws`: each frame encoded once, in `relay_ws.js`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks import fetch
from benchmarks.systems import Options, Running, listening, process
from tests.kit.ports import free_port

RELAY: Final = Path(__file__).with_name("relay_ws.js")


class Ws:
    name = "ws"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        node, modules = await asyncio.to_thread(lambda: (fetch.node(), fetch.node_modules()))
        port, token, log = free_port(), secrets.token_hex(16), work / "ws.log"
        environ = {"NODE_OPTIONS": None, "NODE_ENV": "production"}
        async with process([node, RELAY, modules / "ws", str(port), token], log=log, env=environ, cwd=work) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "watchout", token)


SYSTEM = Ws()
