"""Whether a process grows: a robust slope with its error, of samples that are noisy. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

from watchout.ctl.rehearse.objectives import Verdict

#: The warm-up is left out of a slope: this share of the time, and these seconds at most.
WARM_UP: Final = 1 / 3
MAX_WARM_UP_S: Final = 1800.0
#: A slope is of the medians of steps of this length, longer ones when there are more than `MAX_STEPS`.
STEP_S: Final = 60.0
MAX_STEPS: Final = 240
#: Fewer medians have no slope.
LEAST_STEPS: Final = 10
#: Normal quantile of an error that holds in 19 of 20 cases.
_QUANTILE: Final = 1.96
#: Largest likeness of neighbours that is reckoned with; of a curve without noise it is near 1.
_MOST_LIKE: Final = 0.95

Points = Sequence[tuple[float, float]]


class Slope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Growth an hour; in 19 of 20 cases the true one is no further away than `error`."""

    per_hour: float
    error: float


class Growth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How one quantity of one process grew over a soak.

    Attributes:
        process: Its name, with `pid`.
        quantity: What was sampled, in `unit`.
        first: The first sample after the warm-up, `last`: the last.
        slope: None: there were too few samples.
        limit: The most it may grow in an hour.
        verdict: Whether it does.
        samples: Seconds of the rehearsal, and values.
    """

    process: str
    pid: int
    quantity: str
    unit: str
    first: float
    last: float
    slope: Slope | None
    limit: float
    verdict: Verdict
    samples: list[tuple[float, float]]


def growth_of(*, process: str, pid: int, quantity: str, unit: str, limit: float, samples: Points) -> Growth:
    """Return how a quantity grew, from its samples: one or more, in order of time. The arguments are as in `Growth`."""
    settled = after_warm_up(samples)
    slope = slope_of(medians(settled))
    return Growth(
        process=process, pid=pid, quantity=quantity, unit=unit, first=settled[0][1], last=settled[-1][1], slope=slope,
        limit=limit, verdict=judged(slope, limit), samples=list(samples),
    )  # fmt: skip


def judged(slope: Slope | None, limit: float) -> Verdict:
    """Return whether a slope is within a limit: it surely is not, it cannot be told, or it is measured.

    What grows by more than the limit even with the error taken off has failed, however large the error. Otherwise an
    error beyond the limit decides nothing.
    """
    if slope is None:
        return Verdict.UNDECIDED
    if slope.per_hour - slope.error > limit:
        return Verdict.FAILED
    if slope.error > limit:
        return Verdict.UNDECIDED
    return Verdict.PASSED if slope.per_hour <= limit else Verdict.FAILED


def verdict_of_all(found: Sequence[Growth]) -> Verdict:
    """Return FAILED when anything grows, else UNDECIDED when of anything it cannot be told, or nothing was sampled."""
    verdicts = {each.verdict for each in found} or {Verdict.UNDECIDED}
    return next(each for each in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED) if each in verdicts)


def after_warm_up(samples: Points) -> Points:
    """Return the samples, in order of time, without those of the warm-up; the last one stays in any case."""
    begin, end = samples[0][0], samples[-1][0]
    begin += min(WARM_UP * (end - begin), MAX_WARM_UP_S)
    return [each for each in samples if each[0] >= begin]


def medians(samples: Points) -> list[tuple[float, float]]:
    """Return one point for each step of time in which there are samples: the medians of their times and values."""
    if not samples:
        return []
    begin, span = samples[0][0], samples[-1][0] - samples[0][0]
    step_s = max(STEP_S, span / MAX_STEPS)
    return [
        (statistics.median(at for at, _ in group), statistics.median(value for _, value in group))
        for _, step in itertools.groupby(samples, key=lambda each: int((each[0] - begin) / step_s))
        for group in [list(step)]
    ]


def slope_of(points: Points) -> Slope | None:
    """Return the slope by Theil and Sen: the median of the slopes between any two points; None: fewer than enough.

    The error is Sen's, from the slopes that are as far from the median as chance may move it. As a process whose
    memory rises and falls slowly is above its line for many points in a row, they count for fewer the more alike
    neighbours are.
    """
    if len(points) < LEAST_STEPS:
        return None
    slopes = sorted((y2 - y1) / (x2 - x1) * 3600 for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1)
    slope = statistics.median(slopes)
    rests = [y - slope * x / 3600 for x, y in points]
    count, alike = len(points), _likeness(rests)
    away = _QUANTILE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18 * (1 + alike) / (1 - alike))
    low = max(0, math.floor((len(slopes) - away) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + away) / 2))
    return Slope(per_hour=round(slope, 3), error=round(max(slopes[high] - slope, slope - slopes[low]), 3))


def _likeness(rests: Sequence[float]) -> float:
    """Return the correlation of neighbours, 0 to `_MOST_LIKE`."""
    mean = statistics.fmean(rests)
    spread = sum((each - mean) ** 2 for each in rests)
    if not spread:
        return 0.0
    together = sum((one - mean) * (other - mean) for one, other in itertools.pairwise(rests))
    return min(_MOST_LIKE, max(0.0, together / spread))
