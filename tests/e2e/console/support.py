"""Cameras of one colour, and what the tiles of the console look like."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import Any, Final

from PIL import Image

from tests.kit.clients import Camera, Clients, eventually
from tests.kit.console import ConsoleTab, picture
from watchout.common.clock import now_ms

COMES_S: Final = 30.0
RED, BLUE = (200, 30, 30), (30, 60, 200)
#: How the tiles look, by stream.
LOOKS: Final = (
    "Object.fromEntries([...document.querySelectorAll('.tile')].map((e) => [e.dataset.stream, e.dataset.look]))"
)
#: The strongest channel of the picture in the middle of an element, as its screenshot shows it.
BOX: Final = "JSON.stringify(document.querySelector({}).getBoundingClientRect())"


class Cameras:
    """Cameras that show pictures until the test ends."""

    def __init__(self, clients: Clients, url: str, token: str) -> None:
        self._clients, self._url, self._token = clients, url, token
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.sockets: dict[str, Camera] = {}

    async def start(
        self, stream: str, colour: tuple[int, int, int], width: int = 320, height: int = 180, fps: float = 10
    ) -> Camera:
        """Publish a stream of pictures of this colour and shape."""
        camera = await self._clients.camera(self._url, self._token)
        await camera.register(stream, produces=["video-frame", "alert"])
        self.sockets[stream] = camera

        async def show() -> None:
            number = 0
            while True:
                number += 1
                await camera.show_binary(picture(width, height, colour, number), timestamp=now_ms())
                await asyncio.sleep(1 / fps)

        self._tasks[stream] = asyncio.get_running_loop().create_task(show(), name="camera")
        return camera

    async def pause(self, stream: str) -> None:
        """Send no more pictures; the camera stays connected."""
        task = self._tasks.pop(stream)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def stop(self, stream: str) -> None:
        """End the camera."""
        await self.pause(stream)
        await self.sockets.pop(stream).leave()

    async def close(self) -> None:
        for stream in list(self._tasks):
            await self.pause(stream)


async def looks(tab: ConsoleTab, expected: dict[str, str], timeout_s: float = COMES_S) -> None:
    """Wait until the tiles look like this."""
    seen: Any = None

    async def fits() -> bool:
        nonlocal seen
        seen = await tab.run(LOOKS)
        return bool(seen == expected)

    with contextlib.suppress(AssertionError):
        await eventually(fits, timeout_s)
    assert seen == expected


async def colour_of(tab: ConsoleTab, selector: str) -> tuple[int, int, int]:
    """The colour in the middle of an element, as it is on the screen."""
    box = json.loads(await tab.run(BOX.format(json.dumps(selector))))
    image = Image.open(io.BytesIO(await tab.screenshot())).convert("RGB")
    pixel = image.getpixel((int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)))
    assert isinstance(pixel, tuple)
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


async def shows(tab: ConsoleTab, selector: str, colour: tuple[int, int, int]) -> None:
    """Wait until the middle of an element has about this colour."""

    async def fits() -> bool:
        seen = await colour_of(tab, selector)
        return all(abs(a - b) < 40 for a, b in zip(seen, colour, strict=True))

    await eventually(fits, COMES_S, f"{selector} does not show {colour}")
