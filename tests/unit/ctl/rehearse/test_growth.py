"""Whether a process grows: a leak is found in noise, and none is found in what only goes up and down."""

from __future__ import annotations

import math
import random

import pytest

from watchout.ctl.rehearse.growth import (
    LEAST_STEPS,
    MAX_STEPS,
    Growth,
    Slope,
    after_warm_up,
    growth_of,
    judged,
    medians,
    slope_of,
    verdict_of_all,
)
from watchout.ctl.rehearse.objectives import Verdict

HOURS_S = 2 * 3600
#: What the memory of a process goes up and down by, in MB.
NOISE_MB = 3.0
SEEDS = range(12)


def sampled(
    seed: int, *, per_hour: float = 0.0, sawtooth_s: int = 0, seconds: int = HOURS_S
) -> list[tuple[float, float]]:
    """Samples of a process that takes 20 MB in its first minutes, and then has `NOISE_MB` of noise over what it leaks.

    A sawtooth has the same noise, rises by as much in `sawtooth_s`, and falls again.
    """
    chance = random.Random(seed)
    return [
        (
            float(at),
            80 - 20 * max(0.0, 1 - at / 300) + per_hour * at / 3600 + chance.uniform(-NOISE_MB, NOISE_MB) / 2
            + (NOISE_MB * (at % sawtooth_s) / sawtooth_s if sawtooth_s else 0.0),
        )
        for at in range(0, seconds, 10)
    ]  # fmt: skip


def grown(samples: list[tuple[float, float]]) -> Growth:
    return growth_of(process="router", pid=1, quantity="memory", unit="MB", limit=1.0, samples=samples)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leak_is_found_in_noise(seed: int) -> None:
    found = grown(sampled(seed, per_hour=2.0))
    assert found.slope is not None
    assert found.verdict is Verdict.FAILED
    assert found.slope.per_hour == pytest.approx(2.0, abs=max(found.slope.error, 0.4))
    assert found.slope.error < 1.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sawtooth_s", [0, 50, 170, 600])
def test_what_goes_up_and_down_does_not_grow(seed: int, sawtooth_s: int) -> None:
    found = grown(sampled(seed, sawtooth_s=sawtooth_s))
    assert found.slope is not None
    assert found.verdict is Verdict.PASSED
    assert abs(found.slope.per_hour) <= max(found.slope.error, 0.4)


def wandering(seed: int) -> list[tuple[float, float]]:
    """Samples of a process whose memory wanders slowly around 80 MB: each minute is much like the one before."""
    chance, alike, away, found = random.Random(seed), 0.95, 0.0, []
    for at in range(0, HOURS_S, 10):
        if at % 60 == 0:
            away = alike * away + chance.gauss(0, 2 * math.sqrt(1 - alike**2))
        found.append((float(at), 80 + away + chance.uniform(-0.2, 0.2)))
    return found


def test_memory_that_wanders_slowly_is_not_taken_for_a_leak() -> None:
    """With the error of independent noise, more than one in five of these would be."""
    verdicts = [grown(wandering(seed)).verdict for seed in range(40)]
    assert verdicts.count(Verdict.FAILED) <= 2
    assert verdicts.count(Verdict.UNDECIDED) >= 30


def test_a_leak_of_one_descriptor_in_twenty_minutes_is_found_and_a_spike_is_none() -> None:
    steps = [(float(at), 40.0 + at // 1200) for at in range(0, HOURS_S, 10)]
    spike = [(float(at), 400.0 if 3000 <= at < 3400 else 40.0) for at in range(0, HOURS_S, 10)]
    assert grown(steps).verdict is Verdict.FAILED
    assert grown(spike).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("per_hour", "error", "verdict"),
    [
        (1.0, 1.0, Verdict.PASSED),
        (-9.0, 0.1, Verdict.PASSED),
        (1.1, 0.5, Verdict.FAILED),
        (0.0, 1.1, Verdict.UNDECIDED),
        (50.0, 60.0, Verdict.UNDECIDED),
        (50.0, 5.0, Verdict.FAILED),
    ],
)  # fmt: skip
def test_an_error_beyond_the_limit_decides_nothing_unless_it_grows_all_the_same(
    per_hour: float, error: float, verdict: Verdict
) -> None:
    assert judged(Slope(per_hour=per_hour, error=error), 1.0) is verdict


def test_too_few_samples_decide_nothing() -> None:
    assert slope_of([(60.0 * at, 1.0) for at in range(LEAST_STEPS - 1)]) is None
    assert slope_of([(60.0 * at, 1.0) for at in range(LEAST_STEPS)]) == Slope(per_hour=0.0, error=0.0)
    assert grown([(0.0, 5.0)]).verdict is Verdict.UNDECIDED
    assert grown(sampled(1, seconds=120)).verdict is Verdict.UNDECIDED


def test_the_warm_up_is_a_third_and_half_an_hour_at_most() -> None:
    assert after_warm_up([(0.0, 1.0), (29.0, 1.0), (30.0, 2.0), (90.0, 3.0)]) == [(30.0, 2.0), (90.0, 3.0)]
    long = [(float(at), 0.0) for at in range(0, 8 * 3600, 60)]
    assert after_warm_up(long)[0][0] == 1800.0


def test_medians_are_of_a_minute_and_of_more_in_a_long_soak() -> None:
    assert medians([(0.0, 1.0), (10.0, 9.0), (20.0, 2.0), (60.0, 4.0)]) == [(10.0, 2.0), (60.0, 4.0)]
    assert len(medians([(float(at), 0.0) for at in range(0, 24 * 3600, 10)])) <= MAX_STEPS + 1
    assert medians([]) == []


def test_one_that_grows_fails_all_and_nothing_sampled_decides_nothing() -> None:
    fine, leaks, short = grown(sampled(1)), grown(sampled(1, per_hour=9)), grown(sampled(1, seconds=60))
    assert verdict_of_all([fine]) is Verdict.PASSED
    assert verdict_of_all([fine, short]) is Verdict.UNDECIDED
    assert verdict_of_all([fine, short, leaks]) is Verdict.FAILED
    assert verdict_of_all([]) is Verdict.UNDECIDED
