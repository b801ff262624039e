"""Acknowledged alerts as clients see them: who may, who is told and how often, what is kept, and the webhook."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.kit.clients import Clients, Viewer, eventually, http
from tests.kit.processes import SERVICE_TOKEN
from watchout.common.alerts.unconfirmed import UnconfirmedAlerts
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.clock import now_ms
from watchout.router.alerts import escalation_sender
from watchout.router.queries import QueryHandler

SECRET = "whsec_" + "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nz"


async def raise_alert(url: str, stream: str, alert_id: str, **fields: Any) -> None:
    alert = {"id": alert_id, "streamId": stream, "severity": "high", "message": "a person", **fields}
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert answer.status == 202, answer


def told(client: Any) -> list[tuple[str, str]]:
    """The acknowledgements that a client was told: (alert, user)."""
    return [(m["alertId"], m["userId"]) for m in client.heard if m["type"] == "alert-acknowledged"]


async def viewers_with_an_alert(clients: Clients, here: str, there: str, token: str) -> tuple[Viewer, Viewer]:
    """A viewer at each of two gateways, and the alert "a1" of the stream "cam", which the one there has."""
    camera = await clients.camera(here, token)
    await camera.register("cam")
    near, far = await clients.viewer(here, token), await clients.viewer(there, token)
    await near.subscribe("cam")
    await far.subscribe("cam")
    await raise_alert(here, "cam", "a1")
    await far.find("alert", id="a1")
    return near, far


async def acknowledge(client: Any, stream: str, alert_id: str, **fields: Any) -> Any:
    await client.send("acknowledge", streamId=stream, alertId=alert_id, **fields)
    return await client.find("success", event="acknowledged", alertId=alert_id)


async def test_everybody_who_has_the_alert_is_told_once_on_every_gateway_and_the_first_one_counts(
    in_one_process, clients
):
    started = await in_one_process(gateways=2, STREAM_ACCESS="authenticated")
    here, there = started.urls
    ann, bob = started.token("ann"), started.token("bob")
    camera = await clients.camera(here, ann)
    await camera.register("cam", consumes=["alert"])
    near, far, deaf = [await clients.viewer(url, token) for url, token in ((here, ann), (there, bob), (there, bob))]
    await near.subscribe("cam")
    await far.subscribe("cam")
    await deaf.subscribe("cam", consumes=["video-frame"])
    await raise_alert(here, "cam", "a1")
    for each in (near, far, camera):
        await each.find("alert", id="a1")
    before = int(time.time() * 1000) - 1000
    answer = await acknowledge(far, "cam", "a1", note="the postman ✉")
    assert answer["streamId"] == "cam"
    assert answer["acknowledged"]["userId"] == far_user(answer)
    for each in (near, camera):
        message = await each.find("alert-acknowledged", alertId="a1")
        assert (message["streamId"], message["note"]) == ("cam", "the postman ✉")
        assert message["timestamp"] >= before
        assert message["userId"] == answer["acknowledged"]["userId"]
    # The second one is answered by who was first, and nobody hears of it.
    again = await acknowledge(camera, "cam", "a1", note="me too")
    assert again["acknowledged"] == answer["acknowledged"]
    await raise_alert(here, "cam", "a2")
    for each in (near, far, camera):
        await each.find("alert", id="a2")
        assert len(told(each)) == 1
    assert told(deaf) == []
    # A list has it too, and the camera may acknowledge as well as a viewer.
    await acknowledge(camera, "cam", "a2")
    message = await far.find("alert-acknowledged", alertId="a2")
    assert "note" not in message
    kept = {alert["id"]: alert for alert in (await http(f"{there}/alerts?streamId=cam", token=ann)).json["alerts"]}
    assert kept["a1"]["acknowledged"] == answer["acknowledged"]
    assert kept["a2"]["acknowledged"] == {"userId": message["userId"], "timestamp": message["timestamp"]}
    everything = (await http(f"{there}/alerts", token=ann)).json["alerts"]
    assert [alert["acknowledged"]["userId"] for alert in everything] == [
        answer["acknowledged"]["userId"],
        message["userId"],
    ]


def far_user(answer: Any) -> str:
    user = answer["acknowledged"]["userId"]
    assert isinstance(user, str)
    return user


async def test_what_cannot_be_acknowledged_is_said_without_closing_and_without_telling_of_strangers_alerts(
    one_process, clients
):
    ann, bob = one_process.token("ann"), one_process.token("bob")
    camera = await clients.camera(one_process.url, ann)
    await camera.register("cam")
    viewer, stranger = await clients.viewer(one_process.url, ann), await clients.viewer(one_process.url, bob)
    await viewer.subscribe("cam")
    await raise_alert(one_process.url, "cam", "a1", acknowledged={"userId": "forged"})
    assert "acknowledged" not in await viewer.find("alert", id="a1"), "only the server says so"
    for alert_id in ("a1", "no-such"):
        await stranger.send("acknowledge", streamId="cam", alertId=alert_id)
        error = await stranger.find("error")
        assert (error["code"], error["streamId"]) == ("UNAUTHORIZED", "cam")
    for number in range(60):  # an alert that is forgotten is no abuse, however often
        await viewer.send("acknowledge", streamId="cam", alertId=f"no-{number}")
    for number in range(60):
        error = await viewer.find("error")
        assert error["code"] == "INVALID_MESSAGE"
        assert f"no-{number} " in error["message"], "answers come in the order of the messages"
    for fields in (
        {"streamId": "cam"}, {"alertId": "a1"}, {"streamId": "cam", "alertId": "a b"},
        {"streamId": "cam", "alertId": "a1", "note": "x" * 1001}, {"streamId": "cam", "alertId": "a1", "note": 5},
    ):  # fmt: skip
        await viewer.send("acknowledge", **fields)
        assert (await viewer.find("error"))["code"] == "INVALID_MESSAGE"
    assert told(viewer) == []
    await viewer.send_raw(r'{"type":"acknowledge","streamId":"cam","alertId":"a1","note":"half \ud83d"}')
    assert (await viewer.find("alert-acknowledged"))["note"] == "half \ufffd"
    assert viewer.open


async def test_who_comes_back_learns_what_was_acknowledged_meanwhile(one_process, clients):
    token = one_process.token("ann")
    camera = await clients.camera(one_process.url, token)
    await camera.register("cam")
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    for number in (1, 2):
        await raise_alert(one_process.url, "cam", f"a{number}", timestamp=1000)
    await viewer.find("alert", id="a2")
    gone_at = int(time.time() * 1000) + 1
    await eventually(lambda: int(time.time() * 1000) > gone_at)
    await raise_alert(one_process.url, "cam", "a3", timestamp=1000)
    await acknowledge(viewer, "cam", "a1", note="seen")
    await acknowledge(viewer, "cam", "a3")
    back = await clients.viewer(one_process.url, token)
    await back.subscribe("cam", alertsSince=gone_at)
    # Of a1, which it has, only the acknowledgement comes; a2 is of before and nobody touched it.
    await back.find("alert-acknowledged", alertId="a3")
    came = [
        (m["type"], m.get("id") or m.get("alertId"), "acknowledged" in m)
        for m in back.heard
        if m["type"] in ("alert", "alert-acknowledged")
    ]
    assert came == [
        ("alert", "a3", True),
        ("alert-acknowledged", "a1", False),
        ("alert-acknowledged", "a3", False),
    ]
    polled = await http(f"{one_process.url}/alerts?streamId=cam&since={gone_at}", token=token)
    assert [alert["id"] for alert in polled.json["alerts"]] == ["a3"]


async def test_an_acknowledgement_survives_the_router_as_far_as_its_alert_does(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token = started.token("ann")
    near, far = await viewers_with_an_alert(clients, here, there, token)
    first = (await acknowledge(far, "cam", "a1", note="seen"))["acknowledged"]
    await started.stop_router()
    late = await clients.viewer(there, token)
    await started.start_router()
    await started.healthy()
    await late.subscribe("cam")

    async def kept() -> Any:
        answer = await http(f"{here}/alerts?streamId=cam", token=token)
        return answer.status == 200 and [a.get("acknowledged") for a in answer.json["alerts"]] == [first]

    await eventually(kept, what="the new router does not know the acknowledgement")
    again = await acknowledge(near, "cam", "a1")
    assert again["acknowledged"] == first
    await raise_alert(here, "cam", "a2")
    for each, expected in ((near, 1), (far, 1), (late, 0)):
        await each.find("alert", id="a2")
        assert len(told(each)) == expected


async def test_a_gateway_that_lost_messages_gets_the_acknowledgement_in_its_place(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token = started.token("ann")
    near, far = await viewers_with_an_alert(clients, here, there, token)
    await started.stop_router()
    await started.start_router()  # both join again: what is numbered goes to both in order
    await started.healthy()
    await acknowledge(near, "cam", "a1")
    await raise_alert(here, "cam", "a2")
    await far.find("alert-acknowledged", alertId="a1")
    await far.find("alert", id="a2")
    assert len(told(far)) == len(told(near)) == 1


class Hook:
    """A webhook that keeps the bodies that came, by their `webhook-id`."""

    def __init__(self) -> None:
        self.bodies: dict[str, Any] = {}
        self.count = 0

    async def receive(self, request: web.Request) -> web.Response:
        self.count += 1
        self.bodies[request.headers["webhook-id"]] = json.loads(await request.read())
        return web.Response(status=204)

    def of(self, type: str) -> list[Any]:
        return [body for body in self.bodies.values() if body["type"] == type]


@pytest.fixture
async def hook() -> AsyncIterator[tuple[Hook, dict[str, str]]]:
    made = Hook()
    app = web.Application()
    app.router.add_post("/hook", made.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    environ = {
        "ALERT_WEBHOOK_URL": f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "ALERT_WEBHOOK_SECRETS": SECRET,
        "ALERT_WEBHOOK_ALLOW_PRIVATE": "true",
    }  # fmt: skip
    yield made, environ
    await runner.cleanup()


async def test_the_webhook_gets_the_acknowledgement_as_an_event(in_one_process, clients, hook):
    receiver, environ = hook
    started = await in_one_process(**environ)
    token = started.token("ann")
    camera = await clients.camera(started.url, token)
    await camera.register("cam")
    await raise_alert(started.url, "cam", "a1")
    given = (await acknowledge(camera, "cam", "a1", note="seen"))["acknowledged"]
    await acknowledge(camera, "cam", "a1")
    (event,) = await eventually(lambda: receiver.of("alert.acknowledged"))
    assert {name: event[name] for name in ("streamId", "alertId", "userId", "note", "timestamp")} == {
        "streamId": "cam", "alertId": "a1", **given,
    }  # fmt: skip
    assert (event["alert"]["id"], event["alert"]["message"]) == ("a1", "a person")
    await eventually(lambda: receiver.count == 2, what="the alert and one event")


async def test_many_acknowledgements_at_once_are_answered_or_refused_and_hold_no_message_back(one_process, clients):
    token = one_process.token("ann")
    viewer: Viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    await one_process.stop_router()
    for number in range(150):
        await viewer.send("acknowledge", streamId="cam", alertId=f"a{number}")
    await viewer.send("unsubscribe", streamId="cam")
    await viewer.find("success", event="unsubscribed")
    refused = [m for m in viewer.heard if m["type"] == "error" and m["code"] == "RATE_LIMITED"]
    assert len(refused) >= 40
    await asyncio.gather(viewer.leave(), one_process.start_router())


async def test_an_alert_that_nobody_acknowledges_is_escalated_once_across_a_restart_of_the_router(
    in_one_process, clients, hook, monkeypatch
):
    receiver, environ = hook
    later_ms = 0
    monkeypatch.setattr(escalation_sender, "now_ms", lambda: now_ms() + later_ms)
    started = await in_one_process(**environ, ALERT_ESCALATE_S="600", ALERT_ESCALATE_SEVERITY="high")
    token = started.token("ann")
    camera = await clients.camera(started.url, token)
    await camera.register("cam")
    for alert_id, severity in (("seen", "critical"), ("missed", "high"), ("small", "medium")):
        await raise_alert(started.url, "cam", alert_id, severity=severity)
    await raise_alert(started.url, "cam", "later", severity="high")
    await acknowledge(camera, "cam", "seen")
    await started.stop_router()
    # As after ten seconds: the gateway does not raise the alerts again, only the file has them.
    started.gateways[0]._link._accepted = UnconfirmedAlerts()
    await started.start_router()
    await started.healthy()
    await acknowledge(camera, "cam", "later")
    assert receiver.of("alert.unacknowledged") == []
    later_ms = 600_000
    (event,) = await eventually(lambda: receiver.of("alert.unacknowledged"))
    assert (event["streamId"], event["alertId"], event["alert"]["severity"]) == ("cam", "missed", "high")
    assert event["timestamp"] >= event["alert"]["timestamp"] + 600_000
    await raise_alert(started.url, "cam", "last", severity="critical")
    await eventually(lambda: len(receiver.of("alert.unacknowledged")) == 2)
    assert [each["alertId"] for each in receiver.of("alert.unacknowledged")] == ["missed", "last"]
    assert (started.home / "escalations.db").stat().st_mode & 0o777 == 0o600


async def test_a_router_of_the_release_before_is_not_asked_to_acknowledge(one_process, clients, monkeypatch):
    original = QueryHandler._alert_frames

    def without_alerts(self: QueryHandler, alert_id: str) -> list[AlertFrameRow]:
        return [msgspec.structs.replace(row, json=b"", at=0) for row in original(self, alert_id)]

    monkeypatch.setattr(QueryHandler, "_alert_frames", without_alerts)
    token = one_process.token("ann")
    camera = await clients.camera(one_process.url, token)
    await camera.register("cam")
    await raise_alert(one_process.url, "cam", "a1")
    await camera.send("acknowledge", streamId="cam", alertId="a1")
    error = await camera.find("error")
    assert (error["code"], "release" in error["message"]) == ("ROUTING_ERROR", True)
