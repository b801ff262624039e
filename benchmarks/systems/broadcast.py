"""The asyncio API of `websockets` with its `broadcast()`, on uvloop, in `broadcast_server.py`.

`broadcast()` knows no back pressure: what a slow viewer does not take piles up for as long as the run lasts.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.systems import Options, Running, listening, process
from tests.kit.ports import free_port

SERVER: Final = Path(__file__).with_name("broadcast_server.py")


class Broadcast:
    name = "broadcast"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        port, token, log = free_port(), secrets.token_hex(16), work / "broadcast.log"
        async with process([sys.executable, SERVER, str(port), token], log=log, cwd=work) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "watchout", token)


SYSTEM = Broadcast()
