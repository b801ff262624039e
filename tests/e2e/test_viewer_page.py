"""The page of examples/viewer in a real browser: two streams, their alerts, and a restart of the gateway."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.kit.browser import Tab, opened, served
from tests.kit.clients import Camera, Clients, eventually
from tests.kit.processes import Watchout

pytestmark = [pytest.mark.e2e, pytest.mark.real]

#: What must come gets this long: the page waits between its attempts to connect.
COMES_S: Final = 60.0
PAGE: Final = Path(__file__).parents[2] / "examples/viewer/index.html"
#: The colour of each picture that the page shows, as the index of its strongest channel, and its caption.
SHOWN: Final = """
[...document.querySelectorAll("figure")].map((figure) => {
  const img = figure.querySelector("img"), pen = new OffscreenCanvas(1, 1).getContext("2d");
  if (!img.complete || !img.naturalWidth) return null;
  pen.drawImage(img, 0, 0, 1, 1);
  const colours = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  return [figure.querySelector("b").textContent, colours.indexOf(Math.max(...colours))];
})
"""


def picture(*colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "JPEG")
    return buffer.getvalue()


RED, BLUE = picture(255, 0, 0), picture(0, 0, 255)


async def shows(tab: Tab, front: Camera, garage: Camera) -> None:
    """Send a red picture to one stream and a blue one to the other until the page shows both."""

    async def both() -> bool:
        await front.show_binary(RED)
        await garage.show_binary(BLUE)
        return bool(await tab.run(SHOWN) == [["front-door", 0], ["garage", 2]])

    await eventually(both, COMES_S)


async def test_the_page_shows_streams_and_alerts_and_comes_back_after_a_restart(
    watchout: Callable[..., Watchout], chromium: str, clients: Clients
) -> None:
    started = watchout()
    token = started.token()
    async with served(PAGE.read_text()) as url, opened(chromium, url) as tab:
        address = started.url.replace("http", "ws")
        for field, value in {"url": address, "token": token, "streams": "front-door, garage"}.items():
            await tab.run(f"element({json.dumps(field)}).value = {json.dumps(value)}")
        await tab.run("element('form').requestSubmit()")
        cameras = [await clients.camera(started.url, token) for _ in range(2)]
        for camera, stream in zip(cameras, ("front-door", "garage"), strict=True):
            await camera.register(stream, produces=["video-frame", "alert"])
        await shows(tab, *cameras)
        await cameras[1].send("alert", streamId="garage", severity="high", message="<b>door</b> open")

        async def alert() -> bool:
            return bool("garage: <b>door</b> open" in await tab.run("element('alerts').textContent"))

        await eventually(alert, COMES_S)
        assert await tab.run("document.querySelector('#alerts li').className") == "high"
        started.one("gateway").kill()
        started.start("gateway")
        await eventually(lambda: started.get("/health")[0] == 200, COMES_S, "the gateway is not healthy")
        cameras = [await clients.camera(started.url, token) for _ in range(2)]
        for camera, stream in zip(cameras, ("front-door", "garage"), strict=True):
            await camera.register(stream)
        await shows(tab, *cameras)
