"""Two gateways that share a port: what crosses them, and what a kill or a pause of one does."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.processes.support import MIB, RECOVERY_S, assert_never_fell, counts, healthy, more_frames, push
from tests.kit.clients import (
    JPEG,
    TEXT,
    Camera,
    Clients,
    Viewer,
    base64_of,
    eventually,
    new_name,
    now_ms,
    web_socket_frame,
)
from tests.kit.processes import Watchout
from watchout.common.bus.membership import LOST_AFTER_S

pytestmark = pytest.mark.e2e

#: A gateway that was killed must be noticed within this.
NOTICED_S = 15.0


async def is_active(url: str, stream: str) -> bool:
    return stream in (await counts(url))[2]


async def on_gateway(started: Watchout, pid: int, connect: Callable[[], Any]) -> Any:
    """A client whose socket this gateway holds: the kernel chooses, so try again."""
    for _ in range(100):
        client = await connect()
        if await eventually(lambda c=client: started.holder_of(c.local_port)) == pid:
            return client
        await client.leave()
    raise AssertionError(f"none of 100 connections reached gateway {pid}")


async def apart(started: Watchout, clients: Clients, token: str, other: str = "") -> tuple[Camera, Viewer]:
    """A camera on the first gateway, and a viewer on the second."""
    first, second = (process.pid for process in started.named("gateway"))
    camera = await on_gateway(started, first, lambda: clients.camera(started.url, token))
    viewer = await on_gateway(started, second, lambda: clients.viewer(started.url, other or token))
    return camera, viewer


@pytest.mark.parametrize("form", ["json", "binary"])
async def test_a_viewer_sees_a_camera_of_the_other_gateway(pair, token, clients, form):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register()
    await camera.show(timestamp=1001)
    await camera.rest()
    await eventually(lambda: is_active(pair.url, stream))
    assert await viewer.subscribe(stream, format=form) == "streaming"
    newest = await viewer.frame(frameId=1, timestamp=1001, streamId=stream)
    assert newest["data" if form == "json" else "picture"] == (base64_of(JPEG) if form == "json" else JPEG)
    for n in range(2, 6):
        await camera.show(timestamp=1000 + n)
        await viewer.frame(frameId=n, timestamp=1000 + n)
    await camera.show_binary(timestamp=7)
    frame = await viewer.frame(frameId=6, timestamp=7)
    assert frame["data" if form == "json" else "picture"] == (base64_of(JPEG) if form == "json" else JPEG)
    await camera.leave()
    await viewer.status("offline")


async def test_a_camera_that_has_just_registered_to_produce_frames_is_streaming_on_the_other_gateway_too(
    pair, token, clients
):
    first, second = (process.pid for process in pair.named("gateway"))
    viewer = await on_gateway(pair, second, lambda: clients.viewer(pair.url, token))
    found = []
    for _ in range(10):
        camera = await on_gateway(pair, first, lambda: clients.camera(pair.url, token))
        stream = await camera.register()
        found.append(await viewer.subscribe(stream))
    assert set(found) == {"streaming"}


async def test_a_viewer_waits_for_a_stream_that_comes_on_the_other_gateway(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = new_name()
    assert await viewer.subscribe(stream) == "offline"
    await camera.register(stream)
    await viewer.expect("status", status="streaming")
    async with camera.streaming(fps=10):
        await viewer.find("video-frame")
    camera.cut()
    await viewer.status("offline")


async def test_the_frame_that_comes_right_after_the_registration_reaches_who_waits_on_the_other_gateway(
    pair, token, clients
):
    first, second = (process.pid for process in pair.named("gateway"))
    viewer = await on_gateway(pair, second, lambda: clients.viewer(pair.url, token))
    for _ in range(5):
        camera = await on_gateway(pair, first, lambda: clients.camera(pair.url, token))
        stream = new_name()
        assert await viewer.subscribe(stream) == "offline"
        await camera.register(stream)
        await camera.show()
        await viewer.frame(streamId=stream, frameId=1)


async def test_the_data_crosses_gateways_unchanged_to_the_byte(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register()
    await viewer.subscribe(stream)
    for data in (f"data:image/jpeg;base64,{base64_of(JPEG)}", 'not base64 ≠ 😀\\"\n', "A" * (4 * MIB)):
        await camera.send("video-frame", data=data)
        assert (await viewer.find("video-frame"))["data"] == data


async def test_a_frame_of_16_mib_crosses_gateways(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register()
    await viewer.subscribe(stream, format="binary")
    picture = bytes(16 * MIB - 18)
    await camera.show_binary(picture, codec=0)
    assert (await viewer.find("video-frame"))["picture"] == picture
    await camera.show()
    await viewer.frame(picture=JPEG)


async def test_a_camera_is_told_once_of_data_that_the_other_gateway_could_not_decode(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register(consumes=["alert"])
    await viewer.subscribe(stream, format="binary")
    async with camera.streaming(fps=20):
        await more_frames(viewer, 3)
    for _ in range(3):
        await camera.show("$$$")
    await camera.show()
    await camera.find("error", code="INVALID_MESSAGE")
    await push(pair.url, stream, "fence")
    await camera.find("alert", message="fence")
    assert [m["code"] for m in camera.heard if m["type"] == "error"] == ["INVALID_MESSAGE"]


async def test_every_http_page_is_the_same_on_both_gateways(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await camera.show(timestamp=77)
    await viewer.frame()
    await push(pair.url, stream, "kept")
    gateways = {process.pid for process in pair.named("gateway")}
    asked: set[int] = set()
    for _ in range(100):
        await camera.register(stream)  # for five seconds more it counts as one that streams
        raw = await clients.raw(pair.url)
        asked.add(await eventually(lambda s=raw: pair.holder_of(s.writer.get_extra_info("sockname")[1])))
        bearer = f"Authorization: Bearer {token}"
        await raw.send(raw.head(f"/streams/{stream}/frame.jpg", bearer))
        answer = await raw.answer()
        assert (answer.status, answer.body, answer.headers["x-frame-id"]) == (200, JPEG, "1")
        assert (answer.headers["content-type"], answer.headers["x-frame-time"]) == ("image/jpeg", "77")
        await raw.send(raw.head("/streams", bearer))
        (row,) = (await raw.answer()).json["streams"]
        assert (row["id"], row["viewers"], row["status"]) == (stream, 1, "streaming")
        await raw.send(raw.head(f"/alerts?streamId={stream}", bearer))
        assert [alert["message"] for alert in (await raw.answer()).json["alerts"]] == ["kept"]
        await raw.send(raw.head("/stats"))
        assert stream in (await raw.answer()).json["activeStreams"]
        await raw.leave()
        if asked == gateways:
            break
    assert asked == gateways


async def test_another_users_stream_is_unauthorized_on_the_other_gateway_too(pair, token, clients):
    stranger = pair.token(new_name("stranger"))
    camera, spy = await apart(pair, clients, token, stranger)
    stream = await camera.register(new_name())
    await spy.send("subscribe", streamId=stream, consumes=["video-frame"])
    await spy.expect("error", code="UNAUTHORIZED")
    _, second = (process.pid for process in pair.named("gateway"))
    thief = await on_gateway(pair, second, lambda: clients.camera(pair.url, stranger))
    await thief.send("register", streamId=stream, produces=["video-frame"])
    await thief.expect("error", code="UNAUTHORIZED")
    early = new_name()
    assert await spy.subscribe(early) == "offline"
    await (await clients.camera(pair.url, token)).register(early)
    await spy.expect("error", code="UNAUTHORIZED")


async def test_alerts_reach_viewers_and_cameras_of_both_gateways_in_order(pair, token, clients):
    camera, far = await apart(pair, clients, token)
    first, _ = (process.pid for process in pair.named("gateway"))
    near = await on_gateway(pair, first, lambda: clients.viewer(pair.url, token))
    stream = await camera.register(produces=["video-frame", "alert"], consumes=["alert"])
    await far.subscribe(stream)
    await near.subscribe(stream)
    for n in range(10):
        await push(pair.url, stream, str(n))
    await camera.send("alert", severity="critical", message="panic")
    for client in (camera, far, near):
        for text in (*map(str, range(10)), "panic"):
            assert (await client.find("alert"))["message"] == text


async def test_a_take_over_across_gateways_leaves_viewers_and_frame_ids_in_order(pair, token, clients):
    old, viewer = await apart(pair, clients, token)
    _, second = (process.pid for process in pair.named("gateway"))
    stream = await old.register(new_name())
    await viewer.subscribe(stream)
    async with old.streaming(fps=20):
        await more_frames(viewer)
        new = await on_gateway(pair, second, lambda: clients.camera(pair.url, token))
        await new.register(stream)
        assert await old.closed() == 4501
        assert any(m.get("code") == "STREAM_TAKEN_OVER" for m in old.heard)
        async with new.streaming(fps=20):
            await more_frames(viewer)
    assert_never_fell(viewer)
    assert "offline" not in viewer.statuses
    first, _ = (process.pid for process in pair.named("gateway"))
    third = await on_gateway(pair, first, lambda: clients.camera(pair.url, token))
    await third.register(stream)
    assert await new.closed() == 4501
    async with third.streaming(fps=20):
        await more_frames(viewer)
    assert_never_fell(viewer)


async def test_a_rate_that_only_the_far_viewer_wants_is_kept_across_gateways(pair, token, clients):
    camera, slow = await apart(pair, clients, token)
    first, second = (process.pid for process in pair.named("gateway"))
    near = await on_gateway(pair, first, lambda: clients.viewer(pair.url, token))
    quick = await on_gateway(pair, second, lambda: clients.viewer(pair.url, token))
    stream = await camera.register()
    await slow.subscribe(stream, maxFps=5)
    await near.subscribe(stream)
    async with camera.streaming(fps=30):
        await more_frames(near, 60)
        await eventually(lambda: len(slow.frames) >= 5)
        assert len(slow.frames) < len(near.frames) / 3, "5 of 30 in a second"
        await quick.subscribe(stream)
        await more_frames(quick, 5)  # its wish has reached the camera's gateway
        already = len(near.frames)
        await more_frames(quick, 20)
        assert len(near.frames) - already < 80, "it has not the rate of the slow one: 120 would come meanwhile"


async def test_a_kill_of_one_gateway_is_noticed_and_the_other_goes_on(watchout, clients):
    started = watchout(gateways=2)
    url, token = started.url, started.token()
    lost, viewer = await apart(started, clients, token)
    first, second = started.named("gateway")
    staying = await on_gateway(started, second.pid, lambda: clients.camera(url, token))
    other = await on_gateway(started, second.pid, lambda: clients.viewer(url, token))
    await lost.register("lost")
    await viewer.subscribe("lost")
    await staying.register("staying")
    await other.subscribe("staying")
    async with staying.streaming(fps=10):
        await lost.show()
        await viewer.frame()
        killed = time.monotonic()
        first.kill()
        await viewer.status("offline", NOTICED_S + 1, streamId="lost")
        assert time.monotonic() - killed < NOTICED_S
        await more_frames(other)

        async def right() -> bool:
            return await counts(url) == (1, 2, ["staying"])

        await eventually(right)
        again = await clients.camera(url, token)
        await again.register("lost")
        await viewer.status("streaming")
        await again.show()
        await viewer.frame()
    assert_never_fell(viewer)
    gaps = [late - early for early, late in itertools.pairwise(other.heard_at[4:])]
    assert max(gaps) < LOST_AFTER_S, "frames waited until somebody was taken for gone"
    assert other.statuses == ["streaming"]


async def test_frames_cross_gateways_again_after_a_kill_of_the_router(watchout, clients):
    started = watchout(gateways=2)
    camera, viewer = await apart(started, clients, started.token())
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    async with camera.streaming(fps=20):
        await more_frames(viewer)
        started.one("router").kill()
        await healthy(started, 503, RECOVERY_S)
        started.start("router").wait_for_output("router ready")
        await more_frames(viewer, 20, RECOVERY_S + 1)
    assert_never_fell(viewer)
    assert viewer.open
    assert "offline" not in viewer.statuses


async def test_frames_cross_gateways_again_after_the_router_hung(watchout, clients):
    started = watchout(gateways=2)
    camera, viewer = await apart(started, clients, started.token())
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    async with camera.streaming(fps=20):
        await more_frames(viewer)
        paused = time.monotonic()
        started.one("router").pause()
        await eventually(lambda: time.monotonic() - paused > 3.0, 30)
        started.one("router").resume()
        resumed = now_ms()
        await eventually(lambda: any(frame["timestamp"] > resumed for frame in viewer.frames), RECOVERY_S)
        await more_frames(viewer, 20)
    assert_never_fell(viewer)
    assert "offline" not in viewer.statuses, "the camera was there all the time"
    for process in started.named("gateway"):
        assert process.output.count("router joined") <= 3, "each greeting of the time of the hang was a loss of its own"


async def test_a_gateway_that_hung_while_its_camera_moved_sends_nothing_old(watchout, clients):
    started = watchout(gateways=2)
    url, token = started.url, started.token()
    old, viewer = await apart(started, clients, token)
    first, second = started.named("gateway")
    await old.register("cam")
    await viewer.subscribe("cam")
    await old.show()
    await viewer.frame()
    first.pause()
    await viewer.status("offline", NOTICED_S + 1)
    new = await on_gateway_while_another_hangs(started, second.pid, token, clients)
    await new.register("cam")
    await viewer.status("streaming")
    async with new.streaming(fps=10):
        await more_frames(viewer)
        first.resume()
        assert await old.closed() == 4501
        await more_frames(viewer, 10)
    assert_never_fell(viewer)

    async def right() -> bool:
        return await counts(url) == (1, 1, ["cam"])

    await eventually(right, what="the gateway that hung has its old stream")


async def on_gateway_while_another_hangs(started: Watchout, pid: int, token: str, clients: Clients) -> Camera:
    """A camera on the gateway that works; connections to the other find no answer."""
    for _ in range(30):
        try:
            camera = await clients.camera(started.url, token, open_timeout=0.3)
        except TimeoutError:
            continue
        assert started.holder_of(camera.local_port) == pid
        return camera
    raise AssertionError("none of 30 connections reached the gateway that works")


async def test_a_viewer_that_does_not_read_harms_nobody(watchout, clients):
    started = watchout()
    url, token = started.url, started.token()
    stuck = await clients.raw(url)
    await stuck.upgrade(f"/streams/subscribe?token={token}")
    wish = {"type": "subscribe", "streamId": "cam", "consumes": ["video-frame", "alert"]}
    await stuck.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await stuck.json("status")
    stuck.writer.transport.pause_reading()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    data = "A" * 200_000
    for n in range(1, 101):
        await camera.show(data)
        await viewer.frame(frameId=n)
    await push(url, "cam", "overtakes")
    await viewer.find("alert", message="overtakes")  # the gateway has it, for both
    stuck.writer.transport.resume_reading()
    ids: list[int] = []
    alert_after = -1
    while not ids or ids[-1] < 100:
        frame = await stuck.frame()
        message = json.loads(frame.payload)
        if message["type"] == "video-frame":
            ids.append(message["frameId"])
        elif message["type"] == "alert":
            alert_after = len(ids)
    assert ids == sorted(set(ids))
    assert len(ids) < 100, "a viewer that reads nothing was sent everything"
    assert 0 <= alert_after < len(ids), "the alert waited behind a frame"
