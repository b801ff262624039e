"""A camera and a viewer who keeps up: whatever is done to others, he gets every frame as it was sent, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from tests.kit.clients import Camera, Clients, Viewer, eventually, new_name, pack_frame
from tests.kit.processes import Watchout
from tests.kit.readers import COMES_S, Reader, accounted, gateway_figures
from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import StatsReply
from watchout.common.settings import Settings
from watchout.ctl.bus_client import joined

MIB: Final = 1 << 20
#: So much may be under way to the neighbour, or one frame: he does not keep up with more when the machine is busy.
AHEAD_BYTES: Final = 16 << 10

NOISE: Final = random.Random(4).randbytes(2 * MIB)


def picture(number: int, size: int) -> bytes:
    """What the frame of this number shows; of another number it is another."""
    start = number * 7919 % MIB
    return (b"\xff\xd8\xff" + number.to_bytes(4, "big") + NOISE[start : start + size])[: max(size, 7)]


class Show:
    """One camera, and somebody who watches it and keeps up: he must get every frame as it was sent, in order."""

    def __init__(
        self, started: Watchout, token: str, camera: Camera, neighbour: Viewer, before: dict[str, float]
    ) -> None:
        self.watchout = started
        self.token = token
        self.camera = camera
        self.neighbour = neighbour
        self.shown = 0
        self.pictures: dict[int, bytes] = {}
        self.sent_at: dict[int, float] = {}
        self._before = before
        self._checked = 0

    @classmethod
    async def begin(cls, started: Watchout, clients: Clients, **wish: Any) -> Show:
        """Begin when nobody of a former test is left: the gateway would count what is dropped for him."""

        async def alone() -> dict[str, float] | None:
            figures = await gateway_figures(started.url)
            return None if figures.get("sockets") or figures.get("video_viewers") else figures

        before, token = await eventually(alone, COMES_S, "somebody is there"), started.token(new_name("ann"))
        camera = await clients.camera(started.url, token)
        neighbour = await clients.viewer(started.url, token)
        await neighbour.subscribe(await camera.register(), **{"format": "binary", **wish})
        return cls(started, token, camera, neighbour, before)

    @property
    def stream(self) -> str:
        return self.camera.stream

    async def reader(self, **wish: Any) -> Reader:
        """Another viewer, which does not begin with the newest frame."""
        wish = {"format": "binary", "lastFrame": False, **wish}
        return await Reader.watch(self.watchout.port, self.token, self.stream, **wish)

    async def frames(self, number: int, size: int = 30_000, *, fragments: int = 0) -> None:
        """Show so many more; returns when the neighbour has them all."""
        ahead = min(50, max(1, AHEAD_BYTES // size))
        for _ in range(number):
            await self.seen(self.shown + 1 - ahead)
            self.shown += 1
            self.pictures[self.shown] = shown = picture(self.shown, size)
            self.sent_at[self.shown] = time.monotonic()
            if fragments:
                message = pack_frame(shown)
                step = max(1, len(message) // fragments)
                await self.camera.connection.send([message[at : at + step] for at in range(0, len(message), step)])
            else:
                await self.camera.show_binary(shown)
        await self.seen(self.shown)

    @contextlib.asynccontextmanager
    async def camera_keeps_on(self) -> AsyncIterator[None]:
        """Frames at 20 per second while the block runs."""

        async def go_on() -> None:
            while True:
                await self.frames(1)
                await asyncio.sleep(0.05)

        task = asyncio.create_task(go_on())
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def seen(self, number: int) -> None:
        """Wait until the neighbour has seen frames up to this number; each is the next, and as it was sent."""
        while self._checked < number:
            frame = await self.neighbour.find("video-frame", timeout_s=COMES_S)
            self._checked += 1
            assert frame["frameId"] == self._checked, "the neighbour missed frames"
            assert frame["picture"] == self.pictures[self._checked]

    def latencies(self, first: int, last: int) -> list[float]:
        """How long frames were under way to the neighbour, in seconds."""
        frames = [(m, at) for m, at in zip(self.neighbour.heard, self.neighbour.heard_at, strict=True)]
        came = {message["frameId"]: at for message, at in frames if message["type"] == "video-frame"}
        return [came[n] - self.sent_at[n] for n in range(first, last + 1)]

    async def since(self) -> dict[str, float]:
        """The gateway's figures since the beginning."""
        now = await gateway_figures(self.watchout.url)
        return {name: value - self._before.get(name, 0) for name, value in now.items()}

    async def settled(self, offered: int) -> dict[str, float]:
        """Wait until so many frames are accounted for, all viewers together; the figures then."""

        async def so() -> dict[str, float] | None:
            metrics = await self.since()
            assert accounted(metrics) <= offered, (offered, metrics)
            return metrics if accounted(metrics) == offered else None

        try:
            return dict(await eventually(so, COMES_S))
        except AssertionError:
            raise AssertionError(f"{offered} frames were offered, {await self.since()}") from None

    async def skipped(self) -> dict[str, int]:
        """What ``watchout-ctl stats`` says of the stream: frames that its viewers did not get, by reason."""
        settings = replace(Settings(), home=self.watchout.home)
        async with joined(settings) as links:
            reply = await links.at(0).query(lambda number: Query(request=number, what="stats"), StatsReply)
        return next(row.dropped for row in reply.streams if row.stream_id == self.stream)

    def check(self, frames: list[dict[str, Any]]) -> list[int]:
        """The ids of frames that somebody got: rising, and each as it was sent."""
        ids = [frame["frameId"] for frame in frames]
        assert all(early < late for early, late in itertools.pairwise(ids)), ids
        for frame in frames:
            assert frame["picture"] == self.pictures[frame["frameId"]], f"frame {frame['frameId']} is another"
        return ids


async def read_frames(reader: Reader, last: int) -> list[dict[str, Any]]:
    """What comes up to the frame of this number."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["frameId"] < last:
        message = await reader.message()
        if message["type"] == "video-frame":
            frames.append(message)
    return frames
