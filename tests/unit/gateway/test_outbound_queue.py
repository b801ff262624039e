"""The outbound queue of one viewer: messages in order and first, of each stream the newest frame, both bounded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from watchout.common.media.frames import Frame
from watchout.common.metric_names import DECLARED
from watchout.common.settings import Settings
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.subscription import UNACKED_EVERY_S, DropReason, Subscription
from watchout.identity import Identity

ANN = Identity("ann", "1", 0.0)


def wish(stream: str = "door", **wishes: Any) -> Subscription:
    return Subscription(stream, ANN, video=True, alerts=True, **wishes)


def frame(number: int, stream: str = "door") -> Frame:
    return Frame(stream, number, 0, picture=b"p")


def encode(subscription: Subscription, frame: Frame) -> bytes | None:
    return b"%s %d" % (subscription.stream.encode(), frame.frame_id)


def make(**limits: int) -> OutboundQueue:
    return OutboundQueue(Settings(**limits), encode)  # type: ignore[arg-type]


def drain(queue: OutboundQueue, now: float = 0.0) -> list[bytes]:
    """What goes out once the socket takes bytes again."""
    queue.blocked = False
    written = []
    while (wire := queue.next(now)) is not None:
        written.append(wire)
    return written


# ── while the socket takes bytes ─────────────────────────────────────────────────────────────────────────────────


def test_nothing_waits_while_the_socket_takes_bytes() -> None:
    queue, door = make(), wish()
    for number in range(1, 100):
        assert queue.offer_message(b"alert")
        assert queue.offer_frame(door, frame(number), 0.0)
    assert queue.depth == (0, 0)
    assert queue.next(0.0) is None


def test_streams_do_not_hinder_each_other() -> None:
    queue, door, yard = make(), wish("door"), wish("yard")
    assert queue.offer_frame(door, frame(9), 0.0)
    assert queue.offer_frame(yard, frame(1, "yard"), 0.0)


# ── while it does not ────────────────────────────────────────────────────────────────────────────────────────────


def test_of_the_frames_that_wait_the_newest_wins() -> None:
    queue, door = make(), wish()
    queue.blocked = True
    for number in (1, 2, 3):
        assert not queue.offer_frame(door, frame(number), 0.0)
    assert queue.depth == (0, 1)
    assert door.dropped == {DropReason.SLOW: 2}
    assert drain(queue) == [b"door 3"]


def test_each_stream_has_one_slot() -> None:
    queue, wishes = make(), [wish(f"s{n}") for n in range(5)]
    queue.blocked = True
    for number in range(1, 50):
        for subscription in wishes:
            queue.offer_frame(subscription, frame(number, subscription.stream), 0.0)
    assert queue.depth == (0, 5)
    assert drain(queue) == [b"s%d 49" % n for n in range(5)]


def test_messages_keep_their_order_and_go_ahead_of_frames() -> None:
    queue, door = make(), wish()
    queue.blocked = True
    queue.offer_frame(door, frame(1), 0.0)
    assert not queue.offer_message(b"first")
    queue.offer_frame(door, frame(2), 0.0)
    assert not queue.offer_message(b"second")
    assert queue.depth == (2, 1)
    assert drain(queue) == [b"first", b"second", b"door 2"]
    assert queue.depth == (0, 0)


def test_a_message_that_comes_while_waiting_ones_go_out_does_not_overtake_them() -> None:
    queue = make()
    queue.blocked = True
    for text in (b"1", b"2"):
        queue.offer_message(text)
    assert queue.next(0.0) == b"1"
    assert not queue.offer_message(b"3")  # the socket filled up again
    assert drain(queue) == [b"2", b"3"]


def test_frames_that_wait_take_fair_turns() -> None:
    queue, door, yard = make(), wish("door"), wish("yard")
    written = []
    for number in range(1, 7):
        queue.blocked = True
        queue.offer_frame(door, frame(number), 0.0)
        queue.offer_frame(yard, frame(number, "yard"), 0.0)
        queue.blocked = False
        written.append(queue.next(0.0))  # the socket takes one frame of two
    assert [w.split()[0] for w in written if w] == [b"door", b"yard"] * 3


def test_a_stream_that_is_wanted_no_more_waits_no_more() -> None:
    queue, door, yard = make(), wish("door"), wish("yard")
    queue.remove(door)
    queue.blocked = True
    queue.offer_frame(door, frame(1), 0.0)
    queue.offer_frame(yard, frame(1, "yard"), 0.0)
    queue.remove(door)
    assert queue.depth == (0, 1)
    assert drain(queue) == [b"yard 1"]


def test_a_stream_whose_numbers_begin_again_is_followed() -> None:
    queue, door = make(), wish(window=1)
    queue.offer_frame(door, frame(2**32 - 2), 0.0)
    queue.offer_frame(door, frame(2**32 - 1), 0.0)
    door.restart_ids()
    assert drain(queue) == []
    assert queue.offer_frame(door, frame(1), 0.0)
    door.acknowledge(1)
    assert queue.offer_frame(door, frame(2), 0.0)


# ── the bound of the message lane ────────────────────────────────────────────────────────────────────────────────


def test_the_lane_is_full_exactly_at_its_number_of_messages() -> None:
    queue = make(alert_queue_messages=3)
    queue.blocked = True
    for _ in range(3):
        queue.offer_message(b"12345")
    with pytest.raises(OutboundQueueFull) as caught:
        queue.offer_message(b"")
    assert (caught.value.messages, caught.value.pending_bytes) == (3, 15)


def test_the_lane_is_full_exactly_at_its_number_of_bytes() -> None:
    queue = make(alert_queue_bytes=1024)
    queue.blocked = True
    queue.offer_message(b"x" * 1000)
    queue.offer_message(b"x" * 24)
    with pytest.raises(OutboundQueueFull):
        queue.offer_message(b"x")
    assert queue.depth == (2, 0)


def test_what_went_out_makes_room() -> None:
    queue = make(alert_queue_messages=2, alert_queue_bytes=1024)
    for _ in range(10):
        queue.blocked = True
        queue.offer_message(b"x" * 1000)
        queue.offer_message(b"x" * 24)
        assert len(drain(queue)) == 2


def test_frames_take_no_room_of_the_message_lane() -> None:
    queue = make(alert_queue_messages=1)
    queue.blocked = True
    for n in range(50):
        queue.offer_frame(wish(f"s{n}"), frame(1, f"s{n}"), 0.0)
    queue.offer_message(b"alert")
    assert queue.depth == (1, 50)


def test_a_socket_that_takes_bytes_has_no_bound() -> None:
    queue = make(alert_queue_messages=1, alert_queue_bytes=1024)
    assert all(queue.offer_message(b"x" * 2000) for _ in range(10))


# ── the window ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_more_frames_are_under_way_than_the_window() -> None:
    queue, door = make(), wish(window=2)
    assert [queue.offer_frame(door, frame(n), 0.0) for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert queue.depth == (0, 1)
    assert door.dropped == {DropReason.WINDOW: 1}
    assert queue.next(0.5) is None


def test_an_ack_opens_the_window_for_the_newest_frame() -> None:
    queue, door = make(), wish(window=2)
    for number in (1, 2, 3, 4):
        queue.offer_frame(door, frame(number), 0.0)
    door.acknowledge(1)
    assert drain(queue, 0.1) == [b"door 4"]
    assert not queue.offer_frame(door, frame(5), 0.1)


def test_an_ack_is_for_all_frames_up_to_it() -> None:
    queue, door = make(), wish(window=3)
    for number in (1, 2, 3):
        assert queue.offer_frame(door, frame(number), 0.0)
    door.acknowledge(3)
    assert [queue.offer_frame(door, frame(n), 0.0) for n in (4, 5, 6, 7)] == [True, True, True, False]


def test_an_ack_of_what_was_never_sent_opens_no_more_than_the_window() -> None:
    queue, door = make(), wish(window=1)
    door.acknowledge(1000)
    assert [queue.offer_frame(door, frame(n), 0.0) for n in (1, 2)] == [True, False]
    door.acknowledge(0)
    assert not queue.offer_frame(door, frame(3), 0.0)


def test_without_a_window_acks_count_for_nothing() -> None:
    queue, door = make(), wish()
    for number in range(1, 1000):
        assert queue.offer_frame(door, frame(number), 0.0)
    door.acknowledge(5)
    assert not door.unacked


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_viewer_that_stops_acknowledging_gets_one_frame_a_second(window: int) -> None:
    queue, door = make(), wish(window=window)
    sent = [n / 30 for n in range(30 * 10) if queue.offer_frame(door, frame(n + 1), n / 30)]
    after = sent[window - 1 :]
    assert len(after) == 10
    gaps = [later - earlier for earlier, later in itertools.pairwise(after)]
    assert gaps == [pytest.approx(UNACKED_EVERY_S, abs=0.05)] * 9
    assert len(door.unacked) <= window


def test_the_frame_that_waits_for_the_window_goes_out_after_a_second_without_a_newer_one() -> None:
    queue, door = make(), wish(window=1)
    queue.offer_frame(door, frame(1), 10.0)
    queue.offer_frame(door, frame(2), 10.2)
    assert queue.next(10.9) is None
    assert drain(queue, 11.0) == [b"door 2"]


def test_a_closed_window_holds_up_no_other_stream_and_no_message() -> None:
    queue, door, yard = make(), wish("door", window=1), wish("yard")
    queue.offer_frame(door, frame(1), 0.0)
    queue.offer_frame(door, frame(2), 0.0)
    assert queue.offer_frame(yard, frame(1, "yard"), 0.0)
    assert queue.offer_message(b"alert")
    queue.blocked = True
    queue.offer_frame(yard, frame(2, "yard"), 0.0)
    assert drain(queue) == [b"yard 2"]
    door.acknowledge(1)
    assert drain(queue) == [b"door 2"]


def test_a_frame_that_cannot_be_had_is_passed_over_and_not_under_way() -> None:
    queue = OutboundQueue(Settings(), lambda s, f: None if f.frame_id == 2 else encode(s, f))
    door, yard = wish("door", window=1), wish("yard")
    queue.blocked = True
    queue.offer_frame(door, frame(2), 0.0)
    queue.offer_frame(yard, frame(1, "yard"), 0.0)
    assert drain(queue) == [b"yard 1"]
    assert queue.offer_frame(door, frame(3), 0.0)
    door.mark_undecodable()
    assert queue.offer_frame(door, frame(4), 0.0)


# ── the rate ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_max_fps_thins_the_frames_out_evenly() -> None:
    queue, door = make(), wish(max_fps=5)
    sent = [n for n in range(300) if queue.offer_frame(door, frame(n + 1), n / 30)]
    assert len(sent) == pytest.approx(50, abs=2)
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) <= 7
    assert door.dropped == {DropReason.RATE: 300 - len(sent) - queue.depth[1]}


def test_the_last_frame_over_the_rate_waits_for_its_turn() -> None:
    queue, door = make(), wish(max_fps=2)
    assert [queue.offer_frame(door, frame(n), n / 10) for n in (1, 2, 3)] == [True, False, False]
    at = queue.release_at(0.3)
    assert at is not None
    assert 0.1 + 0.375 <= at <= 0.1 + 0.5
    assert queue.next(at - 0.001) is None
    assert queue.next(at) == b"door 3"
    assert queue.next(at + 9) is None
    assert (queue.release_at(at), door.dropped) == (None, {DropReason.RATE: 1})
    assert not queue.offer_frame(door, frame(4), at + 0.3)  # it was counted


def test_a_frame_that_comes_in_its_turn_replaces_the_one_that_waits() -> None:
    queue, door = make(), wish(max_fps=2)
    assert [queue.offer_frame(door, frame(n), n / 4) for n in (1, 2, 3)] == [True, False, True]
    assert queue.next(9.0) is None
    assert door.dropped == {DropReason.RATE: 1}


def test_what_a_full_socket_takes_later_is_the_newest_frame_also_of_those_over_the_rate() -> None:
    queue, door = make(), wish(max_fps=2)
    queue.blocked = True
    for number in (1, 2, 3):
        assert not queue.offer_frame(door, frame(number), number / 10)
    assert door.dropped == {DropReason.SLOW: 2}  # nothing was sent, so none was over the rate
    assert drain(queue, 0.4) == [b"door 3"]
    queue.blocked = True
    assert not queue.offer_frame(door, frame(4), 0.5)
    assert not queue.offer_frame(door, frame(5), 1.5)
    assert door.dropped == {DropReason.SLOW: 3}
    assert not queue.awaits_ack()
    assert drain(queue, 1.5) == [b"door 5"]


def test_rate_and_window_both_hold_a_frame_back() -> None:
    queue, door = make(), wish(max_fps=2, window=1)
    assert [queue.offer_frame(door, frame(n), n / 10) for n in (1, 2)] == [True, False]
    assert queue.awaits_ack()
    door.acknowledge(1)
    assert queue.next(0.2) is None
    assert queue.next(0.6) == b"door 2"
    assert not queue.offer_frame(door, frame(3), 0.7)
    assert queue.next(1.2) is None  # the rate permits it, the window does not
    door.acknowledge(2)
    assert queue.next(1.2) == b"door 3"


def test_a_frame_that_cannot_be_had_counts_against_no_rate() -> None:
    queue = OutboundQueue(Settings(), lambda s, f: None if f.frame_id == 2 else encode(s, f))
    door = wish(max_fps=1)
    assert queue.offer_frame(door, frame(1), 0.0)
    door.mark_undecodable()
    queue.blocked = True
    assert not queue.offer_frame(door, frame(2), 0.1)
    assert drain(queue, 0.1) == []
    assert queue.offer_frame(door, frame(3), 0.2)
    assert door.dropped == {DropReason.UNDECODABLE: 2}


def test_who_leaves_or_whose_term_ends_gets_nothing_that_waited_for_the_rate() -> None:
    queue, door, yard, gate = make(), wish("door", max_fps=1), wish("yard", max_fps=1), wish("gate", max_fps=1)
    for subscription in (door, yard, gate):
        assert queue.offer_frame(subscription, frame(1, subscription.stream), 0.0)
        assert not queue.offer_frame(subscription, frame(2, subscription.stream), 0.1)
    queue.remove(door)
    yard.drop_over_rate()
    gate.restart_ids()
    assert queue.next(9.0) is None
    assert [s.dropped for s in (door, yard, gate)] == [
        {DropReason.GONE: 1}, {DropReason.RATE: 1}, {DropReason.RATE: 1},
    ]  # fmt: skip


def test_a_frame_that_waits_for_a_full_socket_outlives_its_term() -> None:
    queue, door = make(), wish(max_fps=1)
    queue.blocked = True
    assert not queue.offer_frame(door, frame(1), 0.0)
    door.drop_over_rate()
    assert drain(queue) == [b"door 1"]


# ── why a frame was skipped ──────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_that_waited_for_the_window_and_is_overtaken_when_it_opens_is_counted() -> None:
    queue, door = make(), wish(window=1)
    assert [queue.offer_frame(door, frame(n), 0.0) for n in (1, 2)] == [True, False]
    door.acknowledge(1)
    assert queue.offer_frame(door, frame(3), 0.1)
    assert (door.waiting_frame, door.dropped) == (None, {DropReason.WINDOW: 1})
    assert drain(queue, 0.1) == []


def test_a_frame_that_waits_when_its_viewer_leaves_is_counted_as_gone() -> None:
    queue, door = make(), wish()
    queue.blocked = True
    queue.offer_frame(door, frame(1), 0.0)
    queue.remove(door)
    queue.remove(door)
    assert door.dropped == {DropReason.GONE: 1}


@pytest.mark.parametrize(("window", "reason"), [(None, DropReason.SLOW), (2, DropReason.SLOW), (1, DropReason.WINDOW)])
def test_a_frame_that_waits_when_the_numbers_begin_again_gives_way_to_the_first(
    window: int | None, reason: DropReason
) -> None:
    queue, door = make(), wish(window=window)
    assert queue.offer_frame(door, frame(2**32 - 2), 0.0)
    queue.blocked = reason is DropReason.SLOW
    assert not queue.offer_frame(door, frame(2**32 - 1), 0.0)
    door.restart_ids()
    assert door.dropped == {reason: 1}
    queue.blocked = True
    queue.offer_frame(door, frame(1), 0.0)
    assert drain(queue) == [b"door 1"]


def test_a_frame_that_cannot_be_had_is_counted_whether_it_waited_or_not() -> None:
    queue = OutboundQueue(Settings(), lambda _s, _f: None)
    door = wish()
    assert queue.offer_frame(door, frame(1), 0.0)
    door.mark_undecodable()
    queue.blocked = True
    queue.offer_frame(door, frame(2), 0.0)
    assert drain(queue) == []
    assert door.dropped == {DropReason.UNDECODABLE: 2}


def test_what_was_skipped_is_told_once() -> None:
    door = wish()
    assert door.take_newly_dropped() == {}
    door.drop(DropReason.SLOW)
    door.drop(DropReason.SLOW)
    assert door.take_newly_dropped() == {DropReason.SLOW: 2}
    assert door.take_newly_dropped() == {}
    door.drop(DropReason.SLOW)
    door.drop(DropReason.RATE)
    told = {why: count for why, count in door.take_newly_dropped().items() if count}
    assert told == {DropReason.SLOW: 1, DropReason.RATE: 1}
    assert door.dropped == {DropReason.SLOW: 3, DropReason.RATE: 1}


def test_every_reason_has_a_figure_of_its_own() -> None:
    assert len({why.metric for why in DropReason}) == len(DropReason)
    assert all(why.metric in DECLARED for why in DropReason)
