"""What a camera is told is worth sending, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.hub.demand import FALL_DELAY_S, MIN_INTERVAL_S, Demand, Wanted, combine

NOTHING = Wanted(0, 0.0)


@pytest.mark.parametrize(
    ("rates", "fps"),
    [
        ([], 0.0),
        ([None], 30.0),
        ([2.0], 2.0),
        ([2.0, 5.0], 5.0),
        ([2.0, None], 30.0),
        ([60.0, None], 60.0),
        ([0.5], 0.5),
    ],
)
def test_what_is_wanted_is_the_highest_rate_of_those_who_want_any(rates: list[float | None], fps: float) -> None:
    assert combine(3, rates, 30.0) == Wanted(3, fps)


def test_a_camera_is_told_at_once_that_nobody_watches_and_that_somebody_does() -> None:
    demand = Demand()
    assert demand.take(NOTHING, 0.0)
    assert not demand.take(NOTHING, 5.0)
    assert demand.take(Wanted(1, 30.0), 5.0)
    assert demand.is_current(Wanted(1, 30.0))


def test_a_demand_that_falls_for_a_moment_is_not_told() -> None:
    demand = Demand()
    demand.take(Wanted(1, 30.0), 0.0)
    assert not demand.take(NOTHING, 10.0)
    assert not demand.take(Wanted(1, 30.0), 10.5)
    assert not demand.take(NOTHING, 20.0)
    assert not demand.take(NOTHING, 20.0 + FALL_DELAY_S - 0.01)
    assert demand.take(NOTHING, 20.0 + FALL_DELAY_S)


def test_who_comes_right_after_the_last_one_left_does_not_wait() -> None:
    demand = Demand()
    demand.take(Wanted(1, 30.0), 0.0)
    demand.take(NOTHING, 10.0)
    left_at = 10.0 + FALL_DELAY_S
    assert demand.take(NOTHING, left_at)
    assert demand.take(Wanted(1, 30.0), left_at + 0.001)


def test_viewers_that_come_and_go_are_told_twice_a_second_at_most() -> None:
    demand = Demand()
    told = [n for n in range(1000) if demand.take(Wanted(1, 30.0) if n % 2 else NOTHING, n * 0.01)]
    assert len(told) <= 1 + 10 * 2 / FALL_DELAY_S


def test_fewer_viewers_at_a_higher_rate_are_a_demand_that_rises() -> None:
    demand = Demand()
    demand.take(Wanted(5, 2.0), 0.0)
    assert demand.take(Wanted(1, 30.0), 1.0)


def test_viewers_that_come_one_by_one_are_told_now_and_then() -> None:
    demand = Demand()
    told = [n for n in range(1, 101) if demand.take(Wanted(n, 30.0), n * MIN_INTERVAL_S / 10)]
    assert told[0] == 1
    assert len(told) <= 11


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 2.0, 30.0]), st.floats(0, 2)), max_size=40))
def test_in_the_end_the_camera_knows(steps: list[tuple[int, float, float]]) -> None:
    demand, now, told_at = Demand(), 0.0, float("-inf")
    now_is = told_was = NOTHING
    for viewers, fps, gap in steps:
        now += gap
        now_is = Wanted(viewers, fps)
        if demand.take(now_is, now):
            first = told_was.fps == 0 < now_is.fps
            assert now - told_at >= MIN_INTERVAL_S or told_at == float("-inf") or first
            told_at, told_was = now, now_is
            assert demand.is_current(now_is)
    demand.take(now_is, now)
    demand.take(now_is, now + MIN_INTERVAL_S)
    demand.take(now_is, now + MIN_INTERVAL_S + FALL_DELAY_S)
    assert demand.is_current(now_is)
