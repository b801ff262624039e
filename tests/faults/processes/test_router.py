"""A router that is killed, hangs or stands twice."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from tests.faults.processes.support import (
    RECOVERY_S,
    assert_never_fell,
    counts,
    health,
    healthy,
    more_frames,
    push,
    registers,
    served,
    stats,
)
from tests.kit.clients import eventually, http

pytestmark = pytest.mark.e2e


async def test_cameras_and_viewers_live_through_a_kill_of_the_router(watchout, clients):
    started = watchout()
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    async with camera.streaming(fps=10):
        await more_frames(viewer)
        started.one("router").kill()
        await healthy(started, 503, RECOVERY_S)
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
        shown = len(viewer.frames)

        async def all_counted() -> bool:
            (row,) = (await stats(url))["streams"]
            return bool(row["totalFrames"] >= shown)

        await eventually(all_counted, RECOVERY_S, f"fewer than {shown} frames are counted")
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
    assert max(gaps) < 2.5, "local frames paused while the router was away"
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
    await healthy(started, 503, RECOVERY_S)
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


async def test_frames_go_on_while_the_router_hangs_and_all_is_right_afterwards(watchout, clients):
    started = watchout()
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    async with camera.streaming(fps=10):
        await more_frames(viewer)
        paused = time.monotonic()
        started.one("router").pause()
        await healthy(started, 503, RECOVERY_S)
        await eventually(lambda: time.monotonic() - paused > 3.0, 30)
        started.one("router").resume()

        async def as_before() -> bool:
            return await counts(url) == (1, 1, ["cam"])

        await eventually(as_before, RECOVERY_S)
        await (await clients.camera(url, token)).register("new")
        await more_frames(viewer)
    gaps = [late - early for early, late in itertools.pairwise(viewer.heard_at[4:])]
    assert max(gaps) < 2.5, "the router hung for three seconds"
    assert_never_fell(viewer)
    assert camera.open
    assert viewer.open
    assert "offline" not in viewer.statuses


async def test_a_second_router_of_the_same_home_refuses_to_start_and_the_first_is_unaffected(watchout, clients):
    started = watchout()
    camera, viewer = await served(started.url, started.token(), clients)
    first = started.one("router")
    second = started.start("router")
    assert await second.ended(30) == 1
    assert "another router" in second.output.lower() or "already" in second.output.lower(), second.output
    assert str(started.home) in second.output
    assert first.running
    await camera.show()
    await viewer.frame()
    await push(started.url, camera.stream, "still")
    await viewer.find("alert", message="still")
    assert await health(started.url) == 200
