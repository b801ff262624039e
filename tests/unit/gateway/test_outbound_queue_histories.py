"""Random histories of an outbound queue: what is offered, written and dropped adds up, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.common.test_rate import most_in_any_window
from tests.unit.gateway.test_outbound_queue import drain, encode, frame, make, wish
from watchout.common.settings import Settings
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.subscription import DropReason, Subscription


@dataclass
class Watched:
    """One subscription's story: what was offered to it, and what it got."""

    subscription: Subscription
    #: The numbers in which every third cannot be had in its format.
    bad: bool = False
    offered: int = 0
    newest: int = 0
    got: list[int] = field(default_factory=list)
    told: dict[DropReason, int] = field(default_factory=dict)
    sent: int = 0
    #: When it got them, and when the last one was offered.
    got_at: list[float] = field(default_factory=list)
    offered_at: float = 0.0

    @property
    def dropped(self) -> dict[DropReason, int]:
        return self.subscription.dropped or {}

    def is_bad(self, number: int) -> bool:
        return self.bad and number % 3 == 0


class AnyHistory(RuleBasedStateMachine):
    """A viewer of four streams whose socket fills and drains as it likes, and who comes and goes."""

    MOST = 6
    MOST_BYTES = 1024
    WISHES: ClassVar[dict[str, dict[str, Any]]] = {
        "a": {}, "b": {"window": 2}, "c": {"max_fps": 4}, "d": {"window": 1, "max_fps": 8},
    }  # fmt: skip
    BAD = "bd"

    def __init__(self) -> None:
        super().__init__()
        self.queue = OutboundQueue(
            Settings(alert_queue_messages=self.MOST, alert_queue_bytes=self.MOST_BYTES),
            lambda s, f: None if self.watched[s.stream].is_bad(f.frame_id) else encode(s, f),
        )
        self.watched = {name: self.watch(name) for name in self.WISHES}
        self.left: list[Watched] = []
        self.now = 0.0
        self.said: list[bytes] = []
        self.heard: list[bytes] = []

    def watch(self, name: str) -> Watched:
        return Watched(wish(name, **self.WISHES[name]), name in self.BAD)

    def write(self, wire: bytes) -> None:
        if wire.startswith(b"m"):
            self.heard.append(wire)
            return
        assert len(self.heard) == len(self.said), "a frame overtook a message"
        stream, number = wire.split()
        watched = self.watched[stream.decode()]
        watched.got.append(int(number))
        watched.sent += 1
        watched.got_at.append(self.now)

    def write_all(self) -> None:
        while (wire := self.queue.next(self.now)) is not None:
            self.write(wire)

    @rule(gap=st.floats(0, 1.5))
    def time_passes(self, gap: float) -> None:
        """What waits for a rate goes out when it is due, as `RateWaits` has it."""
        end = self.now + gap
        while (at := self.queue.release_at(self.now)) is not None and at <= end:
            self.now = at
            if not self.queue.blocked:
                self.write_all()
        self.now = end

    @rule(size=st.integers(0, 400))
    def a_message_comes(self, size: int) -> None:
        wire = b"m%d" % len(self.said) + b"." * size
        waiting = self.said[len(self.heard) :]
        if self.queue.blocked and (len(waiting) == self.MOST or sum(map(len, waiting)) + len(wire) > self.MOST_BYTES):
            with pytest.raises(OutboundQueueFull):
                self.queue.offer_message(wire)
            return
        write = self.queue.offer_message(wire)
        assert write is not self.queue.blocked
        self.said.append(wire)
        if write:
            self.write(wire)

    @rule(name=st.sampled_from("abcd"), step=st.integers(1, 4))
    def a_frame_comes(self, name: str, step: int) -> None:
        watched = self.watched[name]
        number = watched.newest + step
        watched.offered += 1
        watched.offered_at = self.now
        if self.queue.offer_frame(watched.subscription, frame(number, name), self.now):
            if watched.is_bad(number):
                watched.subscription.mark_undecodable()
            else:
                self.write(b"%s %d" % (name.encode(), number))
        watched.newest = number

    @rule()
    def the_socket_is_full(self) -> None:
        self.queue.blocked = True

    @precondition(lambda self: self.queue.blocked)
    @rule(room=st.integers(1, 12))
    def the_socket_takes_bytes(self, room: int) -> None:
        self.queue.blocked = False
        while (wire := self.queue.next(self.now)) is not None:
            self.write(wire)
            room -= 1
            if not room:
                self.queue.blocked = True
                return
        assert self.heard == self.said
        plain = self.watched["a"]
        assert plain.subscription.waiting_frame is None
        assert plain.got[-1:] == ([plain.newest] if plain.newest else [])

    @rule(name=st.sampled_from("bd"), back=st.integers(-1, 5))
    def the_viewer_acknowledges(self, name: str, back: int) -> None:
        watched = self.watched[name]
        assume(watched.got)
        watched.subscription.acknowledge(max(0, watched.got[-1] - back))
        if not self.queue.blocked:
            self.write_all()

    @precondition(lambda self: not self.queue.blocked)
    @rule()
    def the_timer_of_the_windows_is_due(self) -> None:
        self.write_all()

    @rule(name=st.sampled_from("abcd"))
    def the_viewer_leaves_a_stream_and_comes_back(self, name: str) -> None:
        gone = self.watched[name]
        self.queue.remove(gone.subscription)
        assert gone.subscription.waiting_frame is None
        self.left.append(gone)
        self.watched[name] = self.watch(name)

    @rule(name=st.sampled_from("abcd"))
    def the_numbers_begin_again(self, name: str) -> None:
        watched = self.watched[name]
        watched.subscription.restart_ids()
        watched.newest, watched.got = 0, []

    @rule(name=st.sampled_from("abcd"))
    def the_figures_are_brought_up_to_date(self, name: str) -> None:
        watched = self.watched[name]
        for why, count in watched.subscription.take_newly_dropped().items():
            assert count >= 0
            watched.told[why] = watched.told.get(why, 0) + count
        assert watched.told == watched.dropped

    @invariant()
    def every_frame_that_was_offered_was_sent_or_waits_or_was_skipped_for_one_reason(self) -> None:
        for watched in (*self.watched.values(), *self.left):
            waits = watched.subscription.waiting_frame is not None
            assert watched.offered == watched.sent + waits + sum(watched.dropped.values())

    @invariant()
    def no_reason_is_given_that_cannot_be(self) -> None:
        for watched in (*self.watched.values(), *self.left):
            possible = {DropReason.SLOW}
            subscription = watched.subscription
            if subscription.max_fps:
                possible.add(DropReason.RATE)
            if subscription.window:
                possible.add(DropReason.WINDOW)
            if watched.bad:
                possible.add(DropReason.UNDECODABLE)
            if watched in self.left:
                possible.add(DropReason.GONE)
            assert set(watched.dropped) <= possible
            assert all(count > 0 for count in watched.dropped.values())

    @invariant()
    def messages_keep_their_order_and_none_is_skipped(self) -> None:
        assert self.heard == self.said[: len(self.heard)]
        assert len(self.said) - len(self.heard) == self.queue.depth[0]

    @invariant()
    def frames_never_go_back_and_none_comes_twice(self) -> None:
        for watched in (*self.watched.values(), *self.left):
            assert watched.got == sorted(set(watched.got))

    @invariant()
    def what_waits_is_bounded(self) -> None:
        messages, frames = self.queue.depth
        assert messages <= self.MOST
        assert sum(map(len, self.said[len(self.heard) :])) <= self.MOST_BYTES
        assert frames == sum(watched.subscription.waiting_frame is not None for watched in self.watched.values())
        assert len(self.queue._frames or ()) <= len(self.watched)
        for watched in self.watched.values():
            assert len(watched.subscription.unacked) <= (watched.subscription.window or 0)

    @invariant()
    def nothing_waits_without_a_reason(self) -> None:
        if not self.queue.blocked:
            assert self.queue.depth[0] == 0
            assert self.watched["a"].subscription.waiting_frame is None
            paced = self.watched["c"]
            if paced.subscription.waiting_frame is not None:
                assert self.now < paced.subscription.release_at() <= paced.offered_at + 1 / 4

    @invariant()
    def nobody_gets_more_than_its_rate(self) -> None:
        for watched in self.watched.values():
            if (rate := watched.subscription.max_fps) is not None:
                assert most_in_any_window(watched.got_at, rate) <= 2 + 1e-6


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=50)


@given(st.sets(st.integers(1, 200), max_size=60).map(sorted), st.lists(st.booleans(), max_size=60))
@settings(max_examples=80)
def test_a_viewer_that_catches_up_has_the_newest_frame(numbers: list[int], full: list[bool]) -> None:
    queue, door = make(), wish()
    seen: list[bytes] = []
    for number, blocked in zip(numbers, full, strict=False):
        if blocked:
            queue.blocked = True
        elif queue.blocked:
            seen += drain(queue)
        if queue.offer_frame(door, frame(number), 0.0):
            seen.append(b"door %d" % number)
    seen += drain(queue)
    offered = numbers[: min(len(numbers), len(full))]
    assert seen[-1:] == ([b"door %d" % offered[-1]] if offered else [])
