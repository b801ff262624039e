"""The console for everybody: axe-core, keys, colours, and without the console."""

from __future__ import annotations

import json
from typing import Final

import pytest

from tests.e2e.console.support import RED, Cameras, looks
from tests.kit.clients import http, new_name

pytestmark = [pytest.mark.e2e, pytest.mark.real]

VIEWS: Final = ("#/live", "#/stream/{}", "#/alerts", "#/camera", "#/sharing", "#/health")
SCREENS: Final = {
    "dark": {"dark": True},
    "light": {"dark": False},
    "phone": {"width": 390, "height": 844, "dark": False, "calm": True},
}


@pytest.mark.parametrize("screen", SCREENS)
async def test_every_view_is_clean_for_axe_and_fits_the_screen(tabs, cameras: Cameras, user: str, screen: str) -> None:
    stream = new_name()
    camera = await cameras.start(stream, RED)
    for severity in ("low", "medium", "high", "critical"):
        await camera.send("alert", streamId=stream, severity=severity, message=f"something {severity}")
    async with tabs("#/live", None, **SCREENS[screen]) as tab:
        await tab.sees("Sign in", "h1")
        assert await tab.axe() == []
        await tab.write("input[name=token]", user)
        await tab.press("Enter")
        await looks(tab, {stream: "live"})
        for view in VIEWS:
            await tab.view(view.format(stream))
            await tab.until("!!document.querySelector('main h1') && !document.querySelector('[data-busy=true]')", view)
            if view == "#/alerts":
                await tab.sees("something critical", ".list")
                await tab.press("j")
                await tab.sees("Acknowledge", ".detail")
            assert await tab.axe() == [], view
            assert await tab.run("document.documentElement.scrollWidth <= innerWidth"), (
                f"{view} is wider than the screen"
            )
        await tab.press("?")
        await tab.sees("Keys", "dialog")
        await tab.until("document.activeElement.innerText === 'Close'", "the focus is not in the dialog")
        assert await tab.axe() == []


async def test_everything_is_reached_by_keys_and_shows_where_the_focus_is(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    focused = """(() => { const e = document.activeElement, style = getComputedStyle(e);
      return [e.innerText || e.ariaLabel || e.name, style.outlineStyle !== 'none']; })()"""
    async with tabs("#/live", user) as tab:
        await looks(tab, {stream: "live"})
        reached = []
        for _ in range(40):
            await tab.press("Tab")
            if await tab.run("document.activeElement === document.body"):
                break  # the last one: the browser's own bar has the focus
            name, visible = await tab.run(focused)
            reached.append(str(name))
            assert visible or name in ("small", "medium", "large", "size"), name
        words = " ".join(reached)
        for word in ("Skip to the content", "Live", "Alerts", "Camera", "Health", "Sign out", "Low bandwidth", stream):
            assert word in words, words
        await tab.run("document.activeElement.blur(); 0")
        await tab.press("2")
        await tab.sees("Alerts", "h1")
        await tab.until("document.activeElement.id === 'main'", "the focus is not in the view")


async def test_the_switch_of_colours_wins_over_the_system(tabs, user: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    async with tabs("#/live", user, dark=False) as tab:
        await tab.sees("No stream yet")
        light = await tab.run(ground)
        await tab.click("button[aria-label^=Colours]")
        await tab.until(f"{ground} !== {json.dumps(light)}", "it is not dark")
        await tab.reload()
        await tab.sees("No stream yet")
        assert await tab.run(ground) != light


async def test_a_console_that_is_switched_off_is_the_list_of_paths(in_one_process) -> None:
    started = await in_one_process(CONSOLE="false")
    browser = {"Accept": "text/html"}
    page = await http(f"{started.url}/", headers=browser)
    assert page.headers["content-type"].startswith("text/plain")
    assert b"/streams/register" in page.body
    await started.start_gateway(CONSOLE="true")
    shown = await http(f"{started.urls[1]}/", headers=browser)
    assert shown.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert (await http(f"{started.url}/console/licences.txt")).status == 404
    assert (await http(f"{started.urls[1]}/console/licences.txt")).status == 200
