"""A question is answered when all members have answered, or when its time is over; who did not is named."""

from __future__ import annotations

from watchout.common.bus.messages import WHY_LEVEL, AskWhy, Hello, QueryReply, RefusedReply
from watchout.common.bus.reply_records import WhyReply
from watchout.router.inquiries import ANSWER_S, MAX_INQUIRIES, MAX_REPLY_BYTES, Inquiries
from watchout.router.members import Member
from watchout.router.streams.stream import Send

CTL, ONE, TWO, OLD = b"ctl.....", b"one.....", b"two.....", b"old....."


def member(id: bytes, kind: str = "gateway", level: int = WHY_LEVEL) -> Member:
    return Member(id, Hello(kind=kind, name=id.decode().strip("."), pid=1, level=level), 0.0, 0.0)  # type: ignore[arg-type]


MEMBERS = [member(CTL, "ctl"), member(ONE), member(TWO, "mlbridge"), member(OLD, level=WHY_LEVEL - 1)]


def asked(inquiries: Inquiries) -> int:
    """Ask once; the number that the members get."""
    sends = inquiries.ask(CTL, 7, "cam", MEMBERS, b"own", 0.0)
    assert [send.member for send in sends] == [ONE, TWO]
    numbers = {send.body.request for send in sends if isinstance(send.body, AskWhy) and send.body.about == "cam"}
    (number,) = numbers
    return number


def reply(sends: list[Send]) -> WhyReply:
    (send,) = sends
    assert send.member == CTL
    assert isinstance(send.body, QueryReply)
    assert send.body.request == 7
    assert isinstance(send.body.body, WhyReply)
    return send.body.body


def silent(found: WhyReply) -> dict[str, str]:
    return {each.name: each.why for each in found.silent}


def test_the_reply_comes_with_the_last_answer_and_names_whoever_is_too_old_to_be_asked() -> None:
    inquiries = Inquiries()
    number = asked(inquiries)
    assert inquiries.on_answer(ONE, number, b"1") == []
    assert inquiries.on_answer(ONE, number, b"again") == []  # once is enough
    assert inquiries.on_answer(OLD, number, b"never asked") == []
    found = reply(inquiries.on_answer(TWO, number, b"2"))
    assert found.answers == [b"own", b"1", b"2"]
    assert silent(found) == {"old": "it is of an older release, which does not know this question"}
    assert len(inquiries) == 0
    assert inquiries.on_answer(ONE, number, b"late") == []


def test_who_does_not_answer_in_time_is_named() -> None:
    inquiries = Inquiries()
    number = asked(inquiries)
    inquiries.on_answer(ONE, number, b"1")
    assert inquiries.due(ANSWER_S - 0.01) == []
    found = reply(inquiries.due(ANSWER_S))
    assert found.answers == [b"own", b"1"]
    assert silent(found)["two"] == f"no answer within {ANSWER_S:g} s"


def test_a_member_that_ends_is_not_waited_for() -> None:
    inquiries = Inquiries()
    number = asked(inquiries)
    assert inquiries.on_lost(ONE) == []
    found = reply(inquiries.on_answer(TWO, number, b"2"))
    assert silent(found)["one"] == "it ended meanwhile"


def test_the_last_that_ends_ends_the_wait() -> None:
    inquiries = Inquiries()
    asked(inquiries)
    inquiries.on_lost(ONE)
    assert silent(reply(inquiries.on_lost(TWO)))["two"] == "it ended meanwhile"


def test_a_question_whose_asker_left_is_forgotten() -> None:
    inquiries = Inquiries()
    number = asked(inquiries)
    assert inquiries.on_lost(CTL) == []
    assert len(inquiries) == 0
    assert inquiries.on_answer(ONE, number, b"1") == []


def test_without_members_the_router_answers_alone() -> None:
    assert reply(Inquiries().ask(CTL, 7, "cam", [MEMBERS[0]], b"own", 0.0)).answers == [b"own"]


def test_too_many_questions_are_refused() -> None:
    inquiries = Inquiries()
    for _ in range(MAX_INQUIRIES):
        asked(inquiries)
    (send,) = inquiries.ask(CTL, 9, "cam", MEMBERS, b"own", 0.0)
    assert isinstance(send.body, RefusedReply)
    assert (send.member, send.body.request, send.body.code) == (CTL, 9, "ROUTING_ERROR")


def test_answers_for_which_there_is_no_room_are_counted() -> None:
    inquiries = Inquiries()
    number = asked(inquiries)
    inquiries.on_answer(ONE, number, bytes(MAX_REPLY_BYTES))
    found = reply(inquiries.on_answer(TWO, number, b"2"))
    assert (len(found.answers), found.left_out) == (2, 1)
