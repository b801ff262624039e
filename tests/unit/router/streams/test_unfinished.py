"""What one event changes about many streams is done in parts, and ends as if it were done at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.streams.room import EPOCH, NOW_MS, A, B, C, M, N, Room, at, status
from watchout.common.bus.messages import Forward, GrantedReply, StatusUpdate
from watchout.common.toolbox.globs import Globs
from watchout.router.streams.stream import BridgeRecord, RouterStream, Send
from watchout.router.streams.unfinished import UnfinishedStreams

# ── in any order ─────────────────────────────────────────────────────────────────────────────────────────────────────

ALL = Globs()
#: Fields of a stream that are compared as they are.
COMPARED = (
    "gateway", "last_gateway", "user", "organizations", "term", "status", "producing", "wants_alerts", "frame_id",
    "bridges", "dropped", "confirmed", "started_at",
)  # fmt: skip
#: What happens, to which member, stream, user, with which number; and how much of what is due is done after it.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["claim", "claim", "hold", "hold", "interest", "interest", "release", "greets", "ends", "gone", "bridge"]
        ),
        st.sampled_from([A, A, B, C]),
        st.sampled_from("wxyz"),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=40,
)


class Registry:
    """A registry with the members that it has, and what they were told last of each stream."""

    def __init__(self, max_streams: int, *, syncing: bool, at_once: bool) -> None:
        self.room = Room(max_streams=max_streams, syncing=syncing)
        self.at_once = at_once
        self.told: dict[tuple[bytes, str, type], Any] = {}
        self.replies: list[Send] = []
        self.terms: dict[tuple[bytes, str], int] = {}

    def take(self, sends: list[Send]) -> None:
        """Keep replies in their order, and of all else what is the last word for each member and stream."""
        for send in sends:
            if isinstance(send.body, Forward | StatusUpdate):
                self.told[send.member, send.body.stream, type(send.body)] = _or_none(send.body)
            else:
                self.replies.append(send)
            if isinstance(send.body, GrantedReply):
                self.terms[send.member, send.body.stream] = send.body.term

    def happens(self, what: str, member: bytes, stream: str, user: str, number: int) -> None:
        streams, now, now_ms = self.room.streams, self.room.now, NOW_MS + int(self.room.now)
        self.take(streams.finish(stream))
        match what:
            case "claim":
                self.take(self.room.claim(member, user, stream))
            case "hold":
                term = self.terms.get((member, stream), (EPOCH << 20) + number)
                self.take(self.room.hold(member, term, stream, user=user, producing=number > 0))
            case "interest":
                self.take(self.room.interest(member, number, number % 2, stream))
            case "release":
                self.take(self.room.release(member, self.terms.get((member, stream), 0), number, stream))
            case "greets":
                streams.begin_snapshot(member, None if member == C else at(member))
            case "ends":
                streams.end_snapshot(member, now, now_ms)
            case "gone":
                streams.remove_member(member, now, now_ms)
                self.told = {key: told for key, told in self.told.items() if key[0] != member}
            case "bridge" if number:
                streams.add_bridge(BridgeRecord(M if number % 2 else N, "day", number, ALL))
            case _:
                streams.remove_member(M, now, now_ms)
        self.room.now += 1.0
        if self.at_once:
            self.take(self.room.finished())

    def ends(self) -> None:
        """End all snapshots, and do all that is due: an address that a greeting changes counts from then on."""
        for member in sorted(self.room.streams._snapshots._unconfirmed):
            self.happens("ends", member, "w", "ann", 0)
        self.take(self.room.finished())

    def counts(self) -> dict[tuple[bytes, str, type], Any]:
        """What was told last to publishers' gateways of routes, and to those with viewers of the status."""
        known = self.room.streams._table.streams
        return {
            (member, stream, kind): told
            for (member, stream, kind), told in self.told.items()
            if told is not None and (s := known.get(stream)) is not None
            and (member == s.gateway if kind is Forward else member in s.interests)
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that is known, without what was told: it is compared apart."""
        streams = self.room.streams
        table = streams._table
        return {
            "streams": {name: [getattr(s, key) for key in COMPARED] for name, s in table.streams.items()},
            "interests": {name: s.interests for name, s in table.streams.items()},
            "routes": {name: _routes(s) for name, s in table.streams.items()},
            "forwards": {name: _or_none(s.forward) for name, s in table.streams.items()},
            "announced": {name: s.announced for name, s in table.streams.items()},
            "published": (table.published_ids, table.published_at, table.viewed_at, table.awaited),
            "totals": streams.totals(connections=0),
            "reservations": dict(streams._ownership.reservations.items()),
            "changed": set(streams._ownership._changed or ()),
            "snapshots": streams._snapshots._unconfirmed,
            "routing": (streams._routing.bridges, streams._routing._addresses, streams._routing._syncing),
        }


def _routes(stream: RouterStream) -> list[tuple[bytes, bool]]:
    return [(member, sampler is None) for member, sampler in stream.routes]


def _or_none(body: Any) -> Any:
    """A request for no frames is as good as none."""
    return None if isinstance(body, Forward) and not body.wanted and not body.receivers else body


@given(events=EVENTS, max_streams=st.sampled_from([2, 100]), settles_after=st.none() | st.integers(0, 20))
def test_whatever_happens_meanwhile_the_end_is_as_if_all_was_done_at_once(
    events: list[tuple[str, bytes, str, str, int, int]], max_streams: int, settles_after: int | None
) -> None:
    syncing = settles_after is not None
    parts = Registry(max_streams, syncing=syncing, at_once=False)
    whole = Registry(max_streams, syncing=syncing, at_once=True)
    for count, (what, member, stream, user, number, some) in enumerate(events):
        for each in (parts, whole):
            if count == settles_after:
                each.room.streams.settle(NOW_MS)
                if each.at_once:
                    each.take(each.room.finished())
            each.happens(what, member, stream, user, number)
        parts.take(parts.room.streams.finish_some(some))
        assert parts.replies == whole.replies
    parts.ends()
    whole.ends()
    assert parts.state() == whole.state()
    assert parts.counts() == whole.counts()


# ── each event ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _leaves(room: Room) -> None:
    room.streams.remove_member(A, room.now, NOW_MS)


def _reports_nothing(room: Room) -> None:
    room.streams.begin_snapshot(A)
    room.streams.end_snapshot(A, room.now, NOW_MS)


def _bridge_joins(room: Room) -> None:
    room.streams.add_bridge(BridgeRecord(M, "day", 2.0))


def _settles(room: Room) -> None:
    room.streams.settle(NOW_MS)


@pytest.mark.parametrize("event", [_leaves, _reports_nothing, _bridge_joins, _settles])
def test_an_event_that_changes_many_streams_does_nothing_at_once_and_then_so_many_as_it_is_asked_for(
    event: Callable[[Room], None],
) -> None:
    room = Room(syncing=True)
    room.joins(A, B, M)
    for number in range(10):
        room.publish(A, stream=f"cam-{number}")
        room.interest(B, stream=f"cam-{number}")
        room.interest(B, stream=f"away-{number}")
    event(room)
    told: list[str] = []
    while room.streams.is_unfinished:
        before = len(room.streams._unfinished)
        sends = room.streams.finish_some(3)
        assert len({send.body.stream for send in sends}) <= 3  # type: ignore[union-attr]
        assert before > len(room.streams._unfinished)
        told += [send.body.stream for send in sends]  # type: ignore[union-attr]
    assert len(set(told)) >= 10


def test_the_streams_of_a_gateway_that_is_gone_can_be_claimed_where_there_is_room_for_no_more() -> None:
    room = Room(max_streams=2)
    for stream in "xy":
        room.publish(A, stream=stream)
    room.streams.remove_member(A, room.now, NOW_MS)
    assert room.granted(B, stream="z").stream == "z"
    assert room.streams.published_count == 2


def test_viewers_of_a_gateway_that_is_gone_make_room_for_others() -> None:
    room = Room(max_streams=1)
    room.interest(A, stream="x")
    room.streams.remove_member(A, room.now, NOW_MS)
    assert room.interest(B, stream="y") == [Send(B, status("offline", 0, None, stream="y"))]


def test_members_that_are_gone_by_then_are_told_nothing() -> None:
    room = Room()
    term = room.publish(A)
    room.interest(B)
    room.interest(C)
    for member in (A, B):
        room.streams.remove_member(member, room.now, NOW_MS)
    assert room.finished() == [Send(C, status("offline", term))]


def test_a_stream_that_ends_before_all_have_reported_is_announced_again_to_those_who_came_meanwhile() -> None:
    room = Room(syncing=True)
    room.publish(A)
    room.interest(B)
    room.streams.remove_member(A, room.now, NOW_MS)
    room.streams.settle(NOW_MS + 1000)
    sends = room.finished()
    assert [(send.member, send.body.status) for send in sends] == [(B, "offline")] * 2  # type: ignore[union-attr]
    assert room.streams.get("cam").announced.timestamp == NOW_MS + 1000  # type: ignore[union-attr]


def test_what_is_due_is_not_more_for_an_event_that_comes_again() -> None:
    due = UnfinishedStreams()
    for _ in range(3):
        due.end(A, "xy", "yz", (1.0, 1), is_gone=False)
        due.reroute("xyz")
        due.announce("z", 1)
    assert len(due) == 8
    due.end(A, "x", "", (2.0, 2), is_gone=True)
    assert len(due) == 8
    assert due.take("x").ends[0].publication == (1.0, 1)
    for stream in "yz":
        due.take(stream)
    assert not due


def test_routes_that_are_to_be_sent_again_stay_so_whatever_else_is_due() -> None:
    due = UnfinishedStreams()
    due.reroute("x", resend=True)
    due.reroute("xy")
    assert due.take("x").resend
    assert not due.take("y").resend
    assert not due.take("y").reroute
