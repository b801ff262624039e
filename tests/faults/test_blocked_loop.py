"""A process that lives and whose event loop does not: it is noticed by heartbeats that the loop itself sends."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tests.kit.clients import JPEG, Clients, base64_of, eventually, http
from tests.kit.ports import free_port
from tests.kit.processes import BIN, REPOSITORY, Process, Watchout, poll

pytestmark = pytest.mark.e2e
BLOCK_S = 6.0
COMES_S = 30.0
CAMERAS = 16
FRAMES_OF_EACH = 40
PICTURE = base64_of(JPEG + bytes(6_000))


def start(started: Watchout, name: str) -> Process:
    command = [str(BIN / "python"), str(REPOSITORY / "tests/kit/blocked.py"), name]
    return started.run(name, command, {"BLOCK_S": str(BLOCK_S), "PYTHONPATH": str(REPOSITORY)})


async def health(started: Watchout) -> int:
    try:
        return (await http(f"{started.url}/health")).status
    except OSError:
        return 0


async def test_a_router_whose_loop_is_blocked_is_noticed_and_frames_flow_on(watchout, clients: Clients):
    started = watchout(start=False)
    router = start(started, "router")
    started.start("gateway")
    started.wait_ready()
    camera = await clients.camera(started.url, started.token())
    viewer = await clients.viewer(started.url, started.token())
    await camera.register("cam")
    await viewer.subscribe("cam")
    async with camera.streaming(fps=10):
        await eventually(lambda: len(viewer.frames) > 5, COMES_S)
        router.send_signal(signal.SIGUSR1)

        async def is_unhealthy() -> bool:
            return await health(started) == 503

        await eventually(is_unhealthy, COMES_S, "/health says that the router is away")
        count = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > count + 5, COMES_S)

        async def is_healthy() -> bool:
            return await health(started) == 200

        await eventually(is_healthy, COMES_S, "all is well when the loop runs again")
        await (await clients.camera(started.url, started.token())).register("new")
    assert viewer.frame_ids == sorted(set(viewer.frame_ids))
    assert camera.open
    assert viewer.open


async def test_a_bridge_whose_loop_is_blocked_is_noticed_and_comes_back(watchout, clients: Clients):
    started = watchout(start=False)
    router = started.start("router")
    started.start("gateway")
    bridge = start(started, "mlbridge")
    started.wait_ready()
    poll(lambda: _bridges(router.output, "member joined") == 1, COMES_S, "the bridge joins")
    bridge.send_signal(signal.SIGUSR1)
    poll(lambda: _bridges(router.output, "member gone") == 1, COMES_S, "the router takes the bridge for gone")
    poll(lambda: _bridges(router.output, "member joined") == 2, COMES_S, "the bridge joins again")


def _bridges(output: str, event: str) -> int:
    return sum(event in line and "mlbridge" in line for line in output.splitlines())


async def test_a_gateway_that_did_not_run_does_not_take_its_own_silence_for_that_of_its_clients(
    watchout, clients: Clients
):
    started = watchout(start=False, environ={"IDLE_TIMEOUT_S": "3"})
    started.start("router")
    gateway = start(started, "gateway")
    started.wait_ready()
    camera = await clients.camera(started.url, started.token())
    viewer = await clients.viewer(started.url, started.token())
    await camera.register("cam")
    await viewer.subscribe("cam")
    gateway.send_signal(signal.SIGUSR1)
    await camera.show()  # read after the block, and shown to a viewer that said nothing all the while
    await viewer.frame()
    for _ in range(3):
        await camera.show()
        await viewer.frame()
    assert camera.open
    assert viewer.open


async def test_a_gateway_that_stood_still_closes_no_camera_for_all_that_came_meanwhile(watchout, clients: Clients):
    """What many cameras sent is read at once then, far more than the gateway keeps of unfinished messages."""
    started = watchout(environ={"UNFINISHED_BYTES_PER_USER": "600000", "MAX_MESSAGE_BYTES": "200000"})
    gateway, token = started.one("gateway"), started.token()
    names = [f"cam-{number}" for number in range(CAMERAS)]
    cameras = [await clients.camera(started.url, token) for _ in names]
    viewer = await clients.viewer(started.url, token)
    for camera, name in zip(cameras, names, strict=True):
        await camera.register(name)
        await viewer.subscribe(name)
    gateway.send_signal(signal.SIGSTOP)
    for number in range(FRAMES_OF_EACH):
        for camera in cameras:
            await camera.show(PICTURE, timestamp=number)
    gateway.send_signal(signal.SIGCONT)
    awaited = {(name, FRAMES_OF_EACH - 1) for name in names}
    await eventually(
        lambda: awaited <= {(frame["streamId"], frame["timestamp"]) for frame in viewer.frames}, COMES_S,
        lambda: f"{sum(not camera.open for camera in cameras)} cameras were closed",
    )  # fmt: skip
    assert all(camera.open for camera in cameras)


async def test_a_gateway_whose_loop_is_blocked_is_noticed_and_its_camera_is_seen_again(watchout, clients: Clients):
    started = watchout(start=False)
    router = started.start("router")
    blocked = start(started, "gateway")
    started.wait_ready()
    camera = await clients.camera(started.url, started.token())
    elsewhere = started.start("gateway", {"WATCHOUT_PORT": str(free_port())})
    await asyncio.to_thread(elsewhere.wait_for_output, "router joined")
    viewer = await clients.viewer(f"http://127.0.0.1:{port_of(elsewhere)}", started.token())
    await camera.register("cam")
    assert await viewer.subscribe("cam") == "streaming"
    async with camera.streaming(fps=10):
        await viewer.frame()
        blocked.send_signal(signal.SIGUSR1)
        await viewer.status("offline", COMES_S, streamId="cam")
        await asyncio.to_thread(router.wait_for_output, "member gone")
        while (await viewer.find("status", COMES_S))["status"] != "streaming":
            pass  # "online" first, where the router hears of the camera before its rate
        count = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > count + 5, COMES_S)
    assert viewer.frame_ids == sorted(set(viewer.frame_ids))
    assert camera.open
    assert viewer.open


def port_of(gateway: Process) -> int:
    (port,) = (json.loads(line)["port"] for line in gateway.lines if '"gateway listens"' in line)
    return int(port)
