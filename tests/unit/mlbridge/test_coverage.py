"""StreamCoverage and latency, against a plain count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.mlbridge.coverage import MAX_LATENCIES, WINDOW_S, CoverageSummary, Latencies, StreamCoverage


def covered(looks: list[float], seen: list[float], now: float) -> float:
    coverage = StreamCoverage(seen[0])
    for at, looked in sorted([(at, False) for at in seen] + [(at, True) for at in looks]):
        (coverage.on_result if looked else coverage.on_frame)(at)
    return coverage.share(now)


def test_a_stream_that_is_looked_at_every_second_is_covered_whole() -> None:
    seconds = [100.5 + n for n in range(200)]
    assert covered(seconds, seconds, 300.4) == 1.0


def test_a_stream_that_is_looked_at_every_other_second_is_covered_half() -> None:
    seconds = [100.5 + n for n in range(200)]
    assert covered(seconds[::2], seconds, 300.4) == 0.5


def test_many_looks_in_one_second_count_as_one() -> None:
    seconds = [100.0 + n / 10 for n in range(100)]
    assert covered(seconds[:30], seconds, 110.0) == 0.3


def test_a_stream_that_is_never_looked_at_is_not_covered_however_long() -> None:
    assert covered([], [0.0, 1e6], 1e6 + 1) == 0.0


def test_a_young_stream_is_measured_over_its_life() -> None:
    assert covered([5.2], [5.1], 5.3) == 1.0
    assert covered([], [5.1], 5.3) == 0.0
    assert covered([5.2, 7.0], [5.1, 6.0, 7.0, 8.0], 9.1) == 0.5


def test_after_its_last_frame_a_stream_loses_nothing() -> None:
    seconds = [float(n) for n in range(30)]
    assert covered(seconds, seconds, 60.0) == 1.0


def test_what_is_older_than_the_window_counts_no_more() -> None:
    seconds = [float(n) for n in range(100)]
    assert covered(seconds[:70], seconds, 100.0) == 30 / WINDOW_S


@given(
    looks=st.lists(st.floats(0, 200), max_size=60),
    seen=st.lists(st.floats(0, 200), min_size=1, max_size=60),
    later=st.floats(0, 100),
)
def test_it_is_what_a_plain_count_says(looks: list[float], seen: list[float], later: float) -> None:
    first = min(seen)
    looks = [at for at in looks if at >= first]
    newest = max(seen + looks)
    now = newest + later
    to = max(math.floor(first), min(math.floor(newest), math.floor(now) - 1))
    seconds = range(max(math.floor(first), to - WINDOW_S + 1), to + 1)
    expected = len({math.floor(at) for at in looks} & set(seconds)) / len(seconds)
    assert covered(looks, sorted(seen), now) == pytest.approx(expected)


def test_all_streams_are_told_as_mean_least_and_the_worst_first() -> None:
    told = CoverageSummary.of([("a", 1.0), ("b", 0.25), ("c", 0.5), ("d", 0.25)], 2)
    assert (told.streams, told.mean, told.least) == (4, 0.5, 0.25)
    assert told.worst == [("b", 0.25), ("d", 0.25)]


def test_without_streams_nothing_is_missed() -> None:
    assert CoverageSummary.of([], 10) == CoverageSummary(0, 1.0, 1.0, [])


def test_quantiles_are_those_of_the_last_minute() -> None:
    latencies = Latencies()
    assert latencies.quantiles(0.0, 0.5, 0.99) == [0.0, 0.0]
    latencies.add(99.0, 0.0)
    for number in range(1, 101):
        latencies.add(number / 100, 30.0)
    assert latencies.quantiles(61.0, 0.5, 0.99, 1.0) == [0.5, 0.99, 1.0]
    assert latencies.quantiles(91.0, 0.5) == [0.0]


def test_latencies_are_bounded() -> None:
    latencies = Latencies()
    for number in range(3 * MAX_LATENCIES):
        latencies.add(float(number), 0.0)
    assert latencies.quantiles(0.0, 0.001) == [2.0 * MAX_LATENCIES]
