"""The very frame of an alert over HTTP, and alerts onward to a webhook: from a real camera through all processes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from aiohttp import web

from tests.kit.clients import JPEG, PNG, Answer, Clients, base64_of, eventually, http, new_name
from tests.kit.processes import SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e

COMES_S: Final = 30.0
#: Every frame is looked at, however late, and every alert is sent.
LOOKS_AT_ALL: Final = {"ML_FPS": "1000", "ML_MAX_AGE_S": "60", "ML_TIMEOUT_S": "60", "ALERT_COOLDOWN_S": "0"}


class Service:
    """Sees something in frames whose picture ends with "!"; and takes a webhook."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.hooks: list[dict[str, Any]] = []
        self.hook_status = 204
        self.url = ""

    async def analyze(self, request: web.Request) -> web.Response:
        frame = await request.json()
        self.seen.append(frame["frameId"])
        if not base64.b64decode(frame["frame"]).endswith(b"!"):
            return web.json_response({})
        return web.json_response({"alert": {"id": f"alert-{frame['frameId']}", "severity": "high", "message": "seen"}})

    async def hook(self, request: web.Request) -> web.Response:
        self.hooks.append({"id": request.headers["webhook-id"], **json.loads(await request.read())})
        return web.Response(status=self.hook_status)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    found = Service()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/analyze", found.analyze)
    app.router.add_post("/hook", found.hook)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
def started(watchout, service: Service) -> Watchout:
    return watchout(
        gateways=2, environ={"ML_SERVICE_URL": service.url, **LOOKS_AT_ALL},
        expected=["Connect call failed"],
    )  # fmt: skip


async def show(clients: Clients, started: Watchout, service: Service, *pictures: bytes) -> str:
    """Frames 1, 2, … of a new stream, each one looked at by the service; the stream."""
    camera = await clients.camera(started.url, started.token())
    stream = await camera.register(new_name())
    for number, picture in enumerate(pictures, 1):
        await camera.show(base64_of(picture))
        await eventually(lambda number=number: number in service.seen, COMES_S)
    return stream


async def picture_of(started: Watchout, alert: str, token: str | None, **headers: str) -> Answer:
    return await http(f"{started.url}/alerts/{alert}/frame.jpg", token=token, headers=headers)


async def kept(started: Watchout, alert: str, token: str) -> Answer:
    """The picture, when it is there."""

    async def there() -> Answer | None:
        answer = await picture_of(started, alert, token)
        return answer if answer.status == 200 else None

    return await eventually(there, COMES_S, "the picture of the alert did not come")


async def test_the_picture_of_an_alert_is_the_very_frame_and_survives_the_bridge_that_sent_it(
    started, service, clients
):
    token = started.token()
    pictures = [JPEG + b"1", JPEG + b"2!", JPEG + b"3", PNG + b"4!", JPEG + b"5"]
    await show(clients, started, service, *pictures)
    for number, content_type in ((2, "image/jpeg"), (4, "image/png")):
        answer = await kept(started, f"alert-{number}", token)
        assert answer.body == pictures[number - 1]
        assert answer.headers["content-type"] == content_type
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-id"] == str(number)
        tag = answer.headers["etag"]
        again = await picture_of(started, f"alert-{number}", token, **{"If-None-Match": tag})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert (await picture_of(started, f"alert-{number}", token, **{"If-None-Match": '"x"'})).status == 200
    started.one("mlbridge").kill()
    assert (await kept(started, "alert-2", token)).body == pictures[1]


async def test_the_picture_of_an_alert_is_for_those_who_may_view_the_stream_and_for_others_it_is_not_there(
    started, service, clients
):
    await show(clients, started, service, JPEG + b"!")
    await kept(started, "alert-1", started.token())
    stranger = await picture_of(started, "alert-1", started.token("eve"))
    unknown = await picture_of(started, "no-such-alert", started.token("eve"))
    assert (stranger.status, stranger.error) == (unknown.status, unknown.error) == (404, "NOT_FOUND")
    assert stranger.body == unknown.body
    for token, error in ((None, "AUTH_REQUIRED"), ("wrong", "AUTH_FAILED")):
        answer = await picture_of(started, "alert-1", token)
        assert (answer.status, answer.error) == (401, error)
    long = await picture_of(started, "x" * 200, started.token())
    assert (long.status, long.error) == (404, "NOT_FOUND")
    method = await http(f"{started.url}/alerts/alert-1/frame.jpg", method="POST", token=started.token())
    assert (method.status, method.error) == (405, "METHOD_NOT_ALLOWED")


async def test_an_alert_without_a_picture_says_so_to_whoever_may_view_it_and_to_nobody_else(started, service, clients):
    stream = await show(clients, started, service, JPEG)
    alert = {"id": "bare", "streamId": stream, "severity": "low", "message": "m", "frameId": 1}
    answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert answer.status == 202
    mine = await picture_of(started, "bare", started.token())
    assert (mine.status, mine.error) == (404, "NO_FRAME")
    assert (await picture_of(started, "bare", started.token("eve"))).error == "NOT_FOUND"


async def test_pictures_can_be_switched_off_and_are_bounded(watchout, service, clients):
    started = watchout(
        environ={
            "ML_SERVICE_URL": service.url, **LOOKS_AT_ALL, "ALERT_PICTURE_BYTES": "8192",
        },
        expected=["Connect call failed"],
    )  # fmt: skip
    token = started.token()
    pictures = [JPEG + bytes(1000) + b"%d!" % number for number in range(10)]
    await show(clients, started, service, *pictures)
    assert (await kept(started, "alert-10", token)).body == pictures[-1]
    assert (await picture_of(started, "alert-1", token)).error == "NO_FRAME"


async def test_the_picture_is_there_again_after_the_router_was_killed(started, service, clients):
    await show(clients, started, service, JPEG + b"!")
    token = started.token()
    await kept(started, "alert-1", token)
    started.one("router").kill()
    started.start("router")

    async def again() -> bool:
        try:
            return (await picture_of(started, "alert-1", token)).status == 200
        except OSError:
            return False

    await eventually(again, COMES_S, "the bridge did not send the picture to the new router")


async def test_every_accepted_alert_goes_on_to_the_webhook_and_a_failing_one_is_visible(watchout, service, clients):
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    started = watchout(
        environ={
            "ML_SERVICE_URL": service.url, **LOOKS_AT_ALL,
            "ALERT_WEBHOOK_URL": f"{service.url}/hook", "ALERT_WEBHOOK_SECRETS": secret,
            "ALERT_WEBHOOK_ALLOW_PRIVATE": "true", "ALERT_WEBHOOK_GIVE_UP_S": "2",
        },
        expected=["Connect call failed"],
    )  # fmt: skip
    stream = await show(clients, started, service, JPEG + b"1!", JPEG + b"2!")
    for name in ("posted", "posted"):
        alert = {"id": name, "streamId": stream, "severity": "low", "message": "m"}
        answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
        assert answer.status == 202
    await eventually(lambda: len(service.hooks) == 3, COMES_S)
    assert sorted(each["id"] for each in service.hooks) == ["alert-1", "alert-2", "posted"]
    assert {each["streamId"] for each in service.hooks} == {stream}
    service.hook_status = 500
    alert = {"id": "unwanted", "streamId": stream, "severity": "low", "message": "m"}
    await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    router = started.one("router")
    await eventually(lambda: "an alert was given up" in router.output, COMES_S)

    async def counted() -> bool:
        page = (await http(f"{started.url}/metrics")).body.decode()
        return re.search(r"^watchout_alert_webhook_dead_total\S* 1(\.0)?$", page, re.MULTILINE) is not None

    await eventually(counted, COMES_S)
    assert secret not in router.output
