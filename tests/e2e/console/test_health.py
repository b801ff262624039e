"""Health in the console, lost connections, limits and outages, in real browsers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import pytest
from PIL import Image

from tests.e2e.console.support import BLUE, COMES_S, RED, Cameras, looks, shows
from tests.kit.browsers import firefox
from tests.kit.clients import Clients, eventually, new_name
from tests.kit.console import console_tab
from tests.kit.processes import Process, Watchout

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def test_health_says_in_a_sentence_what_is_wrong_and_lists_processes(tabs, cameras: Cameras, user: str) -> None:
    stream = new_name()
    await cameras.start(stream, RED)
    async with tabs("#/health", user) as tab:
        await tab.sees("No ML service is set", ".findings")
        await tab.sees("Set ML_SERVICE_URL", ".findings")
        for word in ("router", "gateway", "mlbridge", "Memory"):
            await tab.sees(word, ".table")
        await tab.sees(stream)
        await tab.until("/ MB/.test(document.querySelector('table').innerText)", "no memory is shown")
        await tab.sees("capture → gateway in", ".health")
        await tab.until("/\\d\\/s/.test(document.querySelector('.facts').innerText)", "no rate is shown")


async def test_numbers_behind_a_token_are_shown_with_it(in_one_process, console_browser: Process) -> None:
    started = await in_one_process(STATS_TOKEN="stats-secret-1234")
    async with console_tab(console_browser, f"{started.url}/#/health?token={started.token('ann')}") as tab:
        await tab.sees("behind STATS_TOKEN", "form")
        await tab.write("form input", "wrong")
        await tab.press("Enter")
        await tab.sees("not the stats token", "form")
        await tab.run("document.querySelector('form input').select(); 0")
        await tab.write("form input", "stats-secret-1234")
        await tab.press("Enter")
        await tab.sees("gateway", "table")


async def test_too_many_connections_are_said_with_the_time_of_the_next_attempt(
    in_one_process, console_browser: Process, clients: Clients
) -> None:
    started = await in_one_process(MAX_CONNECTIONS_PER_USER="1")
    token = started.token("ann")
    camera = await clients.camera(started.url, token)
    await camera.register("cam")
    async with console_tab(console_browser, f"{started.url}/#/live?token={token}") as tab:
        await tab.sees("Too many connections are open; connecting again in", ".connection")
        await camera.leave()
        await tab.sees("connected", ".pill", 2 * COMES_S)


async def test_firefox_shows_pictures_under_the_same_policy(started: Watchout, cameras: Cameras, user: str) -> None:
    await cameras.start(new_name(), RED)
    async with firefox() as browser:
        await browser.show(f"{started.url}/#/live?token={user}")

        async def is_red() -> bool:
            image = Image.open(io.BytesIO(await browser.screenshot())).convert("RGB")
            pixel = image.getpixel((image.width // 4, image.height // 2))
            return isinstance(pixel, tuple) and all(abs(a - b) < 40 for a, b in zip(pixel, RED, strict=True))

        await eventually(is_red, 2 * COMES_S, "Firefox shows no picture")


async def test_a_killed_gateway_and_a_killed_router_are_said_and_come_back_without_a_reload(
    console_browser: Process, watchout: Callable[..., Watchout], clients: Clients
) -> None:
    started = watchout()
    user = started.token("ann")
    cameras = Cameras(clients, started.url, user)
    await cameras.start("cam", RED)
    try:
        async with console_tab(console_browser, f"{started.url}/#/live?token={user}") as tab:
            await looks(tab, {"cam": "live"})
            await tab.run("window.same = true; 0")
            started.one("gateway").kill()
            await tab.sees("connecting again in", ".connection")
            await looks(tab, {"cam": "stale"})
            await cameras.pause("cam")
            started.start("gateway")
            await eventually(lambda: started.get("/health")[0] == 200, COMES_S, "the gateway is not healthy")
            await cameras.start("cam", BLUE)
            await looks(tab, {"cam": "live"}, 60)
            await shows(tab, ".tile canvas", BLUE)
            await tab.until("!document.querySelector('.connection p')", "the bar is still there")
            started.one("router").kill()
            await tab.sees("The router is away", ".connection")
            await looks(tab, {"cam": "live"})  # frames of the same gateway go on
            await tab.view("#/health")
            await tab.sees("the router is unreachable", ".findings")
            router = started.start("router")
            await asyncio.to_thread(router.wait_for_output, "router ready")
            await tab.view("#/live")
            await tab.until("!document.querySelector('.connection p')", "the router is still away")
            await looks(tab, {"cam": "live"})
            assert await tab.run("window.same") is True
    finally:
        await cameras.close()
