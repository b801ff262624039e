"""watchout behind a proxy that does the TLS: nginx, HAProxy or Caddy, each with its file of `deploy/`.

The gateway speaks no TLS and trusts the proxy. The CPU of both counts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.systems import Missing, Options, Running
from benchmarks.systems.watchout import Watchout
from tests.kit import fronts


class Behind:
    """watchout behind the proxy of this name, one of `fronts.ALL`."""

    formats = frozenset({"json", "binary"})

    def __init__(self, name: str) -> None:
        self.name = name
        self._gateway = Watchout(Path(sys.executable).parent, settings={"TRUSTED_PROXIES": "127.0.0.1"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:
        if shutil.which(self.name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin") is None:
            raise Missing(f"no {self.name}: apt-get install {self.name}")
        start, _ = fronts.ALL[self.name]
        async with self._gateway.started(work, options=replace(options, tls=None)) as running:
            stack = ExitStack()
            gateways = running.ports if self.name == "caddy" else running.ports * 3  # as many as its file names
            front = await asyncio.to_thread(stack.enter_context, start(work / self.name, gateways, options.tls))
            try:
                yield replace(running, ports=(front.port,), pids=(*running.pids, front.process.pid))
            finally:
                await asyncio.to_thread(stack.close)


NGINX, HAPROXY, CADDY = (Behind(name) for name in ("nginx", "haproxy", "caddy"))
