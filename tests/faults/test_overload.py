"""A gateway that gets far more than it has CPU for: nobody is closed, ages stay bounded, and it recovers at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import pytest

from tests.kit.clients import Camera, Clients, eventually, http, new_name
from tests.kit.cpu_share import slowed
from tests.kit.processes import SERVICE_TOKEN, Watchout
from tests.kit.readers import COMES_S, Reader, all_leave
from tests.kit.show import picture

pytestmark = pytest.mark.e2e

#: Of a core, for the gateway: it then sends some 15 frames a second to each of the viewers.
SHARE: Final = 0.05
VIEWERS: Final = 40
FRAME_BYTES: Final = 30_000
RATED_FPS: Final = 5.0
OVER_FPS: Final = 160.0
OVER_S: Final = 3.0  # about
#: What waits in the kernel in front of the gateway, and one frame of each stream behind it, is sent within this.
OLDEST_S: Final = 20.0
#: A frame that comes sooner waited for no other.
FRESH_S: Final = 0.5


class Load:
    """A camera at a rate, and viewers who note how old each frame is that comes."""

    def __init__(self, camera: Camera) -> None:
        self.sent_at: list[float] = []
        #: Of each viewer: the number of each frame, and its age in seconds.
        self.got: list[list[tuple[int, float]]] = []
        self._camera = camera

    async def watch(self, reader: Reader) -> None:
        got: list[tuple[int, float]] = []
        self.got.append(got)
        while True:
            message = await reader.message()
            if message["type"] == "video-frame":
                number = message["frameId"]
                got.append((number, time.monotonic() - self.sent_at[number - 1]))

    async def send(self, fps: float, seconds: float) -> int:
        """Send frames; a camera whose connection takes no more is late, and sends fewer. Returns how many."""
        loop, before = asyncio.get_running_loop(), len(self.sent_at)
        due, end = loop.time(), loop.time() + seconds
        while loop.time() < end:
            self.sent_at.append(time.monotonic())
            await self._camera.show_binary(picture(len(self.sent_at), FRAME_BYTES))
            due += 1 / fps
            await asyncio.sleep(max(0.0, due - loop.time()))
        return len(self.sent_at) - before

    def newest_came(self) -> bool:
        """Whether everybody has the newest frame, and got it fresh."""
        newest = len(self.sent_at)
        return all(got and got[-1][0] == newest and got[-1][1] < FRESH_S for got in self.got)


async def test_a_gateway_with_too_little_cpu_bounds_the_age_of_frames_and_recovers_when_the_load_goes(
    watchout: Callable[..., Watchout], clients: Clients
) -> None:
    started = watchout(environ={"MESSAGE_RATE": "100000", "BYTE_RATE": "1000000000"})
    token, stream = started.token(), new_name()
    camera, listener = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await camera.register(stream)
    await listener.subscribe(stream, consumes=["alert"])
    wish = {"format": "binary", "lastFrame": False}
    readers = [await Reader.watch(started.port, token, stream, **wish) for _ in range(VIEWERS)]
    load = Load(camera)
    async with all_leave(readers), contextlib.AsyncExitStack() as stack:
        watching = [asyncio.create_task(load.watch(reader)) for reader in readers]
        stack.callback(lambda: [task.cancel() for task in watching])
        waited_s = stack.enter_context(slowed(started.one("gateway").pid, SHARE))
        await load.send(RATED_FPS, 1.0)
        await eventually(load.newest_came, COMES_S)
        before_s, calm = waited_s(), len(load.sent_at)

        async def overloaded() -> bool:
            """A busy machine may give the gateway even less, and then it is longer until its share was used up."""
            await load.send(OVER_FPS, 1.0)
            return waited_s() - before_s > OVER_S / 2

        over_since = time.monotonic()
        await eventually(overloaded, COMES_S, "it was no overload")
        over_s, sent = time.monotonic() - over_since, len(load.sent_at) - calm
        body = {"streamId": stream, "severity": "high", "message": "in the middle of it"}
        assert (await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status == 202
        await listener.find("alert", message="in the middle of it")

        async def recovers() -> bool:
            await load.send(RATED_FPS, 0.6)
            return load.newest_came()

        began = time.monotonic()
        await eventually(recovers, COMES_S)
        oldest = max(age for got in load.got for _, age in got)
        print(f"\n{sent} frames in {over_s:.1f} s of overload, the oldest was {oldest:.2f} s old, fresh again after "
              f"{time.monotonic() - began:.2f} s")  # fmt: skip
        assert oldest < OLDEST_S
        assert not any(task.done() for task in watching), "nobody is closed"
        await asyncio.gather(*(task for task in watching if task.cancel()), return_exceptions=True)
    for got in load.got:
        numbers = [number for number, _ in got]
        assert numbers == sorted(set(numbers))
    assert camera.open
    assert "member gone" not in started.one("router").output
