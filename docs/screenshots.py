"""Make the pictures of the console in docs/images, and prove what they show: `make screenshots`.

Real processes, the example ML service and a real Chromium; cameras send the drawn scene. A picture is taken only when
the page shows what is asserted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.kit.clients import Clients, eventually
from tests.kit.console import ConsoleTab, console_tab, running_console_browser, saved
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, Watchout, running
from watchout.common.clock import now_ms
from watchout.ctl.sources.scene import Scene

IMAGES: Final = Path(__file__).parent / "images"
#: The streams: the seed of their scene, and the part of it that the camera sees (left, top, right, bottom).
STREAMS: Final = {
    "front-door": (7, (0, 0, 640, 480)),
    "garage": (11, (0, 60, 640, 420)),
    "hallway": (23, (200, 0, 470, 480)),
    "kitchen": (31, (0, 0, 640, 480)),
    "workshop": (37, (0, 0, 640, 480)),
    "yard": (42, (0, 60, 640, 420)),
}
FPS: Final = 10
#: What must come gets this long: a person walks through each scene within 6 s.
COMES_S: Final = 60.0


async def publish(clients: Clients, url: str, token: str, stream: str) -> None:
    """Send the scene of one stream until cancelled."""
    seed, part = STREAMS[stream]
    scene = Scene(seed)
    camera = await clients.camera(url, token)
    await camera.register(stream, produces=["video-frame", "alert"])
    loop = asyncio.get_running_loop()
    began, number = loop.time() - seed, 0
    while True:
        number += 1
        encoded = io.BytesIO()
        scene.draw(loop.time() - began, number).crop(part).save(encoded, "JPEG", quality=80)
        await camera.show_binary(encoded.getvalue(), timestamp=now_ms())
        await asyncio.sleep(1 / FPS)


@contextlib.asynccontextmanager
async def cameras(url: str, token: str) -> AsyncIterator[None]:
    """All streams are published while the block runs."""
    clients = Clients()
    tasks = [asyncio.create_task(publish(clients, url, token, stream)) for stream in STREAMS]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await clients.close()
        faults = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
        assert not faults, faults


async def all_live(tab: ConsoleTab) -> None:
    """Wait until every tile shows fresh pictures of its own shape."""
    await tab.until(
        f"document.querySelectorAll('.tile[data-look=live]').length === {len(STREAMS)}", "not all are live", COMES_S
    )
    rates = "[...document.querySelectorAll('.tile .rates')].map((each) => parseFloat(each.innerText))"
    await tab.until(f"{rates}.every((rate) => rate > 5 && rate < 15)", "not every tile has the cameras' rate", COMES_S)
    for stream, (_, (left, top, right, bottom)) in STREAMS.items():
        box = f"document.querySelector('.tile[data-stream={stream}] .picture').getBoundingClientRect()"
        ratio = await tab.run(f"{box}.width / {box}.height")
        assert abs(ratio - (right - left) / (bottom - top)) < 0.1, (stream, ratio)


async def take(watchout: Watchout) -> None:
    """Take all pictures."""
    token = watchout.token("ann")
    pictures: dict[str, bytes] = {}
    with running_console_browser() as browser:
        async with (
            cameras(watchout.url, token),
            console_tab(browser, f"{watchout.url}/#/alerts?token={token}", width=1280, height=760) as tab,
        ):
            await tab.hide_scrollbars()
            await eventually(lambda: _count(tab, 4), COMES_S, "no alerts come")
            await tab.view("#/live")
            await all_live(tab)
            await tab.until("Number(document.querySelector('.badge')?.firstChild.data) >= 4", "no badge", COMES_S)
            pictures["console-live.png"] = await tab.screenshot()

            await tab.view("#/alerts")
            for _ in range(3):
                await tab.press("j")
            await tab.until("document.querySelector('.evidence img')?.naturalWidth > 200", "no picture", COMES_S)
            await tab.press("n")
            await tab.write(".acknowledge input", "the caretaker, expected")
            await tab.press("Enter")
            await tab.sees("the caretaker, expected", ".detail .acknowledged")
            await tab.until(
                "[...document.querySelectorAll('.list li')].slice(0, 4).every((e) => e.querySelector('img')?.complete)",
                "not every alert has its picture", COMES_S,
            )  # fmt: skip
            await tab.until("!document.querySelector('.said p')", "something is still said", COMES_S)
            pictures["console-alerts.png"] = await tab.screenshot()

            await tab.screen(width=390, height=780, dark=False)
            await tab.view("#/stream/garage")
            await tab.sees("live", ".state")
            await tab.sees("640 × 360", ".facts")
            await tab.until("parseFloat(document.querySelector('.facts dd').innerText) > 6", "no rate", COMES_S)
            await tab.sees("walks through", ".side")
            pictures["console-phone.png"] = await tab.screenshot()
    for name, png in pictures.items():
        path = saved(IMAGES, name, png)
        print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size} bytes")


async def _count(tab: ConsoleTab, least: int) -> bool:
    return bool(await tab.run(f"document.querySelectorAll('.list li').length >= {least}"))


def main() -> None:
    """Start everything, take the pictures, end everything."""
    port = free_port()
    environ = {"ML_SERVICE_URL": f"http://127.0.0.1:{port}", "ML_FPS": "5", "ALERT_COOLDOWN_S": "4"}
    with running(environ=environ, start=False, expected=["Connect call failed"]) as watchout:
        service = REPOSITORY / "examples/ml_service/service.py"
        watchout.run("ml", [sys.executable, str(service), "--port", str(port)])
        watchout.start_all()
        asyncio.run(take(watchout))


if __name__ == "__main__":
    main()
