"""Routes of frames: what gateways forward, at what rate, and the bridges of a group."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from tests.unit.router.streams.room import A, B, C, M, N, Room, at, direct, forward, forwards, status
from watchout.common.bus.messages import (
    SendNewest,
)
from watchout.router.streams.routing import assign
from watchout.router.streams.stream import BridgeRecord, Send

# ── what a gateway is asked to forward ────────────────────────────────────────────────────────────────────────────────


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


# ── the frame mesh ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_members_with_an_address_get_frames_straight_from_the_gateway(room: Room) -> None:
    room.joins(A, B, M)
    term = room.publish(A)
    assert forwards(room.interest(B, max_fps=5.0)) == [Send(A, direct(term, B, rates={B: 5.0}))]
    assert room.bridge(M, max_fps=2.0) == [Send(A, direct(term, B, M, rates={B: 5.0, M: 2.0}, viewers=1))]
    assert room.route(term) == [], "none of it is left for the router"
    assert room.gone(B) == [Send(A, direct(term, M, rates={M: 2.0}, viewers=0))]
    assert room.gone(M) == [Send(A, direct(term))]


def test_a_member_without_an_address_gets_frames_through_the_router_beside_others_that_have_one(room: Room) -> None:
    room.joins(A, B)
    term = room.publish(A)
    room.interest(B)
    relayed = msgspec.structs.replace(direct(term, B, viewers=2), wanted=True, max_fps=3.0)
    assert forwards(room.interest(C, max_fps=3.0)) == [Send(A, relayed)]
    assert room.route(term) == [C]


def test_a_gateway_without_an_address_sends_all_to_the_router(room: Room) -> None:
    room.joins(B)
    term = room.publish(A)
    assert forwards(room.interest(B)) == [Send(A, forward(term))]
    assert room.route(term) == [B]


def test_the_newest_frame_for_one_member_goes_to_its_address(room: Room) -> None:
    room.joins(A, B)
    room.publish(A)
    assert room.streams.fetch_newest(B, "cam") == [Send(A, SendNewest(stream="cam", to=B.hex(), at=at(B)))]
    assert room.streams.fetch_newest(C, "cam") == [Send(A, SendNewest(stream="cam", to=C.hex()))]


def test_a_router_that_has_just_started_ends_no_request_of_its_predecessor_before_it_knows_all() -> None:
    room = Room(syncing=True)
    room.joins(A)
    term = 77
    assert forwards(room.hold(A, term, forwarding=True)) == [Send(A, direct(term, partial=True))]
    room.joins(B)
    assert forwards(room.interest(B)) == [Send(A, direct(term, B, partial=True))]
    assert forwards(room.settled()) == [Send(A, direct(term, B))]


def test_what_a_former_router_requested_and_nobody_wants_ends_when_all_have_reported() -> None:
    room = Room(syncing=True)
    room.joins(A)
    room.hold(A, 77, forwarding=True)
    assert forwards(room.settled()) == [Send(A, direct(77))]


def test_a_gateway_that_joins_again_is_told_what_nobody_wants_any_more_only_if_it_sends_frames(room: Room) -> None:
    room.joins(A, B)
    term = room.publish(A)
    for forwarding, expected in ((True, [Send(A, direct(term))]), (False, [])):
        room.greets(A, at(A))
        room.hold(A, term, forwarding=forwarding)
        assert forwards(room.synced(A)) == expected


# ── routes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    assert room.streams.fetch_newest(B, "cam") == []
    term = room.publish(A)
    assert room.streams.fetch_newest(B, "cam") == [Send(A, SendNewest(stream="cam", to=B.hex()))]
    assert room.streams.fetch_newest(A, "cam") == []
    room.release(A, term)
    assert room.streams.fetch_newest(B, "cam") == []


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


# ── bridges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    bridges = [BridgeRecord(bytes([number]) * 8, "day", 2.0) for number in range(1, 9)]
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
    assert room.greets(M) == [Send(A, forward(term, wanted=False))]
    assert room.bridge(M, max_fps=4.0) == [Send(A, forward(term, max_fps=4.0, viewers=0))]
