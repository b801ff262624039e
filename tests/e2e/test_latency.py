"""The latency ledger through real processes: cameras whose clocks are wrong, and an ML service that takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.kit.clients import JPEG, Camera, RawSocket, Viewer, base64_of, eventually, http
from tests.kit.kernel_clock import KernelClockViewer, listening
from tests.kit.ml_stub import MlStub, serving
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout
from tests.kit.slow_link import SlowLink
from watchout.common.bus.slots import slot_of
from watchout.common.clock import now_ms
from watchout.gateway.latency.camera_clock import OWN_TIME

pytestmark = pytest.mark.e2e

#: Longest wait for what the ledger is to say.
PATIENCE_S = float(os.environ.get("WATCHOUT_LATENCY_S", "150"))
STATS_TOKEN = "for-operators-0123456789abcdef"
#: The cameras' clocks minus the right one: as far as phones are off at times.
OFFSETS_MS = {"cam": 180_000, "behind": -180_000, "moving": 180_000}
#: What the ML service takes for a frame, and for each seventh.
ML_MS, SLOW_ML_MS = 200, 1_200
FPS = 10.0
#: The uplink of the camera "cam", on which a frame takes 50 ms and more, and the size of a frame.
UPLINK_BYTES_PER_S = 200_000
PICTURE = JPEG + bytes(8_000)
LEAST_UPLINK_MS = 30.0
#: Alerts, each for one viewer, that are compared with what the kernel measured for viewers, and how far a quantile may
#: be from that.
ALERTS = 100
APART = 0.1
#: Frames of each stream that the ML service looks at before, so that the bridge knows the clocks too.
LOOKED_AT = 8
#: Alerts over HTTP, and how old the frames are that they are about, in frames.
POSTED, FRAMES_AGO = 40, 25


@contextlib.asynccontextmanager
async def streaming(camera: Camera, offset_ms: int | None) -> AsyncIterator[None]:
    """Send frames that are stamped by the camera's own clock, which is that far off; None: not stamped at all."""

    async def send() -> None:
        while True:
            stamp = {} if offset_ms is None else {"timestamp": now_ms() + offset_ms}
            await camera.show(base64_of(PICTURE), **stamp)
            await asyncio.sleep(1 / FPS)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def moving_picture(raw: RawSocket, token: str, stream: str, shown: set[int]) -> AsyncIterator[None]:
    """Read a moving picture over HTTP, and note the numbers of its frames."""
    await raw.send(raw.head(f"/streams/{stream}/mjpeg", f"Authorization: Bearer {token}"))

    async def read() -> None:
        while True:
            await raw.reader.readuntil(b"\r\nX-Frame-Id: ")
            shown.add(int(await raw.reader.readuntil(b"\r\n")))

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


class AlertClock:
    """How long after the capture of its frame each alert came to its viewers, by the kernel's clock.

    `captured` tells when that was, in ms since the epoch, where the alert does not say its frame's timestamp.
    """

    def __init__(self, viewers: Sequence[KernelClockViewer], captured: dict[str, float]) -> None:
        self._viewers = viewers
        self._captured = captured

    @property
    def seen(self) -> list[float]:
        return [at_ms - self._captured_of(heard) for viewer in self._viewers for at_ms, heard in list(viewer.heard)]

    def _captured_of(self, alert: dict[str, Any]) -> float:
        return self._captured.get(alert["id"], alert["timestamp"] - OFFSETS_MS[alert["streamId"]])


async def agrees_at_rest(started: Watchout, clock: AlertClock, work: Callable[[], Any], what: str) -> None:
    """Have alerts come, and compare those that all viewers saw with those that the ledger counts."""
    found: dict[str, Any] = {}
    give_up = time.monotonic() + PATIENCE_S

    async def all_told() -> bool:
        page = (await http(f"{started.url}/latency", token=STATS_TOKEN)).json
        found.update(hops(page["total"]).get("glass_to_alert", {"count": 0}))
        return bool(found["count"] == len(clock.seen))

    while True:
        await work()
        await eventually(all_told, PATIENCE_S, lambda: f"{what}: the ledger has {found}, viewers {len(clock.seen)}")
        seen = clock.seen
        last = [(found[name], quantile(seen, share)) for name, share in (("p99Ms", 0.99), ("p50Ms", 0.5))]
        if all(abs(told - measured) <= APART * measured for told, measured in last):
            return
        assert time.monotonic() < give_up, f"{what}: of {len(seen)} alerts p99 and p50, told and measured: {last}"


async def ctl(started: Watchout, *words: str) -> tuple[int, str]:
    command = started.run("latency", [str(BIN / "watchout-ctl"), "latency", *words])
    return await command.ended(PATIENCE_S), command.output


async def told(started: Watchout, stream: str) -> dict[str, Any] | None:
    """What ``watchout-ctl latency STREAM --json`` says; None: it has nothing to say yet."""
    code, said = await ctl(started, stream, "--json")
    return dict(json.loads(said)) if code == 0 else None


def hops(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {hop["hop"]: hop for hop in figures["hops"]}


async def test_the_ledger_says_how_late_a_camera_with_a_wrong_clock_is(watchout, clients):
    """By its p99, which viewers measure too, within 10 %; clocks are three minutes off, and an uplink is slow."""
    async with contextlib.AsyncExitStack() as stack:
        stub = await stack.enter_async_context(serving())
        stub.takes_s, stub.slow_every, stub.slow_s = ML_MS / 1000, 7, SLOW_ML_MS / 1000
        started = watchout(
            gateways=2,
            environ={
                "ML_SERVICE_URL": stub.url, "ML_FPS": "10", "ALERT_COOLDOWN_S": "0", "LATENCY_OBJECTIVE_MS": "600000",
                "ALERT_LATENCY_OBJECTIVE_MS": "100", "STATS_TOKEN": STATS_TOKEN,
            },
        )  # fmt: skip
        token = started.token()
        link = await stack.enter_async_context(SlowLink(started.port, UPLINK_BYTES_PER_S).running())
        cameras = {name: await clients.camera(started.url, token) for name in ("behind", "moving", "plain")}
        cameras["cam"] = await clients.camera(f"http://127.0.0.1:{link.port}", token)
        for name, camera in cameras.items():
            await camera.register(name)
        viewers = [
            await stack.enter_async_context(listening(started.port, token, name))
            for name in ("cam", "behind", "cam", "behind")
        ]
        watching = await clients.viewer(started.url, token)
        await watching.subscribe("behind", consumes=["video-frame"])
        shown: set[int] = set()
        reader = await clients.raw(started.url)
        await stack.enter_async_context(moving_picture(reader, token, "moving", shown))
        for name, camera in cameras.items():
            await stack.enter_async_context(streaming(camera, OFFSETS_MS.get(name)))

        await _clocks_are_found(started)
        begun = len(stub.looks)

        def least_looked_at() -> int:
            looks = [stream for _, stream, *_ in stub.looks[begun:]]
            return min(looks.count("cam"), looks.count("behind"))

        await eventually(lambda: least_looked_at() >= LOOKED_AT, PATIENCE_S)
        captured: dict[str, float] = {}
        clock = AlertClock(viewers, captured)
        await agrees_at_rest(started, clock, lambda: _analyse(stub, clock), "alerts of the ML service")
        assert quantile(clock.seen, 0.99) > SLOW_ML_MS > quantile(clock.seen, 0.5), "two different figures"
        await _posted_alerts_agree(started, clock, viewers[1], watching, captured)

        found = await told(started, "cam")
        assert found is not None
        of = hops(found)
        assert of.keys() >= {"gateway_to_ml", "ml", "ml_to_accepted", "accepted_to_written", "glass_to_glass"}
        assert of["ml"]["p50Ms"] >= ML_MS * 0.97
        assert LEAST_UPLINK_MS <= of["capture_to_gateway"]["p50Ms"] <= of["glass_to_glass"]["p50Ms"] * 1.1
        assert of["glass_to_glass"]["p50Ms"] < OFFSETS_MS["cam"] / 100
        burns = {burn["hop"]: burn["burn5m"] for burn in found["objectives"]}
        assert burns == {"glass_to_glass": 0.0, "glass_to_alert": 100.0}, "all in time, and all late"

        found = await told(started, "moving")
        assert found is not None
        seen = hops(found)["glass_to_glass"]
        assert 2 <= seen["count"] <= hops(found)["gateway_to_viewer"]["count"] <= len(shown), "of a moving picture"
        assert seen["p99Ms"] < abs(OFFSETS_MS["moving"]) / 100

        code, said = await ctl(started)
        assert (code, "glass to alert" in said, "10000%" in said) == (0, True, True), said
        code, said = await ctl(started, "cam")
        assert (code, "ahead of the gateway's, within" in said) == (0, True), said
        code, said = await ctl(started, "nosuch")
        assert (code, "nothing was measured of stream nosuch" in said) == (1, True), said

        async def plain_is_unknown() -> bool:
            found = await told(started, "plain")
            return found is not None and found["clock"] is not None and found["clock"]["unknown"] == OWN_TIME

        assert await eventually(plain_is_unknown, PATIENCE_S), "a frame without a timestamp has no time of capture"
        found = await told(started, "plain")
        assert found is not None
        assert not hops(found).keys() & {"capture_to_gateway", "glass_to_glass", "glass_to_alert"}

        page = (await http(f"{started.url}/metrics", token=STATS_TOKEN)).body.decode()
        assert 'watchout_latency_seconds_bucket{hop="ml",le="0.128",process="mlbridge"} 0.0' in page
        assert 'hop="glass_to_alert",le="+Inf"' in page
        assert (await http(f"{started.url}/latency")).status == 401
        page = (await http(f"{started.url}/latency", token=STATS_TOKEN)).json
        assert {stream["streamId"] for stream in page["streams"]} == {"cam", "behind", "moving", "plain"}
        own = (await http(f"{started.url}/streams/cam/latency", token=token)).json
        assert "glass_to_alert" in hops(own)
        assert (await http(f"{started.url}/streams/cam/latency", token=started.token("somebody"))).status == 404


async def _clocks_are_found(started: Watchout) -> None:
    async def found() -> bool:
        page = (await http(f"{started.url}/latency", token=STATS_TOKEN)).json
        clocks = {stream["streamId"]: stream["clock"] for stream in page["streams"]}
        return all(
            (clock := clocks.get(name)) is not None
            and clock["offsetMs"] is not None
            and abs(clock["offsetMs"] - offset_ms) <= clock["errorMs"] + 2
            for name, offset_ms in OFFSETS_MS.items()
        )

    await eventually(found, PATIENCE_S, "the clocks of all cameras are found")


async def _analyse(stub: MlStub, clock: AlertClock) -> None:
    """Have the ML service see something until enough alerts came, and all that it has seen has come."""
    stub.mode, wanted = "answer", len(clock.seen) + ALERTS
    await eventually(lambda: len(clock.seen) >= wanted, PATIENCE_S)
    stub.mode = "none"
    asked = len(stub.requests)
    await eventually(lambda: len(stub.answered) >= asked, PATIENCE_S)


async def _posted_alerts_agree(
    started: Watchout, clock: AlertClock, viewer: KernelClockViewer, watching: Viewer, captured: dict[str, float]
) -> None:
    """Alerts that come over HTTP, at either gateway; they name their frames, the half of them their timestamps too."""
    numbers = itertools.count()

    async def each_was_accepted() -> bool:
        found = await told(started, "behind")
        ids = {heard["id"] for _, heard in list(viewer.heard)}
        return found is not None and bool(hops(found)["ml_to_accepted"]["count"] == len(ids))

    async def post() -> None:
        for number in itertools.islice(numbers, POSTED):
            await eventually(lambda: len(watching.frames) > FRAMES_AGO, PATIENCE_S)
            frame = watching.frames[-FRAMES_AGO]
            alert = {"id": f"late-{number}", "streamId": "behind", "severity": "high", "message": "it was a person",
                     "frameId": frame["frameId"]}  # fmt: skip
            captured[alert["id"]] = frame["timestamp"] - OFFSETS_MS["behind"]
            if number % 2:
                alert["timestamp"] = frame["timestamp"]
            answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
            assert answer.status == 202

    await agrees_at_rest(started, clock, post, "alerts over HTTP")
    await eventually(each_was_accepted, PATIENCE_S, "the acceptance of each alert is measured")
    assert quantile(clock.seen, 0.99) > 2_000, "they are the slowest ones"


async def test_streams_of_all_slots_and_gateways_are_in_one_answer(in_one_process, clients):
    """Each slot has a router of its own, which knows the latencies of its streams; all together are told to one."""
    started = await in_one_process(slots=4, gateways=2)
    names = [next(f"cam-{n}" for n in range(100) if slot_of(f"cam-{n}", 4) == slot) for slot in range(4)]
    token = started.token()
    async with contextlib.AsyncExitStack() as stack:
        for number, name in enumerate(names):
            camera = await clients.camera(started.urls[number % 2], token)
            viewer = await clients.viewer(started.urls[1], token)
            await camera.register(name)
            await viewer.subscribe(name)
            await stack.enter_async_context(streaming(camera, 3_000))

        async def all_told() -> bool:
            answer = await http(f"{started.urls[0]}/latency")
            page = answer.json if answer.status == 200 else {"total": None, "streams": []}
            glass = [hops(stream).get("glass_to_glass", {}).get("count", 0) for stream in page["streams"]]
            whole = hops(page["total"]).get("glass_to_glass", {}).get("count", 0) if page["total"] else 0
            known = sum(stream["clock"] is not None for stream in page["streams"])
            return len(glass) == known == 4 and min(glass) >= 2 and whole >= max(glass) + min(glass)

        assert await eventually(all_told, PATIENCE_S)
        for url in started.urls:
            shown = (await http(f"{url}/streams/{names[2]}/latency", token=token)).json
            assert shown["streamId"] == names[2]
            assert shown["clock"] is not None
        assert b'hop="glass_to_glass"' in (await http(f"{started.urls[0]}/metrics")).body
