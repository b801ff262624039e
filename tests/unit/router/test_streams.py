"""The registry of streams, rule by rule, as dialogues: what members say goes in, what members are told comes out."""

from __future__ import annotations

import math
import sys
from collections import Counter
from typing import Any

import pytest

from watchout.common.bus.frames import EVERYBODY, FrameHead
from watchout.common.bus.messages import (
    BadFrame,
    Claim,
    ErrorForPublisher,
    Forward,
    GrantedReply,
    Interest,
    OwnerReply,
    PublicationState,
    RefusedReply,
    Release,
    ReservationReport,
    Revoke,
    SendNewest,
    StatusUpdate,
    StreamReport,
)
from watchout.common.bus.reply_records import StreamRow, Totals
from watchout.common.reservations import Reservation
from watchout.common.toolbox.largest import OUTDATED_SPARE
from watchout.router.streams.registry import (
    FRAME_ID_HIGH,
    FRAME_ID_JUMP,
    MAX_CHANGED,
    MAX_REASONS,
    RESERVED_S,
    Bridge,
    Send,
    Streams,
    assign,
)

EPOCH = 5
FIRST = (EPOCH << 20) + 1
NOW_MS = 1_700_000_000_000
A, B, C, M, N = (letter * 8 for letter in (b"a", b"b", b"c", b"m", b"n"))


class Room:
    """A registry with a clock that stands until it is moved."""

    def __init__(self, epoch: int = EPOCH, max_streams: int = 100, *, syncing: bool = False, **reserved: float) -> None:
        self.streams = Streams(epoch, max_streams=max_streams, syncing=syncing, **reserved)  # type: ignore[arg-type]
        self.now = 1000.0

    def claim(self, member: bytes, user: str = "ann", stream: str = "cam", floor: int = 0) -> list[Send]:
        return self.streams.claim(member, Claim(request=1, stream=stream, user=user, floor=floor), self.now, NOW_MS)

    def granted(self, member: bytes, user: str = "ann", stream: str = "cam", floor: int = 0) -> GrantedReply:
        """Claim, and expect it to hold."""
        *_, last = self.claim(member, user, stream, floor)
        assert last.member == member
        assert isinstance(last.body, GrantedReply)
        return last.body

    def hold(self, member: bytes, term: int, stream: str = "cam", **changes: Any) -> list[Send]:
        fields: dict[str, Any] = {
            "user": "ann", "status": "streaming", "producing": True, "wants_alerts": False, "frame_id": 0,
            "total_frames": 0, "fps": 0.0, "started_at": NOW_MS,
        }  # fmt: skip
        return self.streams.hold(member, PublicationState(stream=stream, term=term, **fields | changes), NOW_MS)

    def publish(self, member: bytes, user: str = "ann", stream: str = "cam", **changes: Any) -> int:
        """Claim and hold; the term."""
        term = self.granted(member, user, stream).term
        self.hold(member, term, stream, user=user, **changes)
        return term

    def release(self, member: bytes, term: int, frame_id: int = 0, stream: str = "cam") -> list[Send]:
        told = Release(stream=stream, term=term, frame_id=frame_id)
        return self.streams.release(member, told, self.now, NOW_MS)

    def interest(
        self, member: bytes, viewers: int = 1, alerts: int = 0, stream: str = "cam", **more: Any
    ) -> list[Send]:
        told = Interest(stream=stream, viewers=viewers, alert_viewers=alerts, **more)
        return self.streams.interest(member, told, self.now, NOW_MS)

    def report(self, member: bytes, frame_id: int, stream: str = "cam") -> None:
        self.streams.report(member, StreamReport(rows=[(stream, frame_id, frame_id, 30.0, NOW_MS)]))

    def route(self, term: int, to: bytes = EVERYBODY, stream: str = "cam") -> list[bytes]:
        return self.streams.route(FrameHead(stream, term, 1, NOW_MS, 1, 1, to, 40), self.now)

    def synced(self, member: bytes) -> list[Send]:
        return self.streams.end_snapshot(member, self.now, NOW_MS)

    def gone(self, member: bytes) -> list[Send]:
        return self.streams.member_gone(member, self.now, NOW_MS)

    def bridge(self, member: bytes, group: str = "day", max_fps: float = 2.0) -> list[Send]:
        return self.streams.bridge_joined(Bridge(member, group, max_fps))

    def holder(self, stream: str = "cam") -> bytes | None:
        known = self.streams.get(stream)
        return known.holder if known is not None else None


@pytest.fixture
def room() -> Room:
    return Room()


def status(of: str, term: int, user: str | None = "ann", stream: str = "cam") -> StatusUpdate:
    return StatusUpdate(stream=stream, status=of, timestamp=NOW_MS, term=term, user=user)  # type: ignore[arg-type]


def forward(
    term: int, wanted: bool = True, max_fps: float | None = None, stream: str = "cam", viewers: int | None = None
) -> Forward:
    """Without `viewers`: one, where anything is wanted."""
    number = int(wanted) if viewers is None else viewers
    return Forward(stream=stream, term=term, wanted=wanted, max_fps=max_fps, viewers=number)


def forwards(sends: list[Send]) -> list[Send]:
    return [send for send in sends if isinstance(send.body, Forward)]


def refusal(sends: list[Send]) -> str:
    (send,) = sends
    assert isinstance(send.body, RefusedReply)
    return send.body.code


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────


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
    room.streams.begin_snapshot(A)
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
    assert isinstance(room.streams.found(1, "z"), RefusedReply)
    assert room.interest(B, stream="z") == []
    assert room.streams.get("z") is None
    assert room.interest(B, stream="z", viewers=0) == []
    assert isinstance(room.streams.found(2, "x"), OwnerReply)


def test_streams_that_are_only_waited_for_take_no_place_of_cameras() -> None:
    room = Room(max_streams=2)
    for stream in ("a", "b"):
        room.interest(B, stream=stream)
    room.publish(A, stream="x")
    room.publish(A, stream="a")
    assert room.streams.found(1, "a").status == "streaming"
    assert refusal(room.claim(A, stream="z")) == "ROUTING_ERROR"


# ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hold_of_a_former_life_is_taken_as_it_is(room: Room) -> None:
    assert room.hold(A, 77, frame_id=9, fps=30.0, total_frames=9, last_frame_at=NOW_MS) == []
    known = room.streams.get("cam")
    assert known is not None
    assert (known.holder, known.term, known.user, known.frame_id, known.status) == (A, 77, "ann", 9, "streaming")
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


# ── interest and status ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_telling_of_interest_is_answered_with_the_status(room: Room) -> None:
    assert room.interest(B) == [Send(B, status("offline", 0, None))]
    term = room.publish(A)
    assert room.interest(C)[0] == Send(C, status("streaming", term))
    assert room.interest(C, viewers=2) == [Send(A, forward(term, viewers=3))]
    assert room.interest(C, viewers=2) == []


def test_interest_that_ended_and_came_again_is_answered_again(room: Room) -> None:
    room.interest(B)
    room.interest(B, viewers=0)
    assert room.interest(B) == [Send(B, status("offline", 0, None))]


def test_after_a_greeting_the_first_telling_is_answered_again_because_a_status_may_be_lost(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    room.streams.begin_snapshot(B)
    assert room.interest(B) == [Send(B, status("streaming", term))]
    assert room.interest(B) == []
    assert room.synced(B) == []


def test_the_holders_own_viewers_know_their_status(room: Room) -> None:
    term = room.publish(A)
    assert room.interest(A) == []
    assert room.hold(A, term, status="online") == []


def test_a_camera_that_is_going_to_produce_frames_is_streaming_from_its_claim_on(room: Room) -> None:
    told = Claim(request=1, stream="cam", user="ann", producing=True)
    room.streams.claim(A, told, room.now, NOW_MS)
    assert room.interest(B) == [Send(B, status("streaming", FIRST))]
    assert room.streams.found(1, "cam").status == "streaming"
    room.claim(A)
    assert room.streams.found(1, "cam").status == "online"


def test_a_change_of_status_goes_to_all_who_are_interested_elsewhere(room: Room) -> None:
    term = room.publish(A)
    for member in (A, B, C):
        room.interest(member, viewers=0, alerts=1)
    assert room.hold(A, term, status="online") == [Send(m, status("online", term)) for m in (B, C)]
    assert room.hold(A, term, status="online", frame_id=7) == []


def test_whom_the_stream_was_taken_from_is_told_the_status_of_the_new_one(room: Room) -> None:
    room.publish(A)
    room.interest(A)
    term = room.granted(B).term
    assert room.hold(B, term) == [Send(A, status("streaming", term)), Send(B, forward(term))]


def test_a_new_owner_is_told_to_all_who_are_interested(room: Room) -> None:
    room.interest(B)
    room.release(A, room.publish(A))
    room.now += RESERVED_S + 1
    term = room.granted(A, user="bob").term
    assert Send(B, status("streaming", term, "bob")) in room.hold(A, term, user="bob")


def test_whose_a_stream_is_can_be_asked(room: Room) -> None:
    assert room.streams.found(3, "cam") == OwnerReply(request=3, stream="cam", status="offline")
    term = room.publish(A)
    assert room.streams.found(4, "cam") == OwnerReply(
        request=4, stream="cam", status="streaming", user="ann", term=term
    )
    room.release(A, term)
    assert room.streams.found(5, "cam") == OwnerReply(request=5, stream="cam", status="offline", user="ann", term=term)


def test_whose_a_stream_was_last_is_known_until_it_is_forgotten(room: Room) -> None:
    assert room.streams.owner("cam") is None
    term = room.publish(A)
    assert room.streams.owner("cam") == "ann"
    room.release(A, term)
    assert room.streams.owner("cam") == "ann"
    room.now += RESERVED_S + 1
    room.streams.prune(room.now)
    assert room.streams.owner("cam") is None


def test_a_new_router_learns_whose_a_stream_is_from_those_who_watch_it(room: Room) -> None:
    assert room.interest(B, user="ann") == [Send(B, status("offline", 0))]
    assert room.streams.owner("cam") == "ann"
    room.interest(C, user="bob")
    assert room.streams.owner("cam") == "ann"
    assert refusal(room.claim(A, user="bob")) == "UNAUTHORIZED"
    assert room.granted(A).first_frame_id == 1


def test_while_gateways_of_a_former_life_still_tell_nothing_is_called_offline() -> None:
    room = Room(syncing=True)
    assert room.interest(B, stream="held") == room.interest(B, stream="lost") == []
    assert room.hold(A, 77, stream="held")[0] == Send(B, status("streaming", 77, stream="held"))
    assert room.interest(C, stream="held")[0] == Send(C, status("streaming", 77, stream="held"))
    assert room.streams.settle(NOW_MS) == [Send(B, status("offline", 0, None, stream="lost"))]
    assert room.interest(C, stream="lost") == [Send(C, status("offline", 0, None, stream="lost"))]


def test_who_came_while_others_still_told_is_told_of_a_camera_that_went_meanwhile() -> None:
    room = Room(syncing=True)
    room.hold(A, 77)
    room.release(A, 77)
    assert room.interest(B) == []
    assert room.streams.settle(NOW_MS) == [Send(B, status("offline", 77))]


# ── what the holder is asked to forward ──────────────────────────────────────────────────────────────────────────


def test_frames_are_wanted_while_somebody_on_another_member_watches(room: Room) -> None:
    term = room.publish(A)
    assert forwards(room.interest(B)) == [Send(A, forward(term))]
    assert room.interest(B, viewers=0) == [Send(A, forward(term, wanted=False))]


def test_nobody_elsewhere_nothing_is_said(room: Room) -> None:
    term = room.granted(A).term
    assert room.hold(A, term) == []
    assert room.interest(A) == []
    assert room.interest(A, viewers=0) == []


def test_alert_viewers_want_no_frames(room: Room) -> None:
    room.publish(A)
    assert forwards(room.interest(B, viewers=0, alerts=3)) == []


def test_the_highest_rate_of_the_others_is_asked_for(room: Room) -> None:
    term = room.publish(A)
    assert forwards(room.interest(B, max_fps=2.0)) == [Send(A, forward(term, max_fps=2.0))]
    assert forwards(room.interest(C, max_fps=5.0)) == [Send(A, forward(term, max_fps=5.0, viewers=2))]
    assert forwards(room.interest(A)) == []
    assert forwards(room.interest(B, max_fps=3.0)) == []
    assert forwards(room.interest(B)) == [Send(A, forward(term, viewers=2))]
    assert forwards(room.interest(B, viewers=0)) == [Send(A, forward(term, max_fps=5.0))]


def test_a_new_holder_is_asked_even_if_the_old_one_was(room: Room) -> None:
    room.interest(C)
    room.publish(A)
    term = room.granted(B).term
    assert forwards(room.hold(B, term)) == [Send(B, forward(term))]


def test_nothing_is_asked_between_a_grant_and_its_hold_but_then_it_is(room: Room) -> None:
    term = room.granted(A).term
    assert room.interest(B, max_fps=5.0) == [Send(B, status("online", term))]
    assert room.bridge(M, max_fps=2.0) == []
    assert room.route(term) == []
    assert forwards(room.hold(A, term)) == [Send(A, forward(term, max_fps=5.0))]


def test_a_new_holder_does_not_get_its_own_frames_as_the_viewer_that_it_was(room: Room) -> None:
    room.publish(A)
    room.interest(B)
    term = room.granted(B).term
    assert room.route(term) == []
    room.hold(B, term)
    assert room.route(term) == []


def test_a_take_over_on_the_same_member_is_asked_again_under_its_term(room: Room) -> None:
    room.interest(C)
    room.publish(A)
    term = room.granted(A).term
    assert forwards(room.hold(A, term)) == [Send(A, forward(term))]


def test_a_viewers_member_that_is_gone_wants_nothing(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    assert room.gone(B) == [Send(A, forward(term, wanted=False))]


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_goes_to_all_who_watch_elsewhere(room: Room) -> None:
    term = room.publish(A)
    for member in (A, B, C):
        room.interest(member)
    room.interest(M, viewers=0, alerts=1)
    assert room.route(term) == [B, C]


def test_a_frame_under_an_older_term_is_dropped_and_counted(room: Room) -> None:
    room.interest(C)
    old = room.publish(A)
    new = room.publish(B)
    assert room.route(old) == room.route(old, to=C) == []
    assert room.streams.old_term_frames == 2
    assert room.route(new) == [C]


def test_a_frame_of_a_stream_without_a_camera_is_dropped_and_counted(room: Room) -> None:
    room.interest(C)
    term = room.publish(A)
    room.release(A, term)
    assert room.route(term) == room.route(term, stream="unknown") == []
    assert room.streams.old_term_frames == 2


def test_a_frame_for_one_member_goes_to_that_one(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    assert room.route(term, to=C) == [C]


def test_the_newest_frame_is_asked_of_the_holder_for_one_member(room: Room) -> None:
    assert room.streams.newest(B, "cam") == []
    term = room.publish(A)
    assert room.streams.newest(B, "cam") == [Send(A, SendNewest(stream="cam", to=B.hex()))]
    assert room.streams.newest(A, "cam") == []
    room.release(A, term)
    assert room.streams.newest(B, "cam") == []


def test_each_receiver_is_sampled_to_the_rate_that_it_wants(room: Room) -> None:
    term = room.publish(A)
    room.interest(B, max_fps=30.0)
    room.interest(C, max_fps=5.0)
    room.interest(M, max_fps=1.0)
    got: Counter[bytes] = Counter()
    for _ in range(300):
        room.now += 1 / 30
        got.update(room.route(term))
    assert got[B] == 300  # whoever wants the most gets all that the holder was asked for
    assert got[C] == pytest.approx(50, abs=2)
    assert got[M] == pytest.approx(10, abs=2)


def test_whoever_wants_all_gets_all_beside_whoever_wants_less(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    room.interest(C, max_fps=30.0)
    got: Counter[bytes] = Counter()
    for _ in range(600):
        room.now += 1 / 60
        got.update(room.route(term))
    assert got[B] == 600
    assert got[C] == pytest.approx(300, rel=0.02)


def test_what_went_to_a_receiver_counts_when_routes_change(room: Room) -> None:
    term = room.publish(A)
    room.interest(B)
    room.interest(C, max_fps=1.0)
    assert room.route(term) == [B, C]
    for turn in range(20):
        room.interest(M, viewers=turn % 2)
        assert C not in room.route(term)


# ── bad frames ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_is_told_of_a_bad_frame_once_per_term(room: Room) -> None:
    bad = BadFrame(stream="cam", frame_id=3, reason="data is not base64")
    assert room.streams.bad_frame(bad) == []
    room.publish(A)
    told = ErrorForPublisher(stream="cam", code="INVALID_MESSAGE", message="data is not base64")
    assert room.streams.bad_frame(bad) == [Send(A, told)]
    assert room.streams.bad_frame(bad) == []
    term = room.publish(B)
    assert room.streams.bad_frame(bad) == [Send(B, told)]
    room.release(B, term)
    assert room.streams.bad_frame(bad) == []


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alert_goes_to_alert_viewers_and_to_the_camera_that_wants_it(room: Room) -> None:
    assert room.streams.alert_receivers("cam") == ([], 0)
    room.publish(A, wants_alerts=True)
    room.interest(A, alerts=1)
    room.interest(B, alerts=3)
    room.interest(C, viewers=5)
    assert room.streams.alert_receivers("cam") == ([A, B], 5)


def test_a_camera_that_wants_no_alerts_gets_none(room: Room) -> None:
    room.publish(A)
    assert room.streams.alert_receivers("cam") == ([], 0)


def test_an_alert_reaches_viewers_of_a_stream_without_a_camera(room: Room) -> None:
    room.interest(B, viewers=0, alerts=2)
    assert room.streams.alert_receivers("cam") == ([B], 2)


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_told_again_after_a_greeting_is_gone(room: Room) -> None:
    room.publish(A, stream="kept")
    room.publish(A, stream="lost")
    room.interest(A, stream="watched")
    room.interest(A, stream="left")
    room.interest(B, stream="lost")
    assert room.streams.begin_snapshot(A) == []
    room.hold(A, FIRST, stream="kept")
    room.interest(A, stream="watched")
    assert room.synced(A) == [Send(B, status("offline", FIRST + 1, stream="lost"))]
    assert [s.id for s in room.streams.held()] == ["kept"]
    assert room.streams.get("left") is None
    assert list(room.streams.get("watched").interests) == [A]  # type: ignore[union-attr]


def test_what_others_told_meanwhile_stays(room: Room) -> None:
    room.publish(A)
    room.interest(A)
    room.streams.begin_snapshot(A)
    term = room.publish(B)
    room.interest(B)
    room.synced(A)
    assert room.holder() == B
    assert room.streams.get("cam").term == term  # type: ignore[union-attr]
    assert list(room.streams.get("cam").interests) == [B]  # type: ignore[union-attr]


def test_a_claim_while_its_member_still_tells_is_no_leftover_of_before(room: Room) -> None:
    room.publish(A)
    room.streams.begin_snapshot(A)
    term = room.granted(A).term
    room.synced(A)
    assert room.holder() == A
    assert room.hold(A, term) == []


def test_a_grant_that_was_lost_is_not_kept_by_the_telling_of_what_it_took_over(room: Room) -> None:
    old = room.publish(A)
    room.granted(A)
    room.streams.begin_snapshot(A)
    assert room.hold(A, old) == [Send(A, Revoke(stream="cam", term=old))]
    room.synced(A)
    assert room.holder() is None


def test_a_greeting_in_the_middle_of_telling_begins_anew(room: Room) -> None:
    term = room.publish(A)
    room.streams.begin_snapshot(A)
    room.hold(A, term)
    room.streams.begin_snapshot(A)
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
    room.streams.begin_snapshot(A)
    assert room.hold(A, term) == [Send(A, forward(term))]


def test_what_was_asked_for_while_the_member_told_is_asked_again_at_the_end(room: Room) -> None:
    term = room.publish(A)
    room.streams.begin_snapshot(A)
    assert forwards(room.interest(B)) == [Send(A, forward(term))]
    assert room.hold(A, term) == []
    assert room.synced(A) == [Send(A, forward(term))]


# ── members that go ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_that_is_gone_leaves_nothing_and_is_told_nothing(room: Room) -> None:
    terms = {stream: room.publish(A, stream=stream) for stream in "xy"}
    room.interest(A, stream="x")
    room.interest(A, stream="y")
    room.interest(A, stream="z")
    room.interest(B, stream="x")
    room.bridge(A)
    room.streams.begin_snapshot(A)
    assert room.gone(A) == [Send(B, status("offline", terms["x"], stream="x"))]
    assert room.streams.held() == []
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


# ── bridges ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bridge_gets_what_is_produced_at_its_rate(room: Room) -> None:
    term = room.publish(A)
    assert room.bridge(M, max_fps=2.0) == [Send(A, forward(term, max_fps=2.0, viewers=0))]
    assert room.route(term) == [M]
    assert room.gone(M) == [Send(A, forward(term, wanted=False))]


def test_a_bridge_gets_nothing_of_a_camera_that_produces_nothing(room: Room) -> None:
    room.publish(A, producing=False)
    assert room.bridge(M) == []


def test_a_bridge_gets_streams_that_come_later(room: Room) -> None:
    room.bridge(M, max_fps=2.0)
    term = room.granted(A).term
    assert room.hold(A, term) == [Send(A, forward(term, max_fps=2.0, viewers=0))]


def test_each_group_gets_each_stream_once(room: Room) -> None:
    for group, members in (("day", (A, B, C)), ("night", (M, N))):
        for member in members:
            room.bridge(member, group)
    seen: Counter[bytes] = Counter()
    for number in range(60):
        term = room.publish(b"h" * 8, stream=f"s{number}")
        receivers = room.route(term, stream=f"s{number}")
        assert len(set(receivers) & {A, B, C}) == 1
        assert len(set(receivers) & {M, N}) == 1
        seen.update(receivers)
    assert all(seen[member] > 5 for member in (A, B, C, M, N))


def test_when_a_bridge_leaves_only_its_streams_move() -> None:
    bridges = [Bridge(bytes([number]) * 8, "day", 2.0) for number in range(1, 9)]
    names = [f"stream-{number}" for number in range(500)]
    before = {name: assign(name, bridges) for name in names}
    left = bridges[3]
    after = {name: assign(name, [b for b in bridges if b is not left]) for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert moved == [name for name in names if before[name] == [left]]
    assert 30 < len(moved) < 100


def test_a_bridge_that_greets_again_with_another_rate_is_asked_for_at_that(room: Room) -> None:
    term = room.publish(A)
    room.bridge(M, max_fps=2.0)
    assert room.streams.begin_snapshot(M) == [Send(A, forward(term, wanted=False))]
    assert room.bridge(M, max_fps=4.0) == [Send(A, forward(term, max_fps=4.0, viewers=0))]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_totals_count_over_all_members(room: Room) -> None:
    room.publish(A, stream="x", wants_alerts=True)
    room.publish(B, stream="y", producing=False)
    room.interest(A, viewers=2, alerts=1, stream="x")
    room.interest(B, viewers=3, alerts=0, stream="x")
    room.interest(B, viewers=0, alerts=4, stream="z")
    assert room.streams.totals(connections=7) == Totals(
        producers=1, video_consumers=5, alert_consumers=6, connections=7
    )


def test_a_row_of_a_stream_has_what_stats_shows(room: Room) -> None:
    room.publish(A, frame_id=9, total_frames=9, fps=29.9999, last_frame_at=NOW_MS + 5)
    room.publish(B, stream="another")
    room.bridge(M)
    room.interest(B, viewers=2, alerts=1)
    another, row = room.streams.rows({A: "gateway.1", M: "mlbridge.1"}, NOW_MS + 2500)
    assert row == StreamRow(
        stream_id="cam", user_id="ann", status="streaming", fps=30.0, total_frames=9, uptime=2,
        viewers=2, alert_viewers=1, gateway="gateway.1", mlbridge="mlbridge.1", started_at=NOW_MS,
        last_frame_at=NOW_MS + 5, frame_id=9, organizations=(), dropped={},
    )  # fmt: skip
    assert (another.stream_id, another.gateway) == ("another", None)


def test_a_stream_whose_start_lies_ahead_has_no_negative_uptime(room: Room) -> None:
    room.publish(A)
    assert room.streams.rows({}, NOW_MS - 5000)[0].uptime == 0


# ── the owner's organizations ────────────────────────────────────────────────────────────────────────────────────


def test_what_the_owner_belongs_to_goes_where_the_owner_goes(room: Room) -> None:
    room.interest(B)
    room.streams.claim(A, Claim(request=1, stream="cam", user="ann", organizations=("acme",)), room.now, NOW_MS)
    found = room.streams.found(9, "cam")
    assert isinstance(found, OwnerReply)
    assert (found.user, found.organizations) == ("ann", ("acme",))
    (told,) = [send for send in room.hold(A, FIRST, organizations=("acme",)) if isinstance(send.body, StatusUpdate)]
    assert told.member == B
    assert isinstance(told.body, StatusUpdate)
    assert told.body.organizations == ("acme",)


def test_when_the_owner_belongs_to_others_the_viewers_gateways_are_told_once(room: Room) -> None:
    room.interest(B)
    term = room.publish(A, organizations=("acme",))
    assert [
        send.body for send in room.hold(A, term, organizations=("acme",)) if isinstance(send.body, StatusUpdate)
    ] == []
    (told,) = [send.body for send in room.hold(A, term, organizations=()) if isinstance(send.body, StatusUpdate)]
    assert (told.user, told.organizations) == ("ann", ())


def test_a_new_router_learns_them_from_who_watches(room: Room) -> None:
    room.interest(B, user="ann", organizations=("acme",))
    found = room.streams.found(9, "cam")
    assert isinstance(found, OwnerReply)
    assert found.organizations == ("acme",)


def test_another_user_brings_his_own(room: Room) -> None:
    term = room.publish(A, organizations=("acme",))
    room.release(A, term)
    room.now += RESERVED_S
    room.publish(B, user="bob")
    found = room.streams.found(9, "cam")
    assert isinstance(found, OwnerReply)
    assert (found.user, found.organizations) == ("bob", ())


# ── reservations ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restored_reservation_keeps_the_id_for_its_user_and_the_frame_ids_rising(room: Room) -> None:
    room.streams.restore("cam", Reservation("ann", ("acme",), 7, 41, room.now - 10))
    assert room.streams.owner("cam") == "ann"
    assert room.streams.found(1, "cam") == OwnerReply(
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
    room.streams.reserved(ReservationReport(rows=rows), room.now)
    for name in ("door", "watched"):
        assert refusal(room.claim(A, user="bob", stream=name)) == "UNAUTHORIZED"
        assert room.streams.found(1, name).user == "ann"
        assert room.granted(A, stream=name).first_frame_id == 42 + FRAME_ID_JUMP


def test_of_two_gateways_that_tell_the_later_term_counts_and_a_camera_always(room: Room) -> None:
    for term, user in ((8, "bob"), (7, "ann")):
        room.streams.reserved(ReservationReport(rows=[("cam", user, (), term, 1, 0.0)]), room.now)
    assert room.streams.owner("cam") == "bob"
    room.publish(A, stream="live")
    room.streams.reserved(ReservationReport(rows=[("live", "eve", (), FIRST + 100, 1, 0.0)]), room.now)
    assert room.streams.owner("live") == "ann"


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


# ── nothing grows ────────────────────────────────────────────────────────────────────────────────────────────────


def entries(value: object, seen: set[int] | None = None) -> int:
    """Entries of all maps, sets and lists that an object of ours holds."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, str | bytes | int | float | None):
        return 0
    seen.add(id(value))
    if isinstance(value, dict):
        return len(value) + sum(entries(each, seen) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return len(value) + sum(entries(each, seen) for each in value)
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names = [*slots, *getattr(value, "__dict__", {})]
    return sum(entries(getattr(value, name, None), seen) for name in names)


def test_after_very_many_streams_nothing_is_left_but_what_is_bounded() -> None:
    room = Room(reserved_per_user=50, reserved_max=100)
    room.publish(M, stream="live")
    room.interest(N, stream="live")
    before = entries(room.streams)
    for number in range(15_000):
        name, user, member = f"s{number}", f"u{number % 1700}", (A, B)[number % 2]
        if number % 3 == 0:
            room.interest(C, stream=name)
        term = room.granted(member, user, name).term
        room.hold(member, term, name, user=user)
        if number % 5 == 0:
            room.claim(member, user, name)  # a take-over, and its grant is lost
            room.gone(member)
        else:
            room.release(member, term, stream=name)
        if number % 3 == 0:
            room.interest(C, stream=name, viewers=0)
        room.claim(B, user="mallory", stream="live")
        if number % 1000 == 0:
            list(room.streams.take_changes())
    list(room.streams.take_changes())
    room.now += RESERVED_S + 1
    room.streams.prune(room.now)
    list(room.streams.take_changes())
    assert entries(room.streams) <= before + OUTDATED_SPARE * 5  # an entry of a heap is a tuple of three
    assert len(room.streams) == 1


def test_a_registration_touches_the_same_number_of_entries_however_many_streams_ended() -> None:
    """Counted in calls of Python, which do not depend on the machine."""

    def calls(ended: int) -> int:
        room = Room(reserved_per_user=10_000)
        for number in range(ended):
            name = f"s{number}"
            room.release(A, room.publish(A, stream=name, user=f"u{number % 100}"), stream=name)
        count = 0

        def seen(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(seen)
        try:
            term = room.publish(A, stream="new")
            room.release(A, term, stream="new")
            room.streams.found(1, "other")
            room.streams.prune(room.now)
        finally:
            sys.setprofile(None)
        return count

    assert calls(10) == calls(3000)
