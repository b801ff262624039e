"""The result of a rehearsal as data: what the clients saw, what the system said, and the verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from watchout.common.latency.histogram import Histogram
from watchout.common.latency.rows import HopFigures
from watchout.ctl.rehearse.explained import Explanations
from watchout.ctl.rehearse.figures import Counts, Moment, RoleCounts, Series, joined_durations
from watchout.ctl.rehearse.memory import ProcessFigures, steepest
from watchout.ctl.rehearse.ml_service import MlCounts, MlProfile
from watchout.ctl.rehearse.objectives import Judged, Verdict
from watchout.ctl.rehearse.plan import Scenario, ViewerRole
from watchout.ctl.rehearse.soak_result import Soak

#: Share of a core from which on a process of clients is at its limit.
FULL_CORE: Final = 0.9


class Whole(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Durations of a whole way, as clients measured them, in ms; None: there were none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, found: Histogram) -> Whole:
        """Return what a histogram has."""
        return cls(count=found.count, p50_ms=_rounded(found.quantile_ms(0.5)), p99_ms=_rounded(found.quantile_ms(0.99)))


class OwnLoad(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the clients' own processes took.

    Attributes:
        processes: How many.
        lag_p99_ms: How late 99 of 100 of their timers were at most.
        most_cores: The share of a core of the busiest one.
        limit_ms: Bound of `lag_p99_ms`.
        replaced: Frames that had come to a steady viewer, but a newer one came before it was taken.
        says: Why the load itself was the limit; empty when it was not.
    """

    processes: int
    lag_p99_ms: float | None
    most_cores: float
    limit_ms: float
    replaced: int
    says: str


class Point(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One point of the plots; rates are per second."""

    at_s: int
    sent: float
    received: float
    missing: float
    bytes_per_s: float
    alerts: float
    glass_p99_ms: float | None
    alert_p99_ms: float | None
    lag_p99_ms: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that the report shows; its JSON is what ``--json`` writes.

    Attributes:
        verdict: The outcome.
        began_ms: When it began, in ms since the epoch.
        seconds: How long it lasted; `interrupted` when it was ended early.
        system: Whose system it was: its address, or that it was the rehearsal's own.
        ml: How its ML service behaved, `ml_counts` what it counted; None: it was not the rehearsal's.
        hops: What the system's ledger measured.
        ml_failures: Share of the bridges' requests that failed; None: there were none, or it is not known.
        notes: What is not known, and why.
        soak: What a soak found; None: it was none.
    """

    verdict: Verdict
    objectives: list[Judged]
    scenario: Scenario
    began_ms: int
    seconds: float
    interrupted: bool
    system: str
    seed: int
    counts: Counts
    glass: Whole
    alert: Whole
    own: OwnLoad
    ml: MlProfile | None = None
    ml_counts: MlCounts | None = None
    hops: list[HopFigures] = []
    processes: list[ProcessFigures] = []
    dropped: dict[str, int] = {}
    explained: Explanations | None = None
    ml_failures: float | None = None
    notes: list[str] = []
    points: list[Point] = []
    soak: Soak | None = None


def points_of(series: Series) -> list[Point]:
    """Return the points of the plots."""
    return [
        Point(
            at_s=each.at_s, sent=_per_s(each.sent, each), received=_per_s(each.received, each),
            missing=_per_s(each.missing, each), bytes_per_s=_per_s(each.received_bytes, each),
            alerts=_per_s(each.alerts, each), glass_p99_ms=_rounded(each.glass.histogram().quantile_ms(0.99)),
            alert_p99_ms=_rounded(each.alert.histogram().quantile_ms(0.99)),
            lag_p99_ms=_rounded(each.lag.histogram().quantile_ms(0.99)),
        )
        for each in series.points()
    ]  # fmt: skip


def _per_s(count: float, moment: Moment) -> float:
    return round(count / moment.seconds, 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def own_load(series: Series, cores: Sequence[float], counts: Counts, limit_ms: float) -> OwnLoad:
    """Return what the clients' own processes took, and whether that was the limit.

    Args:
        series: What they counted.
        cores: CPU seconds per second of each.
        counts: What they counted in all.
        limit_ms: Bound of the 99th percentile of their lag, in ms.
    """
    lag = joined_durations(each.lag for each in series.points()).quantile_ms(0.99)
    most = max(cores, default=0.0)
    reasons = []
    if lag is None:
        reasons.append("the clients' processes counted nothing")
    elif lag > limit_ms:
        reasons.append(f"the clients' processes were {lag:.0f} ms late (99th percentile), over {limit_ms:g} ms")
    if most > FULL_CORE:
        reasons.append(f"one of the clients' processes used {100 * most:.0f} % of a core")
    steady = counts.roles.get(ViewerRole.STEADY, RoleCounts())
    return OwnLoad(
        processes=len(cores), lag_p99_ms=_rounded(lag), most_cores=round(most, 3), limit_ms=limit_ms,
        replaced=steady.replaced, says="; ".join(reasons),
    )  # fmt: skip


def measured(
    counts: Counts,
    glass: Whole,
    alert: Whole,
    *,
    numbered: bool,
    explained: Explanations | None,
    ml_failures: float | None,
    processes: Sequence[ProcessFigures],
) -> dict[str, float | None]:
    """Return what was measured of each objective; None where nothing was.

    Args:
        counts: What clients counted.
        glass: Their glass to glass.
        alert: Their glass to alert.
        numbered: Whether alerts are numbered, so that lost ones are noticed.
        explained: How the memory of the gateways agrees; None: it was not asked.
        ml_failures: Share of requests that failed.
        processes: The processes of the system.
    """
    steady = counts.roles.get(ViewerRole.STEADY, RoleCounts())
    wanted = steady.received + steady.missing + steady.replaced
    alerts = counts.all_viewers()
    return {
        "alert-p99": alert.p99_ms,
        "glass-p99": glass.p99_ms,
        "sent": counts.sent / counts.due if counts.due else None,
        "delivered": (steady.received + steady.replaced) / wanted if wanted else None,
        "alerts-lost": float(alerts.alerts_lost) if numbered and alerts.alerts else None,
        "lost-connections": float(sum(counts.lost.values())),
        "unexplained": None if explained is None or explained.unexplained is None else float(explained.unexplained),
        "ml-failures": ml_failures,
        "memory-slope": steepest(processes),
    }
