"""Alerts that nobody acknowledged in time: when, which, once, within bounds, and across restarts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import SEVERITIES, Alert, Severity
from watchout.router.alerts import escalation
from watchout.router.alerts.escalation import SETTLED_MS, STALE_MS, Escalations

AFTER_MS = 1000


def alert(name: str = "a1", severity: Severity = "high", message: str = "m", stream: str = "cam") -> Alert:
    return Alert(id=name, stream_id=stream, severity=severity, message=message, timestamp=1)


def made(*, restored: bool = True, **bounds: int) -> Escalations:
    found = Escalations("high", AFTER_MS, **bounds)
    if restored:
        found.restore({}, 0)
    return found


def due(found: Escalations, now_ms: int) -> list[str]:
    return [each.id for each in found.due(now_ms)]


class Disk:
    """What the file would have."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}

    def write(self, found: Escalations) -> None:
        for key, body in found.take_changes().items():
            if body is None:
                self.records.pop(key, None)
            else:
                self.records[key] = body

    def next_router(self, now_ms: int, **bounds: int) -> Escalations:
        found = made(**bounds)
        assert found.restore(self.records, now_ms) == 0
        return found


@pytest.mark.parametrize("severity", SEVERITIES)
def test_alerts_of_the_severity_and_above_are_escalated_once_when_their_time_is_over(severity: Severity) -> None:
    found = made()
    found.watch(alert(severity=severity), 5000)
    assert due(found, 5999) == []
    assert due(found, 6000) == (["a1"] if severity in ("high", "critical") else [])
    assert due(found, 60_000) == []
    found.watch(alert(severity=severity), 5000)
    assert due(found, 60_000) == [], "raised again by who raised it"


def test_what_is_acknowledged_is_not_escalated_whatever_comes_then() -> None:
    found = made()
    found.watch(alert(), 0)
    found.watch(alert(stream="yard"), 0)
    found.acknowledged("cam", "a1", 10)
    found.watch(alert(), 0)
    assert [each.stream_id for each in found.due(9999)] == ["yard"]
    assert (found.waiting, found.size_bytes) == (0, 0)
    found.acknowledged("cam", "unknown", 10)


def test_they_come_in_the_order_of_their_times() -> None:
    found = made()
    for name, at in (("late", 300), ("early", 100), ("middle", 200)):
        found.watch(alert(name), at)
    assert due(found, 1250) == ["early", "middle"]
    assert due(found, 1300) == ["late"]


def test_past_a_bound_the_one_whose_time_is_over_first_is_escalated_early_and_none_is_forgotten() -> None:
    found = made(max_waiting=2)
    for number in range(4):
        found.watch(alert(f"a{number}"), number)
    assert due(found, 10) == ["a0", "a1"]
    assert found.waiting == 2
    heavy = made(max_bytes=10_000)
    for number in range(5):
        heavy.watch(alert(f"a{number}", message="x" * 4000), number)
    assert due(heavy, 10) == ["a0", "a1", "a2", "a3"]
    assert heavy.size_bytes <= 10_000


def test_the_next_router_goes_on_where_the_former_one_ended() -> None:
    disk, found = Disk(), made()
    for name in ("waits", "done", "seen"):
        found.watch(alert(name, message="ünï"), 0 if name == "done" else 500)
    assert due(found, 1000) == ["done"]
    found.acknowledged("cam", "seen", 1000)
    disk.write(found)
    later = disk.next_router(1200)
    for name in ("waits", "done", "seen"):
        later.watch(alert(name), 500)
    assert due(later, 1499) == []
    (one,) = later.due(1500)
    assert (one.id, one.message) == ("waits", "ünï")
    disk.write(later)
    assert due(disk.next_router(1501), 99_999) == []


def test_what_came_before_the_records_were_read_holds() -> None:
    disk, former = Disk(), made()
    for name in ("a1", "a2", "a3", "a4"):
        former.watch(alert(name), 0)
    former.acknowledged("cam", "a4", 5)
    disk.write(former)
    found = made(restored=False)
    found.acknowledged("cam", "a1", 10)
    found.watch(alert("a2", message="raised again"), 500)
    found.watch(alert("a4", message="raised again"), 500)
    found.restore(disk.records, 600)
    assert found.waiting == 2
    assert due(found, 1400) == ["a3"]
    assert due(found, 9999) == ["a2"]
    disk.write(found)
    assert due(disk.next_router(9999), 99_999) == []
    assert found.size_bytes == 0


def test_of_too_many_settled_alerts_the_newest_are_remembered_whenever_records_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(escalation, "MAX_SETTLED", 2)
    disk, former = Disk(), made()
    for number, name in enumerate(("a1", "a2")):
        former.watch(alert(name), 0)
        former.acknowledged("cam", name, number)
    disk.write(former)
    found = made(restored=False)
    found.acknowledged("cam", "a3", 500)
    found.restore(disk.records, 600)
    for name in ("a2", "a3"):
        found.watch(alert(name), 600)
    assert found.waiting == 0, "they are settled"
    found.watch(alert("a1"), 600)
    assert found.waiting == 1, "it was settled first"


def test_while_records_cannot_be_read_what_is_to_be_written_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalation, "MAX_SETTLED", 2)
    found = made(restored=False)
    for number in range(20):
        found.watch(alert(f"a{number}"), number)
        assert len(due(found, number + AFTER_MS)) == 1
    assert len(found._changed) == 2
    assert set(found.take_changes()) == set(found._settled)


def test_what_was_due_while_no_router_ran_is_due_at_once_unless_that_is_long_ago() -> None:
    disk, found = Disk(), made()
    found.watch(alert(), 0)
    disk.write(found)
    assert due(disk.next_router(AFTER_MS + STALE_MS), AFTER_MS + STALE_MS) == ["a1"]
    old = disk.next_router(AFTER_MS + STALE_MS + 1)
    assert due(old, AFTER_MS + STALE_MS + 1) == []
    disk.write(old)
    assert disk.records == {}


def test_settled_alerts_are_forgotten_after_a_while_and_leave_the_file() -> None:
    disk, found = Disk(), made()
    found.watch(alert(), 0)
    assert due(found, 1000) == ["a1"]
    disk.write(found)
    assert len(disk.records) == 1
    assert due(found, 1001 + SETTLED_MS) == []
    disk.write(found)
    assert disk.records == {}


def test_records_that_are_none_are_counted_and_leave_the_file() -> None:
    found = made()
    bad: dict[str, bytes] = {"a": b"", "b": b"{}", "c": b'["waiting",5,"{}"]', "d": b'["waiting",-5,""]', "e": b"\xff"}
    assert found.restore(bad, 0) == len(bad)
    assert found.take_changes() == dict.fromkeys(bad)
    assert due(found, 99_999) == []


def test_a_clock_that_was_set_back_does_not_make_an_alert_wait_for_ever() -> None:
    disk, found = Disk(), made()
    found.watch(alert(), 1_000_000)
    disk.write(found)
    assert due(disk.next_router(0), AFTER_MS) == ["a1"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["watch", "acknowledge", "wait", "restart"]), st.integers(0, 12), st.integers(1, 900)),
    max_size=60,
)


@given(STEPS)
def test_each_alert_is_escalated_or_acknowledged_and_never_twice(steps: list[tuple[str, int, int]]) -> None:
    bounds: dict[str, Any] = {"max_waiting": 4}
    disk, found, now = Disk(), made(**bounds), 0
    raised: dict[str, int] = {}
    seen: set[str] = set()
    escalated: list[str] = []
    for what, number, passed in steps:
        name = f"a{number}"
        if what == "watch":
            raised.setdefault(name, now)
            found.watch(alert(name), raised[name])
        elif what == "acknowledge" and name in raised and name not in escalated:
            found.acknowledged("cam", name, now)
            seen.add(name)
        elif what == "restart":
            disk.write(found)
            found = disk.next_router(now, **bounds)
        else:
            now += passed
        escalated += due(found, now)
        assert found.waiting <= 4
    escalated += due(found, now + AFTER_MS)
    assert sorted(escalated) == sorted(set(raised) - seen)


def test_the_schedule_does_not_grow_with_acknowledged_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalation, "MAX_WAITING", 10)
    found = made()
    for number in range(1000):
        found.watch(alert(f"a{number}"), 0)
        found.acknowledged("cam", f"a{number}", 1)
    assert len(found._schedule) <= 12


def test_so_many_settled_alerts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalation, "MAX_SETTLED", 3)
    disk, found = Disk(), made()
    for number in range(10):
        found.watch(alert(f"a{number}"), 0)
        found.acknowledged("cam", f"a{number}", 1)
        disk.write(found)
    assert sorted(disk.records) == ["cam a7", "cam a8", "cam a9"]
