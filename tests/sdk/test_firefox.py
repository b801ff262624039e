"""The same pages in Firefox: the worker's canvas, and the camera that a canvas of the page encodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.browsers import Firefox, firefox
from tests.kit.clients import Clients, eventually, new_name
from tests.kit.numbered_camera import numbered_cameras
from tests.kit.processes import Watchout
from tests.kit.sdk_page import sdk_page

pytestmark = [pytest.mark.e2e, pytest.mark.real]

PAGES: Final = Path(__file__).parent / "pages"
#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 40.0


@pytest.fixture
async def browser() -> AsyncIterator[Firefox]:
    async with firefox() as opened:
        yield opened


async def call(browser: Firefox, function: str, *arguments: Any) -> Any:
    return await browser.run(f"{function}({', '.join(map(json.dumps, arguments))})")


async def test_firefox_shows_pictures_and_is_a_camera(
    plain_watchout: Watchout, js_sdk: Path, browser: Firefox, clients: Clients
) -> None:
    token, name = plain_watchout.token(), new_name()
    folders = {"client": js_sdk / "client" / "dist"}
    async with (
        numbered_cameras(clients, plain_watchout.url, token, [name], 10) as (camera,),
        sdk_page(PAGES / "viewer.js", folders) as page,
    ):
        await browser.show(page)
        await eventually(lambda: browser.run("window.loaded"), COMES_S, "the page's script does not run")
        await call(browser, "start", plain_watchout.url, token)
        await call(browser, "show", name)
        for _ in range(3):
            before = camera.sent_at.copy()

            async def newer(before: dict[int, int] = before) -> bool:
                number = await call(browser, "numberOn", name)
                return number is not None and camera.sent_at.get(number) != before.get(number)

            await eventually(newer, COMES_S, "nothing new is shown")

        async def live() -> bool:
            return bool((await call(browser, "statusOf", name))["state"] == "live")

        await eventually(live, COMES_S, "the pictures stay stale")
        assert (await call(browser, "statusOf", name))["path"] == "worker"

    published = new_name()
    async with sdk_page(PAGES / "camera.js", folders) as page:
        await browser.go(page)
        await eventually(lambda: browser.run("window.loaded"), COMES_S, "the page's script does not run")
        await call(browser, "start", plain_watchout.url, token)
        await call(browser, "publish", published)
        viewer = await clients.viewer(plain_watchout.url, token)
        await viewer.subscribe(published, format="binary")
        for _ in range(3):
            frame = await viewer.frame(timeout_s=COMES_S)
            assert frame["picture"].startswith(b"\xff\xd8\xff")
        assert await browser.run("cap.status.worksHidden") is False
