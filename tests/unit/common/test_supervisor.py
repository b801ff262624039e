"""Nothing that a process does again and again ends by an exception; time is virtual here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import pytest
import structlog

from tests.kit.loop_turns import Turns, counted_turns
from tests.kit.virtual_time import START_S, VirtualTimeLoop
from watchout.common import supervisor
from watchout.common.metrics import Metrics
from watchout.common.supervisor import ALARM_AGAIN_S, LATE_S, LOG_EVERY_S, STALLED_S, Alarm

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


def no() -> None:
    raise ValueError("no")


async def test_work_that_raises_is_counted_and_runs_again(loop: VirtualTimeLoop) -> None:
    ran: list[float] = []

    def work() -> None:
        ran.append(loop.time() - START_S)
        no()

    periodic = supervisor.current().every(2.0, work, "tick")
    await asyncio.sleep(9)
    assert ran == pytest.approx([2, 4, 6, 8])
    assert supervisor.current().failures == {"tick": 4}
    metrics = Metrics().read()
    assert metrics["task_failures_total:tick"] == 4
    periodic.cancel()
    await asyncio.sleep(9)
    assert len(ran) == 4


async def test_a_coroutine_that_raises_or_is_cancelled_from_within_runs_again(loop: VirtualTimeLoop) -> None:
    ran = 0

    async def work() -> None:
        nonlocal ran
        ran += 1
        if ran == 1:
            no()
        if ran == 2:
            cancelled: asyncio.Future[None] = loop.create_future()
            cancelled.cancel()
            await cancelled

    periodic = supervisor.current().every(1.0, work, "round", first_s=0)
    await asyncio.sleep(3.5)
    assert ran == 4
    assert supervisor.current().failures == {"round": 2}
    await periodic.close()


async def test_a_run_that_takes_long_is_not_run_twice_and_what_was_missed_is_left_out(loop: VirtualTimeLoop) -> None:
    under_way, most, began = 0, 0, []

    async def work() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        began.append(loop.time() - START_S)
        await asyncio.sleep(3.5 if len(began) == 2 else 0)
        under_way -= 1

    periodic = supervisor.current().every(1.0, work, "round")
    await asyncio.sleep(8)
    assert most == 1
    assert began == pytest.approx([1, 2, 5.5, 6.5, 7.5])
    loop.stand_still(100)
    await asyncio.sleep(1.2)
    assert len(began) == 7
    await periodic.close()


async def test_what_has_not_succeeded_for_too_long_is_stalled_and_recovers(loop: VirtualTimeLoop) -> None:
    broken, hangs = False, False

    async def work() -> None:
        if broken:
            no()
        if hangs:
            await asyncio.sleep(1000)

    periodic = supervisor.current().every(1.0, work, "round")
    await asyncio.sleep(60)
    assert supervisor.current().stalled() == []
    loop.stand_still(500)  # nobody's fault
    assert supervisor.current().stalled() == []
    await asyncio.sleep(2)
    broken = True
    await asyncio.sleep(STALLED_S + 2)
    assert supervisor.current().stalled() == ["round"]
    assert Metrics().read()["tasks_stalled"] == 1
    broken = False
    await asyncio.sleep(2)
    assert supervisor.current().stalled() == []
    hangs = True
    await asyncio.sleep(STALLED_S + 2)
    assert supervisor.current().stalled() == ["round"]
    await periodic.close()
    assert supervisor.current().stalled() == []


async def test_the_lag_is_the_longest_of_the_last_half_minute(loop: VirtualTimeLoop) -> None:
    periodic = supervisor.current().every(0.3, lambda: None, "round")
    await asyncio.sleep(5.7)
    assert supervisor.lag_s() == pytest.approx(0, abs=1e-6)
    for blocked_s in (2.0, 0.5, 1.5, 0.25):
        loop.stand_still(blocked_s)  # between two checks; up to a second of it is the time until the next one
        await asyncio.sleep(5)
        assert supervisor.lag_s() == pytest.approx(2.0, abs=1.0)
    assert Metrics().read()["event_loop_lag_seconds"] == round(supervisor.lag_s(), 3) > 1
    await asyncio.sleep(supervisor.LAG_WINDOW_S - 14)
    assert 0.5 < supervisor.lag_s() <= 1.5, "the later one that was the second longest"
    await asyncio.sleep(supervisor.LAG_WINDOW_S)
    assert supervisor.lag_s() == pytest.approx(0, abs=1e-6)
    await periodic.close()


async def _pulses(loop: VirtualTimeLoop, late_s: Iterable[float]) -> list[float]:
    """Pulse every half second, each so many seconds late, and return when."""
    began, at = loop.time(), []
    for number, late in enumerate(late_s):
        await asyncio.sleep(began + number * 0.5 + late - loop.time())
        at.append(loop.time())
        supervisor.current().pulse()
    return at


@pytest.mark.parametrize("phase_s", [0.0, 0.07, 0.2, 0.38, 0.42, 0.49])
@pytest.mark.parametrize("interval_s", [0.5, 1.0, 2.0, 5.0])
async def test_work_of_any_phase_falls_in_with_pulses_and_keeps_its_interval(
    loop: VirtualTimeLoop, interval_s: float, phase_s: float
) -> None:
    ran: list[float] = []
    await asyncio.sleep(phase_s)
    periodic = supervisor.current().every(interval_s, lambda: ran.append(loop.time()), "round")
    await asyncio.sleep(0.5 - phase_s)
    pulses = await _pulses(loop, itertools.islice(itertools.cycle([0, 0.06, 0.01, 0.03, 0.0, 0.09, 0.02]), 60))
    ran = [at for at in ran if at > pulses[0] + interval_s]
    assert set(ran) <= set(pulses), "it woke the process for itself"
    gaps = [later - earlier for earlier, later in itertools.pairwise(ran)]
    assert all(gap == pytest.approx(interval_s, abs=0.1) for gap in gaps)
    assert len(ran) >= (30 - interval_s) / interval_s - 2
    periodic.cancel()


async def test_without_pulses_work_has_its_own_time_again(loop: VirtualTimeLoop) -> None:
    ran: list[float] = []
    periodic = supervisor.current().every(1.0, lambda: ran.append(loop.time() - START_S), "round")
    await _pulses(loop, [0.3] * 3)
    await asyncio.sleep(4)
    waited = 1.8 + LATE_S, 2.8 + 2 * LATE_S
    assert ran == pytest.approx([0.8, *waited, waited[-1] + 1, waited[-1] + 2]), "it waited for pulses no more"
    periodic.cancel()


async def test_pulses_do_not_hurry_frequent_work_nor_anything_when_there_are_many(loop: VirtualTimeLoop) -> None:
    frequent, rare, cancelled = 0, 0, 0

    def count_frequent() -> None:
        nonlocal frequent
        frequent += 1

    def count_rare() -> None:
        nonlocal rare
        rare += 1
        last.cancel()

    def count_cancelled() -> None:
        nonlocal cancelled
        cancelled += 1

    every = supervisor.current().every
    started = [every(0.25, count_frequent, "frequent"), every(0.5, count_rare, "rare")]
    last = every(60.0, count_cancelled, "cancelled by the other")
    for _ in range(100):
        supervisor.current().pulse()
        await asyncio.sleep(0.1)
    assert 39 <= frequent <= 40
    assert 20 <= rare <= 25
    assert cancelled == 0
    for each in started:
        each.cancel()


async def test_a_pulse_runs_one_work_in_a_turn_of_the_loop_so_that_frames_do_not_wait_for_all(
    loop: VirtualTimeLoop,
) -> None:
    counting: list[Turns] = []
    every = supervisor.current().every
    started = [every(1.0, lambda: counting[0].note(), f"work {number}") for number in range(7)]
    await asyncio.sleep(0.7)
    with counted_turns() as turns:
        counting.append(turns)
        supervisor.current().pulse()
        for _ in range(10):
            await asyncio.sleep(0)
    assert (turns.total, turns.most) == (7, 1)
    for each in started:
        each.cancel()


async def test_kept_work_begins_again_with_longer_pauses(loop: VirtualTimeLoop) -> None:
    began: list[float] = []

    async def work() -> None:
        began.append(loop.time())
        no()

    task = supervisor.current().keep(work, "listener")
    await asyncio.sleep(120)
    gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert all(gap <= supervisor.LAST_RESTART_S for gap in gaps)
    assert gaps[0] < 0.2
    assert gaps[-1] > 5
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert supervisor.current().failures["listener"] == len(began)


@pytest.mark.parametrize("raises", [False, True])
async def test_kept_work_ends_when_it_is_told_to_whatever_it_does_at_its_end(raises: bool) -> None:
    began = 0

    async def work() -> None:
        nonlocal began
        began += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if raises:
                no()

    task = supervisor.current().keep(work, "listener")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(60)
    assert task.cancelled()
    assert began == 1
    assert supervisor.current().failures["listener"] == raises


async def test_kept_work_ends_when_it_is_told_to_and_not_before(loop: VirtualTimeLoop) -> None:
    began = 0

    async def work() -> None:
        nonlocal began
        began += 1
        cancelled: asyncio.Future[None] = loop.create_future()
        if began == 1:
            cancelled.cancel()
        await cancelled

    task = supervisor.current().keep(work, "listener")
    await asyncio.sleep(10)
    assert began == 2
    task.cancel()
    await asyncio.sleep(10)
    assert task.cancelled()
    assert began == 2


async def test_an_alarm_whose_work_fails_before_it_sets_the_next_one_rings_again(loop: VirtualTimeLoop) -> None:
    rang: list[float] = []

    def work() -> None:
        rang.append(loop.time() - START_S)
        if len(rang) < 3:
            no()
        alarm.set(loop.time() + 5)

    alarm = Alarm(work, "alarm")
    alarm.set(loop.time() + 100)
    alarm.set(loop.time() + 1)
    await asyncio.sleep(10)
    assert rang == pytest.approx([1, 1 + ALARM_AGAIN_S, 1 + 2 * ALARM_AGAIN_S, 6 + 2 * ALARM_AGAIN_S])
    alarm.set(None)
    await asyncio.sleep(100)
    assert len(rang) == 4


async def test_an_alarm_rings_at_the_time_that_was_set_last_later_or_earlier(loop: VirtualTimeLoop) -> None:
    rang: list[float] = []
    alarm = Alarm(lambda: rang.append(loop.time() - START_S), "alarm")
    alarm.set(loop.time() + 2)
    for put_off in range(3, 8):
        alarm.set(loop.time() + put_off)
    await asyncio.sleep(6.5)
    assert rang == []
    await asyncio.sleep(3.5)
    assert rang == pytest.approx([7])
    alarm.set(loop.time() + 2)
    alarm.set(loop.time() + 9)
    alarm.set(loop.time() + 1)
    await asyncio.sleep(20)
    assert rang == pytest.approx([7, 11])
    alarm.set(loop.time() + 1)
    alarm.set(loop.time() + 5)
    alarm.set(None)
    await asyncio.sleep(20)
    assert len(rang) == 2


async def test_an_alarm_that_is_to_ring_soon_rings_once_and_at_its_time_too(loop: VirtualTimeLoop) -> None:
    rang: list[float] = []
    alarm = Alarm(lambda: rang.append(loop.time() - START_S), "alarm")
    alarm.set(loop.time() + 3)
    for _ in range(3):
        alarm.soon()
    assert rang == []
    await asyncio.sleep(1)
    assert rang == pytest.approx([0])
    await asyncio.sleep(5)
    assert rang == pytest.approx([0, 3])
    alarm.soon()
    alarm.cancel()
    await asyncio.sleep(1)
    assert len(rang) == 2
    alarm.soon()
    await asyncio.sleep(1)
    assert len(rang) == 3


async def test_an_alarm_whose_work_fails_soon_does_not_wait_for_a_late_time(loop: VirtualTimeLoop) -> None:
    rang: list[float] = []

    def work() -> None:
        rang.append(loop.time() - START_S)
        if len(rang) == 1:
            no()

    alarm = Alarm(work, "alarm")
    alarm.set(loop.time() + 100)
    alarm.soon()
    await asyncio.sleep(50)
    assert rang == pytest.approx([0, ALARM_AGAIN_S])


async def test_a_failure_is_logged_once_a_minute_with_the_count_of_the_others(loop: VirtualTimeLoop) -> None:
    with structlog.testing.capture_logs() as said:
        periodic = supervisor.current().every(1.0, no, "tick")
        await asyncio.sleep(LOG_EVERY_S + 5)
    assert [line["not_logged_before"] for line in said] == [None, LOG_EVERY_S - 1]
    assert {line["task"] for line in said} == {"tick"}
    periodic.cancel()
