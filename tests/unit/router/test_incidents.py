"""The router remembers who registered what and which gateway was lost, and asks its members for `why`."""

from __future__ import annotations

import pytest

from tests.unit.router.test_handler import (
    BRIDGE,
    GATEWAY,
    GREETINGS,
    NOW_MS,
    OPERATOR,
    OTHER,
    Place,
    alert,
    wall_time,  # noqa: F401 - a fixture
)
from watchout.common.bus.membership import MEMBER_LOST_AFTER_S
from watchout.common.bus.messages import (
    AcknowledgeRequest,
    AskWhy,
    Claim,
    Hello,
    Query,
    QueryReply,
    RaiseAlert,
    Release,
    WhyAnswered,
)
from watchout.common.bus.reply_records import WhyReply, read_reply
from watchout.common.why.answer import WhyAnswer, decode_answer
from watchout.common.why.incident import IncidentKind


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    for member, hello in GREETINGS.items():
        monkeypatch.setitem(GREETINGS, member, Hello(kind=hello.kind, name=hello.name, pid=hello.pid, level=3))
    made = Place()
    made.join(GATEWAY, OTHER, OPERATOR)
    return made


def asked(place: Place, about: str) -> WhyAnswer:
    """The router's own answer, when the gateways have answered."""
    place.send(OPERATOR, Query(request=9, what="why", about=about))
    for member in (GATEWAY, OTHER):
        for question in place.take(member, AskWhy):
            assert question.about == about
            place.send(member, WhyAnswered(request=question.request, body=b"\x80"))
    (reply,) = place.take(OPERATOR, QueryReply)
    assert reply.request == 9
    found = read_reply(reply.body, WhyReply)
    assert found.answers[1:] == [b"\x80"] * 2
    return decode_answer(found.answers[0])


def kinds(answer: WhyAnswer) -> list[str]:
    return [each.what for each in answer.incidents]


def test_registrations_take_overs_and_ends_are_remembered_with_their_gateway(place: Place) -> None:
    place.publish(GATEWAY)
    term = place.publish(OTHER)
    place.send(GATEWAY, Claim(request=2, stream="cam", user="bob"))
    place.send(GATEWAY, Release(stream="cam", term=term - 1))  # of a publisher that was taken over: no news
    place.send(OTHER, Release(stream="cam", term=term))
    found = asked(place, "cam")
    assert [(each.what, each.user, each.reason) for each in found.incidents] == [
        (IncidentKind.CLAIMED, "ann", "gateway"),
        (IncidentKind.TAKEN_OVER, "ann", "gateway-2"),
        (IncidentKind.CLAIM_REFUSED, "bob", "UNAUTHORIZED: this stream belongs to another user"),
        (IncidentKind.RELEASED, "ann", "gateway-2"),
    ]
    (stream,) = found.streams
    assert (stream.user, stream.gateway) == ("ann", "")
    assert stream.reserved_s > 0
    assert kinds(asked(place, "bob")) == [IncidentKind.CLAIM_REFUSED]


def test_a_gateway_that_falls_silent_is_remembered_for_its_streams_and_for_everybody(place: Place) -> None:
    place.publish(GATEWAY, "cam")
    place.watch(OTHER, "door")
    place.clock.now += MEMBER_LOST_AFTER_S + 1
    for member in (OTHER, OPERATOR):
        place.members.get(member).last_message_at = place.clock.now  # type: ignore[union-attr]
    place.handler.checked_at = place.clock.now
    place.handler.drop_silent_members()
    place.send(OPERATOR, Query(request=9, what="why", about="cam"))
    (question,) = place.take(OTHER, AskWhy)
    place.send(OTHER, WhyAnswered(request=question.request, body=b"\x80"))
    (reply,) = place.take(OPERATOR, QueryReply)
    found = decode_answer(read_reply(reply.body, WhyReply).answers[0])
    for incidents in (found.incidents[-1:], found.of_everybody):
        assert [(each.what, each.reason) for each in incidents] == [
            (IncidentKind.MEMBER_LOST, "gateway gateway (pid 1): silent")
        ]
    assert found.incidents[-1].streams == ("cam",)


def test_an_alert_is_remembered_from_its_acceptance_to_its_acknowledgement(place: Place) -> None:
    place.publish(GATEWAY)
    place.watch(OTHER)
    for _ in range(3):
        place.send(GATEWAY, RaiseAlert(request=1, alert=alert()))
    place.send(OTHER, AcknowledgeRequest(request=2, alert=alert(), user="bob", note="seen"))
    found = asked(place, "a1")
    assert [(each.what, each.count, each.user) for each in found.incidents] == [
        (IncidentKind.ACCEPTED, 1, "ann"), (IncidentKind.DUPLICATE, 2, ""), (IncidentKind.ACKNOWLEDGED, 1, "bob"),
    ]  # fmt: skip
    assert found.incidents[0].numbers == {"receivers": 1, "frame_id": 0}
    (kept,) = found.alerts
    assert (kept.stream, kept.acknowledged_by, kept.note, kept.accepted_at) == ("cam", "bob", "seen", NOW_MS)


def test_a_user_is_answered_with_the_streams_of_this_user(place: Place) -> None:
    place.publish(GATEWAY, "cam-1")
    place.publish(GATEWAY, "cam-2")
    assert [each.stream for each in asked(place, "ann").streams] == ["cam-1", "cam-2"]


def test_an_unknown_name_is_answered_with_the_streams_that_there_are(place: Place) -> None:
    place.publish(GATEWAY, "cam-1")
    found = asked(place, "nobody")
    assert found.is_empty
    assert (found.known_streams, set(found.known)) == (["cam-1"], {"cam-1", "ann"})


def test_the_reply_does_not_wait_for_a_member_that_does_not_answer(place: Place) -> None:
    place.join(BRIDGE)
    place.send(OPERATOR, Query(request=9, what="why", about="cam"))
    place.handler.send_heartbeats()
    assert place.take(OPERATOR, QueryReply) == []
    place.clock.now += 60
    place.handler.send_heartbeats()
    (reply,) = place.take(OPERATOR, QueryReply)
    found = read_reply(reply.body, WhyReply)
    assert {each.name for each in found.silent} == {"gateway", "gateway-2", "mlbridge"}
    assert len(found.answers) == 1
