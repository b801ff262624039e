"""Open targets with a kept connection, the frames that they are shown, and what comes by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.kit.ports import free_port
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.mlbridge.targets import Target, TargetFailure, open_target

ALERT = {"severity": "high", "message": "a person"}
PICTURE = b"\xff\xd8\xff" + bytes(range(256))
#: For what must come.
WAIT_S = 30.0


def frame(number: int = 1, stream: str = "s", picture: bytes = PICTURE) -> Frame:
    return Frame(stream, number, 1_700_000_000_000 + number, picture=picture)


class OnAlerts(list[Any]):
    """What came by itself."""

    def __call__(self, values: list[object]) -> None:
        self.extend(values)


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[tuple[Target, OnAlerts]]:
    heard = OnAlerts()
    target = open_target(Settings(ml_service_url=url, **{"ml_timeout_s": WAIT_S, **settings}))
    assert target is not None
    await target.open(heard)
    try:
        yield target, heard
    finally:
        await asyncio.wait_for(target.close(), WAIT_S)


async def failure_of(target: Target, one: Frame) -> str:
    """Show a frame once there is a connection; what its failure says."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                alerts = await target.analyse(one)
            except TargetFailure as failure:
                if not str(failure).startswith("no connection: not connected yet"):
                    return str(failure)
            else:
                raise AssertionError(f"expected a failure, got {alerts}")


async def shown(target: Target, one: Frame) -> list[Any]:
    """Show a frame, again until the service takes it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await target.analyse(one)
            except TargetFailure:
                await asyncio.sleep(0.02)


async def ended(task: asyncio.Task[None]) -> None:
    """End a task that reads with a client library: one cancellation may be lost in it."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=1)
    await asyncio.gather(task, return_exceptions=True)


def free_pair() -> int:
    """A port that is free, and so is the next one; nobody else gets it meanwhile."""
    port = free_port()
    while (upper := free_port()) != port + 1:
        port = upper
    return port
