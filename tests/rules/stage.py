"""What the systems of all rehearsals have: what starts processes and clients, and cameras that go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.kit.clients import JPEG, Camera, Clients, Viewer, base64_of, eventually, http
from tests.kit.processes import SERVICE_TOKEN, Process, Watchout
from watchout.common.clock import now_ms

#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 90.0


@dataclass(frozen=True)
class Kit:
    """The fixtures of a test that a scene is built with."""

    watchout: Callable[..., Watchout]
    clients: Clients
    start_nats: Callable[..., Any]
    start_postgres: Callable[..., Any]
    folder: Path


@dataclass
class Stage:
    """A system that runs, with its clients. `ports` are those of the gateways that Prometheus scrapes."""

    system: Watchout
    clients: Clients
    stack: contextlib.AsyncExitStack
    ports: list[int] = field(default_factory=list)
    token: str = ""
    #: The process that was started last under each name.
    named: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the first gateway is."""
        return f"http://127.0.0.1:{self.ports[0]}"

    async def start(self, kind: str, name: str, **environ: str) -> Process:
        """Start a process under this name in metrics."""
        process = await asyncio.to_thread(self.system.start, kind, {"WATCHOUT_PROCESS_NAME": name, **environ})
        self.named[name] = process
        return process

    async def ready(self) -> None:
        """Wait until all that were started serve."""
        await asyncio.to_thread(self.system.wait_ready, COMES_S)
        self.token = self.token or self.system.token()

    async def camera(self, fps: float = 5.0, port: int | None = None) -> Camera:
        """A camera that sends frames until it leaves."""
        camera = await self.clients.camera(f"http://127.0.0.1:{port or self.ports[0]}", self.token)
        await camera.register(within_s=COMES_S)
        await self.stack.enter_async_context(sending(camera, fps))
        return camera

    async def viewer(self, *streams: str, port: int | None = None, **wish: Any) -> Viewer:
        """A viewer of these streams."""
        viewer = await self.clients.viewer(f"http://127.0.0.1:{port or self.ports[0]}", self.token)
        for stream in streams:
            await viewer.subscribe(stream, **wish)
        return viewer

    async def post_alerts(self, *streams: str, number: int = 1, **fields: Any) -> None:
        """Alerts as an ML service posts them."""
        alerts = [{"severity": "low", "message": f"seen {at}", "streamId": stream, **fields}
                  for at in range(number) for stream in streams]  # fmt: skip
        answer = await http(f"{self.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alerts)
        assert answer.status == 202, answer


@contextlib.asynccontextmanager
async def sending(camera: Camera, fps: float, picture: bytes = JPEG) -> AsyncIterator[None]:
    """Frames at this rate while the block runs, or until the camera has left."""

    async def send() -> None:
        while camera.open:
            with contextlib.suppress(OSError, TimeoutError):
                await camera.show(base64_of(picture), timestamp=now_ms())
            await asyncio.sleep(1 / fps)

    async with going(send):
        yield


@contextlib.asynccontextmanager
async def going(work: Callable[[], Any]) -> AsyncIterator[None]:
    """Work that goes on while the block runs, whatever becomes of the connections that it uses."""

    async def go() -> None:
        with contextlib.suppress(Exception):
            await work()

    task = asyncio.create_task(go())
    try:
        yield
    finally:
        while not task.done():  # `asyncio.wait_for` of Python 3.11 may swallow a cancellation
            task.cancel()
            await asyncio.wait([task], timeout=1)


@contextlib.asynccontextmanager
async def again(work: Callable[[], Any], every_s: float) -> AsyncIterator[None]:
    """Work that is done again and again while the block runs, also after a failure."""

    async def go() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, AssertionError, TimeoutError):
                await work()
            await asyncio.sleep(every_s)

    async with going(go):
        yield


__all__ = ["COMES_S", "Kit", "Stage", "again", "eventually", "going", "sending"]
