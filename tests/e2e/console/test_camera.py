"""The console as a camera, in a real Chromium."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.e2e.console.support import COMES_S, RED, Cameras
from tests.kit.clients import Clients, new_name
from tests.kit.console import ELSEWHERE, console_tab
from tests.kit.processes import Process, Watchout

pytestmark = [pytest.mark.e2e, pytest.mark.real]


async def test_this_device_publishes_when_somebody_watches_and_its_button_raises_an_alert(
    tabs, started: Watchout, clients: Clients, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.click("button", "Start")
        await tab.sees("nobody watches", ".state")
        stream = await tab.text("h1")
        viewer = await clients.viewer(started.url, user)
        await viewer.subscribe(stream, format="binary")
        frame = await viewer.find("video-frame", COMES_S)
        assert Image.open(io.BytesIO(frame["picture"])).format == "JPEG"
        await tab.sees("On air", ".state")
        await tab.until("document.querySelector('video').videoWidth > 0", "there is no preview")
        await tab.write(".panic input", "come quickly")
        await tab.run("document.querySelector('.panic-button').focus(); 0")
        await tab.press(" ", hold=True)
        alert = await viewer.find("alert", COMES_S)
        assert (alert["severity"], alert["message"]) == ("critical", "come quickly")
        await tab.sees(f"critical alert of {stream}: come quickly", ".said")
        await viewer.send("unsubscribe", streamId=stream)
        await tab.sees("nobody watches", ".state")
        await tab.run("window.track = document.querySelector('video').srcObject.getVideoTracks()[0]; 0")
        await tab.click("button", "Stop")
        await tab.sees("Publish what the camera", "form")
        await tab.until("window.track.readyState === 'ended'", "the camera of the device is still on", COMES_S)


async def test_a_camera_that_is_not_allowed_and_a_page_without_https_are_said(
    tabs, started: Watchout, console_browser: Process, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "denied", started.url)
        await tab.click("button", "Start")
        await tab.sees("The camera is not allowed", "h2")
    elsewhere = started.url.replace("127.0.0.1", ELSEWHERE)
    async with console_tab(console_browser, f"{elsewhere}/#/camera?token={user}") as tab:
        await tab.sees("Browsers open a camera only over HTTPS", "h2")
        await tab.sees("TLS_CERT")
        await tab.view("#/live")
        await tab.until("!!document.querySelector('svg.qr')", "there is no code for a phone")
        assert await tab.run(
            "performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin))"
        )


async def test_a_stream_that_is_taken_over_or_belongs_to_others_is_said(
    tabs, started: Watchout, clients: Clients, cameras: Cameras, user: str
) -> None:
    async with tabs("#/camera", user) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.click("button", "Start")
        await tab.sees("nobody watches", ".state")
        stream = await tab.text("h1")
        await cameras.start(stream, RED)
        await tab.sees("Published elsewhere", "h2")
    async with tabs("#/camera", started.token(new_name("bob"))) as tab:
        await tab.permit("camera", "granted", started.url)
        await tab.sees("Publish what the camera", "form")
        await tab.run("document.querySelector('form input').select(); 0")
        await tab.write("form input", stream)
        await tab.click("button", "Start")
        await tab.sees("Not yours", "h2")
