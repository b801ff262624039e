"""The freshness contract through real processes: whatever the ML service does, viewers do not feel it, and it is shown
fresh frames only (RELIABILITY 59 to 61).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.kit.clients import Camera, Clients, Viewer, eventually, http
from tests.kit.ml_stub import ALERT, MlStub, serving
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout
from watchout.common.clock import now_ms
from watchout.mlbridge.breaker import LONGEST_PAUSE_S

pytestmark = pytest.mark.e2e

PATIENCE_S = 30.0
MAX_AGE_S = 1.0
#: What the way from the camera to the bridge, and from there to the service, may take on a busy machine: each process
#: on it may have to wait for its turn. What was kept in place of dropped is older by far.
WAY_S = 3.0
#: What a slow service takes for each frame.
SLOW_S = float(os.environ.get("WATCHOUT_SLOW_S", "1.2"))
#: How long the service is away.
OUTAGE_S = float(os.environ.get("WATCHOUT_OUTAGE_S", "6"))
IN_FLIGHT = 8
#: The system's word on a service that a test took away.
EXPECTED = ("Connect call failed",)


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    async with serving() as stub:
        yield stub


async def metrics(started: Watchout) -> dict[str, float]:
    """What ``/metrics`` says of mlbridge."""
    answer = await http(f"{started.url}/metrics", token=SERVICE_TOKEN)
    assert answer.status == 200
    rows = re.findall(r'^watchout_(\w+)\{process="mlbridge"\} (\S+)$', answer.body.decode(), re.MULTILINE)
    return {name: float(value) for name, value in rows}


async def figure(started: Watchout, name: str) -> float:
    return (await metrics(started)).get(name, 0.0)


async def stats(started: Watchout) -> dict[str, Any]:
    """What ``watchout-ctl stats --json`` says."""
    command = started.run("stats", [str(BIN / "watchout-ctl"), "stats", "--json"])
    assert await command.ended(PATIENCE_S) == 0, command.output
    return dict(json.loads(command.output))


async def joined(started: Watchout, clients: Clients, name: str = "cam") -> tuple[Camera, Viewer]:
    camera = await clients.camera(started.url, started.token())
    viewer = await clients.viewer(started.url, started.token())
    await viewer.subscribe(await camera.register(name))
    return camera, viewer


def assert_no_frame_is_missing(viewer: Viewer) -> None:
    ids = viewer.frame_ids
    assert ids == list(range(ids[0], ids[0] + len(ids))), "a viewer lost a frame to the ML service"


def ages_s(stub: MlStub) -> list[float]:
    """How old each frame was when the service got it; cameras and service have one clock here."""
    return [(came - taken) / 1000 for came, _, _, taken in stub.looks]


async def test_a_service_that_hangs_has_bounded_requests_an_open_breaker_and_no_effect_on_viewers(
    watchout, clients, stub
):
    started = watchout(
        expected=EXPECTED,
        environ={"ML_SERVICE_URL": stub.url, "ML_TIMEOUT_S": "1", "ML_IN_FLIGHT": str(IN_FLIGHT), "ML_FPS": "5"},
    )
    async with AsyncExitStack() as stack:
        pairs = [await joined(started, clients, f"cam-{n}") for n in range(12)]
        for camera, _ in pairs:
            await stack.enter_async_context(camera.streaming(fps=10))
        await eventually(lambda: len({look[1] for look in stub.looks}) == 12, PATIENCE_S)
        stub.mode = "hang"

        async def opened() -> bool:
            return await figure(started, "ml_breaker_opened_total") >= 1

        await eventually(opened, PATIENCE_S)
        assert stub.most_under_way <= IN_FLIGHT
        asked, began = len(stub.looks), time.monotonic()
        seen = [len(viewer.frames) for _, viewer in pairs]
        await asyncio.sleep(4)
        probes, lasted = len(stub.looks) - asked, time.monotonic() - began
        assert probes <= lasted / 1.0 + 4, "one probe at a time, each for its whole deadline"
        for (_, viewer), before in zip(pairs, seen, strict=True):
            await eventually(lambda v=viewer, b=before: len(v.frames) >= b + 20, PATIENCE_S)
        stub.mode = "answer"
        stub.released.set()
        await pairs[0][1].find("alert", PATIENCE_S)
    told = await metrics(started)
    assert told["ml_timeouts_total"] > 0
    assert told["ml_frames_away_total"] > 0
    assert max(ages_s(stub)) < MAX_AGE_S + WAY_S
    for _, viewer in pairs:
        assert_no_frame_is_missing(viewer)


#: How a service can be wrong: its mode, its answer, and the figure that counts it.
WRONGS = [
    ("status", 500, "ml_failures_total"),
    ("status", 429, "ml_failures_total"),
    ("drip", None, "ml_timeouts_total"),
    ("huge", None, "ml_failures_total"),
    ("announced", None, "ml_failures_total"),
    ("redirect", None, "ml_failures_total"),
    ("text", "no JSON", "ml_requests_total"),
    ("text", '{"alert":{"severity":"low","message":"m","metadata":{"score":NaN}}}', "alerts_refused_total"),
    ("text", "[" * 100_000, "ml_requests_total"),
    ("answer", {"alert": ALERT | {"frameId": -1}}, "alerts_refused_total"),
    ("answer", {"alert": ALERT | {"frameId": "7"}}, "alerts_refused_total"),
]


async def test_whatever_a_service_answers_is_bounded_counted_and_not_felt_by_viewers(watchout, clients, stub):
    started = watchout(
        expected=EXPECTED,
        environ={
            "ML_SERVICE_URL": stub.url, "ML_TIMEOUT_S": "1", "ML_IN_FLIGHT": str(IN_FLIGHT), "ML_FPS": "10",
            "ALERT_COOLDOWN_S": "0",
        }
    )  # fmt: skip
    camera, viewer = await joined(started, clients)
    stub.answer_headers = {"Retry-After": "1"}
    async with camera.streaming(fps=10):
        for mode, answer, name in WRONGS:
            before = await figure(started, name)
            asked = len(stub.looks)
            stub.mode, stub.answer = mode, answer

            async def counted(name: str = name, before: float = before) -> bool:
                return await figure(started, name) >= before + 2

            await eventually(counted, PATIENCE_S, f"{mode} {str(answer)[:60]} is not counted in {name}")
            await eventually(lambda asked=asked: len(stub.looks) > asked, PATIENCE_S)
            alerts = sum(message["type"] == "alert" for message in viewer.heard)
            stub.mode, stub.answer = "answer", {"alert": ALERT}
            await eventually(
                lambda seen=alerts: sum(m["type"] == "alert" for m in viewer.heard) > seen,
                PATIENCE_S,
                f"no alert after {mode} {str(answer)[:60]}",
            )
    assert stub.most_under_way <= IN_FLIGHT
    assert max(ages_s(stub)) < MAX_AGE_S + WAY_S
    assert_no_frame_is_missing(viewer)
    told = await metrics(started)
    assert told["resident_bytes"] < 300e6


async def test_a_service_that_was_stopped_is_probed_and_gets_fresh_frames_at_once_on_its_return(
    watchout, clients, stub
):
    started = watchout(expected=EXPECTED, environ={"ML_SERVICE_URL": stub.url, "ML_TIMEOUT_S": "2"})
    async with AsyncExitStack() as stack:
        pairs = [await joined(started, clients, f"cam-{n}") for n in range(10)]
        for camera, _ in pairs:
            await stack.enter_async_context(camera.streaming(fps=10))
        await eventually(lambda: len({look[1] for look in stub.looks}) == 10, PATIENCE_S)
        await stub.stop()

        async def opened() -> bool:
            return await figure(started, "ml_breaker_opened_total") >= 1

        await eventually(opened, PATIENCE_S)
        tried, began = await figure(started, "ml_requests_total"), time.monotonic()
        await asyncio.sleep(OUTAGE_S)
        tried = await figure(started, "ml_requests_total") - tried
        seconds = time.monotonic() - began
        assert tried <= seconds / (LONGEST_PAUSE_S / 2) + 8, "only probes"
        back = asyncio.get_running_loop().time()
        before = len(stub.looks)
        await stub.start()
        await eventually(lambda: len(stub.looks) > before, PATIENCE_S)
        took = asyncio.get_running_loop().time() - back
        print(f"{len(pairs)} streams, away for {seconds:g} s: the first fresh frame {took:.2f} s after its return")
        assert took < LONGEST_PAUSE_S + 5.0
        first = stub.looks[before:]
        await eventually(lambda: len({look[1] for look in stub.looks[before:]}) == 10, PATIENCE_S)
    assert max((came - taken) / 1000 for came, _, _, taken in stub.looks[before:]) < MAX_AGE_S + WAY_S
    assert first
    newest: defaultdict[str, int] = defaultdict(lambda: -1)
    for _, stream, frame_id, _ in stub.looks:
        assert frame_id > newest[stream], "an older frame after a newer one"
        newest[stream] = frame_id
    for _, viewer in pairs:
        assert_no_frame_is_missing(viewer)


async def test_a_bridge_that_stood_still_shows_nothing_that_is_older_than_the_limit(watchout, clients, stub):
    started = watchout(expected=EXPECTED, environ={"ML_SERVICE_URL": stub.url, "ML_FPS": "10"})
    camera, _ = await joined(started, clients)
    async with camera.streaming(fps=20):
        await eventually(lambda: len(stub.looks) > 5, PATIENCE_S)
        for pause_s in (1.5, 2.5, 5.0):
            started.one("mlbridge").pause()
            await asyncio.sleep(pause_s)  # what it had sent before has come by now
            before, resumed_ms = len(stub.looks), now_ms()
            started.one("mlbridge").resume()
            await eventually(lambda b=before: len(stub.looks) > b + 5, PATIENCE_S)
            oldest_ms = min(taken for _, _, _, taken in stub.looks[before:])
            # A frame is dated by when it came to the bridge; what it took before that is not the bridge's.
            assert resumed_ms - oldest_ms <= 1000 * (MAX_AGE_S + 1.0), f"after a standstill of {pause_s} s"


async def test_fifty_streams_of_a_slow_service_have_even_shares_and_coverage_is_told_truly(watchout, clients, stub):
    stub.takes_s, stub.mode = SLOW_S, "answer"
    timeout_s = SLOW_S + 3
    started = watchout(
        expected=EXPECTED,
        environ={"ML_SERVICE_URL": stub.url, "ML_TIMEOUT_S": str(timeout_s), "ML_IN_FLIGHT": "16"},
    )
    streams = 50
    alerts: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        for number in range(streams):
            camera = await clients.camera(started.url, started.token())
            await camera.register(f"cam-{number:02}")
            await stack.enter_async_context(camera.streaming(fps=2))
        began = asyncio.get_running_loop().time()
        stub.answered.clear()  # the first cameras had the service for themselves
        await eventually(lambda: len({stream for _, stream in stub.answered}) == streams, 60 * SLOW_S + PATIENCE_S)
        # Until a frame of a stream was answered the stream is on trial: it leaves some room to those that are answered,
        # and all of it while the latency alone is measured. Those that came first so get a few turns more, once; the
        # turns are even from here on.
        learned = len(stub.answered)
        memory = await figure(started, "resident_bytes")
        await eventually(lambda: len(stub.answered) >= learned + 2 * streams, 60 * SLOW_S + PATIENCE_S)
        grown = await figure(started, "resident_bytes") - memory
        lasted = asyncio.get_running_loop().time() - began
        counts = Counter(stream for _, stream in stub.answered)
        turns = Counter(stream for _, stream in stub.answered[learned:])
        told = await metrics(started)
        shown = await stats(started)
        async with asyncio.timeout(PATIENCE_S):
            while any(row["coverage"] is None for row in shown["streams"]):  # the bridge was too busy to say it
                shown = await stats(started)
        for stream in counts:
            answer = await http(f"{started.url}/alerts?streamId={stream}", token=started.token())
            alerts += answer.json["alerts"]
    assert len(counts) == streams
    shares = [row["coverage"] for row in shown["streams"]]
    assert len(shares) == streams
    assert min(shares) > 0
    # Coverage differs by what the turns differ, those of the trials included; it is reported every two seconds.
    spread = max(counts.values()) - min(counts.values())
    assert max(shares) - min(shares) <= (spread + 3) / min(60.0, lasted)
    assert learned <= 2 * streams, "streams that were answered take no more than half of the turns from the others"
    assert len(turns) == streams
    assert max(turns.values()) - min(turns.values()) <= 2, "turns are taken in order, and one may be under way"
    # Coverage is told every two seconds, and the second that is not over is left out.
    truly = sum(counts.values()) / streams / min(60.0, lasted)
    assert told["ml_streams"] == streams
    assert abs(told["ml_coverage_mean"] - truly) < 0.35 * truly
    assert told["ml_latency_p50_seconds"] == pytest.approx(SLOW_S, rel=0.3)
    assert told["ml_in_flight"] <= 16
    assert not told.get("ml_timeouts_total")
    print(f"\nmlbridge grew by {grown / 1e6:.1f} MB while the service answered {2 * streams} frames")
    assert grown < 25e6, "a ring of pictures, and no queue"
    assert stub.most_under_way <= 16
    assert max(ages_s(stub)) < MAX_AGE_S + WAY_S
    # Alerts of frames that were older than the limit by the time of the answer say so, and none is older than this.
    late = [alert["metadata"]["ageMs"] for alert in alerts if (alert.get("metadata") or {}).get("stale")]
    assert late
    assert max(late) < 1000 * (MAX_AGE_S + timeout_s)
    assert max(late) >= 1000 * SLOW_S


async def test_a_fallback_takes_over_within_seconds_and_viewers_get_its_alerts(watchout, clients, stub):
    second = MlStub()
    second.mode, second.answer = "answer", {"alert": ALERT | {"message": "seen by the second"}}
    await second.start()
    try:
        started = watchout(
            expected=EXPECTED, environ={"ML_SERVICE_URL": stub.url, "ML_FALLBACK_URL": second.url, "ML_FPS": "5"}
        )
        camera, viewer = await joined(started, clients)
        async with camera.streaming(fps=10):
            await eventually(lambda: len(stub.looks) > 3, PATIENCE_S)
            assert second.looks == []
            await stub.stop()
            await viewer.find("alert", PATIENCE_S, message="seen by the second")

            async def used(endpoint: int) -> bool:
                return await figure(started, "ml_endpoint") == endpoint

            await eventually(lambda: used(1), PATIENCE_S)
            await stub.start()
            await eventually(lambda: used(0), PATIENCE_S)
        for former, later in itertools.pairwise(second.looks):
            assert former[2] < later[2]
        assert_no_frame_is_missing(viewer)
    finally:
        await second.stop()
