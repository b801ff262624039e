"""The Prometheus page: every process has a label of its own."""

from __future__ import annotations

import re

from watchout.common.bus.reply_records import MemberRow, RouterStats, StatsReply
from watchout.gateway.http.prometheus import render_metrics


def stats_of(*members: tuple[str, int, str]) -> StatsReply:
    return StatsReply(
        router=RouterStats(metrics={"uptime_seconds": 1.0}),
        members=[
            MemberRow(id=key, name=name, kind="gateway", pid=pid, metrics={"uptime_seconds": float(number)})
            for number, (name, pid, key) in enumerate(members)
        ],
    )


def labels(page: bytes) -> list[str]:
    return re.findall(r'watchout_uptime_seconds{process="([^"]+)"}', page.decode())


def test_processes_of_one_name_and_one_process_id_are_not_lost() -> None:
    page = render_metrics(
        stats_of(("gateway", 1, "a1"), ("gateway", 1, "a2"), ("gateway", 1, "a3"), ("router", 1, "a4")), ("", {})
    )
    found = labels(page)
    assert len(found) == len(set(found)) == 5
    assert found[:2] == ["router", "gateway"]


def test_a_renamed_metric_is_exported_under_both_names_for_one_release() -> None:
    page = render_metrics(None, ("gateway", {"publishers": 2.0, "frames_dropped_slow_total": 5.0})).decode()
    assert 'watchout_publishers{process="gateway"} 2.0' in page
    assert 'watchout_cameras{process="gateway"} 2.0' in page
    assert 'watchout_frames_skipped_slow_total{process="gateway"} 5.0' in page
    assert "# HELP watchout_cameras Deprecated, use watchout_publishers." in page


def test_a_counter_is_there_before_it_counts_so_that_its_first_rise_is_one() -> None:
    bridge = MemberRow(id="a1", name="bridge@host-b", kind="mlbridge", pid=7, metrics={"ml_timeouts_total": 3.0})
    old = MemberRow(id="a2", name="gateway", kind="gateway", pid=8, metrics={"frames_skipped_slow_total": 5})
    page = render_metrics(StatsReply(members=[bridge, old]), ("", {})).decode().splitlines()
    for line in (
        'watchout_alerts_dropped_total{process="bridge@host-b"} 0.0',
        'watchout_ml_timeouts_total{process="bridge@host-b"} 3.0',
        'watchout_revalidation_failed_total{process="gateway"} 0.0',
        'watchout_frames_dropped_slow_total{process="gateway"} 5.0',  # of a member of the former release
        'watchout_alert_webhook_dead_total{process="router"} 0.0',
    ):
        assert line in page
    assert not [line for line in page if line.startswith('watchout_ml_timeouts_total{process="gateway"}')]
    assert not [line for line in page if line.startswith("watchout_ml_breaker_state")], "a gauge is absent, not 0"
