"""A router's clock that is apart from the one here: measured by what it says, applied both ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.router_clock import SAME_MS, SAMPLES, RouterClock

NOW = 1_800_000_000_000


def test_a_router_that_says_nothing_has_the_same_clock() -> None:
    clock = RouterClock()
    clock.observe(None, NOW)
    assert (clock.offset_ms, clock.to_router(NOW), clock.to_local(NOW)) == (0, NOW, NOW)


def test_clocks_that_are_hardly_apart_count_as_the_same_in_both_directions() -> None:
    for apart in (-SAME_MS + 1, -3, 0, 3, SAME_MS - 1):
        clock = RouterClock()
        clock.observe(NOW + apart, NOW)
        assert clock.offset_ms == 0
    for apart in (-SAME_MS, SAME_MS):
        clock = RouterClock()
        clock.observe(NOW + apart, NOW)
        assert clock.offset_ms == apart


@given(
    st.integers(-3_600_000, 3_600_000),
    st.lists(st.integers(0, 30_000), min_size=1, max_size=SAMPLES),
    st.integers(0, NOW),
)
def test_the_message_with_the_shortest_way_holds(apart: int, ways: list[int], moment: int) -> None:
    clock = RouterClock()
    for number, way in enumerate(ways):
        here = NOW + number * 500
        clock.observe(here - way + apart, here)
    error = apart - clock.offset_ms
    assert 0 <= error <= min(ways) or abs(error) < SAME_MS + min(ways)
    there = clock.to_router(moment)
    if moment + clock.offset_ms >= 0:
        assert clock.to_local(there) == moment


def test_old_measurements_and_those_of_a_former_router_are_forgotten() -> None:
    clock = RouterClock()
    clock.observe(NOW + 600_000, NOW)
    for _ in range(SAMPLES):
        clock.observe(NOW - 600_000, NOW)
    assert clock.offset_ms == -600_000
    clock.restart()
    assert clock.offset_ms == 0
    clock.observe(NOW + 1_000, NOW)
    assert clock.offset_ms == 1_000


def test_no_time_is_before_the_epoch() -> None:
    clock = RouterClock()
    clock.observe(NOW - 600_000, NOW)
    assert clock.to_router(5) == 0
