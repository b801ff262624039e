"""PROTOCOL.md section 3: subscribing, alerts, take-overs, and who may see a stream."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.protocol.support import a_later_ms, push
from tests.kit.clients import JPEG, eventually, http, new_name, now_ms
from tests.kit.processes import SERVICE_TOKEN, Watchout, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """Who gets what does not depend on the event loop; how frames come and go does (test_frames.py, test_limits.py)."""
    return "uvloop"


# ── section 3: registering, frames ───────────────────────────────────────────────────────────────────────────────


async def test_status_reaches_everybody_who_consumes_anything(url, alice, clients):
    stream = new_name()
    viewers = []
    for consumes in (["video-frame"], ["alert"], ["video-frame", "alert"]):
        viewer = await clients.viewer(url, alice)
        assert await viewer.subscribe(stream, consumes=consumes) == "offline"
        viewers.append(viewer)
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    for viewer in viewers:
        await viewer.expect("status", status="streaming", streamId=stream)
    await camera.leave()
    for viewer in viewers:
        await viewer.expect("status", status="offline", streamId=stream)


async def test_a_viewer_gets_only_what_it_consumes(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    video, alerts = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await video.subscribe(stream, consumes=["video-frame"])
    await alerts.subscribe(stream, consumes=["alert"])
    await camera.show()
    await push(url, {"streamId": stream, "severity": "high", "message": "x"})
    await alerts.expect("alert")
    await video.expect("video-frame", frameId=1)
    await camera.show()
    await video.expect("video-frame", frameId=2)
    assert await alerts.rest() == []


async def test_several_streams_come_over_one_socket_until_they_are_unsubscribed(url, alice, clients):
    cameras = [await clients.camera(url, alice) for _ in range(3)]
    streams = [await camera.register() for camera in cameras]
    viewer = await clients.viewer(url, alice)
    for stream in streams:
        await viewer.subscribe(stream)
    for camera in cameras:
        await camera.show()
    assert sorted([(await viewer.frame())["streamId"] for _ in streams]) == sorted(streams)
    await viewer.send("unsubscribe", streamId=streams[0])
    await viewer.send("unsubscribe", streamId=new_name())
    await viewer.rest()
    for camera in cameras:
        await camera.show()
        await camera.rest()
    came = [message["streamId"] for message in await viewer.rest() if message["type"] == "video-frame"]
    assert sorted(came) == sorted(streams[1:])
    await cameras[0].leave()
    await cameras[1].leave()
    await viewer.status("offline", streamId=streams[1])


async def test_a_viewer_waits_for_a_stream_that_does_not_exist_yet(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    await camera.show()
    await viewer.expect("status", status="streaming")
    await viewer.expect("video-frame", frameId=1)


async def test_subscribing_again_replaces_the_subscription(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    await viewer.subscribe(stream, format="binary")
    await camera.show()
    assert (await viewer.frame())["picture"] == JPEG
    await camera.rest()
    assert await viewer.rest() == []


@pytest.mark.parametrize("format", ["json", "binary"])
async def test_the_newest_frame_comes_at_once_unless_it_is_not_wanted(url, alice, clients, format):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    for _ in range(3):
        await camera.show()
    await camera.rest()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream, format=format) == "streaming"
    await viewer.expect("video-frame", frameId=3)
    unwilling = await clients.viewer(url, alice)
    await unwilling.subscribe(stream, format=format, lastFrame=False)
    assert await unwilling.rest() == []
    await camera.show()
    await unwilling.expect("video-frame", frameId=4)


async def test_no_more_frames_come_than_the_viewer_wants_per_second(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    slow, all_of_them = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await slow.subscribe(stream, maxFps=5, lastFrame=False)
    await all_of_them.subscribe(stream)
    began = time.monotonic()
    async with camera.streaming(fps=30):
        await eventually(lambda: len(slow.frames) >= 8)
        # One of six, nearly: one of ten is not held back for longer than it should be, once nobody halts any more.
        await eventually(lambda: 10 * len(slow.frames) >= len(all_of_them.frames))
        came, spent_s = len(slow.frames), time.monotonic() - began
    assert came <= 5 * spent_s + 2


PATIENT = """
import watchout.gateway.hub.subscription
watchout.gateway.hub.subscription.UNACKED_EVERY_S = 600.0
from watchout.gateway.app import main
main()
"""


@pytest.fixture(scope="module")
def patient(watchout_loop: str) -> Iterator[Watchout]:
    """One that gives a viewer which acknowledges nothing no further frame for as long as a test takes."""
    with running(loop=watchout_loop, start=False) as started:
        started.start("router")
        started.run("gateway", [sys.executable, "-c", PATIENT])
        started.wait_ready()
        yield started


async def test_the_window_holds_frames_back_until_the_viewer_acknowledges(patient, clients):
    url, alice = patient.url, patient.token()
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, window=2)
    for _ in range(6):
        await camera.show()
    await camera.rest()
    assert [message["frameId"] for message in await viewer.rest()] == [1, 2]
    await viewer.send("ack", streamId=stream, frameId=2)
    await viewer.expect("video-frame", frameId=6)
    await camera.show()
    await viewer.expect("video-frame", frameId=7)
    await camera.show()
    await camera.rest()
    assert await viewer.rest() == []
    await viewer.send("ack", streamId=stream, frameId=6)
    await viewer.expect("video-frame", frameId=8)


async def test_a_viewer_that_stops_acknowledging_gets_one_frame_a_second(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer, all_of_them = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await viewer.subscribe(stream, window=1)
    await all_of_them.subscribe(stream)
    began = time.monotonic()
    async with camera.streaming(fps=20):
        await eventually(lambda: len(all_of_them.frames) >= 65)
        await eventually(lambda: len(viewer.frames) >= 4)
        came, spent_s = len(viewer.frames), time.monotonic() - began
    assert came <= 1.1 + spent_s, "the window's one, and one a second"


async def test_alerts_since_a_time_are_replayed_before_the_live_ones(url, alice, clients):
    stream = new_name()
    for n in range(3):
        await push(url, {"streamId": stream, "severity": "low", "message": str(n)})
    mark = await a_later_ms()
    for n in range(3, 6):
        await push(url, {"streamId": stream, "severity": "low", "message": str(n)})
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, alertsSince=mark)
    await push(url, {"streamId": stream, "severity": "low", "message": "live"})
    for text in ("3", "4", "5", "live"):
        await viewer.expect("alert", message=text)
    without = await clients.viewer(url, alice)
    await without.subscribe(stream)
    await push(url, {"streamId": stream, "severity": "low", "message": "later"})
    await without.expect("alert", message="later")


async def test_an_alert_of_a_camera_reaches_its_viewers_and_itself(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(produces=["video-frame", "alert"], consumes=["alert"])
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    own = {
        "streamId": stream,
        "severity": "high",
        "message": "help",
        "metadata": {"a": [1]},
        "timestamp": 1_700_000_000_000,
    }
    await camera.send("alert", **own)
    came = await viewer.expect("alert", **own)
    assert came["id"]
    assert await camera.find("alert") == came
    await camera.send("alert", severity="low", message="without a stream id")
    assert (await viewer.expect("alert", streamId=stream))["id"] != came["id"]
    assert abs((await camera.find("alert"))["timestamp"] - now_ms()) < 10_000
    for n in range(20):
        await camera.send("alert", streamId=stream, severity="low", message=str(n))
    for n in range(20):
        await viewer.expect("alert", message=str(n))


async def test_an_alert_is_for_the_cameras_own_stream_and_only_if_it_said_so(url, alice, clients):
    camera = await clients.camera(url, alice)
    await camera.send("alert", severity="low", message="too soon")
    assert (await camera.expect("error"))["code"] in ("UNAUTHORIZED", "INVALID_MESSAGE")
    stream = await camera.register(produces=["alert"])
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    other = await clients.camera(url, alice)
    elsewhere = await other.register()
    await camera.send("alert", streamId=elsewhere, severity="low", message="x")
    await camera.expect("error", code="UNAUTHORIZED")
    await other.send("alert", streamId=elsewhere, severity="low", message="x")
    await other.expect("error", code="UNAUTHORIZED")
    for bad in ({"severity": "deadly"}, {"severity": 5}, {"message": 5}, {"metadata": "x"}, {"frameId": -1}):
        await camera.send("alert", **{"streamId": stream, "severity": "low", "message": "x", **bad})
        await camera.expect("error", code="INVALID_MESSAGE")
    await camera.send("alert", severity="critical", message="fence")
    await viewer.expect("alert", message="fence")


async def test_a_camera_that_does_not_consume_alerts_gets_none(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    await viewer.expect("alert")
    assert await camera.rest() == []


async def test_the_same_user_takes_a_stream_over_and_viewers_stay(url, alice, clients):
    old, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await old.register(new_name())
    await viewer.subscribe(stream)
    for n in (1, 2, 3):
        await old.show()
        await viewer.frame(frameId=n)
    new = await clients.camera(url, alice)
    await new.register(stream)
    await old.find("error", code="STREAM_TAKEN_OVER")
    assert await old.closed() == 4501
    ids = [3]
    for _ in range(3):
        await new.show()
        ids.append((await viewer.frame())["frameId"])
    assert ids == sorted(set(ids))
    assert viewer.open
    assert "offline" not in viewer.statuses
    await new.leave()
    await viewer.status("offline")


async def test_take_overs_in_a_row_leave_one_camera(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    cameras = [await clients.camera(url, alice) for _ in range(8)]
    await asyncio.gather(*(camera.send("register", streamId=stream, produces=["video-frame"]) for camera in cameras))
    await eventually(lambda: sum(not camera.open for camera in cameras) == 7)
    assert [camera.connection.close_code for camera in cameras].count(4501) == 7
    (left,) = [camera for camera in cameras if camera.open]
    await left.find("success", event="registered")
    await left.show()
    await viewer.frame()
    assert (await http(f"{url}/stats")).json["activeStreams"].count(stream) == 1


async def test_frame_ids_begin_at_1_and_never_fall_when_the_camera_returns(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    ids: list[int] = []
    for turn in range(3):
        camera = await clients.camera(url, alice)
        await camera.register(stream)
        for _ in range(4):
            await camera.show_binary(frame_id=1)
            ids.append((await viewer.frame())["frameId"])
        assert ids[-4:] == list(range(ids[-4], ids[-4] + 4))
        if turn == 1:
            camera.cut()
        else:
            await camera.leave()
        await viewer.status("offline")
    assert ids[:4] == [1, 2, 3, 4]
    assert ids == sorted(set(ids))


async def test_frame_ids_do_not_fall_either_when_nobody_watched_meanwhile(url, alice, clients):
    stream = new_name()
    last = 0
    for _ in range(3):
        camera = await clients.camera(url, alice)
        await camera.register(stream)
        for _ in range(3):
            await camera.show()
        await camera.rest()
        found = int((await http(f"{url}/streams/{stream}/frame.jpg", token=alice)).headers["x-frame-id"])
        assert found > last
        last = found
        await camera.leave()
        await eventually(lambda: stream_is_gone(url, stream))


async def stream_is_gone(url: str, stream: str) -> bool:
    return stream not in (await http(f"{url}/stats")).json["activeStreams"]


async def test_another_user_neither_registers_nor_watches_the_stream(url, alice, bob, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(new_name())
    thief = await clients.camera(url, bob)
    await thief.send("register", streamId=stream, produces=["video-frame"])
    await thief.expect("error", code="UNAUTHORIZED")
    spy = await clients.viewer(url, bob)
    await spy.send("subscribe", streamId=stream, consumes=["video-frame", "alert"])
    await spy.expect("error", code="UNAUTHORIZED")
    await camera.show()
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    assert await camera.rest() == []
    assert await spy.rest() == []
    assert await thief.register(new_name())


async def test_who_waits_for_a_stream_that_becomes_another_users_loses_it(url, alice, bob, clients):
    stream = new_name()
    spy, viewer = await clients.viewer(url, bob), await clients.viewer(url, alice)
    assert await spy.subscribe(stream) == "offline"
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    await spy.expect("error", code="UNAUTHORIZED")
    await camera.show()
    await viewer.frame()
    assert await spy.rest() == []


async def test_with_access_for_authenticated_users_others_may_view_but_not_register(
    strict_watchout, strict_user, clients
):
    other = strict_watchout.token(new_name("dave"))
    camera = await clients.camera(strict_watchout.url, strict_user)
    stream = await camera.register()
    viewer = await clients.viewer(strict_watchout.url, other)
    assert await viewer.subscribe(stream) == "streaming"
    await camera.show()
    await viewer.frame(frameId=1)
    assert (await http(f"{strict_watchout.url}/streams/{stream}/frame.jpg", token=other)).status == 200
    listed = (await http(f"{strict_watchout.url}/streams", token=other)).json["streams"]
    assert stream in [row["id"] for row in listed]
    thief = await clients.camera(strict_watchout.url, other)
    await thief.send("register", streamId=stream, produces=["video-frame"])
    await thief.expect("error", code="UNAUTHORIZED")


async def test_the_tokens_stand_in_no_log(plain_watchout, clients):
    token = plain_watchout.token(new_name("erna"))
    for by in ("message", "header", "query"):
        await (await clients.viewer(plain_watchout.url, token, by)).rest()
    await http(f"{plain_watchout.url}/streams?token={token}")
    await http(f"{plain_watchout.url}/no/path?token={token}")
    wrong = "wrong-" + secrets.token_hex(8)
    with pytest.raises(InvalidStatus):
        await clients.viewer(plain_watchout.url, wrong, "query")
    raw = await clients.raw(plain_watchout.url)
    await raw.send(f"GET /streams?token={token} HTTP/9.9\r\n\r\n".encode())
    await raw.gone()
    output = plain_watchout.output
    assert token not in output
    assert wrong not in output
    assert SERVICE_TOKEN not in output
