"""Rates: what a sampler lets through, what a meter shows, what a bucket allows, over histories without a clock."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchout.common.media.rate import RateMeter, Sampler, TokenBucket

RATES = st.floats(0.1, 1000)


def passed(sampler: Sampler, times: list[float]) -> list[float]:
    return [now for now in times if sampler.take(now)]


def steady(rate: float, seconds: float, start: float = 100.0) -> list[float]:
    return [start + i / rate for i in range(int(rate * seconds))]


def most_in_any_window(times: list[float], rate: float) -> float:
    """By how much the count in the worst window is over ``rate × window``."""
    worst = 0.0
    lowest = float("inf")
    for count, now in enumerate(times, 1):
        lowest = min(lowest, count - 1 - rate * now)
        worst = max(worst, count - rate * now - lowest)
    return worst


# ── Sampler ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_rate_every_frame_goes_on() -> None:
    sampler = Sampler(None)
    assert all(sampler.take(1.0) for _ in range(100))


def test_the_first_frame_goes_on_and_the_next_waits_its_turn() -> None:
    sampler = Sampler(10.0)
    assert sampler.take(5.0)
    assert not sampler.take(5.0)
    assert not sampler.take(5.074)
    assert sampler.take(5.076)


@pytest.mark.parametrize(
    ("source", "rate"), [(30.0, 10.0), (30.0, 7.0), (30.0, 29.0), (150.0, 12.5), (10.0, 3.3), (5.0, 0.5)]
)
def test_of_a_faster_source_the_very_rate_goes_on(source: float, rate: float) -> None:
    assert len(passed(Sampler(rate), steady(source, 60))) == pytest.approx(rate * 60, rel=0.02, abs=2)


@pytest.mark.parametrize("rate", [1.0, 5.0, 30.0])
def test_of_a_slower_source_all_goes_on(rate: float) -> None:
    times = steady(rate * 0.9, 60)
    assert passed(Sampler(rate), times) == times


@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.1, 0.2, 0.3, 0.45])
@pytest.mark.parametrize("rate", [2.0, 10.0, 30.0])
def test_a_source_with_jitter_at_the_very_rate_is_not_halved(rate: float, jitter: float) -> None:
    chance = random.Random(f"{rate} {jitter}")
    times = sorted(now + chance.uniform(-jitter, jitter) / rate for now in steady(rate, 120))
    assert len(passed(Sampler(rate), times)) >= 0.9 * len(times)


@pytest.mark.parametrize("jitter", [0.1, 0.25])
def test_a_source_whose_gaps_vary_at_the_very_rate_is_not_halved(jitter: float) -> None:
    chance = random.Random(7)
    times = list(itertools.accumulate((1 / 30) * (1 + chance.uniform(-jitter, jitter)) for _ in range(5000)))
    assert len(passed(Sampler(30.0), times)) >= 0.9 * len(times)


def test_frames_go_on_evenly() -> None:
    times = passed(Sampler(10.0), steady(100.0, 10))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) > 0.07
    assert max(gaps) < 0.13


@settings(max_examples=200)
@given(RATES, st.lists(st.floats(0, 3), max_size=60))
@example(1.0, [0.0, 1.99, 0.01, 0.75])
def test_over_any_time_the_count_stays_within_the_rate_plus_two(rate: float, gaps: list[float]) -> None:
    """Gaps are in intervals of the rate, so that they are about as large as what they are judged by."""
    times = [1000.0 + gap / rate for gap in itertools.accumulate(gaps)]
    assert most_in_any_window(passed(Sampler(rate), times), rate) <= 2 + 1e-6


@settings(max_examples=100)
@given(RATES, st.lists(st.floats(0, 3), max_size=40))
def test_a_frame_goes_on_at_the_time_that_it_is_due_and_not_before(rate: float, gaps: list[float]) -> None:
    sampler = Sampler(rate)
    now = 1000.0
    for gap in gaps:
        now += gap / rate
        due = sampler.due_at()
        assert sampler.take(now) is (now >= due)


def test_after_a_pause_no_more_than_the_usual_goes_on() -> None:
    sampler = Sampler(10.0)
    assert sampler.take(1.0)
    assert [sampler.take(100.0 + i / 1000) for i in range(50)].count(True) == 1


def test_a_higher_rate_holds_from_the_next_frame_on() -> None:
    sampler = Sampler(1.0)
    assert sampler.take(10.0)
    sampler.set_rate(10.0)
    assert not sampler.take(10.05)
    assert sampler.take(10.1)


def test_a_lower_rate_counts_what_already_went_on() -> None:
    sampler = Sampler(10.0)
    assert sampler.take(10.0)
    sampler.set_rate(1.0)
    assert not sampler.take(10.7)
    assert sampler.take(11.0)


@settings(max_examples=200)
@given(RATES, st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_the_last_frame_of_any_burst_goes_on_within_an_interval_and_none_goes_over_the_rate(
    rate: float, gaps: list[float]
) -> None:
    sampler = Sampler(rate)
    gone_on: list[tuple[float, float]] = []  # when, and when it had come
    waits: float | None = None
    times = [1000.0 + gap / rate for gap in itertools.accumulate(gaps)]
    for now in [*times, times[-1] + 9 / rate]:
        if waits is not None and (at := sampler.release_at()) <= now:
            assert at <= waits + (1 + 1e-6) / rate
            assert sampler.take(at)
            gone_on.append((at, waits))
            waits = None
        if now > times[-1]:
            break
        if sampler.take(now):
            gone_on.append((now, now))
            waits = None
        else:
            sampler.hold(now)
            waits = now
    assert gone_on[-1][1] == times[-1]
    assert [came for _, came in gone_on] == sorted(came for _, came in gone_on)
    assert most_in_any_window([at for at, _ in gone_on], rate) <= 2 + 1e-6


@pytest.mark.parametrize(
    ("source", "rate", "jitter"),
    [
        (30.0, 29.0, 0.0), (12.0, 10.0, 0.0), (10.0, 10.0, 0.0), (30.0, 15.0, 0.2), (30.0, 10.0, 0.45),
        (10.0, 0.5, 0.45),
    ],
)  # fmt: skip
def test_a_steady_source_needs_none_of_the_frames_that_wait(source: float, rate: float, jitter: float) -> None:
    """Its next frame comes before the one that waits is released."""
    chance, sampler, held = random.Random(3), Sampler(rate), 0
    for now in sorted(now + chance.uniform(-jitter / 3, jitter / 3) / source for now in steady(source, 60)):
        assert not held or sampler.release_at() > now
        if held := not sampler.take(now):
            sampler.hold(now)


def test_what_was_selected_in_vain_is_given_back() -> None:
    sampler = Sampler(1.0)
    assert sampler.take(10.0)
    sampler.give_back()
    assert sampler.take(10.1)
    assert not sampler.take(10.2)


def test_to_no_rate_and_back() -> None:
    sampler = Sampler(10.0)
    assert sampler.take(10.0)
    sampler.set_rate(None)
    assert all(sampler.take(10.0) for _ in range(5))
    sampler.set_rate(10.0)
    assert not sampler.take(10.05)
    assert sampler.take(10.1)


@settings(max_examples=100)
@given(RATES, st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=60))
def test_telling_the_same_rate_again_changes_nothing(rate: float, steps: list[tuple[float, bool]]) -> None:
    told, left = Sampler(rate), Sampler(rate)
    now = 1000.0
    for gap, again in steps:
        now += gap / rate
        if again:
            told.set_rate(rate)
        assert told.take(now) is left.take(now)


# ── RateMeter ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rate", [1.0, 2.0, 5.0, 29.97, 30.0, 60.0, 150.0, 500.0])
def test_a_steady_rate_is_shown_as_it_is(rate: float) -> None:
    meter = RateMeter()
    for now in steady(rate, 20):
        meter.add(now)
        if now > 105:
            assert meter.rate(now) == pytest.approx(rate, rel=0.01)
            assert meter.rate(now + 0.9 / rate) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("rate", [10.0, 30.0])
def test_jitter_moves_the_rate_by_a_few_percent_at_most(rate: float) -> None:
    chance = random.Random(3)
    meter = RateMeter()
    for now in sorted(now + chance.uniform(-0.3, 0.3) / rate for now in steady(rate, 30)):
        meter.add(now)
        if now > 106:
            assert meter.rate(now) == pytest.approx(rate, rel=0.05)


def test_the_rate_falls_as_the_next_event_is_overdue() -> None:
    meter = RateMeter()
    for now in steady(10.0, 10):
        meter.add(now)
    last = 109.9
    shown = [meter.rate(last + after) for after in (0.1, 0.5, 1.0, 2.0, 4.0, 4.85)]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(10, rel=0.01)
    assert 0 < shown[-1] < 1
    assert meter.rate(last + 5.1) == 0.0


def test_the_rate_follows_a_change_within_the_window() -> None:
    meter = RateMeter()
    for now in [*steady(30.0, 10), *steady(3.0, 6, start=110.0)]:
        meter.add(now)
    assert meter.rate(115.7) == pytest.approx(3, rel=0.05)


def test_fewer_than_two_events_have_no_rate() -> None:
    meter = RateMeter()
    assert meter.rate(1.0) == 0.0
    meter.add(1.0)
    assert meter.rate(1.0) == 0.0


def test_events_of_one_moment_have_no_rate() -> None:
    meter = RateMeter()
    for _ in range(10):
        meter.add(1.0)
    assert meter.rate(1.0) == 0.0
    assert meter.total == 10


@settings(max_examples=150)
@given(st.lists(st.floats(0, 10), max_size=300), st.floats(0, 20))
def test_a_rate_is_never_negative_and_the_memory_is_bounded(gaps: list[float], after: float) -> None:
    meter = RateMeter()
    now = 0.0
    for gap in gaps:
        now += gap
        meter.add(now)
        assert meter.rate(now) >= 0
    assert meter.rate(now + after) >= 0
    assert meter.total == len(gaps)
    assert len(meter._marks) <= RateMeter.MARKS


# ── TokenBucket ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_begins_full() -> None:
    bucket = TokenBucket(1.0, 3.0, 10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]


def test_a_bucket_fills_with_time_up_to_its_burst() -> None:
    bucket = TokenBucket(2.0, 4.0, 10.0)
    assert bucket.take(10.0, 4.0)
    assert not bucket.take(10.4)
    assert bucket.take(10.5)
    assert bucket.take(1000.0, 4.0)
    assert not bucket.take(1000.0, 0.01)


def test_what_was_refused_is_not_taken() -> None:
    bucket = TokenBucket(1.0, 3.0, 10.0)
    assert not bucket.take(10.0, 3.5)
    assert bucket.take(10.0, 3.0)


def test_more_than_the_burst_is_never_allowed() -> None:
    assert not TokenBucket(1.0, 3.0, 0.0).take(1e9, 3.1)


@settings(max_examples=200)
@given(
    st.floats(0.1, 1000),
    st.floats(1, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 500)), max_size=60),
)
def test_over_any_time_no_more_than_rate_and_burst_is_allowed(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = total = 0.0
    worst = 0.0
    lowest = 0.0
    for gap, amount in steps:
        now += gap
        if bucket.take(now, amount):
            lowest = min(lowest, total - rate * now)
            total += amount
            worst = max(worst, total - rate * now - lowest)
    assert worst <= burst * (1 + 1e-6) + 1e-6


@settings(max_examples=100)
@given(st.floats(1, 100), st.floats(1, 100), st.lists(st.floats(0.01, 2), max_size=50))
def test_who_stays_below_the_rate_is_never_refused(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    for gap in gaps:
        now += gap
        assert bucket.take(now, min(burst, gap * rate) * (1 - 1e-9))


@settings(max_examples=100)
@given(st.lists(st.floats(-5, 5), max_size=40))
def test_a_clock_that_steps_back_gives_nothing(steps: list[float]) -> None:
    bucket = TokenBucket(10.0, 5.0, 100.0)
    now = latest = 100.0
    taken = 0
    for step in steps:
        now += step
        latest = max(latest, now)
        taken += bucket.take(now)
    assert taken <= 5 + 10 * (latest - 100.0) + 1e-6
