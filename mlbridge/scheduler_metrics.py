"""Writes the state of the scheduler into the metrics of the bridge."""

from __future__ import annotations

from typing import Any

from watchout.common import metric_names
from watchout.common.metrics import Metrics
from watchout.mlbridge.coverage import CoverageSummary
from watchout.mlbridge.scheduler import Scheduler


def write_metrics(
    metrics: Metrics,
    scheduler: Scheduler[Any],
    summary: CoverageSummary,
    *,
    latency_s: tuple[float, float],
    backed_off: int,
) -> None:
    """Set all metrics that are read from the scheduler.

    Args:
        metrics: where they are set.
        scheduler: the scheduler.
        summary: coverage of all streams.
        latency_s: median and 99th percentile of the latency, in seconds.
        backed_off: number of streams that are backed off.
    """
    counts, endpoints = scheduler.counts, scheduler.endpoints
    first = endpoints.each[0]
    serving = endpoints.each[endpoints.in_use]
    p50, p99 = latency_s
    for name, value in (
        (metric_names.ML_FRAMES_REPLACED, counts.replaced),
        (metric_names.ML_FRAMES_TOO_OLD, counts.too_old),
        (metric_names.ML_FRAMES_AWAY, counts.away),
        (metric_names.ML_FRAMES_OVER_BYTES, counts.over_bytes),
        (metric_names.ML_FRAMES_BACKED_OFF, counts.backed_off),
        (metric_names.ML_REFUSALS, counts.refused),
        (metric_names.ML_STREAMS_REFUSED, backed_off),
        (metric_names.ML_IN_FLIGHT_BYTES, scheduler.in_flight_bytes),
        (metric_names.ML_FRAMES_FORGOTTEN, counts.forgotten),
        (metric_names.ML_FRAMES_DEPENDENT, counts.dependent),
        (metric_names.ML_FRAMES_WAITING, scheduler.waiting),
        (metric_names.ML_RESULTS_LATE, counts.late),
        (metric_names.ML_PROBE_COPIES, counts.copies),
        (metric_names.ML_IN_FLIGHT, scheduler.in_flight),
        (metric_names.ML_IN_FLIGHT_LIMIT, serving.limiter.limit),
        (metric_names.ML_LATENCY_P50_SECONDS, round(p50, 6)),
        (metric_names.ML_LATENCY_P99_SECONDS, round(p99, 6)),
        (metric_names.ML_BREAKER_STATE, first.breaker.state),
        (metric_names.ML_BREAKER_OPENED, first.breaker.opened),
        (metric_names.ML_ENDPOINT, endpoints.in_use),
        (metric_names.ML_STREAMS, summary.streams),
        (metric_names.ML_COVERAGE_MEAN, round(summary.mean, 4)),
        (metric_names.ML_COVERAGE_MIN, round(summary.least, 4)),
    ):
        metrics.set(name, float(value))
    for fallback in endpoints.each[1:]:
        metrics.set(metric_names.ML_FALLBACK_BREAKER_STATE, float(fallback.breaker.state))
        metrics.set(metric_names.ML_FALLBACK_BREAKER_OPENED, fallback.breaker.opened)
