"""The slope of the memory of each process, and how counters grew."""

from __future__ import annotations

import itertools

import pytest

from watchout.common import metric_names
from watchout.common.bus.reply_records import MemberRow, RouterStats, StatsReply
from watchout.ctl.rehearse.memory import MAX_SAMPLES, Sample, Watched, slope_mb_per_h, steepest


def line(seconds: int, bytes_per_s: float, warm_up: float = 0.0) -> list[Sample]:
    return [
        Sample(at_s=at, bytes=50e6 + at * bytes_per_s + (warm_up if at < seconds / 3 - 1 else 0), cpu_s=at / 10)
        for at in range(0, seconds + 1, 2)
    ]


def test_the_slope_is_that_of_the_line_after_the_warm_up() -> None:
    assert slope_mb_per_h(line(120, 1000.0)) == pytest.approx(3.6)
    assert slope_mb_per_h(line(120, -1000.0, warm_up=-20e6)) == pytest.approx(-3.6)
    assert slope_mb_per_h(line(120, 0.0, warm_up=-20e6)) == 0.0


def test_too_short_a_time_has_no_slope() -> None:
    assert slope_mb_per_h([]) is None
    assert slope_mb_per_h(line(58, 1000.0)) is None
    assert slope_mb_per_h(line(60, 1000.0)) is not None


def stats(requests: int, resident: float, pid: int = 7) -> StatsReply:
    metrics = {metric_names.RESIDENT_BYTES: resident, metric_names.CPU_SECONDS: 1.0, metric_names.ML_REQUESTS: requests}
    members = [
        MemberRow(id="b", name="mlbridge.1", kind="mlbridge", pid=pid, metrics=dict(metrics)),
        MemberRow(id="c", name="ctl", kind="ctl", pid=9, metrics=dict(metrics)),
        MemberRow(id="g", name="gateway.1", kind="gateway", pid=8, metrics={}),
    ]
    return StatsReply(router=RouterStats(pid=6, metrics={metric_names.RESIDENT_BYTES: 40e6}), members=members)


def test_processes_that_told_of_themselves_are_shown_and_counters_grow() -> None:
    watched = Watched()
    watched.add(0.0, stats(10, 50e6))
    watched.add(120.0, stats(25, 80e6))
    watched.add(122.0, stats(3, 40e6, pid=17))  # it was restarted
    assert [(each.kind, each.pid, each.memory_mb) for each in watched.processes()] == [
        ("mlbridge", 7, 80.0), ("mlbridge", 17, 40.0), ("router", 6, 40.0),
    ]  # fmt: skip
    assert watched.grown(metric_names.ML_REQUESTS) == 15
    assert steepest(watched.processes()) == 0.0
    assert steepest([]) is None


def test_samples_are_bounded() -> None:
    watched = Watched()
    for at in range(3 * MAX_SAMPLES):
        watched.add(float(at), stats(at, 50e6))
    samples = watched.processes()[0].samples
    assert len(samples) <= MAX_SAMPLES
    assert len({later[0] - earlier[0] for earlier, later in itertools.pairwise(samples[:-1])}) == 1
    assert (samples[0][0], samples[-1][0]) == (0.0, 3 * MAX_SAMPLES - 1)
