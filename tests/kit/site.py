"""A router that listens on TCP, a gateway, and bridges of other machines, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.kit.clients import Camera, Clients, eventually
from tests.kit.ml_stub import MlStub
from tests.kit.processes import BIN, Process, Watchout

#: What must come gets this long: the machine may be busy with other tests.
COMES_S = 40.0
FPS = 10


class Site:
    """A router that listens on TCP, a gateway, and bridges that know of them only the address and a key."""

    def __init__(self, started: Watchout, port: int, host: str = "127.0.0.1") -> None:
        self.started = started
        self.address = f"tcp://{host}:{port}"
        self._elsewhere = Path(tempfile.mkdtemp(prefix="wo-"))
        self._made = 0

    async def ctl(self, *words: str, code: int = 0) -> str:
        """Run ``watchout-ctl keys`` as an operator on the router's machine would; what it printed."""
        process = self.started.run("keys", [str(BIN / "watchout-ctl"), "keys", *words])
        assert await process.ended(COMES_S) == code, process.output
        return process.output.strip()

    async def begin(self) -> None:
        self.server_key = await self.ctl("server")
        self.router = self.started.start("router")
        self.started.start("gateway")
        await asyncio.to_thread(self.started.wait_ready)

    async def restart_router(self) -> None:
        """Start it after it was killed, and wait until the gateway is joined again."""
        self.router = self.started.start("router")
        await asyncio.to_thread(self.router.wait_for_output, "router ready")
        await eventually(lambda: self.started.get("/health")[0] == 200, COMES_S)

    async def new_key(self, name: str | None) -> Path:
        """A bridge's own pair; with a name it is let in."""
        self._made += 1
        file = self._elsewhere / f"{self._made}.key"
        key = await self.ctl("client", str(file))
        if name is not None:
            await self.ctl("allow", name, key)
        return file

    def bridge(
        self, service: MlStub, key: Path, *options: str, server_key: str | None = None, within: Sequence[str] = ()
    ) -> Process:
        """A bridge, in a home of its own; `within` is a command that runs it elsewhere."""
        home = tempfile.mkdtemp(dir=self._elsewhere)
        command = [
            *within, str(BIN / "watchout-mlbridge"), "--router", self.address,
            "--router-key", server_key or self.server_key, "--key-file", str(key), "--fps", "5", *options,
        ]  # fmt: skip
        environ = {"WATCHOUT_HOME": home, "ML_SERVICE_URL": service.url, "ROUTER_LISTEN": ""}
        return self.started.run("mlbridge", command, environ)

    def close(self) -> None:
        shutil.rmtree(self._elsewhere, ignore_errors=True)


@contextlib.asynccontextmanager
async def services(count: int) -> AsyncIterator[list[MlStub]]:
    """ML services, one for each bridge: what a bridge shows is what its service was asked."""
    stubs = [MlStub() for _ in range(count)]
    for stub in stubs:
        await stub.start()
    try:
        yield stubs
    finally:
        for stub in stubs:
            await stub.stop()


@contextlib.asynccontextmanager
async def cameras(site: Site, clients: Clients, names: list[str]) -> AsyncIterator[list[Camera]]:
    """Cameras that send while the block lasts."""
    token = site.started.token()
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name in names:
            camera = await clients.camera(site.started.url, token)
            await camera.register(name)
            await stack.enter_async_context(camera.streaming(FPS))
            found.append(camera)
        yield found
