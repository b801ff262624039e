"""Open targets with a kept connection, the frames that they are shown, and what comes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from tests.kit.ports import free_port
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.mlbridge.targets import Target, TargetFailure, open_target

ALERT = {"severity": "high", "message": "a person"}
PICTURE = b"\xff\xd8\xff" + bytes(range(256))
#: For what must come.
WAIT_S = 20.0


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


async def shown(target: Target, one: Frame) -> list[Any]:
    """Show a frame, again until the service takes it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await target.analyse(one)
            except TargetFailure:
                await asyncio.sleep(0.02)


def free_pair() -> int:
    """A port that is free, and so is the next one."""
    while True:
        port = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port + 1))
            return port
