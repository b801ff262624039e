"""Status changes, and frames of publishers on other gateways."""

from __future__ import annotations

import pytest

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, alert, ms, remote, word
from tests.kit.playbook import START_MS
from watchout.common.bus.messages import (
    StreamStatus,
)
from watchout.gateway.hub.delivery import LOWER_IDS_AFTER_S, MAX_FRAME_ID
from watchout.gateway.hub.registry import IDLE_AFTER_S

# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_change_of_status_is_told_once(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", video=False)
    publication = harness.publish(FakePublisher(), now=0.0)
    for tenth in range(31):
        harness.frame(publication, tenth / 10)
    for second in range(4, 20):
        harness.hub.tick(float(second), ms(second))
    harness.frame(publication, 20.0)
    harness.frame(publication, 20.1)
    harness.hub.release(publication, ms(21))
    assert screen.statuses == ["offline", "streaming", "online", "streaming", "offline"]
    assert [m["timestamp"] - START_MS for m in screen.messages] == [0, 0, 9000, 20_000, 21_000]


def test_a_camera_that_registers_to_produce_and_sends_nothing_is_online_after_five_seconds(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.publish(FakePublisher(), now=100.0)
    harness.hub.tick(100.0 + IDLE_AFTER_S, ms(0))
    assert screen.statuses == ["offline", "streaming"]
    harness.hub.tick(100.0 + IDLE_AFTER_S + 0.1, ms(0))
    assert screen.statuses == ["offline", "streaming", "online"]


def test_a_camera_that_does_not_produce_is_online(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.publish(FakePublisher(), producing=False)
    harness.hub.tick(60.0, ms(60))
    assert screen.statuses == ["offline", "online"]


def test_a_quiet_camera_that_is_taken_over_streams_again(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.publish(FakePublisher(), term=1)
    harness.hub.tick(6.0, ms(6))
    harness.publish(FakePublisher(), term=2, now=7.0)
    assert screen.statuses == ["offline", "streaming", "online", "streaming"]


def test_the_router_tells_the_status_of_cameras_elsewhere(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    statuses: list[StreamStatus] = ["streaming", "streaming", "online", "streaming", "offline", "offline"]
    for status in statuses:
        harness.hub.on_status(word(status), 1.0, ms(1))
    assert screen.statuses == ["offline", "streaming", "online", "streaming", "offline"]
    harness.hub.on_status(word("online", stream="never"), 1.0, ms(1))


def test_what_the_router_says_is_its_last_word_except_of_a_camera_here(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("online", term=5), 1.0, ms(1))
    harness.hub.on_status(word("offline", term=0), 1.0, ms(1))  # a new router that never heard of the stream
    assert screen.statuses == ["streaming", "online", "offline"]
    harness.hub.delivery.on_remote_frame(remote(1, term=4), 1.0)
    assert screen.frames == []
    publication = harness.publish(FakePublisher(), term=6)
    harness.hub.on_status(word("offline", term=7), 1.0, ms(1))
    assert screen.statuses == ["streaming", "online", "offline", "streaming"]
    harness.hub.release(publication, ms(2))


def test_a_term_that_the_router_does_not_have_holds_until_it_tells_the_publishers_term(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming", term=2**50), 1.0, ms(1))  # 6, if it had not changed on its way
    harness.hub.delivery.on_remote_frame(remote(1, term=6), 1.0)
    harness.hub.on_status(word("offline", term=6), 1.0, ms(1))
    harness.hub.delivery.on_remote_frame(remote(2, term=6), 1.0)
    assert screen.frames == []
    harness.hub.on_status(word("online", term=6), 1.0, ms(1))
    harness.hub.delivery.on_remote_frame(remote(3, term=6), 1.0)
    assert screen.frames == [("door", 3)]


def test_a_new_owner_elsewhere_does_not_inherit_the_last_picture(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door", "streaming", "ann")
    harness.hub.delivery.on_remote_frame(remote(1, term=5), 0.0)
    harness.hub.on_status(word("streaming", term=6, user="bob"), 1.0, ms(1))
    assert harness.hub.delivery.newest_frame("door") is None


# ── frames of cameras elsewhere ──────────────────────────────────────────────────────────────────────────────────────


def test_frames_of_a_camera_elsewhere_reach_the_viewers_here(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    for number in (3, 4, 4, 2, 6):
        harness.hub.delivery.on_remote_frame(remote(number), 0.0)
    assert [number for _, number in screen.frames] == [3, 4, 6]
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 6


def test_frames_of_an_older_term_are_dropped_and_counted(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming", term=5), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(3, term=5), 0.0)
    harness.hub.delivery.on_remote_frame(remote(9, term=4), 0.0)
    harness.hub.on_status(word("online", term=6), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(10, term=5), 0.0)
    assert [number for _, number in screen.frames] == [3]
    assert harness.hub.delivery.old_term_frames == 2


def test_a_frame_of_a_term_that_is_not_known_yet_waits_for_the_word_whose_it_is(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.delivery.on_remote_frame(remote(3, term=6), 0.0)
    harness.hub.delivery.on_remote_frame(remote(4, term=6), 0.0)
    assert screen.frames == []
    harness.hub.on_status(word("streaming", term=6), 0.0, ms(0))
    assert screen.frames == [("door", 4)]


def test_ids_that_begin_again_elsewhere_reach_the_viewers_here(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming", term=6), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(MAX_FRAME_ID, term=6), 0.0)
    harness.hub.delivery.on_remote_frame(remote(1, term=6), 0.0)
    assert [number for _, number in screen.frames] == [MAX_FRAME_ID, 1]


@pytest.mark.parametrize("term", [5, 6])
def test_a_stream_elsewhere_that_goes_on_with_lower_ids_is_shown_and_counted(harness: HubHarness, term: int) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming", term=5), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(180_000, term=5), 0.0)
    harness.hub.on_status(word("streaming", term=term), 0.0, ms(0))
    for number in range(1, 61):
        harness.hub.delivery.on_remote_frame(remote(number, term=term), number / 10)
    shown_from = next(number for number in range(1, 61) if number / 10 - 0.1 >= LOWER_IDS_AFTER_S)
    assert [number for _, number in screen.frames] == [180_000, *range(shown_from, 61)]
    assert harness.hub.delivery.restarted_streams == 1


def test_frames_that_come_again_however_long_are_no_stream_that_goes_on(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    for second in range(10):
        for number in (second + 10, second + 8, second + 9):  # on two ways, one of which is behind
            harness.hub.delivery.on_remote_frame(remote(number), float(second))
    for second in range(10, 20):
        harness.hub.delivery.on_remote_frame(remote(17), float(second))
    assert [number for _, number in screen.frames] == list(range(10, 20))
    assert harness.hub.delivery.restarted_streams == 0


def test_an_alert_that_is_told_again_comes_once(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.hub.delivery.on_alert(alert(1), 0.0)
    harness.hub.delivery.on_alert(alert(1), 0.0)
    assert screen.alerts == ["a1"]


def test_a_repeated_alert_is_for_those_who_were_there_when_it_was_accepted(
    harness: HubHarness,
) -> None:
    early, late, asked = FakeViewer(harness.hub), FakeViewer(harness.hub), FakeViewer(harness.hub)
    for screen, now in ((early, 1.0), (late, 3.0), (asked, 2.0)):
        screen.subscribe("door", now=now)
    asked.subscriptions[0].replayed = frozenset({"a1"})
    harness.hub.delivery.on_alert(alert(1), 0.0, accepted_s=2.0)
    harness.hub.delivery.on_alert(alert(2), 0.0, accepted_s=3.0)
    harness.hub.delivery.on_alert(alert(3), 0.0, accepted_s=0.5)
    harness.hub.delivery.on_alert(alert(4), 0.0)
    assert early.alerts == ["a1", "a2", "a4"]
    assert late.alerts == ["a2", "a4"]
    assert asked.alerts == ["a2", "a4"]


def test_what_was_told_before_a_loss_is_not_told_again(harness: HubHarness) -> None:
    phone, screen = FakePublisher(), FakeViewer(harness.hub)
    harness.publish(phone, wants_alerts=True)
    screen.subscribe("door", now=0.0)
    harness.hub.delivery.on_alert(alert(1), 0.0)
    harness.hub.delivery.on_alert(alert(1), 0.0, accepted_s=1.0)
    harness.hub.delivery.on_alert(alert(2), 0.0, accepted_s=1.0)
    harness.hub.delivery.on_alert(alert(3), 0.0, accepted_s=-5.0)
    assert screen.alerts == [m["id"] for m in phone.messages] == ["a1", "a2"]


def test_frames_that_nobody_here_watches_or_whose_camera_is_here_are_dropped(harness: HubHarness) -> None:
    harness.hub.delivery.on_remote_frame(remote(3), 0.0)
    assert harness.hub.delivery.newest_frame("door") is None
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    harness.publish(FakePublisher(), term=1)
    harness.hub.delivery.on_remote_frame(remote(3, term=9), 0.0)
    assert screen.frames == []
