"""The live view of the console and the view of one stream, in a real Chromium."""

from __future__ import annotations

import json

import pytest

from tests.e2e.console.support import BLUE, RED, Cameras, looks, shows
from tests.kit.clients import new_name
from tests.kit.processes import Watchout

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def test_nothing_yet_tells_how_to_publish_and_becomes_a_tile_by_itself(
    tabs, started: Watchout, cameras: Cameras, user: str
) -> None:
    async with tabs("#/live", user) as tab:
        await tab.sees("watchout-ctl publish test --stream cam-1")
        stream = new_name()
        await cameras.start(stream, RED)
        await looks(tab, {stream: "live"})
        await shows(tab, ".tile canvas", RED)
        ratio = await tab.run(
            "(({width, height}) => width / height)(document.querySelector('.picture').getBoundingClientRect())"
        )
        assert ratio == pytest.approx(16 / 9, rel=0.03)
        await tab.sees("fps", ".tile .rates")


async def test_a_picture_looks_as_its_frames_are(tabs, cameras: Cameras, user: str) -> None:
    names = {kind: new_name(kind) for kind in ("live", "idle", "gone")}
    for name in names.values():
        await cameras.start(name, BLUE, 180, 320)
    async with tabs("#/live", user) as tab:
        await looks(tab, dict.fromkeys(sorted(names.values()), "live"))
        await cameras.pause(names["idle"])
        await cameras.stop(names["gone"])
        await looks(tab, {names["live"]: "live", names["idle"]: "idle", names["gone"]: "gone"})
        await tab.sees("The camera is gone", f".tile[data-stream='{names['gone']}']")
        grey = await tab.run(
            f"getComputedStyle(document.querySelector('.tile[data-stream=\"{names['gone']}\"] canvas')).filter"
        )
        assert "grayscale" in grey
        await cameras.start(names["gone"], RED)
        await looks(tab, dict.fromkeys(sorted(names.values()), "live") | {names["idle"]: "idle"})


async def test_a_layout_is_in_the_address_and_low_bandwidth_asks_for_less(tabs, cameras: Cameras, user: str) -> None:
    one, two = sorted([new_name(), new_name()])
    for name in (one, two):
        await cameras.start(name, RED)
    async with tabs(f"#/live?streams={two}", user) as tab:
        await looks(tab, {two: "live"})
        await tab.click("button", "Choose")
        await tab.click(".chooser label", one)
        await looks(tab, {one: "live", two: "live"})
        assert await tab.run("location.hash") == "#/live"
        await tab.click(".toolbar .segments label:last-of-type input")
        await tab.until("location.hash === '#/live?size=large'", "the address does not say it")
        await tab.click("button", "Low bandwidth")
        await tab.until("location.hash === '#/live?size=large&saving=1'", "the address does not say it")
        slow = "[...document.querySelectorAll('.tile .rates')].map((e) => parseFloat(e.innerText))"
        await tab.until(
            f"{slow}.length === 2 && {slow}.every((fps) => fps > 0 && fps <= 1.5)", "the rate is not lowered"
        )
        await looks(tab, {one: "live", two: "live"})


async def test_zoom_stays_while_pictures_change_and_a_picture_is_saved(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, BLUE, 640, 360)
    frame = "Number(document.querySelector('.stage .picture').dataset.frame)"
    async with tabs(f"#/stream/{stream}", user) as tab:
        await tab.sees("live", ".state")
        for _ in range(3):
            await tab.press("+")
        await tab.until("document.querySelector('.stage').dataset.zoom === '3.375'", "it is not larger")
        wide = "document.querySelector('.sheet').getBoundingClientRect().width"
        shown, width = await tab.run(frame), await tab.run(wide)
        await tab.until(f"{frame} > {shown} + 10", "no new pictures come")
        assert await tab.run(wide) == width
        await tab.press("ArrowRight")
        await tab.until(
            "parseFloat(document.querySelector('.sheet').style.left) < -118.75", "the picture does not move"
        )
        await tab.press("0")
        await tab.until("document.querySelector('.stage').dataset.zoom === '1'", "it is not whole again")
        await tab.run("""
          window.saved = [];
          HTMLAnchorElement.prototype.click = function () { window.saved.push([this.download, this.href]); }; 0""")
        await tab.press("s")
        await tab.until("window.saved.length", "nothing is saved")
        name, url = (await tab.run("window.saved"))[0]
        assert name.startswith(f"{stream}-")
        assert name.endswith((".jpg", ".jpeg"))
        size = await tab.run(f"""new Promise((done) => Object.assign(new Image(), {{ src: {json.dumps(url)},
          onload() {{ done([this.naturalWidth, this.naturalHeight]); }} }}))""")
        assert size == [640, 360], "the picture as the camera sent it"
        for word in ("640 × 360", "Viewers", "Age"):
            await tab.sees(word, ".facts")
        await tab.run("document.querySelector('details.drops').open = true; 0")
        for word in ("glass to glass", "the gateway's, within"):
            await tab.sees(word, "details.drops")


async def test_a_stream_of_somebody_else_is_not_shown(tabs, started: Watchout, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    async with tabs(f"#/stream/{stream}", started.token(new_name("bob"))) as tab:
        await tab.sees("Not yours to view", "h2")
        assert stream in await tab.text()
