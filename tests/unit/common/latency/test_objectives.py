"""The burn of an error budget: the share that is late, over five minutes and over an hour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.latency.objectives import LONG_S, SHORT_S, STEP_S, Burn, BurnMeter


def test_one_late_of_a_hundred_uses_just_the_budget() -> None:
    assert Burn(100, 1).share == pytest.approx(1.0)
    assert Burn(1000, 200).share == pytest.approx(20.0)
    assert Burn(7, 0).share == 0.0
    assert Burn().share is None


def test_what_takes_exactly_as_long_as_the_objective_is_in_time() -> None:
    meter = BurnMeter(100.0)
    for ms in (99.0, 100.0, 100.1):
        meter.add(ms, 0.0)
    assert meter.over(SHORT_S, 0.0) == Burn(3, 1)


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 2 * LONG_S), st.integers(1, 5)), max_size=60))
def test_the_two_times_are_counted_as_by_a_list_of_everything(events: list[tuple[float, float, int]]) -> None:
    meter, events = BurnMeter(150.0), sorted(events, key=lambda event: event[1])
    now = events[-1][1] if events else 0.0
    for ms, at, times in events:
        meter.add(ms, at, times)
    for span_s in (SHORT_S, LONG_S):
        first = (now // STEP_S - span_s // STEP_S + 1) * STEP_S
        within = [(ms, times) for ms, at, times in events if at >= first]
        late = sum(times for ms, times in within if ms > 150.0)
        assert meter.over(span_s, now) == Burn(sum(times for _, times in within), late)


def test_an_hour_later_nothing_is_left_and_little_is_kept() -> None:
    meter = BurnMeter(1.0)
    for second in range(3 * LONG_S):
        meter.add(5.0, float(second))
    assert meter.over(LONG_S, 3.0 * LONG_S) == Burn(LONG_S - STEP_S, LONG_S - STEP_S)
    assert meter.over(LONG_S, 5.0 * LONG_S) == Burn()
