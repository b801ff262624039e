"""What crosses between real processes, and what does not: interest, rates, slow and stopped members, alerts first."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from tests.kit.clients import JPEG, Camera, Clients, Viewer, eventually, http
from tests.kit.ml_stub import MlStub
from tests.kit.processes import SERVICE_TOKEN, Process, Watchout, free_port
from watchout.common.clock import now_ms

pytestmark = pytest.mark.e2e
#: What must come gets this long: the machine may be busy with other tests.
COMES_S = 60.0
#: Reports of figures come every second.
LATE_REPORT_S = 3.0
ALERT = {"severity": "high", "message": "someone at the door"}


class House:
    """One router, gateways each on a port of its own, and what they count."""

    def __init__(self, started: Watchout) -> None:
        self.started = started
        self.router = started.start("router")
        self.gateways: list[tuple[Process, str]] = []

    async def add_gateway(self, **environ: str) -> str:
        port = free_port() if self.gateways else self.started.port
        named = {"WATCHOUT_PORT": str(port), "HONCHO_PROCESS_NAME": f"gateway.{port}"}
        process = self.started.start("gateway", {**named, **environ})
        await asyncio.to_thread(self.started.wait_ready)
        url = f"http://127.0.0.1:{port}"
        self.gateways.append((process, url))
        return url

    def figure(self, url: str, name: str) -> float:
        """A figure of one process, by the name of its `process` label; of all slots' routers with an empty url."""
        label = re.escape(f"gateway.{url.rpartition(':')[2]}") if url else r"router(?:-\d+)?"
        request = urllib.request.Request(
            self.started.url + "/metrics", headers={"Authorization": f"Bearer {SERVICE_TOKEN}"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=COMES_S) as response:
            text = response.read().decode()
        found = re.findall(
            rf'^watchout_{name}{{[^}}]*process="{label}(?:@[^"]*)?"[^}}]*}} (\S+)$', text, re.MULTILINE
        )  # fmt: skip
        return sum(map(float, found))


@pytest.fixture
def house(watchout) -> House:
    return House(watchout(start=False, environ={"MESSAGE_RATE": "1000", "BYTE_RATE": str(1 << 30)}))


@asynccontextmanager
async def sending(camera: Camera, picture: bytes, fps: float) -> AsyncIterator[list[int]]:
    """Send one picture at a rate while the block lasts; yields the timestamps that were sent."""
    sent: list[int] = []

    async def send() -> None:
        while True:
            sent.append(now_ms())
            await camera.show_binary(picture, timestamp=sent[-1])
            await asyncio.sleep(1 / fps)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def watching(clients: Clients, url: str, token: str, stream: str, **wish: object) -> Viewer:
    viewer = await clients.viewer(url, token)
    await viewer.subscribe(stream, format="binary", **wish)
    return viewer


async def test_a_frame_crosses_only_for_interest_and_at_the_rate_that_each_member_wants(house, clients):
    stub = MlStub()
    await stub.start()
    near, far, farther = [await house.add_gateway() for _ in range(3)]
    token = house.started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    here = await watching(clients, near, token, stream)
    try:
        async with sending(camera, JPEG, 40) as sent:
            await eventually(lambda: len(here.frames) > 20, COMES_S)
            assert house.figure(near, "frames_to_bus_total") == 0, "nobody elsewhere wants it"
            slow = await watching(clients, far, token, stream, maxFps=2)
            fast = await watching(clients, farther, token, stream, maxFps=8)
            house.started.start("mlbridge", {"ML_SERVICE_URL": stub.url, "ML_FPS": "2"})
            await eventually(lambda: fast.frames and slow.frames and stub.requests, COMES_S)
            began, sent_before = time.monotonic(), len(sent)
            before = {url: house.figure(url, "frames_from_bus_total") for url in (far, farther)}
            pushed = house.figure(near, "frames_to_bus_total")
            looked = len(stub.requests)
            await eventually(lambda: len(fast.frames) >= 40, COMES_S)
            pushed = house.figure(near, "frames_to_bus_total") - pushed
            came = {url: house.figure(url, "frames_from_bus_total") - count for url, count in before.items()}
            looked = len(stub.requests) - looked
            lasted = time.monotonic() - began
        # What the others count is as old as their last report, which is late when a process has to wait for its turn.
        reported = lasted + LATE_REPORT_S
        assert pushed <= (8 + 2 + 2) * lasted + 9
        assert came[farther] <= 8 * reported + 3
        assert came[far] <= 2 * reported + 3
        assert looked <= 2 * reported + 3
        assert pushed < len(sent) - sent_before
        # The last one leaves, and no frame crosses any more.
        for viewer in (slow, fast):
            await viewer.leave()
        house.started.one("mlbridge").terminate()
        async with sending(camera, JPEG, 40):

            async def still() -> bool:
                count = house.figure(near, "frames_to_bus_total")
                seen = len(here.frames)
                await eventually(lambda: len(here.frames) > seen + 20, COMES_S)
                return house.figure(near, "frames_to_bus_total") == count

            await eventually(still, COMES_S)
    finally:
        await stub.stop()


async def test_a_stopped_gateway_costs_the_router_little_and_nobody_a_frame_and_sees_the_newest_when_it_is_back(
    house, clients
):
    near, far, stopped_url = [await house.add_gateway() for _ in range(3)]
    token = house.started.token()
    stopped = house.gateways[2][0]
    cameras = [await clients.camera(near, token) for _ in range(3)]
    streams = [await camera.register() for camera in cameras]
    there = [await watching(clients, far, token, stream) for stream in streams]
    waiting = [await watching(clients, stopped_url, token, stream) for stream in streams]
    for camera in cameras:
        await camera.show_binary(JPEG)
    await eventually(lambda: all(viewer.frames for viewer in there + waiting), COMES_S)
    memory = psutil.Process(house.router.pid)
    before = memory.memory_info().rss
    picture = JPEG + bytes(400_000)
    stopped.pause()
    # More than the kernel takes for it: of those that wait, the newest is sent when it goes on.
    for number in range(8):
        for camera, viewer in zip(cameras, there, strict=True):
            await camera.show_binary(picture, timestamp=100 + number)
            await eventually(lambda v=viewer, n=number: v.frames[-1]["timestamp"] == 100 + n, COMES_S)
    stopped.resume()
    await eventually(lambda: all(viewer.frames[-1]["timestamp"] == 107 for viewer in waiting), COMES_S, "the newest")
    stopped.pause()
    # Over 60 MB for the stopped one, before the router calls it gone and after.
    highest = 0
    for number in range(50):
        for camera, viewer in zip(cameras, there, strict=True):
            await camera.show_binary(picture, timestamp=1000 + number)
            await eventually(lambda v=viewer, n=number: v.frames[-1]["timestamp"] == 1000 + n, COMES_S)
        highest = max(highest, memory.memory_info().rss)
    assert [[f["timestamp"] for f in viewer.frames[9:]] for viewer in there] == [[1000 + n for n in range(50)]] * 3
    assert highest - before < 24 << 20
    stopped.resume()

    async def newest() -> bool:
        for camera in cameras:
            await camera.show_binary(JPEG, timestamp=2000)
        return all(viewer.frames[-1]["timestamp"] == 2000 for viewer in waiting)

    await eventually(newest, COMES_S)
    for viewer in waiting:
        ids = [frame["frameId"] for frame in viewer.frames]
        assert ids == sorted(set(ids))
        late = [frame for frame in viewer.frames if 1000 <= frame["timestamp"] < 2000]
        assert len(late) < 25, "what was sent meanwhile is not sent late"


async def test_frames_of_16_mib_that_fill_the_bus_hold_up_neither_answers_nor_alerts(house, clients):
    near, far = [await house.add_gateway() for _ in range(2)]
    token = house.started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    viewer = await watching(clients, far, token, stream, consumes=["video-frame", "alert"])
    async with sending(camera, JPEG + bytes((16 << 20) - 1024), 1000):
        await eventually(lambda: len(viewer.frames) >= 3, COMES_S)
        behind, answered = [], []
        for number in range(5):
            frames = len(viewer.frames)
            began = time.monotonic()
            body = {**ALERT, "streamId": stream, "id": f"alert-{number}"}
            answer = await http(near + "/alerts", method="POST", token=SERVICE_TOKEN, body=body)
            assert answer.status in (200, 201, 202), answer
            alert = await viewer.find("alert", timeout_s=COMES_S)
            assert alert["id"] == f"alert-{number}"
            behind.append(len(viewer.frames) - frames)
            answered.append(time.monotonic() - began)
        # A bus that had queued frames in front of it would have shown tens of them first.
        assert sorted(behind)[2] <= 4
        assert sorted(answered)[2] < 10.0
    assert all(len(frame["picture"]) == len(JPEG) + (16 << 20) - 1024 for frame in viewer.frames)
