"""What the protocol has for client libraries, through gateway and router: request ids, pings, recovery, renewal."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time

import jwt

from tests.kit.clients import JPEG, Message, Viewer, base64_of, eventually, http, now_ms
from tests.kit.one_process import OneProcess
from tests.kit.processes import SERVICE_TOKEN
from tests.kit.session_stores import end_session
from watchout.common.home_files import SESSION_STORE_FILE

# ── request ids ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_answer_carries_the_request_id_of_its_message(one_process, clients):
    token = one_process.token()
    camera = await clients.camera(one_process.url, None)
    await camera.send("register", streamId="cam", requestId="early")
    await camera.expect("error", code="AUTH_REQUIRED", streamId="cam", requestId="early")
    await camera.send("auth", token=token, requestId="a")
    await camera.expect("success", event="authenticated", requestId="a")
    await camera.send("register", streamId="cam", produces=["video-frame", "alert"], requestId="b")
    await camera.expect("success", event="registered", streamId="cam", requestId="b")
    await camera.send("alert", severity="high", message="help", requestId="c")
    accepted = await camera.expect("success", event="alert-accepted", streamId="cam", requestId="c")
    viewer = await clients.viewer(one_process.url, token)
    await viewer.send("subscribe", streamId="cam", consumes=["video-frame"], requestId=7)
    assert "requestId" not in await viewer.expect("error", code="INVALID_MESSAGE", streamId="cam")
    await viewer.send("subscribe", streamId="cam", consumes=["video-frame", "alert"], requestId="d")
    await viewer.expect("success", event="subscribed", streamId="cam", requestId="d")
    await viewer.expect("status", streamId="cam")
    await camera.send("alert", severity="high", message="again", requestId="e")
    alert = await viewer.expect("alert", message="again")
    assert "requestId" not in alert
    assert alert["id"] != accepted["alertId"]
    assert (await camera.expect("success", event="alert-accepted", requestId="e"))["alertId"] == alert["id"]
    for _ in range(2):
        await viewer.send("unsubscribe", streamId="cam", requestId="f")
        await viewer.expect("success", event="unsubscribed", streamId="cam", requestId="f")


async def test_a_frame_with_a_request_id_reaches_viewers_without_it(one_process, clients):
    token = one_process.token()
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    camera = await clients.camera(one_process.url, token)
    await camera.register("cam")
    for number in range(3):  # the later ones are compared with the head of the first
        await camera.show(timestamp=number, requestId=f"f{number}", rotation=90)
        frame = await viewer.frame(frameId=number + 1)
        assert (frame["rotation"], frame["data"]) == (90, base64_of(JPEG))
        assert "requestId" not in frame
    await camera.show(streamId="other", requestId="g")
    await camera.find("error", code="UNAUTHORIZED", streamId="other", requestId="g")
    await camera.show(requestId=5)
    await camera.find("error", code="INVALID_MESSAGE", streamId="cam")
    await camera.rest()
    assert len(viewer.frames) == 3


async def test_one_forbidden_subscription_of_several_fails_by_its_name(one_process, clients):
    camera = await clients.camera(one_process.url, one_process.token("bob"))
    await camera.register("bobs")
    viewer = await clients.viewer(one_process.url, one_process.token("ann"))
    for stream in ("own", "bobs"):
        await viewer.send("subscribe", streamId=stream, consumes=["alert"], requestId=stream)
    await viewer.expect("success", streamId="own", requestId="own")
    await viewer.expect("status", streamId="own")
    await viewer.expect("error", code="UNAUTHORIZED", streamId="bobs", requestId="bobs")


async def test_what_the_router_does_not_answer_carries_its_request_id(in_one_process, clients):
    started = await in_one_process(ROUTER_TIMEOUT_S="1.5")
    camera = await clients.camera(started.url, started.token())
    await camera.register("cam", produces=["alert"])
    viewer = await clients.viewer(started.url, started.token())
    await started.stop_router()
    await viewer.send("subscribe", streamId="else", requestId="a")
    await camera.send("alert", severity="low", message="m", requestId="b")
    await viewer.expect("error", code="ROUTING_ERROR", streamId="else", requestId="a")
    await camera.find("error", code="ROUTING_ERROR", streamId="cam", requestId="b")
    await camera.send("register", streamId="new", requestId="c")
    await camera.find("error", code="ROUTING_ERROR", streamId="new", requestId="c")
    await started.start_router()


async def test_every_message_with_a_request_id_over_the_rate_is_answered(in_one_process, clients):
    started = await in_one_process(MESSAGE_RATE="1")
    viewer = await clients.viewer(started.url, started.token())
    for number in range(12):  # more than come to be allowed while the machine pauses
        await viewer.send("unsubscribe", streamId="s", requestId=str(number))
    answers = [await viewer.next() for _ in range(12)]
    assert [answer["requestId"] for answer in answers] == [str(number) for number in range(12)]
    assert "RATE_LIMITED" in [answer.get("code") for answer in answers]


# ── ping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_ping_is_answered_whatever_else_the_client_sends(in_one_process, clients):
    started = await in_one_process(MESSAGE_RATE="1", ABUSE_LIMIT="100000")
    viewer = await clients.viewer(started.url, started.token())
    await viewer.send("ping", requestId="p")
    pong = await viewer.expect("pong", requestId="p")
    assert isinstance(pong["timestamp"], int)
    while not any(message.get("code") == "RATE_LIMITED" for message in viewer.heard):
        await viewer.send("ack", streamId="s", frameId=1)
        await eventually(lambda: True)

    async def answered() -> bool:  # one a second is free, however little is left of the rate
        for _ in range(2):
            await viewer.send("ack", streamId="s", frameId=1)
        await viewer.send("ping")
        return [message["type"] for message in viewer.heard].count("pong") >= 3

    await eventually(answered, 30)


async def test_a_silence_brings_a_ping_and_whatever_is_sent_ends_a_silence(one_process, clients):
    token = one_process.token()
    asked = await clients.viewer(one_process.url, None)
    await asked.send("auth", token=token, pingEvery=60)
    await asked.expect("success")
    await asked.send("subscribe", streamId="cam", consumes=["alert"], pingEvery=5)
    busy, direct, plain = [await clients.viewer(one_process.url, token) for _ in range(3)]
    await plain.subscribe("quiet")
    await busy.send("subscribe", streamId="cam", consumes=["video-frame"], maxFps=5, pingEvery=5)
    await direct.send("subscribe", streamId="cam", consumes=["video-frame"], pingEvery=5)
    camera = await clients.camera(one_process.url, token)
    silent_since = time.monotonic()  # the last word before the silence is the status that follows
    await camera.register("cam", pingEvery=5)
    await asked.find("status", status="streaming")
    async with camera.streaming(10):
        ping = await asked.expect("ping", timeout_s=30)
        assert time.monotonic() - silent_since >= 4.9
        assert sorted(ping) == ["timestamp", "type"]
        await asked.expect("ping", timeout_s=30)
        assert time.monotonic() - silent_since >= 9.9, "one in each silence"
    assert [m["type"] for m in camera.heard].count("ping") >= 1, "frames of the camera are not sent to it"
    for viewer in (busy, direct, plain):
        assert "ping" not in [message["type"] for message in viewer.heard]
    await direct.find("ping", timeout_s=30)


# ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def push(url: str, message: str, stream: str = "cam") -> None:
    body = {"streamId": stream, "severity": "low", "message": message}
    assert (await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status == 202


async def recovered(viewer: Viewer, since: int) -> tuple[Message, list[str]]:
    """Subscribe to the alerts since a time; the success, and the messages of the alerts that follow it."""
    await viewer.send("subscribe", streamId="cam", consumes=["alert"], alertsSince=since, requestId="s")
    answer = await viewer.expect("success", event="subscribed", streamId="cam", requestId="s")
    await viewer.expect("status", streamId="cam")
    await viewer.send("unsubscribe", streamId="other", requestId="end")
    heard = []
    while (message := await viewer.next()).get("requestId") != "end":
        heard.append(message)
    assert [message["type"] for message in heard] == ["alert"] * len(heard)
    return answer, [message["message"] for message in heard]


async def later_ms() -> int:
    mark = now_ms() + 1
    await eventually(lambda: now_ms() > mark)
    return mark


async def test_a_viewer_that_returns_is_told_that_it_has_missed_nothing(one_process, clients):
    url, token = one_process.url, one_process.token()
    camera = await clients.camera(url, token)
    await camera.register("cam")
    since = await later_ms()
    for number in range(3):
        await push(url, f"a{number}")
    viewer = await clients.viewer(url, token)
    answer, alerts = await recovered(viewer, since)
    assert (answer["recovered"], alerts) == (True, ["a0", "a1", "a2"])
    assert "from" not in answer
    await push(url, "live")
    await viewer.expect("alert", message="live")
    await viewer.send("subscribe", streamId="cam", consumes=["alert"])
    assert "recovered" not in await viewer.expect("success")


async def test_what_is_not_kept_any_more_is_told(in_one_process, clients):
    started = await in_one_process(RECENT_ALERTS="3")
    url, token = started.url, started.token()
    camera = await clients.camera(url, token)
    await camera.register("cam")
    since = await later_ms()
    for number in range(6):
        await push(url, f"a{number}")
        await later_ms()
    viewer = await clients.viewer(url, token)
    answer, alerts = await recovered(viewer, since)
    assert (answer["recovered"], alerts) == (False, ["a3", "a4", "a5"])
    kept = [message for message in viewer.heard if message["type"] == "alert"]
    assert since < answer["from"] == kept[0]["timestamp"]
    answer, alerts = await recovered(viewer, kept[0]["timestamp"])
    assert (answer["recovered"], alerts) == (True, ["a3", "a4", "a5"])


async def test_a_restarted_router_vouches_for_nothing_before_its_start(in_one_process, clients):
    started = await in_one_process()
    url, token = started.url, started.token()
    camera = await clients.camera(url, token)
    await camera.register("cam")
    since = await later_ms()
    await push(url, "before")
    await started.stop_router()
    await started.start_router()
    await started.healthy()
    viewer = await clients.viewer(url, token)
    answer, _ = await recovered(viewer, since)
    assert answer["recovered"] is False
    assert since < answer["from"] <= now_ms()
    again = await later_ms()
    await push(url, "after")
    answer, alerts = await recovered(await clients.viewer(url, token), again)
    assert (answer["recovered"], alerts) == (True, ["after"])


async def test_without_the_router_nothing_is_claimed(in_one_process, clients):
    started = await in_one_process(ROUTER_TIMEOUT_S="1.5")
    url, token = started.url, started.token()
    camera = await clients.camera(url, token)
    await camera.register("cam")
    viewer = await clients.viewer(url, token)
    await started.stop_router()
    since = now_ms()
    await viewer.send("subscribe", streamId="cam", consumes=["video-frame", "alert"], alertsSince=since)
    answer = await viewer.expect("success", event="subscribed")
    assert answer["recovered"] is False
    assert answer["from"] >= since
    await viewer.expect("status", streamId="cam")
    await viewer.find("error", code="ROUTING_ERROR", streamId="cam")
    await camera.show()
    await viewer.frame()
    await started.start_router()
    await started.healthy()
    await push(url, "live")
    await viewer.find("alert", message="live")


async def test_alerts_that_come_during_the_subscription_come_once(one_process, clients):
    url, token = one_process.url, one_process.token()
    camera = await clients.camera(url, token)
    await camera.register("cam", consumes=["alert"])
    since = await later_ms()
    async with asyncio.TaskGroup() as group:
        group.create_task(push_all(url, 30))
        for _ in range(10):
            viewer = await clients.viewer(url, token)
            answer, alerts = await recovered(viewer, since)
            assert answer["recovered"] is True
            assert alerts == [f"a{number}" for number in range(len(alerts))]
    last = await clients.viewer(url, token)
    assert (await recovered(last, since))[1] == [f"a{number}" for number in range(30)]


async def push_all(url: str, count: int) -> None:
    for number in range(count):
        await push(url, f"a{number}")


# ── renewal ──────────────────────────────────────────────────────────────────────────────────────────────────────

SECRET = "a secret of the tests that is long enough"


def another_session(one_process: OneProcess, token: str) -> str:
    """A second session of the user of a session; its token."""
    with contextlib.closing(sqlite3.connect(one_process.home / SESSION_STORE_FILE)) as store, store:
        store.row_factory = sqlite3.Row
        row = dict(store.execute("SELECT * FROM session WHERE token = ?", (token,)).fetchone())
        row |= {"id": f"{row['id']}-2", "token": secrets.token_urlsafe(24)}
        marks = ", ".join("?" * len(row))
        names = ", ".join(f'"{name}"' for name in row)
        store.execute(f"INSERT INTO session ({names}) VALUES ({marks})", tuple(row.values()))
    return str(row["token"])


def json_web_token(user: str, lives_s: float) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + lives_s}, SECRET, "HS256")


async def test_a_renewed_socket_outlives_its_first_session(one_process, clients):
    first = one_process.token("ann")
    second = another_session(one_process, first)
    stays = await clients.viewer(one_process.url, first)
    camera = await clients.camera(one_process.url, first)
    await camera.register("cam")
    viewer = await clients.viewer(one_process.url, first)
    await viewer.subscribe("cam", consumes=["video-frame"])
    for client in (camera, viewer):
        await client.send("auth", token=second, renew=True, requestId="r")
        await client.find("success", event="authenticated", requestId="r")
    end_session(one_process.home, first)
    assert await stays.closed(30) == 4500
    await camera.show()
    await viewer.frame()
    end_session(one_process.home, second)
    assert await viewer.closed(30) == 4500
    assert await camera.closed(30) == 4500


async def test_what_is_not_renewed_goes_on(one_process, clients):
    ann, bob = one_process.token("ann"), one_process.token("bob")
    camera = await clients.camera(one_process.url, ann)
    await camera.register("cam")
    for token in (bob, "x" * 32, ""):
        await camera.send("auth", token=token, renew=True, requestId=token[:3])
        await camera.expect("error", code="AUTH_FAILED", requestId=token[:3])
    viewer = await clients.viewer(one_process.url, bob)
    await viewer.send("subscribe", streamId="cam", consumes=["video-frame"])
    await viewer.expect("error", code="UNAUTHORIZED", streamId="cam")
    await camera.show()
    assert await camera.rest() == []
    await camera.send("auth", token=ann)
    await camera.expect("error", code="ALREADY_AUTHENTICATED")


async def test_a_jwt_is_renewed_by_a_later_one_and_by_a_session(in_one_process, clients):
    started = await in_one_process(JWT_SECRET=SECRET)
    session = started.token("ann")
    named = await clients.camera(started.url, session)
    await named.register("cam")
    (row,) = (await http(f"{started.url}/streams", token=session)).json["streams"]
    user = row["userId"]
    ended, by_jwt, by_session = [await clients.viewer(started.url, json_web_token(user, 8)) for _ in range(3)]
    await by_jwt.send("auth", token=json_web_token(user, 3600), renew=True)
    await by_jwt.expect("success")
    await by_session.send("auth", token=session, renew=True)
    await by_session.expect("success")
    assert await ended.closed(60) == 4500
    for viewer in (by_jwt, by_session):
        assert await viewer.subscribe("cam") in ("streaming", "online")
    end_session(started.home, session)
    assert await by_session.closed(30) == 4500
    assert {message["type"] for message in await by_jwt.rest()} <= {"status"}, "it is in"
