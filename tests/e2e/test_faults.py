"""What happens when processes end, hang, come late, or are more than one: on the real processes and the real Procfile.

Each test that ends something has a watchout of its own; those of two gateways that end nothing share one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from tests.kit.clients import (
    JPEG,
    TEXT,
    Camera,
    Clients,
    Viewer,
    base64_of,
    eventually,
    http,
    new_name,
    now_ms,
    web_socket_frame,
)
from tests.kit.processes import BIN, REPOSITORY, SERVICE_TOKEN, Process, Watchout, running
from tests.kit.services import Postgres

pytestmark = pytest.mark.e2e

MIB = 1 << 20
#: After a router's return everything must be as before within this.
RECOVERY_S = 3.0
#: A gateway that was killed must be noticed within this.
NOTICED_S = 5.0


async def health(url: str) -> int:
    return (await http(f"{url}/health")).status


async def healthy(started: Watchout, status: int, timeout_s: float) -> None:
    """Wait until `/health` has this status."""

    async def so() -> bool:
        try:
            return await health(started.url) == status
        except OSError:
            return False

    await eventually(so, timeout_s, f"/health is not {status}")


async def stats(url: str) -> dict[str, Any]:
    answer = await http(f"{url}/stats")
    assert answer.status == 200, answer
    return dict(answer.json)


async def counts(url: str) -> tuple[int, int, list[str]]:
    """Producers, video consumers, active streams; nothing while the router is away."""
    answer = await http(f"{url}/stats")
    if answer.status != 200:
        return 0, 0, []
    body = answer.json
    return body["totalProducers"], body["totalVideoConsumers"], body["activeStreams"]


async def is_active(url: str, stream: str) -> bool:
    return stream in (await counts(url))[2]


async def push(url: str, stream: str, message: str, **fields: Any) -> None:
    alert = {"streamId": stream, "severity": "high", "message": message, **fields}
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert 200 <= answer.status < 300, answer


async def more_frames(viewer: Viewer, number: int = 5, timeout_s: float = 3.0) -> None:
    """Wait until so many more frames came."""
    already = len(viewer.frames)
    await eventually(lambda: len(viewer.frames) >= already + number, timeout_s, f"{number} more frames did not come")


def assert_never_fell(viewer: Viewer) -> None:
    ids = viewer.frame_ids
    assert ids == sorted(set(ids)), "frame ids fell, or came twice"


class MlService:
    """An ML service that sees something in every frame."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.url = ""

    async def analyze(self, request: web.Request) -> web.Response:
        frame = await request.json()
        self.frames.append(frame)
        alert = {"severity": "medium", "message": "seen", "metadata": {"confidence": 0.5}}
        return web.json_response({"alert": alert})


@pytest.fixture
async def ml_service() -> AsyncIterator[MlService]:
    service = MlService()
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_post("/analyze", service.analyze)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield service
    await runner.cleanup()


# ── the Procfile ─────────────────────────────────────────────────────────────────────────────────────────────────


def honcho(started: Watchout, *arguments: str) -> Process:
    """`honcho start` with the real Procfile, in a directory without .env, on whose port nothing is to listen."""
    shutil.copy(REPOSITORY / "Procfile", started.directory / "Procfile")
    process = started.run("honcho", [str(BIN / "honcho"), "start", *arguments])
    started.wait_ready()
    process.wait_for_output("joined the router")
    return process


async def served(url: str, token: str, clients: Clients) -> tuple[Camera, Viewer]:
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token, "query")
    stream = await camera.register()
    assert await viewer.subscribe(stream, format="binary") == "streaming"
    await camera.show()
    await viewer.frame(picture=JPEG)
    await push(url, stream, "from the ML side")
    await viewer.find("alert", message="from the ML side")
    return camera, viewer


async def test_honcho_start_serves_and_sigterm_ends_it_cleanly_within_5_seconds(watchout, clients):
    started = watchout(start=False, environ={"PORT": "1"})
    process = honcho(started)
    camera, viewer = await served(started.url, started.token(), clients)
    names = sorted(" ".join(child.cmdline()) for child in process.children)
    for name in ("router", "gateway", "mlbridge"):
        assert any(f"watchout-{name}" in command for command in names)
    before = len(process.output)
    below = process.children
    process.send_signal(signal.SIGTERM)
    assert await viewer.closed() == 1012
    assert await camera.closed() == 1012
    await process.ended(5.0)
    assert not any(child.is_running() for child in below)
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in process.output[before:].splitlines()]
    said = [line.partition(" | ")[2] for line in lines]
    for name in ("router", "gateway", "mlbridge"):
        assert any(f"{name}.1 stopped (rc=0)" in line for line in said), said
    allowed = (
        r"SIGTERM received|sending SIGTERM to .*|.* stopped \(rc=0\)|(\S+ )?info +(router|gateway|mlbridge|member) .*"
    )
    assert [line for line in said if line and not re.fullmatch(allowed, line)] == []


async def test_honcho_start_with_two_gateways_serves_one_port(watchout, clients):
    started = watchout(start=False)
    process = honcho(started, "-c", "gateway=2,router=1,mlbridge=1")
    await eventually(lambda: process.output.count("gateway ready") == 2, 15)
    token = started.token()
    holders: set[int] = set()
    for _ in range(60):
        viewer = await clients.viewer(started.url, token)
        holders.add(await eventually(lambda port=viewer.local_port: started.holder_of(port)))
        if len(holders) == 2:
            break
    assert len(holders) == 2
    assert await stats(started.url)


async def test_whatever_order_the_processes_start_in_they_come_up(watchout):
    for order in itertools.permutations(("router", "gateway", "mlbridge")):
        with running(start=False) as started:
            for name in order:
                started.start(name).wait_for_output(f"{name} ready")
            started.wait_ready(5)


async def test_the_others_may_come_long_after_a_camera_tried(watchout, clients):
    started = watchout(start=False, environ={"ROUTER_TIMEOUT_S": "0.3"})
    started.start("gateway").wait_for_output("gateway ready")
    camera = await clients.camera(started.url, started.token())
    await camera.send("register", produces=["video-frame"])
    await camera.expect("error", code="ROUTING_ERROR")
    assert await health(started.url) == 503
    started.start("router")
    await healthy(started, 200, 10)
    await camera.register()


# ── the router ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cameras_and_viewers_live_through_a_kill_of_the_router(watchout, clients):
    started = watchout()
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    async with camera.streaming(fps=10):
        await more_frames(viewer)
        started.one("router").kill()
        await healthy(started, 503, 3)
        await more_frames(viewer, 20)
        assert (await http(f"{url}/health")).status == 503
        assert (await http(f"{url}/health/live")).status == 200
        await asyncio.to_thread(started.start("router").wait_for_output, "router ready")  # frames are heard meanwhile
        back = time.monotonic()
        wanted = (1, 1, [stream])

        async def as_before() -> bool:
            return await counts(url) == wanted

        await eventually(as_before, RECOVERY_S)
        await healthy(started, 200, RECOVERY_S)
        (row,) = (await stats(url))["streams"]
        assert row["totalFrames"] >= len(viewer.frames) - 1
        fresh = await clients.camera(url, token)
        await fresh.register("new")
        other = await clients.viewer(url, token)
        assert await other.subscribe(stream) == "streaming"
        assert time.monotonic() - back < RECOVERY_S + 2
        await more_frames(viewer)
        await more_frames(other)
        await push(url, stream, "after")
        await viewer.find("alert", message="after")
    assert camera.open
    assert viewer.open
    gaps = [late - early for early, late in itertools.pairwise(viewer.heard_at[4:])]
    assert max(gaps) < 1.0, "local frames paused while the router was away"
    assert_never_fell(viewer)
    assert viewer.frame_ids == list(range(viewer.frame_ids[0], viewer.frame_ids[0] + len(viewer.frames)))
    assert "offline" not in viewer.statuses


async def test_a_router_that_is_killed_again_and_again_comes_back_each_time(watchout, clients):
    started = watchout(gateways=2)
    url, token = started.url, started.token()
    cameras = [await clients.camera(url, token) for _ in range(6)]
    streams = sorted([await camera.register(f"cam-{n}") for n, camera in enumerate(cameras)])
    viewers = [await clients.viewer(url, token) for _ in streams]
    for viewer, stream in zip(viewers, streams, strict=True):
        await viewer.subscribe(stream)

    async def whole() -> bool:
        return await counts(url) == (6, 6, streams)

    for _ in range(4):
        started.one("router").kill()
        started.start("router").wait_for_output("router ready")
        await eventually(whole, RECOVERY_S + 1)
    for camera in cameras:
        await camera.show()
    for viewer in viewers:
        await viewer.find("video-frame")
        assert viewer.open


async def test_a_camera_that_left_while_the_router_was_away_is_gone_after_its_return(watchout, clients):
    started = watchout()
    url, token = started.url, started.token()
    staying, leaving = await clients.camera(url, token), await clients.camera(url, token)
    await staying.register("staying")
    await leaving.register("leaving")
    viewer = await clients.viewer(url, token)
    await viewer.subscribe("leaving")
    started.one("router").kill()
    await healthy(started, 503, 3)
    await leaving.leave()
    await viewer.status("offline")
    started.start("router").wait_for_output("router ready")

    async def right() -> bool:
        return await counts(url) == (1, 1, ["staying"])

    await eventually(right, RECOVERY_S)
    again = await clients.camera(url, token)
    await again.register("leaving")
    await viewer.status("streaming")
    await again.show()
    await viewer.frame()
    assert_never_fell(viewer)


async def test_a_claim_that_the_router_answers_too_late_leaves_no_stream_behind(watchout, clients):
    started = watchout(environ={"ROUTER_TIMEOUT_S": "0.3"})
    url, token = started.url, started.token()
    camera = await clients.camera(url, token)
    started.one("router").pause()
    await camera.send("register", streamId="late", produces=["video-frame"])
    await camera.expect("error", code="ROUTING_ERROR")
    started.one("router").resume()
    await camera.leave()

    async def nothing() -> bool:
        answer = await http(f"{url}/stats")
        return answer.status == 200 and answer.json["activeStreams"] == []

    other = await clients.camera(url, token)
    await eventually(lambda: registers(other, "other"))
    await other.leave()
    await eventually(nothing, RECOVERY_S, "the stream of a camera that is long gone is active")


async def registers(camera: Camera, stream: str) -> bool:
    await camera.send("register", streamId=stream, produces=["video-frame"])
    return (await camera.next())["type"] == "success"


async def test_frames_go_on_while_the_router_hangs_and_all_is_right_afterwards(watchout, clients):
    started = watchout(environ={"ROUTER_TIMEOUT_S": "0.5"})
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    async with camera.streaming(fps=10):
        await more_frames(viewer)
        paused = time.monotonic()
        started.one("router").pause()
        await healthy(started, 503, 3)
        await eventually(lambda: time.monotonic() - paused > 3.0, 4)
        started.one("router").resume()

        async def as_before() -> bool:
            return await counts(url) == (1, 1, ["cam"])

        await eventually(as_before, RECOVERY_S)
        await (await clients.camera(url, token)).register("new")
        await more_frames(viewer)
    gaps = [late - early for early, late in itertools.pairwise(viewer.heard_at[4:])]
    assert max(gaps) < 1.0
    assert_never_fell(viewer)
    assert camera.open
    assert viewer.open
    assert "offline" not in viewer.statuses


async def test_a_second_router_of_the_same_home_refuses_to_start_and_the_first_is_unaffected(watchout, clients):
    started = watchout()
    camera, viewer = await served(started.url, started.token(), clients)
    first = started.one("router")
    second = started.start("router")
    assert await second.ended() == 1
    assert "another router" in second.output.lower() or "already" in second.output.lower(), second.output
    assert str(started.home) in second.output
    assert first.running
    await camera.show()
    await viewer.frame()
    await push(started.url, camera.stream, "still")
    await viewer.find("alert", message="still")
    assert await health(started.url) == 200


# ── the ML side ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_alerts_of_the_ml_service_come_back_after_a_kill_of_mlbridge_and_frames_never_stop(
    watchout, clients, ml_service
):
    started = watchout(environ={"ML_SERVICE_URL": ml_service.url, "ML_FPS": "10", "ALERT_COOLDOWN_S": "0"})
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    stream = await camera.register("cam", consumes=["alert"])
    await viewer.subscribe(stream)

    def alerts() -> list[dict[str, Any]]:
        return [message for message in viewer.heard if message["type"] == "alert"]

    async with camera.streaming(fps=10):
        await eventually(lambda: len(alerts()) >= 3, 5)
        started.one("mlbridge").kill()
        await more_frames(viewer, 15)
        assert await health(url) == 200
        seen, when = len(alerts()), now_ms()
        started.start("mlbridge")
        await eventually(lambda: len(alerts()) >= seen + 3, 8)
    gaps = [late - early for early, late in itertools.pairwise(viewer.heard_at[4:])]
    assert max(gaps) < 1.0
    assert_never_fell(viewer)
    assert any(message["type"] == "alert" for message in camera.heard)
    times = {frame["frameId"]: frame["timestamp"] for frame in viewer.frames}
    for alert in alerts():
        assert (alert["streamId"], alert["severity"], alert["message"]) == (stream, "medium", "seen")
        assert alert["metadata"] == {"confidence": 0.5}
        assert alert["timestamp"] == times.get(alert["frameId"], alert["timestamp"])
    assert len({alert["id"] for alert in alerts()}) == len(alerts())
    assert all(alert["timestamp"] >= when - 1000 for alert in alerts()[seen + 1 :]), "old frames were sent on return"
    sent = ml_service.frames[0]
    assert sent.keys() == {"streamId", "frame", "timestamp", "frameId"}
    assert sent["frame"] == base64_of(JPEG)


# ── two gateways ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pair() -> Iterator[Watchout]:
    """Two gateways on one port. Do not end them."""
    with running(gateways=2) as started:
        yield started


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


@pytest.fixture
def token(pair: Watchout) -> str:
    return pair.token(new_name("user"))


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
        assert (await viewer.find("video-frame", 10))["data"] == data


async def test_a_frame_of_16_mib_crosses_gateways(pair, token, clients):
    camera, viewer = await apart(pair, clients, token)
    stream = await camera.register()
    await viewer.subscribe(stream, format="binary")
    picture = bytes(16 * MIB - 18)
    await camera.show_binary(picture, codec=0)
    assert (await viewer.find("video-frame", 20))["picture"] == picture
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
        await more_frames(near, 60, 5)
        assert 5 <= len(slow.frames) <= 13
        await quick.subscribe(stream)
        already = len(quick.frames)
        await more_frames(near, 30, 3)
        assert len(quick.frames) - already >= 20


async def test_a_kill_of_one_gateway_is_noticed_and_the_other_goes_on(watchout, clients):
    started = watchout(gateways=2)
    url, token = started.url, started.token()
    lost, viewer = await apart(started, clients, token)
    first, second = started.named("gateway")
    staying = await on_gateway(started, second.pid, lambda: clients.camera(url, token))
    await lost.register("lost")
    await staying.register("staying")
    await viewer.subscribe("lost")
    other = await on_gateway(started, second.pid, lambda: clients.viewer(url, token))
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
    assert max(gaps) < 1.0
    assert other.statuses == ["streaming"]


async def test_frames_cross_gateways_again_after_a_kill_of_the_router(watchout, clients):
    started = watchout(gateways=2)
    camera, viewer = await apart(started, clients, started.token())
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    async with camera.streaming(fps=20):
        await more_frames(viewer)
        started.one("router").kill()
        await healthy(started, 503, 3)
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
        await eventually(lambda: time.monotonic() - paused > 3.0, 4)
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
    assert await counts(url) == (1, 1, ["cam"])


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


# ── wrong starts ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_another_program_on_the_port_ends_the_gateway_with_1_and_a_sentence(watchout):
    started = watchout(start=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", started.port))
        taken.listen()
        gateway = started.start("gateway")
        assert await gateway.ended(10) == 1
    assert str(started.port) in gateway.output
    assert "WATCHOUT_PORT" in gateway.output


async def test_a_watchout_of_another_home_on_the_port_ends_the_gateway_with_1(watchout, clients):
    started = watchout()
    await served(started.url, started.token(), clients)
    gateway = started.start("gateway", {"WATCHOUT_HOME": str(started.directory / "other")})
    assert await gateway.ended(10) == 1
    assert str(started.port) in gateway.output
    assert await health(started.url) == 200


@pytest.mark.parametrize("name", ["router", "gateway", "mlbridge"])
async def test_wrong_settings_end_every_process_with_2_and_are_all_named(watchout, name):
    started = watchout(start=False)
    wrong = {
        "WATCHOUT_PORT": "0", "MAX_MESSAGE_BYTES": "many", "STREAM_ACCESS": "all", "DATABASE_URL": "mysql://secret@x",
        "SERVICE_TOKEN": "too-short", "AUTH_TIMEOUT_S": "-1", "WATCHOUT_LOOP": "trio",
    }  # fmt: skip
    process = started.start(name, wrong)
    assert await process.ended(10) == 2
    for setting in wrong:
        assert setting in process.output
    assert "secret" not in process.output
    assert "too-short" not in process.output
    assert len(process.output.splitlines()) == len(wrong)


async def test_a_home_whose_sockets_would_have_too_long_a_path_is_named(watchout):
    started = watchout(start=False)
    process = started.start("router", {"WATCHOUT_HOME": str(started.directory / ("x" * 100))})
    assert await process.ended(10) == 2
    assert "WATCHOUT_HOME" in process.output


async def test_a_second_sigterm_does_not_wait(watchout, clients):
    started = watchout()
    deaf = await clients.raw(started.url)
    await deaf.upgrade(f"/streams/subscribe?token={started.token()}")
    gateway = started.one("gateway")
    gateway.send_signal(signal.SIGTERM)
    assert await deaf.close_code() == 1012
    began = time.monotonic()
    gateway.send_signal(signal.SIGTERM)
    await gateway.ended()
    assert time.monotonic() - began < 1.5


# ── the session store ────────────────────────────────────────────────────────────────────────────────────────────

STORE = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
insert into session values ('s1', now() + interval '1 hour', '{token}', 'u1');
"""


@pytest.mark.real
async def test_who_is_authenticated_goes_on_while_the_session_store_is_down(watchout, clients, own_postgres: Postgres):
    token, database = "t" * 32, own_postgres.create_database()
    own_postgres.run_sql(database, STORE.format(token=token))
    started = watchout(environ={"DATABASE_URL": database, "STORE_TIMEOUT_S": "1"})
    url = started.url
    camera, viewer = await served(url, token, clients)
    await asyncio.to_thread(own_postgres.stop)

    async def unavailable() -> bool:
        late = await clients.viewer(url, None)
        await late.send("auth", token="u" * 32)
        return (await late.next())["code"] == "AUTH_UNAVAILABLE" and await late.closed() == 1013

    await eventually(unavailable)
    assert await health(url) == 503
    assert (await http(f"{url}/health/live")).status == 200
    await camera.show()
    await viewer.frame()
    await push(url, camera.stream, "goes on")
    await viewer.find("alert", message="goes on")
    await asyncio.to_thread(own_postgres.start)
    await healthy(started, 200, 15)
    late = await clients.viewer(url, token)
    assert await late.subscribe(camera.stream) == "streaming"


def test_the_procfile_starts_the_three_processes():
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["router", "gateway", "mlbridge"]
    done = subprocess.run(
        [BIN / "honcho", "-f", REPOSITORY / "Procfile", "-e", os.devnull, "check"],
        capture_output=True, text=True, timeout=20, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
