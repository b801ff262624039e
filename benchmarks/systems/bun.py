"""Bun: its native `publish` (uWebSockets, C++) in `relay_bun.js`."""

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

RELAY: Final = Path(__file__).with_name("relay_bun.js")
#: Nothing is installed, cached or told to anybody.
ENVIRON: Final = {"DO_NOT_TRACK": "1", "BUN_RUNTIME_TRANSPILER_CACHE_PATH": "0"}


class Bun:
    name = "bun"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        program = await asyncio.to_thread(fetch.bun)
        port, token, log = free_port(), secrets.token_hex(16), work / "bun.log"
        argv: list[str | Path] = [program, "--no-install", "run", RELAY, str(port), token]
        async with process(argv, log=log, env=ENVIRON, cwd=work) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "watchout", token)


SYSTEM = Bun()
