"""Snapshots of gateways that join again, and members that are gone."""

from __future__ import annotations

from tests.unit.router.streams.room import FIRST, A, B, Room, forward, forwards, status
from watchout.common.bus.messages import (
    Revoke,
)
from watchout.common.bus.reply_records import Totals
from watchout.router.streams.ownership import RESERVED_S
from watchout.router.streams.stream import Send

# ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_told_again_after_a_greeting_is_gone(room: Room) -> None:
    room.publish(A, stream="kept")
    room.publish(A, stream="lost")
    room.interest(A, stream="watched")
    room.interest(A, stream="left")
    room.interest(B, stream="lost")
    assert room.greets(A) == []
    room.hold(A, FIRST, stream="kept")
    room.interest(A, stream="watched")
    assert room.synced(A) == [Send(B, status("offline", FIRST + 1, stream="lost"))]
    assert [s.id for s in room.streams.published()] == ["kept"]
    assert room.streams.get("left") is None
    assert list(room.streams.get("watched").interests) == [A]  # type: ignore[union-attr]


def test_what_others_told_meanwhile_stays(room: Room) -> None:
    room.publish(A)
    room.interest(A)
    room.greets(A)
    term = room.publish(B)
    room.interest(B)
    room.synced(A)
    assert room.holder() == B
    assert room.streams.get("cam").term == term  # type: ignore[union-attr]
    assert list(room.streams.get("cam").interests) == [B]  # type: ignore[union-attr]


def test_a_claim_while_its_member_still_tells_is_no_leftover_of_before(room: Room) -> None:
    room.publish(A)
    room.greets(A)
    term = room.granted(A).term
    room.synced(A)
    assert room.holder() == A
    assert room.hold(A, term) == []


def test_a_grant_that_was_lost_is_not_kept_by_the_telling_of_what_it_took_over(room: Room) -> None:
    old = room.publish(A)
    room.granted(A)
    room.greets(A)
    assert room.hold(A, old) == [Send(A, Revoke(stream="cam", term=old))]
    room.synced(A)
    assert room.holder() is None


def test_a_greeting_in_the_middle_of_telling_begins_anew(room: Room) -> None:
    term = room.publish(A)
    room.greets(A)
    room.hold(A, term)
    room.greets(A)
    room.synced(A)
    assert room.holder() is None


def test_the_end_of_a_snapshot_that_never_began_changes_nothing(room: Room) -> None:
    room.publish(A)
    room.interest(A, stream="x")
    assert room.synced(A) == []
    assert room.holder() == A
    assert len(room.streams) == 2


def test_after_a_greeting_the_member_is_asked_again_for_what_is_wanted(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    room.greets(A)
    assert room.hold(A, term) == [Send(A, forward(term))]


def test_what_was_asked_for_while_the_member_told_is_asked_again_at_the_end(room: Room) -> None:
    term = room.publish(A)
    room.greets(A)
    assert forwards(room.interest(B)) == [Send(A, forward(term))]
    assert room.hold(A, term) == [Send(A, forward(term))]
    assert room.hold(A, term) == []
    assert room.synced(A) == [Send(A, forward(term))]


# ── members that are gone ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_that_is_gone_leaves_nothing_and_is_told_nothing(room: Room) -> None:
    terms = {stream: room.publish(A, stream=stream) for stream in "xy"}
    room.interest(A, stream="x")
    room.interest(A, stream="y")
    room.interest(A, stream="z")
    room.interest(B, stream="x")
    room.bridge(A)
    room.greets(A)
    assert room.gone(A) == [Send(B, status("offline", terms["x"], stream="x"))]
    assert room.streams.published() == []
    assert room.streams.get("z") is None
    assert room.streams.totals(connections=0) == Totals(video_consumers=1)
    assert room.gone(A) == []


def test_a_stream_that_ended_is_remembered_for_a_while_and_then_forgotten(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=10)
    room.now += RESERVED_S
    room.streams.prune(room.now)
    assert room.granted(A).first_frame_id == 11
    room.release(A, FIRST + 1)
    room.now += RESERVED_S + 1
    room.streams.prune(room.now)
    assert len(room.streams) == 0
    assert room.granted(A).first_frame_id == 1


def test_a_stream_with_a_camera_or_a_viewer_is_not_forgotten(room: Room) -> None:
    room.publish(A, stream="held")
    room.interest(B, stream="watched")
    room.now += RESERVED_S * 10
    room.streams.prune(room.now)
    assert len(room.streams) == 2
    room.interest(B, stream="watched", viewers=0)
    assert room.streams.get("watched") is None
