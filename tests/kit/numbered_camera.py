"""A camera whose every picture is another one and carries a number, so that a canvas says how old its picture is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence

from tests.kit.clients import Camera, Clients, eventually
from tests.kit.numbered import numbered
from watchout.common.clock import now_ms

#: So many different pictures; then they begin anew.
DIFFERENT = 120


@functools.cache
def pictures(width: int, height: int) -> tuple[bytes, ...]:
    return tuple(numbered(number, width, height) for number in range(DIFFERENT))


class NumberedCamera:
    """Sends while the block of `streaming` runs."""

    def __init__(self, camera: Camera, width: int = 320, height: int = 240) -> None:
        self.camera = camera
        self._pictures = pictures(width, height)
        self._number = 0
        self.sent = 0
        #: When each number was sent last, ms since the epoch.
        self.sent_at: dict[int, int] = {}

    @property
    def newest(self) -> int:
        return self._number

    async def send(self) -> int:
        """One frame; its number."""
        self._number = (self._number + 1) % DIFFERENT
        self.sent_at[self._number] = now_ms()
        await self.camera.show_binary(self._pictures[self._number], timestamp=self.sent_at[self._number])
        self.sent += 1
        return self._number

    async def more(self, count: int) -> None:
        """Wait until `streaming` has sent so many more."""
        until = self.sent + count
        await eventually(lambda: self.sent >= until, 60.0)

    def age_ms(self, number: int) -> int:
        """How long ago the picture with this number was sent."""
        return now_ms() - self.sent_at[number]

    @contextlib.asynccontextmanager
    async def streaming(self, fps: float) -> AsyncIterator[NumberedCamera]:
        task = asyncio.get_running_loop().create_task(self._stream(fps), name="numbered camera")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stream(self, fps: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.send()
            due = max(due + 1 / fps, loop.time() - 1)  # after a pause of the machine it does not send all at once
            await asyncio.sleep(due - loop.time())


@contextlib.asynccontextmanager
async def numbered_cameras(
    clients: Clients, url: str, token: str, names: Sequence[str], fps: float, size: tuple[int, int] = (320, 240)
) -> AsyncIterator[list[NumberedCamera]]:
    """Cameras of these names that send."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name in names:
            camera = await clients.camera(url, token)
            await camera.register(name)
            found.append(await stack.enter_async_context(NumberedCamera(camera, *size).streaming(fps)))
        yield found
