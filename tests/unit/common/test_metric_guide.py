"""What an operator is told of each metric: of every one, with names of settings and metrics that exist."""

from __future__ import annotations

import re

from watchout.common import settings
from watchout.common.errors import ErrorCode
from watchout.common.metric_guide import ALL, GUIDE, TOTALS, counters_of, unit
from watchout.common.metric_names import DECLARED
from watchout.common.metric_names import TOTALS as DECLARED_TOTALS


def test_every_declared_metric_has_its_processes_and_what_it_tells() -> None:
    assert set(GUIDE) == set(DECLARED)
    assert set(TOTALS) == set(DECLARED_TOTALS)
    assert [name for name, guide in GUIDE.items() if not guide.of or not set(guide.of) <= set(ALL)] == []
    assert [name for name, guide in GUIDE.items() if len(guide.when) < 12 or not guide.when.endswith(".")] == []


def test_settings_and_metrics_that_the_guide_names_exist() -> None:
    said = " ".join([*(guide.when for guide in GUIDE.values()), *TOTALS.values()])
    known = {spec.env for _, spec, _ in settings.table()} | {str(code) for code in ErrorCode}
    named = {name for name in re.findall(r"`([A-Z][A-Z_]{3,})`", said) if not name.startswith("OTEL_")}
    assert named - known == set()
    metrics = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", said))
    assert metrics - set(DECLARED) - set(DECLARED_TOTALS) == set()
    assert len(metrics) > 15


def test_counters_of_a_process_are_counters_without_further_labels() -> None:
    assert "frames_in_total" in counters_of("gateway")
    assert "frames_in_total" not in counters_of("router")
    assert {DECLARED[name].kind for kind in ALL for name in counters_of(kind)} == {"counter"}
    assert "task_failures_total" not in counters_of("gateway")


def test_the_unit_is_that_of_the_name() -> None:
    assert unit("cpu_seconds_total") == "s"
    assert unit("frame_bytes_out_total") == "bytes"
    assert unit("ml_coverage_mean") == "0 to 1"
    assert unit("ml_breaker_state") == "0, 1, 2"
    assert unit("frames_in_total") == "count"
