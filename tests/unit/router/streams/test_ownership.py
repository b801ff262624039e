"""Reservations of stream ids, and what is saved of them."""

from __future__ import annotations

import math

import pytest

from tests.unit.router.streams.room import FIRST, A, B, C, Room, forwards, refusal
from watchout.common.bus.messages import (
    OwnerReply,
    ReservationReport,
    Revoke,
)
from watchout.common.media.frame_ids import FRAME_ID_JUMP
from watchout.common.reservations import Reservation
from watchout.router.streams.ownership import MAX_CHANGED, RESERVED_S
from watchout.router.streams.stream import Send

# ── reservations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restored_reservation_keeps_the_id_for_its_user_and_the_frame_ids_rising(room: Room) -> None:
    room.streams.restore("cam", Reservation("ann", ("acme",), 7, 41, room.now - 10))
    assert room.streams.owner("cam") == "ann"
    assert room.streams.look_up_owner(1, "cam") == OwnerReply(
        request=1, stream="cam", status="offline", user="ann", organizations=("acme",), term=7
    )
    assert refusal(room.claim(A, user="bob")) == "UNAUTHORIZED"
    assert room.granted(A).first_frame_id == 42 + FRAME_ID_JUMP


def test_a_restored_reservation_ends_as_if_there_had_been_no_restart(room: Room) -> None:
    room.streams.restore("cam", Reservation("ann", (), 7, 41, room.now - RESERVED_S + 1))
    assert refusal(room.claim(A, user="bob")) == "UNAUTHORIZED"
    room.now += 1
    room.granted(A, user="bob")


def test_a_hold_of_a_former_life_is_stronger_than_what_was_restored_unless_its_term_is_lower(room: Room) -> None:
    room.streams.restore("cam", Reservation("ann", (), FIRST + 5, 41, room.now))
    assert room.hold(A, FIRST + 4) == [Send(A, Revoke(stream="cam", term=FIRST + 4))]
    assert (room.streams.owner("cam"), len(room.streams)) == ("ann", 0)
    assert refusal(room.claim(B, user="bob")) == "UNAUTHORIZED"
    room.hold(A, FIRST + 5, user="bob")
    assert room.holder() == A
    assert room.streams.reserved_count == 0


def test_gateways_of_a_former_life_tell_whose_the_streams_were(room: Room) -> None:
    room.interest(B, stream="watched")
    rows = [(name, "ann", ("acme",), 7, 41, 5.0) for name in ("door", "watched")]
    room.streams.add_reported_reservations(ReservationReport(rows=rows), room.now)
    for name in ("door", "watched"):
        assert refusal(room.claim(A, user="bob", stream=name)) == "UNAUTHORIZED"
        assert room.streams.look_up_owner(1, name).user == "ann"
        assert room.granted(A, stream=name).first_frame_id == 42 + FRAME_ID_JUMP


def test_of_two_gateways_that_tell_the_later_term_counts_and_a_camera_always(room: Room) -> None:
    for term, user in ((8, "bob"), (7, "ann")):
        room.streams.add_reported_reservations(ReservationReport(rows=[("cam", user, (), term, 1, 0.0)]), room.now)
    assert room.streams.owner("cam") == "bob"
    room.publish(A, stream="live")
    room.streams.add_reported_reservations(ReservationReport(rows=[("live", "eve", (), FIRST + 100, 1, 0.0)]), room.now)
    assert room.streams.owner("live") == "ann"


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("by_gateway", [False, True])
def test_of_an_older_reservation_that_comes_late_only_the_frame_ids_count(
    room: Room, *, by_gateway: bool, is_watched: bool
) -> None:
    if is_watched:
        room.interest(B)
    room.release(A, room.publish(A, user="new"), frame_id=100)
    if by_gateway:
        row = ("cam", "old", ("acme",), FIRST - 1, 5000, 5.0)
        room.streams.add_reported_reservations(ReservationReport(rows=[row]), room.now)
    else:
        room.streams.restore("cam", Reservation("old", ("acme",), FIRST - 1, 5000, room.now - 5))
    assert room.streams.reservation_of("cam", room.now) == ("new", RESERVED_S)
    assert room.streams.organizations_of("cam", "new") == ()
    assert refusal(room.claim(A, user="old")) == "UNAUTHORIZED"
    assert room.granted(A, user="new").first_frame_id == 5001 + FRAME_ID_JUMP


def test_an_older_reservation_that_comes_late_ends_no_release_by_an_operator(room: Room) -> None:
    room.interest(B)
    room.release(A, room.publish(A))
    room.streams.unreserve("cam")
    room.streams.restore("cam", Reservation("ann", (), FIRST - 1, 5000, room.now - 5))
    assert room.granted(C, user="bob").first_frame_id == 5001 + FRAME_ID_JUMP


def test_a_camera_that_came_before_the_records_goes_on_above_their_frame_ids(room: Room) -> None:
    term = room.publish(A)
    room.streams.restore("cam", Reservation("ann", (), FIRST - 1, 5000, room.now - 5))
    assert [send.body.floor for send in forwards(room.finished())] == [5000 + FRAME_ID_JUMP]
    room.release(A, term, frame_id=50)  # its gateway is of a release that does not know of floors
    assert room.granted(A).first_frame_id == 5001 + FRAME_ID_JUMP


@pytest.mark.parametrize("term", [FIRST, FIRST + 1])
def test_a_record_that_is_no_older_than_a_camera_changes_nothing_about_it(room: Room, term: int) -> None:
    room.publish(A)
    room.streams.restore("cam", Reservation("ann", (), term, 5000, room.now - 5))
    assert room.finished() == []


def test_a_camera_whose_gateway_had_it_before_keeps_its_frame_ids(room: Room) -> None:
    room.hold(A, FIRST - 10, frame_id=70)
    room.streams.restore("cam", Reservation("ann", (), FIRST - 20, 5000, room.now - 5))
    assert room.finished() == []
    assert room.streams.get("cam").frame_id == 70  # type: ignore[union-attr]


def test_a_stream_that_was_only_waited_for_or_refused_is_reserved_for_nobody(room: Room) -> None:
    room.interest(B, stream="waited")
    room.interest(B, stream="waited", viewers=0)
    room.publish(A, stream="cam")
    room.claim(B, user="bob", stream="cam")
    assert room.streams.reserved_count == 0
    assert room.streams.owner("waited") is None


def test_what_an_operator_released_is_for_anybody_although_its_viewers_still_wait(room: Room) -> None:
    room.interest(B, user="ann")
    room.release(A, room.publish(A))
    assert room.streams.unreserve("cam") is not None
    room.interest(B, viewers=2, user="ann")
    assert room.streams.unreserve("cam") is None
    room.granted(C, user="bob")


def test_a_stream_with_a_camera_cannot_be_released(room: Room) -> None:
    room.publish(A)
    assert room.streams.unreserve("cam") is None


def test_without_a_reservation_the_next_user_may_come_at_once_but_it_stays_known_whose_it_was() -> None:
    room = Room(reserved_s=0)
    room.release(A, room.publish(A))
    assert room.streams.owner("cam") == "ann"
    assert room.streams.reservations(None, 10, room.now) == []
    room.granted(B, user="bob")


def test_whoever_squats_ids_loses_his_own_and_nobody_elses() -> None:
    room = Room(reserved_per_user=20, reserved_max=30)
    room.release(A, room.publish(A, stream="door"), stream="door")
    for user in ("eve", "mallory"):
        for number in range(100):
            name = f"{user}{number}"
            room.release(A, room.publish(A, stream=name, user=user), stream=name)
    assert room.streams.owner("door") == "ann"
    assert room.streams.reserved_count == 30
    assert room.streams.reserved_evicted == 201 - 30


def test_the_reservations_can_be_read(room: Room) -> None:
    for name, user in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        room.release(A, room.publish(A, stream=name, user=user), stream=name)
    room.now += 10
    left_s = RESERVED_S - 10
    assert room.streams.reservations(None, 2, room.now) == [("a", "ann", left_s), ("b", "bob", left_s)]
    assert room.streams.reservations("ann", 10, room.now) == [("a", "ann", left_s), ("c", "ann", left_s)]
    assert room.streams.reservations("eve", 10, room.now) == []


def test_what_changed_is_told_to_who_keeps_it_across_restarts(room: Room) -> None:
    def taken() -> dict[str, tuple[str, float] | None]:
        return {name: kept and (kept.user, kept.ended_at) for name, kept in room.streams.take_changes()}

    term = room.publish(A)
    assert taken() == {"cam": ("ann", math.inf)}
    assert not room.streams.changed
    room.release(A, term)
    assert taken() == {"cam": ("ann", room.now)}
    room.streams.unreserve("cam")
    assert taken() == {"cam": None}
    room.release(A, room.publish(A, stream="old"), stream="old")
    assert set(taken()) == {"old"}
    room.now += RESERVED_S + 1
    room.streams.prune(room.now)
    assert taken() == {"old": None}


def test_what_changed_is_bounded_and_is_then_told_as_a_whole(room: Room) -> None:
    room.publish(A, stream="live")
    room.release(A, room.publish(A, stream="gone"), stream="gone")
    for number in range(MAX_CHANGED):
        name = f"s{number}"
        room.release(A, room.publish(A, stream=name, user=f"u{number}"), stream=name)
        room.streams.unreserve(name)
    assert room.streams.changed_all
    assert {name for name, _ in room.streams.take_changes()} == {"live", "gone"}
    assert not room.streams.changed
    room.streams.change_all()
    assert {name for name, _ in room.streams.take_changes()} == {"live", "gone"}
