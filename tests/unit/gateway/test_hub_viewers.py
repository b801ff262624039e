"""Subscriptions at the hub: what a viewer gets, and which state of a stream holds."""

from __future__ import annotations

import pytest

from tests.kit.hub import (
    ANN,
    DirectViewer,
    FakePublisher,
    FakeViewer,
    HubHarness,
    alert,
    ms,
    remote,
    subscribe_directly,
    word,
)
from watchout.gateway.hub.delivery import MAX_HELD_ALERTS
from watchout.gateway.hub.streams import CLOSED_KEPT_S
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.model import Owner, StreamState

# ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_viewer_gets_the_status_and_then_the_newest_frame(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.frame(publication)
    harness.frame(publication)
    screen = FakeViewer(harness.hub)
    assert not screen.subscribe("door", "offline", None)
    assert screen.order == ["message", "frame"]
    assert screen.statuses == ["streaming"]
    assert screen.frames == [("door", 2)]


@pytest.mark.parametrize("options", [{"last_frame": False}, {"video": False}])
def test_whoever_does_not_want_the_newest_frame_does_not_get_it(harness: HubHarness, options: dict[str, bool]) -> None:
    harness.frame(harness.publish(FakePublisher()))
    screen = FakeViewer(harness.hub)
    assert not screen.subscribe("door", **options)
    assert screen.frames == []
    assert screen.statuses == ["streaming"]


def test_the_newest_frame_of_a_camera_elsewhere_is_asked_for_once_it_is_not_here(harness: HubHarness) -> None:
    first, second, third = FakeViewer(harness.hub), FakeViewer(harness.hub), FakeViewer(harness.hub)
    assert first.subscribe("door", "streaming", "ann")
    assert not third.subscribe("door", last_frame=False)
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(9), 0.0)
    assert not second.subscribe("door", "streaming", "ann")
    assert second.frames == [("door", 9)]


def test_a_frame_that_comes_again_is_for_those_who_wait_for_their_first_and_is_missed_by_nobody(
    harness: HubHarness,
) -> None:
    first, slow, direct = FakeViewer(harness.hub), FakeViewer(harness.hub), DirectViewer(harness.hub)
    first.subscribe("door", "streaming", "ann")
    slow.subscribe("door", "streaming", "ann")
    slow.queue.blocked = True
    subscribe_directly(harness, direct)
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(8), 0.0)
    harness.hub.delivery.on_remote_frame(remote(9), 0.0)
    stream = harness.hub.stream("door")
    assert stream is not None
    harness.hub.delivery.forget_newest(stream)  # it gave way to those of other streams
    waiting, later = FakeViewer(harness.hub), FakeViewer(harness.hub)
    assert waiting.subscribe("door", "streaming", "ann"), "the newest is asked for"
    assert not later.subscribe("door", "streaming", "ann", last_frame=False)
    for number in (9, 9, 8):
        harness.hub.delivery.on_remote_frame(remote(number), 0.0)
    assert (waiting.frames, later.frames) == ([("door", 9)], [])
    assert (first.frames, len(direct.got)) == ([("door", 8), ("door", 9)], 2)
    assert harness.hub.delivery.repeated_frames == 3
    harness.hub.delivery.on_remote_frame(remote(10), 0.0)
    viewers = {first: (3, None), waiting: (2, None), later: (1, None), slow: (0, {DropReason.SLOW: 2})}
    for viewer, (written, dropped) in viewers.items():
        (subscription,) = viewer.subscriptions
        assert (subscription.frames_written(stream.arrived), subscription.dropped) == (written, dropped)
        assert len(viewer.frames) == written
    assert (direct.subscription.frames_written(stream.arrived), direct.dropped) == (3, {})


def test_a_camera_here_without_a_frame_yet_is_not_asked_for_elsewhere(harness: HubHarness) -> None:
    harness.publish(FakePublisher())
    assert not FakeViewer(harness.hub).subscribe("door", "streaming", "ann")


def test_the_first_viewer_believes_the_router_and_the_next_what_is_known_here(harness: HubHarness) -> None:
    first, second = FakeViewer(harness.hub), FakeViewer(harness.hub)
    first.subscribe("door", "online", "ann")
    second.subscribe("door", "offline", None)
    assert (first.statuses, second.statuses) == (["online"], ["online"])
    assert harness.hub.newest_state("door", StreamState()).status == "online"
    assert harness.hub.newest_state("never", StreamState()).status == "offline"


def test_a_viewer_of_several_streams_gets_each(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    screen.subscribe("yard")
    harness.frame(harness.publish(FakePublisher(), "door"))
    harness.frame(harness.publish(FakePublisher(), "yard"))
    assert screen.frames == [("door", 1), ("yard", 1)]


def test_whoever_left_gets_nothing_more(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    publication = harness.publish(FakePublisher())
    screen.leave()
    harness.frame(publication)
    harness.hub.delivery.on_alert(alert(), 0.0)
    harness.hub.release(publication, ms(1))
    assert (screen.frames, screen.alerts, screen.statuses) == ([], [], ["offline", "streaming"])


def test_leaving_twice_changes_nothing(harness: HubHarness) -> None:
    screen, other = FakeViewer(harness.hub), FakeViewer(harness.hub)
    other.subscribe("door")
    screen.subscribe("door")
    (subscription,) = screen.subscriptions
    screen.leave()
    harness.changes()
    harness.hub.unsubscribe(subscription)
    assert harness.changes() == []
    assert [s for s, _ in harness.hub.viewers_of("door")] == other.subscriptions


def test_a_viewer_that_is_closed_by_its_first_status_leaves_nothing_behind(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.frame(publication)
    screen = FakeViewer(harness.hub, alert_queue_messages=1)
    screen.queue.blocked = True
    screen.queue.offer_message(b"full")
    assert not screen.subscribe("door")
    assert harness.hub.viewers_of("door") == []
    assert harness.hub.counts() == {"publishers": 1, "video_viewers": 0, "alert_viewers": 0}
    harness.frame(publication)
    assert screen.frames == []


def test_a_viewer_that_is_closed_by_a_status_does_not_keep_it_from_others(harness: HubHarness) -> None:
    full, other = FakeViewer(harness.hub, alert_queue_messages=1), FakeViewer(harness.hub)
    full.subscribe("door")
    other.subscribe("door")
    full.queue.blocked = True
    full.queue.offer_message(b"full")
    publication = harness.publish(FakePublisher())
    harness.hub.release(publication, ms(1))
    assert other.statuses == ["offline", "streaming", "offline"]
    assert full.subscriptions == []


# ── the last word on a stream ────────────────────────────────────────────────────────────────────────────────────────


ANNS, BOBS = StreamState("offline", Owner("ann"), 4), StreamState("streaming", Owner("bob"), 5)


def test_of_a_stream_that_nobody_here_has_to_do_with_the_router_has_the_last_word(harness: HubHarness) -> None:
    assert harness.hub.newest_state("door", ANNS) == ANNS


def test_an_answer_that_waited_while_the_stream_changed_hands_is_not_the_last_word(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door", "offline", "ann")
    harness.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    assert harness.hub.newest_state("door", ANNS) == BOBS


def test_nor_is_it_when_everybody_lost_the_right_to_the_stream_at_once(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "offline", "ann")
    screen.leave()  # as the link has it before the hub takes in the word
    harness.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    assert harness.hub.newest_state("door", ANNS) == BOBS
    assert harness.hub.newest_state("door", StreamState("online", Owner("eve"), 6)) == StreamState(
        "online", Owner("eve"), 6
    )


def test_the_routers_word_counts_also_of_what_was_known_a_while_ago_and_no_older_one_does(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "offline", "ann")
    harness.hub.on_status(word("offline", user="ann", term=4), 0.0, ms(0))
    screen.leave()
    harness.hub.tick(0.0, ms(0))
    harness.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    harness.hub.on_status(word("offline", user="ann", term=4), 0.0, ms(0))
    assert harness.hub.newest_state("door", ANNS) == BOBS


def test_live_alerts_that_come_too_fast_for_a_replay_are_neither_sent_past_it_nor_kept(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    (subscription,) = screen.subscriptions
    subscription.held_alerts = {}
    for number in range(MAX_HELD_ALERTS + 5):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    assert screen.alerts == []
    assert len(subscription.held_alerts) == MAX_HELD_ALERTS
    assert subscription.held_alerts_overflowed


def test_what_was_known_lately_is_forgotten(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "bob")
    harness.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    screen.leave()
    harness.hub.tick(0.0, ms(0))
    assert harness.hub.newest_state("door", ANNS) == BOBS
    harness.hub.tick(CLOSED_KEPT_S, ms(0))
    harness.hub.tick(2 * CLOSED_KEPT_S, ms(0))
    assert harness.hub.newest_state("door", ANNS) == ANNS


def test_of_streams_that_ended_so_many_are_remembered_and_the_oldest_is_forgotten(
    harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.gateway.hub.streams.CLOSED_KEPT", 3)
    for number in range(5):
        screen = FakeViewer(harness.hub)
        screen.subscribe(f"door-{number}", "streaming", "bob")
        harness.hub.on_status(word("streaming", stream=f"door-{number}", user="bob", term=5), 0.0, ms(0))
        screen.leave()
    found = [harness.hub.newest_state(f"door-{number}", ANNS) == ANNS for number in range(5)]
    assert found == [True, True, False, False, False]


def test_a_camera_here_is_the_last_word(harness: HubHarness) -> None:
    harness.publish(FakePublisher(), user="ann", term=4)
    assert harness.hub.newest_state("door", BOBS) == StreamState("streaming", Owner("ann"), 4)


def test_a_viewer_who_comes_back_in_the_same_moment_goes_on_with_the_frames_of_that_term(harness: HubHarness) -> None:
    screen, again = FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    screen.leave()
    again.hub.subscribe(
        subscription := Subscription("door", ANN, video=True, alerts=False), again,
        harness.hub.newest_state("door", StreamState("streaming", Owner("ann"), 5)), 0.0, ms(0),
    )  # fmt: skip
    harness.hub.delivery.on_remote_frame(remote(1), 0.0)  # the router saw no change of interest, and says nothing
    assert again.frames == [("door", 1)]
    harness.hub.unsubscribe(subscription)
