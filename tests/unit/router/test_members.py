"""Who takes part: greetings, numbers, epochs and silence, as dialogues."""

from __future__ import annotations

import pytest

from watchout.common.bus.membership import LOST_AFTER_S, MEMBER_LOST_AFTER_S
from watchout.common.bus.messages import Bye, Envelope, FromMember, Hello, LinkReport, MemberHeartbeat
from watchout.router.members import (
    LOST_KEPT_S,
    MAX_LOST,
    MAX_MEMBERS,
    STALL_S,
    TURNED_AWAY_S,
    Member,
    Members,
    MessageVerdict,
)
from watchout.router.startup_hold import Reporters

EPOCH = 5
A, B, C, CTL = (letter * 8 for letter in (b"a", b"b", b"c", b"d"))
HELLO = Hello(kind="gateway", name="gateway.1", pid=7)
NEWS = MemberHeartbeat(metrics={})


def says(seq: int, body: FromMember = NEWS, epoch: int = EPOCH) -> Envelope[FromMember]:
    return Envelope(epoch, seq, body)


@pytest.fixture
def members() -> Members:
    """A has greeted at 10.0."""
    members = Members(EPOCH)
    assert members.receive(A, says(0, HELLO), 10.0) is MessageVerdict.GREETED
    return members


def test_a_greeting_makes_a_member(members: Members) -> None:
    known = members.get(A)
    assert known is not None
    assert (known.hello, known.joined_at, known.last_message_at) == (HELLO, 10.0, 10.0)
    assert [m.id for m in members.all()] == [A]
    assert len(members) == 1


def test_whoever_has_not_greeted_is_told_to(members: Members) -> None:
    assert members.receive(B, says(1), 10.0) is MessageVerdict.REJOIN
    assert members.get(B) is None


def test_messages_in_order_are_taken(members: Members) -> None:
    assert [members.receive(A, says(seq), 10.0) for seq in (1, 2, 3)] == [MessageVerdict.HANDLE] * 3


@pytest.mark.parametrize("seq", [0, 2, 3, 2**63])
def test_a_hole_in_the_numbers_is_told(members: Members, seq: int) -> None:
    assert members.receive(A, says(seq), 10.0) is MessageVerdict.REJOIN


def test_after_a_hole_nothing_is_taken_until_the_next_greeting(members: Members) -> None:
    members.receive(A, says(1), 10.0)
    assert members.receive(A, says(3), 10.0) is MessageVerdict.REJOIN
    assert members.receive(A, says(4), 10.0) is MessageVerdict.REJOIN
    assert members.receive(A, says(0, HELLO), 10.0) is MessageVerdict.GREETED
    assert members.receive(A, says(1), 10.0) is MessageVerdict.HANDLE


def test_a_message_of_another_epoch_is_not_taken(members: Members) -> None:
    assert members.receive(A, says(1, epoch=EPOCH - 1), 10.0) is MessageVerdict.REJOIN
    assert members.receive(A, says(1, epoch=EPOCH + 1), 10.0) is MessageVerdict.REJOIN
    assert members.receive(A, says(1), 10.0) is MessageVerdict.HANDLE


def test_a_greeting_may_carry_any_epoch(members: Members) -> None:
    assert members.receive(B, says(0, HELLO, epoch=0), 10.0) is MessageVerdict.GREETED


def test_a_second_greeting_counts_both_ways_anew_and_keeps_the_age(members: Members) -> None:
    known = members.get(A)
    assert known is not None
    known.metrics = {"sockets": 3.0}
    assert [known.next_seq() for _ in range(2)] == [1, 2]
    members.receive(A, says(1), 11.0)
    again = Hello(kind="gateway", name="gateway.1", pid=7, max_fps=2.0)
    assert members.receive(A, says(0, again), 12.0) is MessageVerdict.GREETED
    known = members.get(A)
    assert known is not None
    assert (known.hello, known.joined_at, known.last_message_at, known.metrics) == (again, 10.0, 12.0, {"sockets": 3.0})
    assert known.next_seq() == 1
    assert members.receive(A, says(1), 12.0) is MessageVerdict.HANDLE


def test_a_member_is_silent_when_nothing_of_it_was_taken_for_so_long(members: Members) -> None:
    assert members.silent(10.0 + MEMBER_LOST_AFTER_S) == []
    assert [m.id for m in members.silent(10.1 + MEMBER_LOST_AFTER_S)] == [A]
    members.receive(A, says(1), 12.0)
    assert members.silent(11.9 + MEMBER_LOST_AFTER_S) == []


def test_messages_out_of_order_do_not_prove_life(members: Members) -> None:
    members.receive(A, says(9), 12.0)
    assert [m.id for m in members.silent(10.1 + MEMBER_LOST_AFTER_S)] == [A]


def test_time_in_which_the_router_itself_stood_still_is_nobodys_silence(members: Members) -> None:
    members.excuse(5.0)
    assert members.silent(15.0 + MEMBER_LOST_AFTER_S) == []
    assert [m.id for m in members.silent(15.1 + MEMBER_LOST_AFTER_S)] == [A]


def test_a_router_that_is_a_little_late_excuses_nobody(members: Members) -> None:
    members.excuse(STALL_S)
    members.excuse(-0.2)
    assert [m.id for m in members.silent(10.1 + MEMBER_LOST_AFTER_S)] == [A]


def test_who_reports_to_a_new_router_is_who_is_heard_and_has_been_here_for_a_while() -> None:
    members = Members(EPOCH)
    members.receive(CTL, says(0, Hello(kind="ctl", name="c", pid=3)), 0.0)
    assert members.reporters(9.0) == Reporters(), "nobody is known"
    members.receive(A, says(0, Hello(kind="gateway", name="a", pid=1, process="a" * 16)), 10.0)
    members.receive(B, says(0, Hello(kind="mlbridge", name="b", pid=2, process="b" * 16)), 10.0)
    members.receive(CTL, says(1), 12.0)
    both = frozenset(("a" * 16, "b" * 16))
    assert members.reporters(9.9 + LOST_AFTER_S) == Reporters(both, is_certain=False), "others may join yet"
    members.receive(A, says(1), 12.0)
    members.receive(B, says(1), 13.0)
    assert members.reporters(13.0) == Reporters(both, is_certain=True)
    assert members.reporters(12.1 + LOST_AFTER_S).processes == {"b" * 16}, "the other one may be lost"
    members.receive(C, says(0, Hello(kind="gateway", name="d", pid=4)), 13.0)
    members.receive(B, says(2), 15.0)
    members.receive(C, says(1), 15.0)
    assert members.reporters(15.1) == Reporters(frozenset(("b" * 16, None)), is_certain=True)


def test_a_removed_member_has_to_greet(members: Members) -> None:
    removed = members.remove(A)
    assert removed is not None
    assert removed.id == A
    assert members.remove(A) is None
    assert members.receive(A, says(1, Bye()), 10.0) is MessageVerdict.REJOIN
    assert len(members) == 0


def test_members_come_in_the_order_of_their_first_greetings(members: Members) -> None:
    members.receive(B, says(0, HELLO), 11.0)
    members.receive(A, says(0, HELLO), 12.0)
    assert [m.id for m in members.all()] == [A, B]


def test_past_the_most_members_a_stranger_is_not_answered_and_the_known_still_are() -> None:
    members = Members(EPOCH)
    ids = [number.to_bytes(8, "big") for number in range(1, MAX_MEMBERS + 2)]
    verdicts = [members.receive(member, says(0, HELLO), 10.0) for member in ids]
    assert verdicts == [MessageVerdict.GREETED] * MAX_MEMBERS + [MessageVerdict.IGNORE]
    assert members.receive(ids[0], says(0, HELLO), 10.0) is MessageVerdict.GREETED
    members.remove(ids[1])
    assert members.receive(ids[-1], says(0, HELLO), 10.0) is MessageVerdict.GREETED


def test_the_routers_own_words_are_numbered_per_member(members: Members) -> None:
    members.receive(B, says(0, HELLO), 10.0)
    a, b = members.get(A), members.get(B)
    assert a is not None
    assert b is not None
    assert [a.next_seq(), a.next_seq(), b.next_seq()] == [1, 2, 1]


def test_a_stream_is_covered_as_the_bridge_says_that_looks_least(members: Members) -> None:
    assert members.coverage() == {}
    members.receive(B, says(0, HELLO), 10.0)
    for member, share in ((A, 0.5), (B, 0.25)):
        known = members.get(member)
        assert known is not None
        known.coverage = {"cam": share, "other": 1.0}
    assert members.coverage() == {"cam": 0.25, "other": 1.0}
    members.remove(B)
    assert members.coverage() == {"cam": 0.5, "other": 1.0}


def test_who_fell_silent_is_named_until_it_comes_back(members: Members) -> None:
    known = members.get(A)
    assert known is not None
    members.remove(A)
    members.remember_lost(known, 20.0)
    assert [(each.hello.name, each.at) for each in members.lost_lately(21.0)] == [("gateway.1", 20.0)]
    assert members.lost_lately(21.0 + LOST_KEPT_S) == []
    members.receive(B, says(0, HELLO), 30.0)
    assert members.lost_lately(31.0) == []


def test_of_very_many_lost_ones_the_last_are_named_and_commands_never() -> None:
    members = Members(EPOCH)
    for number in range(MAX_LOST + 5):
        hello = Hello(kind="gateway", name=f"g{number}", pid=1)
        members.remember_lost(Member(A, hello, 0.0, 0.0), float(number))
    members.remember_lost(Member(A, Hello(kind="ctl", name="ctl", pid=1), 0.0, 0.0), 200.0)
    names = [each.hello.name for each in members.lost_lately(200.0)]
    assert names == [f"g{number}" for number in range(MAX_LOST + 4, 4, -1)]


def test_of_very_many_that_were_turned_away_the_last_are_named_for_a_moment_and_commands_never() -> None:
    members = Members(EPOCH)
    for number in range(MAX_LOST + 5):
        members.turn_away(Hello(kind="gateway", name=f"g{number}", pid=1, slots=2), 1.0)
    members.turn_away(Hello(kind="ctl", name="ctl", pid=1, slots=2), 1.0)
    names = [each.hello.name for each in members.turned_away_lately(1.0)]
    assert names == [f"g{number}" for number in range(MAX_LOST + 4, 4, -1)]
    assert members.turned_away_lately(1.1 + TURNED_AWAY_S) == []


def test_a_greeting_again_keeps_what_operators_see(members: Members) -> None:
    report = LinkReport(rows=[], total=3)
    members.set_links(A, report, 11.0)
    members.receive(A, says(0, HELLO), 12.0)
    known = members.get(A)
    assert known is not None
    assert (known.links, known.links_at) == (report, 11.0)
