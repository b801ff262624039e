"""Claims and terms, take-over, the reported state of publications, and bad frames."""

from __future__ import annotations

import pytest

from tests.unit.router.streams.room import EPOCH, FIRST, NOW_MS, A, B, C, Room, forward, refusal, status
from watchout.common.bus.messages import (
    BadFrame,
    ErrorForPublisher,
    GrantedReply,
    OwnerReply,
    RefusedReply,
    Revoke,
    StreamReport,
)
from watchout.common.media.frame_ids import FRAME_ID_HIGH, FRAME_ID_JUMP, FRAME_IDS_UNSAVED
from watchout.common.reservations import Reservation
from watchout.router.streams.claims import MAX_REASONS
from watchout.router.streams.ownership import RESERVED_S
from watchout.router.streams.stream import Send

# ── claims ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_free_stream_is_granted_with_its_first_term_and_frame_1(room: Room) -> None:
    assert room.claim(A) == [Send(A, GrantedReply(request=1, stream="cam", term=FIRST, first_frame_id=1))]
    assert room.holder() == A


@pytest.mark.parametrize("member", [A, B])
def test_the_same_user_takes_over_and_the_ids_jump_over_what_the_old_camera_may_still_send(
    room: Room, member: bytes
) -> None:
    room.publish(A, frame_id=7)
    assert room.claim(member) == [
        Send(A, Revoke(stream="cam", term=FIRST)),
        Send(member, GrantedReply(request=1, stream="cam", term=FIRST + 1, first_frame_id=8 + FRAME_ID_JUMP)),
    ]
    assert room.holder() == member


def test_another_user_is_refused_while_the_camera_is_there(room: Room) -> None:
    room.publish(A)
    assert refusal(room.claim(B, user="bob")) == "UNAUTHORIZED"
    assert refusal(room.claim(A, user="bob")) == "UNAUTHORIZED"
    assert room.holder() == A


def test_another_user_is_refused_until_the_owners_grace_is_over(room: Room) -> None:
    term = room.publish(A)
    room.release(A, term)
    room.now += RESERVED_S - 0.1
    assert refusal(room.claim(B, user="bob")) == "UNAUTHORIZED"
    room.now += 0.2
    assert room.granted(B, user="bob").term == term + 1


def test_refusals_do_not_prolong_the_grace(room: Room) -> None:
    room.release(A, room.publish(A))
    for _ in range(10):
        room.now += RESERVED_S / 9
        sends = room.claim(B, user="bob")
    assert isinstance(sends[-1].body, GrantedReply)


def test_the_owner_comes_back_within_the_grace_and_the_ids_go_on(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=41)
    room.now += 10
    assert room.granted(A).first_frame_id == 42


def test_the_owner_comes_back_after_the_grace_too_and_the_ids_go_on(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=41)
    room.now += RESERVED_S * 2
    assert room.granted(A).first_frame_id == 42


def test_the_owner_comes_back_elsewhere_and_the_ids_jump(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=41)
    assert room.granted(B).first_frame_id == 42 + FRAME_ID_JUMP


def test_a_member_that_was_lost_and_comes_back_jumps_because_nobody_knows_its_last_frame(room: Room) -> None:
    room.publish(A)
    room.report(A, 41)
    room.gone(A)
    assert room.granted(A).first_frame_id == 42 + FRAME_ID_JUMP


def test_a_camera_that_left_while_its_member_was_out_of_reach_jumps_too(room: Room) -> None:
    room.publish(A, frame_id=41)
    room.greets(A)
    room.synced(A)
    assert room.granted(A).first_frame_id == 42 + FRAME_ID_JUMP


def test_a_camera_that_sent_nothing_costs_no_jump(room: Room) -> None:
    room.release(A, room.publish(A))
    assert room.granted(B).first_frame_id == 1


def test_frames_that_nobody_told_of_yet_are_jumped_over_too(room: Room) -> None:
    room.publish(A)
    assert room.granted(B).first_frame_id == 1 + FRAME_ID_JUMP
    room.publish(A, stream="another")
    room.gone(A)
    assert room.granted(B, stream="another").first_frame_id == 1 + FRAME_ID_JUMP


def test_what_a_viewers_gateway_saw_counts_too(room: Room) -> None:
    room.interest(B, floor=90)
    assert room.granted(A).first_frame_id == 91 + FRAME_ID_JUMP


def test_what_the_claiming_gateway_saw_counts_too(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=10)
    assert room.granted(A, floor=90).first_frame_id == 91


def test_ids_begin_again_at_1_before_the_wire_runs_out_of_them(room: Room) -> None:
    room.release(A, room.publish(A), frame_id=FRAME_ID_HIGH - 1)
    assert room.granted(A).first_frame_id == FRAME_ID_HIGH
    room.release(A, FIRST + 1, frame_id=FRAME_ID_HIGH)
    assert room.granted(A).first_frame_id == 1


def test_the_record_of_a_stream_follows_its_frame_ids_so_that_the_next_router_is_above_all_that_were_sent(
    room: Room,
) -> None:
    term, records, saved = room.publish(A), 0, 0
    for frame_id in range(100, 200_000, 100):
        if frame_id % 70_000:
            room.report(A, frame_id)
        else:
            room.hold(A, term, frame_id=frame_id)  # a gateway that joins again reports it so
        if room.streams.changed:
            ((_, kept),) = room.streams.take_changes()
            assert kept is not None
            saved, records = kept.frame_id, records + 1
        later = Room(EPOCH + 1000)
        later.streams.restore("cam", Reservation("ann", (), term, saved, 0.0))
        assert later.granted(B).first_frame_id > frame_id + FRAME_IDS_UNSAVED - 100
    assert records <= 200_000 // FRAME_IDS_UNSAVED + 2


def test_a_claim_is_above_the_term_of_a_record_of_a_clock_that_was_ahead(room: Room) -> None:
    room.streams.restore("cam", Reservation("ann", (), FIRST + 500, 1, 0.0))
    assert room.granted(A).term == FIRST + 501


def test_terms_rise_over_all_streams_and_over_restarts(room: Room) -> None:
    terms = [room.granted(member, stream=stream).term for stream in "xyz" for member in (A, B, A)]
    terms += [Room(epoch=EPOCH + 1).granted(A).term]
    assert terms == sorted(set(terms))


def test_terms_rise_above_what_members_of_a_former_life_hold(room: Room) -> None:
    room.hold(A, FIRST + 1000, stream="x")
    assert room.granted(B).term > FIRST + 1000


def test_a_claim_past_the_most_streams_is_refused_for_now() -> None:
    room = Room(max_streams=2)
    room.publish(A, stream="x")
    room.publish(B, stream="y")
    assert refusal(room.claim(A, stream="z")) == "ROUTING_ERROR"
    assert len(room.streams) == 2


def test_streams_that_ended_take_no_place_of_cameras() -> None:
    room = Room(max_streams=2)
    for number in range(10):
        room.release(A, room.publish(A, stream=f"s{number}"), stream=f"s{number}")
    assert len(room.streams) == 0
    room.publish(A, stream="x")
    room.publish(A, stream="y")
    assert refusal(room.claim(A, stream="z")) == "ROUTING_ERROR"


def test_past_the_most_streams_interest_in_unknown_ones_is_refused_at_the_look_up_and_not_kept() -> None:
    room = Room(max_streams=1)
    room.publish(A, stream="x")
    assert room.interest(B, stream="y") != []
    assert isinstance(room.streams.look_up_owner(1, "z"), RefusedReply)
    assert room.interest(B, stream="z") == []
    assert room.streams.get("z") is None
    assert room.interest(B, stream="z", viewers=0) == []
    assert isinstance(room.streams.look_up_owner(2, "x"), OwnerReply)


def test_streams_that_are_only_waited_for_take_no_place_of_cameras() -> None:
    room = Room(max_streams=2)
    for stream in ("a", "b"):
        room.interest(B, stream=stream)
    room.publish(A, stream="x")
    room.publish(A, stream="a")
    assert room.streams.look_up_owner(1, "a").status == "streaming"
    assert refusal(room.claim(A, stream="z")) == "ROUTING_ERROR"


# ── reported publications ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hold_of_a_former_life_is_taken_as_it_is(room: Room) -> None:
    assert room.hold(A, 77, frame_id=9, fps=30.0, total_frames=9, last_frame_at=NOW_MS) == []
    known = room.streams.get("cam")
    assert known is not None
    assert (known.gateway, known.term, known.user, known.frame_id, known.status) == (A, 77, "ann", 9, "streaming")
    assert (known.fps, known.total_frames, known.last_frame_at) == (30.0, 9, NOW_MS)


def test_telling_a_hold_again_changes_nothing(room: Room) -> None:
    room.interest(B)
    term = room.granted(A).term
    assert room.hold(A, term) == [Send(B, status("streaming", term)), Send(A, forward(term))]
    assert room.hold(A, term) == []


def test_a_hold_under_an_older_term_is_revoked(room: Room) -> None:
    old = room.publish(A)
    new = room.publish(B)
    assert room.hold(A, old) == [Send(A, Revoke(stream="cam", term=old))]
    assert room.holder() == B
    assert room.streams.get("cam").term == new  # type: ignore[union-attr]


def test_of_two_holds_of_a_former_life_the_higher_term_wins_in_either_order(room: Room) -> None:
    room.hold(A, 77, stream="x")
    assert room.hold(B, 78, stream="x") == [Send(A, Revoke(stream="x", term=77))]
    room.hold(B, 78, stream="y")
    assert room.hold(A, 77, stream="y") == [Send(A, Revoke(stream="y", term=77))]
    assert (room.holder("x"), room.holder("y")) == (B, B)


def test_a_member_that_tells_a_higher_term_of_its_own_stream_still_holds_it(room: Room) -> None:
    room.hold(A, 77)
    assert room.hold(A, 78) == []
    assert room.holder() == A
    room.gone(A)
    assert room.holder() is None


def test_a_hold_under_the_same_term_by_another_member_is_revoked(room: Room) -> None:
    term = room.publish(A)
    assert room.hold(B, term) == [Send(B, Revoke(stream="cam", term=term))]


def test_a_member_that_was_lost_comes_back_to_a_stream_that_nobody_took(room: Room) -> None:
    room.interest(B)
    term = room.publish(A)
    room.gone(A)
    assert room.holder() is None
    assert room.hold(A, term) == [Send(B, status("streaming", term)), Send(A, forward(term))]
    assert room.holder() == A


def test_a_member_that_was_lost_comes_back_to_a_stream_that_somebody_took(room: Room) -> None:
    term = room.publish(A)
    room.gone(A)
    room.publish(B)
    assert room.hold(A, term) == [Send(A, Revoke(stream="cam", term=term))]


def test_a_hold_past_the_most_streams_is_revoked() -> None:
    room = Room(max_streams=1)
    room.publish(A, stream="x")
    assert room.hold(B, 7, stream="y") == [Send(B, Revoke(stream="y", term=7))]


def test_frame_ids_never_fall_by_what_is_told(room: Room) -> None:
    term = room.publish(A, frame_id=50)
    room.hold(A, term, frame_id=40)
    room.report(A, 30)
    room.interest(B, floor=20)
    room.release(A, term, frame_id=10)
    assert room.granted(A).first_frame_id == 51


def test_a_report_counts_for_its_holder_only(room: Room) -> None:
    room.publish(A)
    room.report(B, 99)
    room.report(A, 9)
    room.report(A, 5, stream="unknown")
    known = room.streams.get("cam")
    assert known is not None
    assert (known.frame_id, known.total_frames, known.fps) == (9, 9, 30.0)


def test_what_viewers_missed_is_added_up_by_reason_whoever_told_it(room: Room) -> None:
    room.publish(A)
    room.streams.report(A, StreamReport(dropped=[("cam", "slow", 3), ("cam", "rate", 1), ("unknown", "slow", 9)]))
    room.streams.report(B, StreamReport(dropped=[("cam", "slow", 4)]))
    assert room.streams.rows({}, NOW_MS)[0].dropped == {"slow": 7, "rate": 1}
    room.streams.report(B, StreamReport(dropped=[("cam", f"r{chr(97 + n)}", 1) for n in range(20)]))
    assert len(room.streams.rows({}, NOW_MS)[0].dropped) == MAX_REASONS


def test_a_release_under_an_older_term_or_of_another_member_is_nothing(room: Room) -> None:
    old = room.publish(A)
    new = room.publish(A)
    assert room.release(A, old) == room.release(B, new) == room.release(A, new, stream="unknown") == []
    assert room.holder() == A


def test_a_release_makes_the_stream_offline_and_keeps_its_viewers(room: Room) -> None:
    room.interest(B)
    term = room.publish(A, wants_alerts=True)
    assert room.release(A, term) == [Send(B, status("offline", term))]
    known = room.streams.get("cam")
    assert known is not None
    assert (known.producing, known.wants_alerts, known.routes) == (False, False, [])
    new = room.granted(C).term
    assert room.hold(C, new) == [Send(B, status("streaming", new)), Send(C, forward(new))]


# ── bad frames ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_is_told_of_a_bad_frame_once_per_term(room: Room) -> None:
    bad = BadFrame(stream="cam", frame_id=3, reason="data is not base64")
    assert room.streams.report_bad_frame(bad) == []
    room.publish(A)
    told = ErrorForPublisher(stream="cam", code="INVALID_MESSAGE", message="data is not base64")
    assert room.streams.report_bad_frame(bad) == [Send(A, told)]
    assert room.streams.report_bad_frame(bad) == []
    term = room.publish(B)
    assert room.streams.report_bad_frame(bad) == [Send(B, told)]
    room.release(B, term)
    assert room.streams.report_bad_frame(bad) == []


def test_a_granted_claim_takes_the_stream_over_whoever_owns_it_and_it_keeps_its_owner(room: Room) -> None:
    room.publish(A)
    taken = room.claim(B, user="bob", granted=True)
    assert taken == [
        Send(A, Revoke(stream="cam", term=FIRST)),
        Send(B, GrantedReply(request=1, stream="cam", term=FIRST + 1, first_frame_id=FRAME_ID_JUMP + 1, user="ann")),
    ]
    assert room.streams.owner("cam") == "ann"
    assert refusal(room.claim(C, user="bob")) == "UNAUTHORIZED", "without the grant"
    back = room.claim(A)
    assert [type(send.body) for send in back] == [Revoke, GrantedReply]
    assert room.holder() == A


def test_a_reserved_stream_keeps_its_owner_and_a_free_one_is_the_grantees(room: Room) -> None:
    room.release(A, room.publish(A))
    term = room.granted(B, user="bob", granted=True).term
    assert room.streams.owner("cam") == "ann"
    room.release(B, term)
    assert refusal(room.claim(C, user="eve")) == "UNAUTHORIZED"
    assert room.granted(B, user="bob", granted=True, stream="free").user is None
    assert room.streams.owner("free") == "bob"
