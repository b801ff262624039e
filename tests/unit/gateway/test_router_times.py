"""Times between a gateway and a router whose clock is apart: what leaves and what arrives."""

from __future__ import annotations

import pytest

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertNotification, Interest, PublicationState, StreamReport
from watchout.common.bus.reply_records import AlertFrameRow, RecentAlertRow, RecentAlertsReply, ShareRow, StreamRow
from watchout.common.bus.router_clock import RouterClock
from watchout.gateway import router_times

NOW = 1_800_000_000_000
APART = [-600_000, 600_000]


def apart(by_ms: int) -> RouterClock:
    clock = RouterClock()
    clock.observe(NOW + by_ms, NOW)
    return clock


def alert(name: str, at: int, timestamp: int, acked_at: int | None = None) -> RecentAlertRow:
    json = b'{"type":"alert","id":"%b","streamId":"s","timestamp":%d,"severity":"low","message":"m"}'
    given = None if acked_at is None else Acknowledgement(user="ann", at=acked_at)
    return RecentAlertRow(name, "ann", json % (name.encode(), timestamp), at, (), given)


def state(at: int | None) -> PublicationState:
    return PublicationState(
        stream="s", user="ann", term=1, status="online", producing=True, wants_alerts=True, frame_id=1, total_frames=1,
        fps=1.0, started_at=NOW, last_frame_at=at,
    )  # fmt: skip


@pytest.mark.parametrize("by_ms", APART)
def test_reports_carry_the_routers_time(by_ms: int) -> None:
    clock = apart(by_ms)
    sent = router_times.by_routers_clock(state(NOW + 5), clock)
    assert (sent.started_at, sent.last_frame_at) == (NOW + by_ms, NOW + 5 + by_ms)
    assert router_times.by_routers_clock(state(None), clock).last_frame_at is None
    report = StreamReport(rows=[("s", 1, 1, 1.0, NOW), ("t", 1, 1, 1.0, None)])
    assert [row[4] for row in router_times.by_routers_clock(report, clock).rows] == [NOW + by_ms, None]
    other = Interest(stream="s", viewers=1, alert_viewers=0)
    assert router_times.by_routers_clock(other, clock) is other


def test_with_one_clock_nothing_is_touched() -> None:
    clock = RouterClock()
    for body in (state(NOW), StreamReport(rows=[("s", 1, 1, 1.0, NOW)])):
        assert router_times.by_routers_clock(body, clock) is body
    rows = [alert("a", NOW, 1)]
    assert router_times.alerts_here(rows, clock, NOW + 10) == rows, "what the router returned holds"


@pytest.mark.parametrize("by_ms", APART)
def test_what_a_router_returns_has_the_time_here(by_ms: int) -> None:
    clock = apart(by_ms)
    (stream,) = router_times.streams_here([StreamRow(stream_id="s", started_at=NOW + by_ms, last_frame_at=None)], clock)
    assert (stream.started_at, stream.last_frame_at) == (NOW, None)
    (share,) = router_times.shares_here([ShareRow("i", "s", "ann", True, NOW + by_ms, NOW + by_ms + 60_000)], clock)
    assert (share.created_at, share.ends_at) == (NOW, NOW + 60_000)
    (frame,) = router_times.frames_here([AlertFrameRow("s", "ann", 1, 1, False, b"", NOW + by_ms)], clock)
    assert frame.at == NOW
    reply = RecentAlertsReply(alerts=[alert("a", NOW + by_ms, 1, NOW + by_ms + 7)], missing_before=NOW + by_ms)
    here = router_times.recent_here(reply, clock, NOW)
    assert here.missing_before == NOW
    assert here.alerts[0].at == NOW
    assert here.alerts[0].acknowledgement == Acknowledgement(user="ann", at=NOW + 7)
    assert router_times.recent_here(RecentAlertsReply(missing_before=None), clock, NOW).missing_before is None


ALERT = Alert(id="a", stream_id="s", severity="low", message="m", timestamp=1)


@pytest.mark.parametrize("by_ms", [0, *APART])
def test_when_a_repeated_alert_was_accepted_is_known_by_its_age_whatever_the_clocks_say(by_ms: int) -> None:
    clock, given = apart(by_ms), Acknowledgement(user="ann", at=NOW - 900_000)
    for told in (
        AlertNotification(alert=ALERT, at=NOW - 600_000, age=2_500),
        AlertNotification(alert=ALERT, at=NOW, acknowledgement=given, repeated=True, age=2_500),
    ):
        assert router_times.accepted_here(told, clock, 100.0, NOW) == 97.5


@pytest.mark.parametrize("by_ms", [0, *APART])
def test_a_router_of_the_former_release_says_only_the_time_of_a_repeated_alert(by_ms: int) -> None:
    clock, given = apart(by_ms), Acknowledgement(user="ann", at=NOW + by_ms - 1_500)
    told = AlertNotification(alert=ALERT, at=NOW + by_ms - 2_500)
    assert router_times.accepted_here(told, clock, 100.0, NOW) == 97.5
    told = AlertNotification(alert=ALERT, at=NOW + by_ms, acknowledgement=given, repeated=True)
    assert router_times.accepted_here(told, clock, 100.0, NOW) == 98.5


def test_what_is_new_has_no_time_of_before() -> None:
    given = Acknowledgement(user="ann", at=NOW)
    for told in (AlertNotification(alert=ALERT), AlertNotification(alert=ALERT, at=NOW, acknowledgement=given)):
        assert router_times.accepted_here(told, RouterClock(), 100.0, NOW) is None


@pytest.mark.parametrize("by_ms", APART)
def test_alerts_of_before_are_left_out_though_the_router_was_asked_for_an_earlier_time(by_ms: int) -> None:
    clock = apart(by_ms)
    rows = [
        alert("before", NOW - 1 + by_ms, NOW - 1_000),
        alert("acked-since", NOW - 2 + by_ms, NOW - 1_000, NOW + 1 + by_ms),
        alert("ahead", NOW - 2 + by_ms, NOW + 1_000),
        alert("after", NOW + by_ms, NOW - 1_000),
    ]
    assert [row.id for row in router_times.alerts_here(rows, clock, NOW)] == ["ahead", "after"]
    with_given = router_times.alerts_here(rows, clock, NOW, or_acknowledged=True)
    assert [row.id for row in with_given] == ["acked-since", "ahead", "after"]
