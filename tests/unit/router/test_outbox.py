"""Messages to members: numbered for each of them, in order, and none too large for the bus."""

from __future__ import annotations

import pytest

from tests.unit.router.recorded_bus import EPOCH, GATEWAY, OTHER, STRANGER, RecordedBus, join
from watchout.common.bus.messages import (
    LEVEL,
    MAX_CONTROL_BYTES,
    ErrorForPublisher,
    QueryReply,
    RefusedReply,
    Rejoin,
    RouterHeartbeat,
    Welcome,
)
from watchout.router.members import Members
from watchout.router.outbox import Outbox
from watchout.router.streams.stream import Send


@pytest.fixture
def members() -> Members:
    found = Members(EPOCH)
    join(found, GATEWAY)
    join(found, OTHER)
    return found


@pytest.fixture
def bus() -> RecordedBus:
    return RecordedBus()


@pytest.fixture
def outbox(members: Members, bus: RecordedBus) -> Outbox:
    made = Outbox(EPOCH, members)
    made.attach(bus)
    return made


def numbers(bus: RecordedBus, member: bytes) -> list[int]:
    return [envelope.seq for to, envelope in bus.sent if to == member]


def test_each_member_has_its_own_numbers_from_1_on_without_a_gap(outbox: Outbox, bus: RecordedBus) -> None:
    for member in (GATEWAY, OTHER, GATEWAY, GATEWAY, OTHER):
        outbox.send(member, RouterHeartbeat())
    assert numbers(bus, GATEWAY) == [1, 2, 3]
    assert numbers(bus, OTHER) == [1, 2]
    assert {envelope.epoch for _, envelope in bus.sent} == {EPOCH}


def test_a_welcome_has_number_0_and_leaves_the_count_as_it_is(outbox: Outbox, bus: RecordedBus) -> None:
    outbox.welcome(GATEWAY, 7)
    outbox.send(GATEWAY, RouterHeartbeat())
    assert numbers(bus, GATEWAY) == [0, 1]
    assert bus.take(GATEWAY)[0] == Welcome(attempt=7, level=LEVEL)


def test_who_greets_again_is_counted_anew(outbox: Outbox, bus: RecordedBus, members: Members) -> None:
    outbox.send(GATEWAY, RouterHeartbeat())
    join(members, GATEWAY)
    outbox.send(GATEWAY, RouterHeartbeat())
    assert numbers(bus, GATEWAY) == [1, 1]


def test_a_sender_that_is_no_member_gets_number_0(outbox: Outbox, bus: RecordedBus) -> None:
    for _ in range(2):
        outbox.send(STRANGER, Rejoin())
    assert numbers(bus, STRANGER) == [0, 0]


def test_several_messages_go_out_in_their_order(outbox: Outbox, bus: RecordedBus) -> None:
    sends = [Send(GATEWAY, Rejoin()), Send(OTHER, Rejoin()), Send(GATEWAY, RouterHeartbeat())]
    outbox.send_all(sends)
    assert [(to, envelope.body) for to, envelope in bus.sent] == [(send.member, send.body) for send in sends]


def test_in_the_place_of_a_reply_that_is_too_large_a_refusal_comes(outbox: Outbox, bus: RecordedBus) -> None:
    outbox.send(GATEWAY, QueryReply(request=3, body="x" * MAX_CONTROL_BYTES))
    outbox.send(GATEWAY, RouterHeartbeat())
    assert numbers(bus, GATEWAY) == [1, 2]
    refusal = bus.take(GATEWAY)[0]
    assert isinstance(refusal, RefusedReply)
    assert (refusal.request, refusal.code) == (3, "ROUTING_ERROR")
    assert str(MAX_CONTROL_BYTES) in refusal.message


def test_another_message_that_is_too_large_leaves_a_gap_so_that_the_member_joins_again(
    outbox: Outbox, bus: RecordedBus
) -> None:
    outbox.send(GATEWAY, ErrorForPublisher(stream="cam", code="X", message="x" * MAX_CONTROL_BYTES))
    outbox.send(GATEWAY, RouterHeartbeat())
    assert numbers(bus, GATEWAY) == [2]


def test_without_its_lease_a_router_says_nothing(members: Members, bus: RecordedBus) -> None:
    has_lease = True
    outbox = Outbox(EPOCH, members, lambda: has_lease)
    outbox.attach(bus)
    outbox.heartbeat(GATEWAY)
    has_lease = False
    said = len(bus.sent)
    outbox.heartbeat(GATEWAY)
    outbox.welcome(GATEWAY, 1)
    outbox.send(GATEWAY, Rejoin())
    outbox.ask_all_to_join()
    assert len(bus.sent) == said == 1
