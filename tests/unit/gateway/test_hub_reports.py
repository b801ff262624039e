"""What the hub reports to the router, and which frames it sends there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.hub import ANN, FakePublisher, FakeViewer, HubHarness, ms, remote, word
from tests.kit.playbook import owned_by
from watchout.common.bus.messages import (
    Forward,
    FrameReceiver,
    Interest,
    PublicationState,
    Release,
    StreamReport,
)
from watchout.gateway.hub.delivery import MAX_FRAME_ID
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.model import StreamState

# ── frames to the bus ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_frame_goes_to_the_bus_when_the_router_begins_to_want_it_and_then_all(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.frame(publication)
    harness.frame(publication)
    assert harness.pushed == []
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True), 0.0)
    harness.frame(publication)
    harness.frame(publication)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=False), 0.0)
    harness.frame(publication)
    assert harness.pushed == [2, 3, 4]


def test_frame_ids_go_on_above_those_of_a_former_publisher_that_the_router_learns_of_late(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.frame(publication)
    to = (FrameReceiver("unix:f-1"),)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, receivers=to, floor=500), 0.0)
    assert (harness.pushed, harness.direct) == ([], [])  # of that publisher viewers elsewhere have a later frame
    harness.frame(publication)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, receivers=to, viewers=2, floor=400), 0.0)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, receivers=to, floor=MAX_FRAME_ID), 0.0)
    harness.frame(publication)
    assert (harness.pushed, harness.direct) == ([501, 502], [("unix:f-1", 501), ("unix:f-1", 502)])


def test_the_bus_gets_no_more_than_the_router_wants(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=2), 0.0)
    for n in range(300):
        harness.frame(publication, n / 30)
    assert len(harness.pushed) == pytest.approx(20, abs=2)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=None), 0.0)
    before = len(harness.pushed)
    for n in range(30):
        harness.frame(publication, 10 + n / 30)
    assert len(harness.pushed) == before + 30


def test_viewers_here_get_all_frames_whatever_the_bus_wants(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    publication = harness.publish(FakePublisher(), term=4)
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=1), 0.0)
    for n in range(30):
        harness.frame(publication, n / 30)
    assert len(screen.frames) == 30


def test_a_request_for_another_term_or_stream_does_not_count(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.hub.on_forward(Forward(stream="door", term=3, wanted=True), 0.0)
    harness.hub.on_forward(Forward(stream="door", term=5, wanted=True), 0.0)
    harness.hub.on_forward(Forward(stream="yard", term=4, wanted=True), 0.0)
    harness.frame(publication)
    assert harness.pushed == []


def test_a_snapshot_forgets_what_the_former_router_wanted_and_nothing_later(harness: HubHarness) -> None:
    publications = [harness.publish(FakePublisher(), name, term=4) for name in ("a", "b", "c")]
    for publication in publications:
        harness.hub.on_forward(Forward(stream=publication.stream, term=4, wanted=True), 0.0)
    snapshot = harness.hub.reports.snapshot(0.0)
    next(snapshot)
    harness.hub.on_forward(Forward(stream="c", term=4, wanted=True), 0.0)
    assert len(list(snapshot)) == 2
    for publication in publications:
        harness.frame(publication)
    assert harness.pushed == [1]
    assert publications[2].bus_sampler is not None


# ── frames to other members ──────────────────────────────────────────────────────────────────────────────────────────

NEAR, FAR = "unix:f-nearnear", "unix:f-farfarfa"


def forward(*receivers: FrameReceiver, term: int = 4, **more: Any) -> Forward:
    return Forward(stream="door", term=term, wanted=False, receivers=receivers, **more)


def test_each_receiver_gets_the_newest_frame_when_it_is_named_and_then_what_it_wants(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.frame(publication, 0.0)
    harness.hub.on_forward(forward(FrameReceiver(NEAR)), 0.0)
    harness.hub.on_forward(forward(FrameReceiver(NEAR), FrameReceiver(FAR, 2.0)), 0.0)
    assert harness.direct == [(NEAR, 1), (FAR, 1)]
    for n in range(1, 301):
        harness.frame(publication, n / 30)
    got = Counter(at for at, _ in harness.direct)
    assert got[NEAR] == 301
    assert got[FAR] == pytest.approx(21, abs=2)
    assert harness.pushed == []


def test_a_receiver_that_is_no_longer_named_gets_nothing_and_the_others_keep_their_rates(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.hub.on_forward(forward(FrameReceiver(NEAR, 1.0), FrameReceiver(FAR)), 0.0)
    harness.frame(publication, 0.0)
    harness.hub.on_forward(forward(FrameReceiver(NEAR, 1.0)), 0.1)
    harness.frame(publication, 0.1)
    assert harness.direct == [(NEAR, 1), (FAR, 1)], "what it got before still counts"
    harness.hub.on_forward(forward(), 0.2)
    harness.frame(publication, 5.0)
    assert len(harness.direct) == 2


def test_receivers_outlive_their_router_and_a_partial_list_ends_none(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4)
    harness.hub.on_forward(forward(FrameReceiver(NEAR), viewers=3), 0.0)
    (told,) = harness.hub.reports.snapshot(0.0)
    assert isinstance(told, PublicationState)
    assert told.forwarding
    assert publication.viewers_elsewhere == 3
    harness.hub.on_forward(forward(FrameReceiver(FAR), viewers=1, partial=True), 0.0)
    assert publication.viewers_elsewhere == 3
    harness.frame(publication)
    assert harness.direct == [(NEAR, 1), (FAR, 1)]
    harness.hub.on_forward(forward(FrameReceiver(FAR), viewers=1), 0.0)
    harness.frame(publication)
    assert harness.direct[2:] == [(FAR, 2)]
    assert publication.viewers_elsewhere == 1


def test_the_newest_frame_of_an_older_term_is_not_sent_to_a_new_receiver(harness: HubHarness) -> None:
    harness.frame(harness.publish(FakePublisher(), term=4))
    harness.publish(FakePublisher(), term=5)
    harness.hub.on_forward(forward(FrameReceiver(NEAR), term=4), 0.0)
    harness.hub.on_forward(forward(FrameReceiver(NEAR), term=5), 0.0)
    assert harness.direct == []


def test_what_receivers_want_is_part_of_the_demand(harness: HubHarness) -> None:
    phone = FakePublisher()
    harness.publish(phone, term=4, wants_demand=True)
    harness.hub.on_forward(forward(FrameReceiver(NEAR, 2.0), FrameReceiver(FAR, 7.0), viewers=2), 0.0)
    harness.hub.notices.send_demand(0.0, 0)
    demand = next(message for message in reversed(phone.messages) if message["type"] == "demand")
    assert (demand["fps"], demand["viewers"]) == (7.0, 2)


# ── what the router is told ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_that_is_held_is_told_as_it_now_is(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4, first=10, wants_alerts=True)
    for n in range(11):
        harness.frame(publication, n / 10)
    assert harness.changes(1.0) == [
        PublicationState(
            stream="door", user="ann", term=4, status="streaming", producing=True, wants_alerts=True, frame_id=20,
            total_frames=11, fps=10.0, started_at=ms(0), last_frame_at=ms(1),
        )
    ]  # fmt: skip
    assert harness.changes(1.0) == []


def test_frames_alone_change_no_state(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.changes()
    woken = harness.woken
    for n in range(10):
        harness.frame(publication, n / 10)
    assert harness.changes() == []
    assert harness.woken == woken


def test_a_change_of_status_is_a_change_of_state(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.changes()
    harness.hub.tick(6.0, ms(6))
    (hold,) = harness.changes(6.0)
    assert isinstance(hold, PublicationState)
    assert hold.status == "online"
    harness.frame(publication, 7.0)
    (hold,) = harness.changes(7.0)
    assert isinstance(hold, PublicationState)
    assert hold.status == "streaming"


def test_a_release_names_term_and_last_frame(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher(), term=4, first=10)
    harness.frame(publication)
    harness.hub.release(publication, ms(1))
    assert harness.changes() == [Release(stream="door", term=4, frame_id=10)]
    assert harness.changes() == []


def test_a_stream_that_is_left_and_taken_again_at_once_is_told_in_that_order(harness: HubHarness) -> None:
    harness.hub.release(harness.publish(FakePublisher(), term=4), ms(0))
    harness.publish(FakePublisher(), term=5)
    release, hold = harness.changes()
    assert isinstance(release, Release)
    assert isinstance(hold, PublicationState)
    assert (release.term, hold.term) == (4, 5)


def test_interest_is_the_sum_of_the_viewers_and_the_highest_rate(harness: HubHarness) -> None:
    screens = [FakeViewer(harness.hub) for _ in range(4)]
    screens[0].subscribe("door", max_fps=2, alerts=False)
    screens[1].subscribe("door", max_fps=5)
    screens[2].subscribe("door", video=False)
    assert harness.changes() == [Interest(stream="door", viewers=2, alert_viewers=2, max_fps=5)]
    screens[3].subscribe("door", alerts=False)
    assert harness.changes() == [Interest(stream="door", viewers=3, alert_viewers=2, max_fps=None)]
    for screen in (screens[0], screens[1], screens[3]):
        screen.leave()
    assert harness.changes() == [Interest(stream="door", viewers=0, alert_viewers=1)]
    screens[2].leave()
    assert harness.changes() == [Interest(stream="door", viewers=0, alert_viewers=0)]


def test_interest_names_the_highest_frame_that_was_seen(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(99), 0.0)
    FakeViewer(harness.hub).subscribe("door")
    (interest,) = harness.changes()
    assert isinstance(interest, Interest)
    assert interest.floor == 99


def test_the_snapshot_tells_everything_that_is_held_and_wanted(harness: HubHarness) -> None:
    harness.publish(FakePublisher(), "door")
    gone = harness.publish(FakePublisher(), "gone")
    FakeViewer(harness.hub).subscribe("door")
    FakeViewer(harness.hub).subscribe("yard")
    harness.hub.release(gone, ms(0))
    told = list(harness.hub.reports.snapshot(0.0))
    assert sorted(m.stream for m in told if isinstance(m, PublicationState)) == ["door"]
    assert sorted(m.stream for m in told if isinstance(m, Interest)) == ["door", "yard"]
    assert not any(isinstance(m, Release) for m in harness.changes())


def test_what_goes_during_a_snapshot_is_not_told_as_held(harness: HubHarness) -> None:
    publications = {name: harness.publish(FakePublisher(), name) for name in ("a", "b", "c")}
    snapshot = harness.hub.reports.snapshot(0.0)
    first = next(snapshot)
    gone = next(name for name in publications if name != first.stream)
    harness.hub.release(publications[gone], ms(0))
    assert gone not in {m.stream for m in snapshot}
    assert any(isinstance(m, Release) and m.stream == gone for m in harness.changes())


def test_reports_tell_the_streams_that_moved_in_chunks(harness: HubHarness) -> None:
    publications = [harness.publish(FakePublisher(), f"s{n}") for n in range(5)]
    for publication in publications[:3]:
        for n in range(11):
            harness.frame(publication, n / 10)
    reports = list(harness.hub.reports.stream_metrics(1.0, 2))
    assert [len(r.rows) for r in reports] == [2, 1]
    rows = sorted(row for report in reports for row in report.rows)
    assert rows == [(f"s{n}", 11, 11, 10.0, ms(1)) for n in range(3)]
    assert list(harness.hub.reports.stream_metrics(1.0, 2)) == []


def test_reports_go_on_while_a_camera_is_quiet_so_that_its_rate_falls(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    for n in range(11):
        harness.frame(publication, n / 10)
    list(harness.hub.reports.stream_metrics(1.0, 10))
    harness.hub.tick(9.0, ms(9))
    assert list(harness.hub.reports.stream_metrics(9.0, 10)) == [StreamReport(rows=[("door", 11, 11, 0.0, ms(1))])]


def test_frames_dropped_for_all_viewers_are_one_sum_in_the_report(harness: HubHarness) -> None:
    harness.hub.reports.count_dropped("door", {DropReason.SLOW: 2, DropReason.RATE: 1})
    harness.hub.reports.count_dropped("door", {DropReason.SLOW: 3})
    harness.hub.reports.count_dropped("gate", {DropReason.GONE: 1})
    reports = list(harness.hub.reports.stream_metrics(0.0, 2))
    assert [row for report in reports for row in report.dropped] == [
        ("door", "slow", 5), ("door", "rate", 1), ("gate", "gone", 1),
    ]  # fmt: skip
    assert all(len(report.dropped) <= 2 for report in reports)
    assert list(harness.hub.reports.stream_metrics(0.0, 2)) == []


def test_a_camera_that_left_is_in_no_report(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.frame(publication)
    harness.hub.release(publication, ms(0))
    assert list(harness.hub.reports.stream_metrics(0.0, 10)) == []


def test_what_is_here_is_counted(harness: HubHarness) -> None:
    harness.publish(FakePublisher(), "door", wants_alerts=True)
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    screen.subscribe("yard", video=False)
    assert harness.hub.counts() == {"publishers": 1, "video_viewers": 1, "alert_viewers": 3}


def watch(
    harness: HubHarness, alerts_after: tuple[int, int] | None, *, alerts: bool = True, held: bool = False
) -> None:
    subscription = Subscription("door", ANN, video=False, alerts=alerts)
    state = StreamState("streaming", owned_by("ann"), alerts_after=alerts_after)
    harness.hub.subscribe(subscription, FakeViewer(harness.hub), state, 0.0, ms(0.0), held=held)


def alerts_after(harness: HubHarness) -> list[tuple[int, int]]:
    told = list(harness.hub.reports.changes(0.0))
    return [(each.alerts_epoch, each.last_alert) for each in told if isinstance(each, Interest)]


@pytest.mark.parametrize("held", [False, True])
def test_the_router_is_told_after_which_alert_the_first_of_the_viewers_has_subscribed(
    harness: HubHarness, held: bool
) -> None:
    for after in ((5, 9), (5, 7), None, (5, 8)):
        watch(harness, after, held=held)
    assert alerts_after(harness) == [(5, 7)]
    watch(harness, (5, 3), held=held)
    watch(harness, (4, 30), held=held)
    assert alerts_after(harness) == [(4, 30)], "that of a former router is earlier"
    watch(harness, None, held=held)
    assert alerts_after(harness) == [(0, 0)], "it is told once"


@pytest.mark.parametrize(("alerts", "expected"), [(True, [(5, 9)]), (False, [])])
def test_where_the_camera_has_gone_to_another_gateway_viewers_get_the_alerts_after_that(
    harness: HubHarness, alerts: bool, expected: list[tuple[int, int]]
) -> None:
    harness.publish(FakePublisher(), term=4)
    watch(harness, None, alerts=alerts)
    assert alerts_after(harness) == [(0, 0)]
    harness.hub.revoke("door", 5, (5, 9))
    assert alerts_after(harness) == expected


def test_who_wants_no_alerts_and_a_snapshot_name_none(harness: HubHarness) -> None:
    watch(harness, (5, 9), alerts=False)
    assert alerts_after(harness) == [(0, 0)]
    watch(harness, (5, 9))
    (told,) = harness.hub.reports.snapshot(0.0)
    assert isinstance(told, Interest)
    assert (told.alerts_epoch, told.last_alert) == (0, 0), "the end of the snapshot says what this gateway has"
    assert alerts_after(harness) == [(5, 9)]


@pytest.mark.parametrize(
    "change",
    [
        lambda harness: harness.publish(FakePublisher(), "new"),
        lambda harness: harness.hub.release(harness.hub.publication("door"), ms(1)),
        lambda harness: FakeViewer(harness.hub).subscribe("door"),
        lambda harness: harness.hub.tick(6.0, ms(6)),
    ],
)
def test_each_change_wakes_the_link(harness: HubHarness, change: Callable[[HubHarness], None]) -> None:
    harness.publish(FakePublisher())
    woken = harness.woken
    change(harness)
    assert harness.woken > woken


# ── several routers ──────────────────────────────────────────────────────────────────────────────────────────────────


def of_door(stream: str) -> bool:
    return stream == "door"


def test_a_router_is_told_of_its_own_streams_alone_and_the_others_lose_nothing(harness: HubHarness) -> None:
    reports = harness.hub.reports
    for stream in ("door", "yard"):
        harness.frame(harness.publish(FakePublisher(), stream=stream, term=4))
        FakeViewer(harness.hub).subscribe(stream)
        reports.count_dropped(stream, {DropReason.SLOW: 2})
    assert {body.stream for body in reports.snapshot(0.0, of_door)} == {"door"}
    assert {body.stream for body in reports.snapshot(0.0)} == {"door", "yard"}
    of_one = list(reports.stream_metrics(0.0, 500, of_door))
    assert [row[0] for report in of_one for row in (*report.rows, *report.dropped)] == ["door", "door"]
    rest = list(reports.stream_metrics(0.0, 500))
    assert [row[0] for report in rest for row in (*report.rows, *report.dropped)] == ["yard", "yard"]
    assert list(reports.stream_metrics(0.0, 500)) == []


def test_a_router_that_is_joined_takes_no_release_from_another(harness: HubHarness) -> None:
    reports = harness.hub.reports
    for stream in ("door", "yard"):
        harness.hub.release(harness.publish(FakePublisher(), stream=stream, term=4), 1)
    assert list(reports.snapshot(0.0, of_door)) == []
    assert [(body.stream, type(body)) for body in reports.changes(0.0)] == [("yard", Release)]
    assert [row[0] for report in reports.reservations(1, of_door) for row in report.rows] == ["door"]
    assert {row[0] for report in reports.reservations(1) for row in report.rows} == {"door", "yard"}


def test_a_router_that_is_joined_leaves_what_others_requested(harness: HubHarness) -> None:
    publications = {stream: harness.publish(FakePublisher(), stream=stream, term=4) for stream in ("door", "yard")}
    for stream in publications:
        harness.hub.on_forward(Forward(stream=stream, term=4, wanted=True, viewers=3), 0.0)
    list(harness.hub.reports.snapshot(0.0, of_door))
    assert publications["door"].bus_sampler is None
    assert publications["door"].viewers_elsewhere == 0
    assert publications["yard"].bus_sampler is not None
    assert publications["yard"].viewers_elsewhere == 3


def test_the_frames_of_a_viewer_are_asked_for_when_its_alerts_have_been_fetched(harness: HubHarness) -> None:
    """Until then it gets none; without another report the router would never send any."""
    screen = FakeViewer(harness.hub)
    subscription = Subscription("door", ANN, video=True, alerts=True)
    harness.hub.subscribe(subscription, screen, StreamState("streaming", owned_by("ann")), 0.0, ms(0.0), held=True)

    def interest() -> list[tuple[int, int]]:
        told = list(harness.hub.reports.changes(0.0))
        return [(each.viewers, each.alert_viewers) for each in told if isinstance(each, Interest)]

    assert interest() == [(0, 1)]
    harness.hub.begin_delivery(subscription, screen, 0.0, ms(0.0))
    assert interest() == [(1, 1)]
