"""Alerts under kill -9: whatever a router accepted reaches every viewer, and none reaches one twice."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web

from tests.kit.clients import JPEG, Camera, Viewer, base64_of, eventually, http, new_name
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e

#: Alerts that the router must have accepted before the test is content.
ALERTS: Final = int(os.environ.get("WATCHOUT_KILLED_ALERTS", "2000"))
PER_FRAME: Final = 25
KILLS: Final = 6
COMES_S: Final = 60.0


class NumberingService:
    """An ML service that sees numbered things in every frame."""

    def __init__(self) -> None:
        self.number = 0
        self.url = ""
        self.quiet = False
        self.app = web.Application(client_max_size=64 << 20)
        self.app.router.add_post("/analyze", self._analyze)

    async def _analyze(self, request: web.Request) -> web.Response:
        await request.read()
        if self.quiet:
            return web.json_response({})
        first, self.number = self.number, self.number + PER_FRAME
        alerts = [{"id": f"n{n}", "severity": "low", "message": str(n)} for n in range(first, self.number)]
        return web.json_response({"alerts": alerts})


@pytest.fixture
async def service() -> AsyncIterator[NumberingService]:
    found = NumberingService()
    runner = web.AppRunner(found.app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


def accepted(started: Watchout) -> set[str]:
    """The ids of the alerts of which a bridge heard that a router accepted them."""
    lines = [line for process in started.processes if process.name == "mlbridge" for line in process.lines]
    return {found for line in lines if "alert accepted" in line for found in re.findall(r"\bn\d+\b", line)}


def newest(started: Watchout) -> int:
    """The highest number of an alert that was accepted."""
    return max((int(found[1:]) for found in accepted(started)), default=-1)


def joined(started: Watchout) -> int:
    """How often bridges joined a router."""
    bridges = [process for process in started.processes if process.name == "mlbridge"]
    return sum("joined the router" in line for process in bridges for line in process.lines)


async def goes_on(started: Watchout, joins: int) -> None:
    """Wait until a bridge has joined again, and a new alert is accepted: it comes after those that are raised again.

    What a router accepted last is lost only if its bridge ends too before that.
    """
    await eventually(lambda: joined(started) > joins, COMES_S, "no bridge joined a router after a kill")
    before = newest(started)
    await eventually(lambda: newest(started) > before, COMES_S, "no alert after a kill")


def alert_ids(viewer: Viewer) -> list[str]:
    return [message["id"] for message in viewer.heard if message["type"] == "alert"]


def missing(started: Watchout, viewer: Viewer) -> str:
    """What the processes said of the accepted alerts that did not come to a viewer, and of their own starts."""
    ids = accepted(started) - set(alert_ids(viewer))
    found = [f"accepted alerts did not come: {sorted(ids)}"]
    for process in started.processes:
        lines = process.output.splitlines()
        found += [f"── {process.name} {process.pid}", *(line for line in lines if '"debug"' not in line)]
        found += [line for line in lines if ids & set(re.findall(r"\bn\d+\b", line))]
    return "\n".join(found)


async def show_frames(camera: Camera, done: asyncio.Event) -> None:
    while not done.is_set():
        await camera.show(base64_of(JPEG))
        await asyncio.sleep(0.02)


async def test_every_accepted_alert_is_delivered_and_none_twice_however_router_and_bridge_are_killed(
    watchout, clients, service
):
    started = watchout(
        gateways=1,
        environ={
            "ML_SERVICE_URL": service.url, "ML_FPS": "1000", "ALERT_COOLDOWN_S": "0", "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json", "ALERT_QUEUE_MESSAGES": "100000", "ALERT_QUEUE_BYTES": str(64 << 20),
        },
        expected=["Connect call failed"],
    )  # fmt: skip
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register(new_name(), produces=["video-frame"], consumes=["alert"])
    viewer, other = await clients.viewer(started.url, token), await clients.viewer(started.url, token)
    for each in (viewer, other):
        await each.subscribe(stream, consumes=["alert"])
    done = asyncio.Event()
    showing = asyncio.create_task(show_frames(camera, done))
    kills = 0
    try:
        while (count := len(accepted(started))) < ALERTS or kills < KILLS:
            due = (kills + 1) * ALERTS / (KILLS + 1)
            if kills < KILLS and count >= due:
                name = ("router", "mlbridge")[kills % 2]
                joins = joined(started)
                started.one(name).kill()
                kills += 1
                started.start(name)
                await goes_on(started, joins)
            await asyncio.sleep(0.05)
    finally:
        done.set()
        await showing
    service.quiet = True
    for each in (viewer, other):
        await eventually(
            lambda each=each: accepted(started) <= set(alert_ids(each)),
            COMES_S,
            lambda each=each: missing(started, each),
        )
        came = alert_ids(each)
        assert [name for name, times in Counter(came).items() if times > 1] == []
        assert each.open, "viewers' sockets live through all this"
    # Nobody's order was turned round: numbers rise with the frames of the one stream.
    numbers = [int(name[1:]) for name in alert_ids(viewer)]
    assert numbers == sorted(numbers)


async def test_after_a_routers_death_the_recent_alerts_of_the_bridge_can_be_asked_for_and_come_to_no_one_again(
    watchout, clients, service
):
    environ = {"ML_SERVICE_URL": service.url, "ML_FPS": "50", "ML_MAX_AGE_S": "60", "ALERT_COOLDOWN_S": "0"}
    started = watchout(environ=environ)
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register(new_name())
    viewer = await clients.viewer(started.url, token)
    await viewer.subscribe(stream, consumes=["alert"])
    await camera.show(base64_of(JPEG))
    await eventually(lambda: len(alert_ids(viewer)) == PER_FRAME, COMES_S)
    service.quiet = True
    # Who comes later asks for what is kept, and gets it once, though the alerts are told again after the kill.
    late = await clients.viewer(started.url, token)
    await late.subscribe(stream, consumes=["alert"], alertsSince=0)
    newcomer = await clients.viewer(started.url, token)
    await newcomer.subscribe(stream, consumes=["alert"])
    await eventually(lambda: len(alert_ids(late)) == PER_FRAME, COMES_S)
    started.one("router").kill()
    started.start("router")

    async def kept() -> list[str]:
        answer = await http(f"{started.url}/alerts?streamId={stream}", token=token)
        return [alert["id"] for alert in answer.json["alerts"]] if answer.status == 200 else []

    async def all_kept() -> bool:
        return len(await kept()) == PER_FRAME

    await eventually(all_kept, COMES_S, "the new router was not told the alerts of its predecessor")
    again = await clients.viewer(started.url, token)
    await again.subscribe(stream, consumes=["alert"], alertsSince=0)
    await eventually(lambda: len(alert_ids(again)) == PER_FRAME, COMES_S)
    alert = {"id": "last", "streamId": stream, "severity": "low", "message": "m"}
    answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert answer.status == 202
    for each, expected in ((viewer, PER_FRAME), (late, PER_FRAME), (newcomer, 0), (again, PER_FRAME)):
        await each.find("alert", COMES_S, id="last")
        assert len(alert_ids(each)) == len(set(alert_ids(each))) == expected + 1


async def test_a_gateway_that_was_stopped_is_told_what_it_missed_in_order_and_once(watchout, clients):
    started = watchout()
    token = started.token()
    viewer = await clients.viewer(started.url, token)
    stream = new_name()
    await viewer.subscribe(stream, consumes=["alert"])
    (gateway,) = started.named("gateway")

    async def raise_alert(message: str) -> None:
        command = [str(BIN / "watchout-ctl"), "alert", stream, message, "--severity", "low"]
        assert await started.run("alert", command).ended(COMES_S) in (0, 1)  # 1: it is kept, and went to nobody

    await raise_alert("before")
    await viewer.find("alert", COMES_S, message="before")
    gateway.pause()
    try:
        # The router takes the gateway for gone; what comes now goes to nobody.
        await eventually(lambda: "member gone" in started.one("router").output, COMES_S)
        for number in range(3):
            await raise_alert(str(number))
    finally:
        gateway.resume()
    for number in range(3):
        await viewer.expect("alert", COMES_S, message=str(number))
    await raise_alert("after")
    await viewer.expect("alert", COMES_S, message="after")
    assert len(set(alert_ids(viewer))) == len(alert_ids(viewer)) == 5
