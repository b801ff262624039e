"""Bun's native `publish` (uWebSockets, C++): a relay of the protocol, `relay_bun.js`, and one that looks at nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks import fetch
from benchmarks.systems import Dialect, Options, Running, listening, process
from tests.kit.ports import free_port

#: Nothing is installed, cached or told to anybody.
ENVIRON: Final = {"DO_NOT_TRACK": "1", "BUN_RUNTIME_TRANSPILER_CACHE_PATH": "0"}


class Bun:
    """A relay that Bun runs; one of the dialect `watchout` asks for a token."""

    formats = frozenset({"json", "binary"})

    def __init__(self, name: str, relay: str, dialect: Dialect) -> None:
        self.name = name
        self._relay = Path(__file__).with_name(relay)
        self._dialect: Dialect = dialect

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:
        program = await asyncio.to_thread(fetch.bun)
        port, token, log = free_port(), secrets.token_hex(16), work / "bun.log"
        argv: list[str | Path] = [program, "--no-install", "run", self._relay, str(port), token]
        if options.tls is not None:
            argv += [options.tls.certificate, options.tls.key]
        async with process(argv, log=log, env=ENVIRON, cwd=work) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), self._dialect, token if self._dialect == "watchout" else None)


SYSTEM = Bun("bun", "relay_bun.js", "watchout")
