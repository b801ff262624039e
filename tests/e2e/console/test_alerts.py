"""Alerts and shared links in the console, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.console.support import BLUE, RED, Cameras, looks, shows
from tests.kit.clients import Clients, http, new_name
from tests.kit.console import console_tab
from tests.kit.ml_stub import MlStub
from tests.kit.processes import Process, Watchout

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def test_an_alert_comes_with_the_picture_of_its_frame_and_is_acknowledged_by_keys(
    console_browser: Process, watchout: Callable[..., Watchout], clients: Clients
) -> None:
    stub = MlStub()
    await stub.start()
    started = watchout(environ={"ML_SERVICE_URL": stub.url, "ALERT_COOLDOWN_S": "0", "ML_FPS": "5"})
    user = started.token("ann")
    cameras = Cameras(clients, started.url, user)
    try:
        async with (
            console_tab(console_browser, f"{started.url}/#/alerts?token={user}") as tab,
            console_tab(console_browser, f"{started.url}/#/alerts?token={user}") as other,
        ):
            await tab.to_front()
            await tab.sees("No alert yet")
            stub.answer = {
                "alert": {"severity": "high", "message": "a person at the door", "metadata": {"confidence": 0.9}}
            }
            stub.mode = "answer"
            await cameras.start("door", RED)
            await tab.sees("a person at the door", ".list")
            stub.mode = "none"
            await tab.press("j")
            await tab.sees("confidence", ".detail")
            await tab.until("document.querySelector('.evidence img')?.naturalWidth === 320", "there is no picture")
            await shows(tab, ".evidence img", RED)
            await tab.press("n")
            await tab.write(".acknowledge input", "it was the postman")
            await tab.press("Enter")
            await tab.sees("it was the postman", ".detail .acknowledged")
            chosen = await tab.run("document.querySelector('[data-alert][aria-current=true]').dataset.alert")
            await other.until(
                f"!!document.querySelector('li.done [data-alert=\"{chosen}\"]')", "the other page does not hear of it"
            )
            kept = (await http(f"{started.url}/alerts", token=user)).json["alerts"]
            assert [a["acknowledged"]["note"] for a in kept if a["id"] == chosen] == ["it was the postman"]
            await tab.click("button", "Open only")
            await tab.until("location.hash.includes('open=1')", "the address does not say it")
            await tab.until(f"!document.querySelector('.list [data-alert=\"{chosen}\"]')", "it is still in the list")
            await other.to_front()
            await other.view(f"#/alerts/{chosen}?stream=door")
            await other.sees("it was the postman", ".detail")
            await other.run("""(() => { const select = document.querySelector('.toolbar select');
              select.value = 'critical'; select.dispatchEvent(new Event('change', { bubbles: true })); })()""")
            await other.until("location.hash.includes('severity=critical')", "the address does not say it")
            await other.view("#/alerts/no-such-alert")
            await other.sees("not kept any more", "h2")
    finally:
        await cameras.close()
        await stub.stop()


async def test_a_new_alert_is_said_in_other_views_and_notifications_say_when_they_are_not_allowed(
    tabs, started: Watchout, cameras: Cameras, user: str
) -> None:
    stream = new_name()
    camera = await cameras.start(stream, RED)
    async with tabs("#/live", user) as tab:
        await looks(tab, {stream: "live"})
        await camera.send("alert", streamId=stream, severity="high", message="<b>door</b> & window")
        await tab.sees(f"high alert of {stream}: <b>door</b> & window", ".said")
        await tab.sees("1", ".badge")
        await tab.permit("notifications", "denied", started.url)
        await tab.view("#/alerts")
        await tab.click("button", "Notify")
        await tab.sees("does not let this page notify", ".said")
        assert await tab.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
        await tab.click("button", "Sound")
        await tab.until("document.querySelectorAll('[aria-pressed=true]').length === 1", "the sound is not on")
        await tab.reload()
        await tab.until("document.querySelectorAll('[aria-pressed=true]').length === 1", "the wish is forgotten")


async def test_a_shared_link_shows_one_stream_until_it_is_ended(
    tabs, started: Watchout, console_browser: Process, cameras: Cameras, user: str
) -> None:
    stream, other = new_name(), new_name()
    await cameras.start(stream, RED)
    await cameras.start(other, BLUE)
    async with tabs(f"#/sharing?stream={stream}", user) as tab:
        await tab.sees("None.", ".card + .card")
        await tab.click("button", "Make the link")
        await tab.until("!!document.querySelector('.made svg.qr')", "there is no code")
        link = await tab.text(".made code")
        assert link.startswith(f"{started.url}/#/stream/{stream}?share=")
        async with console_tab(console_browser, link) as guest:
            await guest.sees("live", ".state")
            assert "share" not in await guest.run("location.href")
            assert await guest.run("[...document.querySelectorAll('nav a')].map((a) => a.innerText.trim())") == [
                "Live", "Alerts",
            ]  # fmt: skip
            await guest.view(f"#/stream/{other}")
            await guest.sees("Not yours to view", "h2")
            await guest.view("#/live")
            await looks(guest, {stream: "live"})
            await tab.to_front()
            await tab.click("button", "End")
            await tab.sees("None.", ".card + .card")
            await guest.to_front()
            await guest.sees("Your session has ended", "h1")
        await tab.view("#/sharing?stream=nobody-has-this")
        await tab.sees("Not yours to share", "h2")
