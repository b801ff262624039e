"""Histograms of durations: what is read from them, and that they can be added in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.latency.histogram import BUCKETS, FIRST_MS, Histogram, bucket_of, edge_ms

DURATIONS = st.floats(-10, 1e7, allow_nan=False)
LISTS = st.lists(DURATIONS, max_size=30)


def of(durations: Sequence[float]) -> Histogram:
    made = Histogram()
    for each in durations:
        made.add(each)
    return made


def sum_of(*parts: Histogram) -> Histogram:
    made = Histogram()
    for part in parts:
        made.merge(part)
    return made


@given(LISTS, LISTS, LISTS)
def test_histograms_are_added_in_any_order(a: list[float], b: list[float], c: list[float]) -> None:
    one, two, three = of(a), of(b), of(c)
    assert sum_of(sum_of(one, two), three) == sum_of(one, sum_of(two, three)) == sum_of(three, two, one)
    assert sum_of(one, two, three) == of([*a, *b, *c])


@given(st.lists(st.floats(0.3, 1e5), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_half_a_bucket(durations: list[float], share: float) -> None:
    rank = max(1, math.ceil(share * len(durations)))
    right = sorted(durations)[rank - 1]
    found = of(durations).quantile_ms(share)
    assert found is not None
    assert right / 1.03 <= found <= right * 1.03


@given(LISTS)
def test_a_histogram_crosses_the_bus_as_it_is(durations: list[float]) -> None:
    made = of(durations)
    again = Histogram.of_pairs(made.pairs(), sum_ms=made.sum_ms, negative=made.negative)
    assert again == made
    assert again.count == made.count == len(durations)
    assert len(made.buckets) <= BUCKETS


@given(LISTS)
def test_counts_up_to_an_edge_never_fall_and_end_with_all(durations: list[float]) -> None:
    counts = of(durations).below(range(BUCKETS))
    assert counts == sorted(counts)
    assert not durations or counts[-1] == len(durations)


def test_every_duration_has_a_bucket_that_holds_it() -> None:
    assert bucket_of(-5.0) == bucket_of(0.0) == 0
    assert bucket_of(1e30) == BUCKETS - 1
    for bucket in range(1, BUCKETS - 1):
        assert bucket_of(edge_ms(bucket) * 0.999) == bucket
    assert edge_ms(0) == FIRST_MS
    assert edge_ms(BUCKETS - 1) == math.inf


def test_a_bucket_of_a_later_release_is_left_out_and_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram.of_pairs([3, 2, BUCKETS + 9, 7], sum_ms=1.0, negative=0).buckets == {3: 2}
    assert Histogram().quantile_ms(0.5) is None
    assert Histogram().mean_ms is None


def test_what_was_negative_is_told_and_counts_as_the_shortest() -> None:
    made = of([-3.0, 4.0])
    assert (made.negative, made.sum_ms, made.count) == (1, 4.0, 2)
    assert made.quantile_ms(0.5) == pytest.approx(FIRST_MS / 2)
