"""Interest of viewers: the status they get, receivers of alerts, owners' organizations."""

from __future__ import annotations

import pytest

from tests.unit.router.streams.room import FIRST, NOW_MS, A, B, C, Room, direct, forward, forwards, refusal, status
from watchout.common.bus.messages import (
    Claim,
    OwnerReply,
    StatusUpdate,
)
from watchout.common.media.frame_ids import FRAME_ID_HIGH
from watchout.router.streams.ownership import RESERVED_S
from watchout.router.streams.stream import Send

# ── interest and status ───────────────────────────────────────────────────────────────────────────────────────────────


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
    room.greets(B)
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
    assert room.streams.look_up_owner(1, "cam").status == "streaming"
    room.claim(A)
    assert room.streams.look_up_owner(1, "cam").status == "online"


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
    assert room.streams.look_up_owner(3, "cam") == OwnerReply(request=3, stream="cam", status="offline")
    term = room.publish(A)
    assert room.streams.look_up_owner(4, "cam") == OwnerReply(
        request=4, stream="cam", status="streaming", user="ann", term=term
    )
    room.release(A, term)
    assert room.streams.look_up_owner(5, "cam") == OwnerReply(
        request=5, stream="cam", status="offline", user="ann", term=term
    )


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


@pytest.mark.parametrize("alerts_alone", [False, True])
def test_a_publisher_goes_on_above_what_a_gateway_that_is_late_has_seen(room: Room, *, alerts_alone: bool) -> None:
    room.joins(A, B)
    term = room.publish(A)
    room.report(A, 7)
    sends = room.interest(B, viewers=int(not alerts_alone), alerts=1, floor=180_000)
    to = () if alerts_alone else (B,)
    assert forwards(sends) == [Send(A, direct(term, *to, floor=180_000))]
    assert forwards(room.interest(B, viewers=2, floor=190_000))[0].body.floor == 180_000  # its own frames
    room.publish(A)
    assert forwards(room.interest(B, viewers=3, floor=190_000))[0].body.floor == 0  # the grant was above them


@pytest.mark.parametrize("floor", [7, FRAME_ID_HIGH])
def test_a_publisher_is_told_of_no_floor_that_it_is_above_or_that_leaves_no_ids(room: Room, floor: int) -> None:
    room.joins(A, B)
    term = room.publish(A)
    room.report(A, 7)
    assert forwards(room.interest(B, floor=floor)) == [Send(A, direct(term, B))]


def test_while_gateways_of_a_former_life_still_tell_nothing_is_called_offline() -> None:
    room = Room(syncing=True)
    assert room.interest(B, stream="held") == room.interest(B, stream="lost") == []
    assert room.hold(A, 77, stream="held")[0] == Send(B, status("streaming", 77, stream="held"))
    assert room.interest(C, stream="held")[0] == Send(C, status("streaming", 77, stream="held"))
    assert room.settled() == [Send(B, status("offline", 0, None, stream="lost"))]
    assert room.interest(C, stream="lost") == [Send(C, status("offline", 0, None, stream="lost"))]


def test_who_came_while_others_still_told_is_told_of_a_camera_that_went_meanwhile() -> None:
    room = Room(syncing=True)
    room.hold(A, 77)
    room.release(A, 77)
    assert room.interest(B) == []
    assert room.settled() == [Send(B, status("offline", 77))]


# ── alerts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alert_goes_to_alert_viewers_and_to_the_camera_that_wants_it(room: Room) -> None:
    assert room.streams.alert_receivers("cam") == ([], 0)
    room.publish(A, wants_alerts=True)
    room.interest(A, alerts=1)
    room.interest(B, alerts=3)
    room.interest(C, viewers=5)
    assert room.streams.alert_receivers("cam") == ([A, B], 5)


def test_the_gateway_of_the_camera_gets_each_alert_from_the_grant_on_and_counts_where_it_wants_it(room: Room) -> None:
    term = room.granted(A).term
    assert room.streams.alert_receivers("cam") == ([A], 0)
    room.hold(A, term)
    assert room.streams.alert_receivers("cam") == ([A], 0)
    room.interest(A, alerts=2)
    assert room.streams.alert_receivers("cam") == ([A], 2)
    room.granted(B)
    assert room.streams.alert_receivers("cam") == ([A, B], 2)
    room.interest(A, viewers=0)
    assert room.streams.alert_receivers("cam") == ([B], 0)


def test_an_alert_reaches_viewers_of_a_stream_without_a_camera(room: Room) -> None:
    room.interest(B, viewers=0, alerts=2)
    assert room.streams.alert_receivers("cam") == ([B], 2)


# ── the owner's organizations ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_owner_belongs_to_goes_where_the_owner_goes(room: Room) -> None:
    room.interest(B)
    room.streams.claim(A, Claim(request=1, stream="cam", user="ann", organizations=("acme",)), room.now, NOW_MS)
    found = room.streams.look_up_owner(9, "cam")
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
    found = room.streams.look_up_owner(9, "cam")
    assert isinstance(found, OwnerReply)
    assert found.organizations == ("acme",)


def test_another_user_brings_his_own(room: Room) -> None:
    term = room.publish(A, organizations=("acme",))
    room.release(A, term)
    room.now += RESERVED_S
    room.publish(B, user="bob")
    found = room.streams.look_up_owner(9, "cam")
    assert isinstance(found, OwnerReply)
    assert (found.user, found.organizations) == ("bob", ())
