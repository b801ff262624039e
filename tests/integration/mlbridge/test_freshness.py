"""The freshness contract on the whole bridge: a fake router, real HTTP services that do all that services do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kit.fake_router import FakeRouter
from tests.kit.ml_stub import ALERT, MlStub, serving
from tests.kit.polling import until
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame
from watchout.common.metric_names import DECLARED
from watchout.common.settings import Settings
from watchout.mlbridge.app import Bridge
from watchout.mlbridge.breaker import LONGEST_PAUSE_S, OPEN_AFTER, BreakerState
from watchout.mlbridge.standstill import SETTLE_S, TICK_EVERY_S, Standstill

PICTURE = b"\xff\xd8\xff picture"
PATIENCE_S = 30.0

Start = Callable[..., contextlib.AbstractAsyncContextManager[Bridge]]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.fixture
async def router(home: Path) -> AsyncIterator[FakeRouter]:
    router = FakeRouter(home)
    yield router
    router.close()


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    async with serving() as stub:
        yield stub


@pytest.fixture
async def second() -> AsyncIterator[MlStub]:
    async with serving() as stub:
        yield stub


@pytest.fixture
def bridge(home: Path, router: FakeRouter) -> Start:
    @asynccontextmanager
    async def start(url: str, **changes: object) -> AsyncIterator[Bridge]:
        values: dict[str, object] = {"ml_fps": 100.0, "ml_timeout_s": 5.0, "drain_s": 1.0, "alert_cooldown_s": 0.0}
        process = Bridge(Settings(home=home, ml_service_url=url, **(values | changes)))  # type: ignore[arg-type]
        await process.start()
        try:
            await until(lambda: router.receivers and router.told.synced, PATIENCE_S)
            yield process
        finally:
            await process.stop()

    return start


def metric(process: Bridge, name: str) -> float:
    assert name in DECLARED
    return process._read_metrics().get(name, 0)


class Cameras:
    """Cameras that send until a condition holds."""

    def __init__(self, router: FakeRouter, *streams: str) -> None:
        self.number = 0
        self._router = router
        self._streams = streams or ("s",)

    def shoot(self) -> None:
        self.number += 1
        for stream in self._streams:
            self._router.push(Frame(stream, self.number, now_ms(), term=1, picture=PICTURE))

    async def until(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_at, f"not true within {timeout_s:g} s"
            self.shoot()
            await asyncio.sleep(0.02)

    async def during(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        await self.until(lambda: time.monotonic() >= ends, seconds + PATIENCE_S)


async def test_a_frame_that_waited_past_the_limit_is_never_shown(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "hang"
    async with bridge(stub.url, ml_in_flight=1, ml_max_age_s=0.2) as process:
        # A frame may wait past the limit on its way, too, when everything stands still: then the next one is shown.
        await Cameras(router, "a").until(lambda: stub.requests)
        await until(lambda: not metric(process, "ml_frames_waiting"), PATIENCE_S)
        too_old = metric(process, "ml_frames_too_old_total")
        router.push(Frame("b", 1, 1, term=1, picture=PICTURE))
        await until(lambda: metric(process, "ml_frames_too_old_total") == too_old + 1, PATIENCE_S)
        stub.released.set()
        await until(lambda: not metric(process, "ml_in_flight"), PATIENCE_S)
        later = Cameras(router, "b")
        later.number = 1
        await later.until(lambda: len(stub.requests) > 1)
        assert {r["streamId"] for r in stub.requests[:1]} == {"a"}
        assert all(r["streamId"] == "b" and r["frameId"] > 1 for r in stub.requests[1:])


async def test_an_answer_to_a_frame_that_became_old_meanwhile_is_an_alert_and_counted(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode, stub.takes_s = "answer", 0.5
    async with bridge(stub.url, ml_max_age_s=0.2) as process:
        await Cameras(router, "a").until(lambda: router.told.alerts)
        assert 1 <= metric(process, "ml_results_stale_total") <= len(stub.answered)
        assert metric(process, "ml_failures_total") == 0


async def test_a_service_that_is_down_is_only_probed_and_then_gets_fresh_frames(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode, stub.answer = "status", 500
    async with bridge(stub.url) as process:
        cameras = Cameras(router, *(f"s{n}" for n in range(20)))
        await cameras.until(lambda: metric(process, "ml_breaker_state") == BreakerState.OPEN)
        asked = len(stub.requests)
        await cameras.during(3.0)
        assert 1 <= len(stub.requests) - asked <= 3.0 / (LONGEST_PAUSE_S / 2) + 6
        assert stub.most_under_way <= 16
        assert metric(process, "ml_frames_away_total") > 0
        newest = cameras.number
        stub.mode, stub.answer = "answer", {"alert": ALERT}
        await cameras.until(lambda: router.told.alerts)
        assert min(alert.frame_id or 0 for alert in router.told.alerts) >= newest - 1
        await cameras.until(lambda: metric(process, "ml_breaker_state") == BreakerState.CLOSED)
        assert metric(process, "ml_breaker_opened_total") == 1


async def test_a_service_that_says_when_to_come_back_is_left_alone_until_then(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode, stub.answer, stub.answer_headers = "status", 429, {"Retry-After": "2"}
    async with bridge(stub.url) as process:
        cameras = Cameras(router)
        await cameras.until(lambda: metric(process, "ml_breaker_state") == BreakerState.OPEN)
        assert len(stub.requests) == 1
        stub.mode, stub.answer = "answer", {"alert": ALERT}
        await cameras.until(lambda: len(stub.requests) > 1)
        assert stub.looks[1][0] - stub.looks[0][0] >= 1_990, "ms; the clock of looks is that of the day"
        await cameras.until(lambda: router.told.alerts)


async def test_a_service_that_hangs_has_bounded_requests_and_then_one_at_a_time(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "hang"
    async with bridge(stub.url, ml_timeout_s=0.5, ml_in_flight=8) as process:
        cameras = Cameras(router, *(f"s{n}" for n in range(20)))
        await cameras.until(lambda: metric(process, "ml_breaker_opened_total") == 1)
        assert stub.most_under_way <= 8
        await cameras.until(lambda: metric(process, "ml_timeouts_total") >= 10)  # those from before the breaker opened
        await until(lambda: not stub.under_way or len(stub.under_way) == 1, PATIENCE_S)
        stub.most_under_way = 0
        await cameras.during(2.0)
        assert stub.most_under_way == 1
        stub.mode, stub.answer = "answer", {"alert": ALERT}
        stub.released.set()
        await cameras.until(lambda: router.told.alerts)


async def test_the_second_service_serves_while_the_first_is_away_and_no_longer(
    router: FakeRouter, stub: MlStub, second: MlStub, bridge: Start
) -> None:
    stub.mode = second.mode = "answer"
    second.answer = {"alert": ALERT | {"message": "seen by the second"}}
    async with bridge(stub.url, ml_fallback_url=second.url) as process:
        cameras = Cameras(router)
        await cameras.until(lambda: len(stub.requests) > 5)
        assert second.requests == []
        await stub.stop()
        await cameras.until(lambda: len(second.requests) > 5)
        assert metric(process, "ml_endpoint") == 1
        assert metric(process, "ml_breaker_state") != BreakerState.CLOSED
        assert metric(process, "ml_fallback_breaker_state") == BreakerState.CLOSED
        assert metric(process, "ml_fallback_requests_total") >= 6
        await cameras.until(lambda: any(alert.message == "seen by the second" for alert in router.told.alerts))
        await stub.start()
        await cameras.until(lambda: metric(process, "ml_endpoint") == 0)
        before = len(stub.requests)
        await cameras.until(lambda: len(stub.requests) > before + 5)
        asked_second = len(second.requests)
        await cameras.during(0.5)
        assert len(second.requests) == asked_second
        assert metric(process, "ml_probe_copies_total") >= 1


async def test_with_both_away_the_bridge_finds_whichever_comes_first(
    router: FakeRouter, stub: MlStub, second: MlStub, bridge: Start
) -> None:
    stub.mode = second.mode = "answer"
    await stub.stop()
    await second.stop()
    async with bridge(stub.url, ml_fallback_url=second.url) as process:
        cameras = Cameras(router, "a", "b")
        await cameras.until(lambda: metric(process, "ml_failures_total") >= 2 * OPEN_AFTER)
        await second.start()
        await cameras.until(lambda: router.told.alerts)
        assert metric(process, "ml_endpoint") == 1


async def test_coverage_and_latency_are_told_as_they_are(router: FakeRouter, stub: MlStub, bridge: Start) -> None:
    stub.takes_s = 0.05
    async with bridge(stub.url, ml_fps=10.0) as process:
        cameras = Cameras(router, "a", "b")
        await cameras.until(
            lambda: (
                len(router.told.coverage) == 2
                and min(router.told.coverage.values()) > 0.5
                and metric(process, "ml_coverage_min") > 0.5
            )
        )
        assert metric(process, "ml_streams") == 2
        assert metric(process, "ml_coverage_mean") >= metric(process, "ml_coverage_min")
        assert 0.05 <= metric(process, "ml_latency_p50_seconds") <= metric(process, "ml_latency_p99_seconds")
        assert 1 <= metric(process, "ml_in_flight_limit") <= 16
        counts = process._dispatcher._scheduler.counts if process._dispatcher else None
        assert counts is not None
        assert counts.offered == counts.sent + counts.not_sent + metric(process, "ml_frames_waiting")
        assert set(process._read_metrics()) <= set(DECLARED)


async def test_a_stream_that_is_never_answered_is_told_as_not_covered(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    await stub.stop()
    async with bridge(stub.url) as process:
        cameras = Cameras(router)
        await cameras.until(lambda: router.told.coverage == {"s": 0.0})
        assert metric(process, "ml_coverage_mean") == 0.0


def test_while_the_process_runs_a_frame_came_when_it_is_read() -> None:
    standstill = Standstill(0.0)
    for step in range(100):
        now = step * TICK_EVERY_S
        standstill.on_tick(now)
        assert standstill.came_at(now + 0.1) == now + 0.1


def test_after_a_standstill_frames_are_dated_from_its_begin_until_all_are_read() -> None:
    standstill = Standstill(0.0)
    standstill.on_tick(10.0)
    assert standstill.came_at(15.0) == 10.0, "whether the timer or the socket comes first"
    standstill.on_tick(15.01)
    assert standstill.came_at(15.0 + SETTLE_S / 2) == 10.0
    assert standstill.came_at(15.0 + SETTLE_S) == 15.0 + SETTLE_S


def test_a_loop_that_is_a_little_late_did_not_stand_still() -> None:
    standstill = Standstill(0.0)
    standstill.on_tick(10.0)
    assert standstill.came_at(10.0 + 1.9 * TICK_EVERY_S) == 10.0 + 1.9 * TICK_EVERY_S
