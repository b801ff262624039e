"""The membership of a process at the router, as dialogues: what comes and the time go in, what to do comes out."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common.bus.membership import (
    ANSWERED_AGAIN_S,
    FORGOTTEN_AFTER_S,
    HEARTBEAT_EVERY_S,
    HELLO_EVERY_S,
    LOST_AFTER_S,
    MEMBER_LOST_AFTER_S,
    Action,
    Deliver,
    Joined,
    Left,
    Membership,
    MembershipState,
    SendHeartbeat,
    SendHello,
)
from watchout.common.bus.messages import Envelope, FromRouter, Rejoin, Revoke, RouterHeartbeat, SlotsDiffer, Welcome
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH, MAX_EPOCH

NEWS = Revoke(stream="cam-1", term=1)


def says(epoch: int, seq: int, body: FromRouter) -> Envelope[FromRouter]:
    return Envelope(epoch, seq, body)


def joined(now: float = 10.0, epoch: int = 5) -> Membership:
    """A member that was welcomed at `now`."""
    membership = Membership()
    assert membership.tick(now) == [SendHello(membership.attempt)]
    assert membership.received(says(epoch, 0, Welcome(attempt=membership.attempt)), now) == [
        Joined(epoch, new_epoch=True)
    ]
    return membership


# ── greeting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_tick_greets() -> None:
    membership = Membership()
    assert membership.state is MembershipState.DOWN
    assert membership.tick(0.0) == [SendHello(membership.attempt)]
    assert membership.state is MembershipState.GREETING


def test_hello_is_repeated_until_it_is_answered() -> None:
    membership = Membership()
    assert membership.tick(0.0) == [SendHello(membership.attempt)]
    assert membership.tick(HELLO_EVERY_S / 2) == []
    assert membership.tick(HELLO_EVERY_S) == [SendHello(membership.attempt)]
    assert membership.tick(HELLO_EVERY_S * 2) == [SendHello(membership.attempt)]


def test_a_welcome_makes_the_membership() -> None:
    membership = joined(epoch=7)
    assert membership.state is MembershipState.LIVE
    assert membership.epoch == 7


def test_the_last_welcome_says_where_the_router_accepts_frames() -> None:
    membership = Membership()
    membership.tick(0.0)
    membership.received(says(5, 0, Welcome(attempt=1, frames_at="unix:f-abcdefgh")), 0.1)
    assert membership.frames_at == "unix:f-abcdefgh"
    membership.received(says(5, 1, Rejoin()), 1.0)
    membership.received(says(5, 0, Welcome(attempt=2)), 1.1)
    assert membership.frames_at is None


def test_what_follows_the_welcome_in_order_is_delivered() -> None:
    membership = joined()
    assert membership.received(says(5, 1, NEWS), 10.1) == [Deliver(NEWS)]
    assert membership.received(says(5, 2, NEWS), 10.2) == [Deliver(NEWS)]


def test_the_count_goes_on_from_the_welcomes_own_number() -> None:
    membership = Membership()
    membership.tick(0.0)
    membership.received(says(5, 40, Welcome(attempt=membership.attempt)), 0.0)
    assert membership.received(says(5, 41, NEWS), 0.0) == [Deliver(NEWS)]


def test_before_the_welcome_nothing_is_delivered_and_nothing_is_asked() -> None:
    membership = Membership()
    assert membership.received(says(5, 1, NEWS), 0.0) == []
    membership.tick(0.0)
    assert membership.received(says(5, 1, NEWS), 0.0) == []
    assert membership.state is MembershipState.GREETING


def test_messages_to_the_router_are_counted_from_the_greeting_on() -> None:
    membership = joined()
    assert [membership.next_seq() for _ in range(3)] == [1, 2, 3]
    membership.received(says(5, 9, NEWS), 20.0)
    assert membership.next_seq() == 1


# ── what ends it ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hole_in_the_numbers_greets_again() -> None:
    membership = joined(10.0)
    assert membership.received(says(5, 2, NEWS), 11.0) == [Left(), SendHello(membership.attempt)]
    assert membership.state is MembershipState.GREETING
    assert membership.received(says(5, 0, Welcome(attempt=membership.attempt)), 11.1) == [Joined(5, new_epoch=False)]
    assert membership.received(says(5, 1, NEWS), 11.2) == [Deliver(NEWS)]


def test_a_repeated_message_is_a_gap_too() -> None:
    membership = joined(10.0)
    assert membership.received(says(5, 1, NEWS), 11.0) == [Deliver(NEWS)]
    assert membership.received(says(5, 1, NEWS), 11.0) == [Left(), SendHello(membership.attempt)]


def test_another_epoch_greets_again_and_the_next_welcome_reports_it_as_new() -> None:
    membership = joined(10.0, epoch=5)
    assert membership.received(says(6, 1, NEWS), 11.0) == [Left(), SendHello(membership.attempt)]
    assert membership.received(says(6, 0, Welcome(attempt=membership.attempt)), 11.1) == [Joined(6, new_epoch=True)]


def test_a_router_that_does_not_know_this_member_is_greeted() -> None:
    membership = joined(10.0)
    assert membership.received(says(6, 0, Rejoin()), 11.0) == [Left(), SendHello(membership.attempt)]


def test_a_rejoin_before_the_first_tick_greets() -> None:
    membership = Membership()
    assert membership.received(says(6, 0, Rejoin()), 11.0) == [SendHello(membership.attempt)]


def test_silence_ends_the_membership_and_the_member_greets() -> None:
    membership = joined(10.0)
    assert membership.tick(10.0 + LOST_AFTER_S) == [SendHeartbeat()]
    assert membership.tick(10.0 + LOST_AFTER_S + 0.01) == [Left(), SendHello(membership.attempt)]
    assert membership.tick(10.0 + LOST_AFTER_S + 0.02) == []


def test_any_delivered_message_counts_as_a_heartbeat() -> None:
    membership = joined(10.0)
    for step in range(1, 20):
        membership.received(says(5, step, RouterHeartbeat()), 10.0 + step)
        assert Left() not in membership.tick(10.0 + step + LOST_AFTER_S)


def test_after_a_silence_only_a_greeting_brings_the_membership_back() -> None:
    membership = joined(10.0)
    membership.tick(20.0)
    assert membership.received(says(5, 1, NEWS), 20.0) == []
    assert membership.received(says(5, 0, Welcome(attempt=membership.attempt)), 20.1) == [Joined(5, new_epoch=False)]


def test_the_router_is_given_up_sooner_than_it_gives_a_member_up() -> None:
    assert HEARTBEAT_EVERY_S * 2.5 < LOST_AFTER_S < MEMBER_LOST_AFTER_S


def test_a_message_that_could_not_be_sent_greets_again() -> None:
    membership = joined(10.0)
    assert membership.send_failed(11.0) == [Left(), SendHello(membership.attempt)]
    assert membership.send_failed(11.0) == []


def test_a_message_that_could_not_be_sent_right_after_a_greeting_waits_for_the_tick() -> None:
    membership = joined(10.0)
    assert membership.send_failed(10.0) == [Left()]
    assert membership.state is MembershipState.GREETING
    assert membership.tick(10.0 + HELLO_EVERY_S) == [SendHello(membership.attempt)]


def test_a_message_that_cannot_be_sent_while_not_live_changes_nothing() -> None:
    membership = Membership()
    assert membership.send_failed(0.0) == []


# ── bursts and heartbeats ────────────────────────────────────────────────────────────────────────────────────────


def test_a_burst_of_stray_messages_makes_one_greeting() -> None:
    membership = joined(10.0)
    actions: list[Action] = []
    for number in range(2, 1000):
        actions += membership.received(says(5, number, NEWS), 11.0 + number / 1e6)
    assert actions == [Left(), SendHello(membership.attempt)]


def test_a_burst_of_rejoins_makes_one_greeting() -> None:
    membership = joined(10.0)
    actions: list[Action] = []
    for number in range(1000):
        actions += membership.received(says(6, 0, Rejoin()), 11.0 + number / 1e6)
    assert actions == [Left(), SendHello(membership.attempt)]


def test_a_second_welcome_tells_everything_anew() -> None:
    membership = joined(10.0)
    membership.received(says(5, 1, NEWS), 10.1)
    assert membership.received(says(5, 0, Welcome(attempt=membership.attempt)), 10.2) == [
        Left(),
        Joined(5, new_epoch=False),
    ]
    assert membership.received(says(5, 1, NEWS), 10.3) == [Deliver(NEWS)]


def test_a_router_that_is_slow_to_answer_is_greeted_less_often_and_joined() -> None:
    membership = Membership()
    answers: list[tuple[float, int]] = []
    now = 0.0
    while membership.state is not MembershipState.LIVE:
        for action in membership.tick(now):
            assert isinstance(action, SendHello)
            membership.hello_sent(queued=True)
            answers.append((now + 0.9, action.attempt))
        while answers and answers[0][0] <= now:
            membership.received(says(5, 0, Welcome(attempt=answers.pop(0)[1])), now)
        now += 0.05
        assert now < 5


def test_a_router_that_is_not_there_is_greeted_at_the_first_pace() -> None:
    membership = Membership()
    for turn in range(40):
        for _ in membership.tick(turn * HELLO_EVERY_S):
            membership.hello_sent(queued=False)
    assert membership.attempt == 40


def test_only_the_answer_to_the_last_greeting_counts() -> None:
    membership = Membership()
    for turn in range(12):  # the router hangs, and the greetings pile up there
        membership.tick(turn * HELLO_EVERY_S)
    assert membership.attempt == 12
    for attempt in range(12):
        assert membership.received(says(5, 0, Welcome(attempt=attempt)), 4.0) == []
    assert membership.received(says(5, 0, Welcome(attempt=12)), 4.0) == [Joined(5, new_epoch=True)]


def test_a_live_member_sends_heartbeats_and_does_not_greet() -> None:
    membership = joined(10.0)
    assert membership.tick(10.0) == [SendHeartbeat()]
    assert membership.tick(10.0 + HEARTBEAT_EVERY_S / 2) == []
    assert membership.tick(10.0 + HEARTBEAT_EVERY_S) == [SendHeartbeat()]


def test_a_heartbeat_of_the_router_is_answered_at_once_and_the_own_time_begins_anew() -> None:
    membership, beat = joined(10.0), RouterHeartbeat()
    assert membership.received(says(5, 1, beat), 10.0) == [Deliver(beat), SendHeartbeat()]
    assert membership.tick(10.0 + HEARTBEAT_EVERY_S / 2) == []
    assert membership.received(says(5, 2, beat), 10.0 + HEARTBEAT_EVERY_S) == [Deliver(beat), SendHeartbeat()]
    again = 10.0 + HEARTBEAT_EVERY_S + ANSWERED_AGAIN_S
    assert membership.received(says(5, 3, beat), again - 0.01) == [Deliver(beat)], "one for a burst of them"
    assert membership.received(says(5, 4, beat), again + 0.01) == [Deliver(beat), SendHeartbeat()]
    assert membership.tick(again + 0.01 + HEARTBEAT_EVERY_S) == [SendHeartbeat()], "the router's is late"


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tick", "send_failed", "welcome", "rejoin", "next", "gap", "epoch"]), st.floats(0, 2)
        ),
        max_size=60,
    )
)
def test_in_any_history_joins_and_losses_alternate_and_greetings_are_rare(steps: list[tuple[str, float]]) -> None:
    membership = Membership()
    now, epoch, seq = 0.0, 1, 0
    live = False
    greeted_at: list[float] = []
    for what, gap in steps:
        now += gap
        match what:
            case "tick":
                actions = membership.tick(now)
            case "send_failed":
                actions = membership.send_failed(now)
            case "welcome":
                seq = 0
                actions = membership.received(says(epoch, 0, Welcome(attempt=membership.attempt)), now)
            case "rejoin":
                actions = membership.received(says(epoch, 0, Rejoin()), now)
            case "next":
                seq += 1
                actions = membership.received(says(epoch, seq, NEWS), now)
            case "gap":
                seq += 2
                actions = membership.received(says(epoch, seq, NEWS), now)
            case _:
                epoch, seq = epoch + 1, 1
                actions = membership.received(says(epoch, 1, NEWS), now)
        for action in actions:
            match action:
                case Joined():
                    assert not live
                    live = True
                case Left():
                    assert live
                    live = False
                case SendHello(_):
                    greeted_at.append(now)
                    assert not live
                case Deliver() | SendHeartbeat():
                    assert live
        assert live is (membership.state is MembershipState.LIVE)
    pace = HELLO_EVERY_S / 5
    assert all(after - before >= pace * 0.999 for before, after in itertools.pairwise(greeted_at))


@settings(max_examples=50)
@given(st.floats(0.01, 0.25))
def test_a_member_alone_greets_at_a_steady_pace(step: float) -> None:
    membership = Membership()
    ticks = int(10 / step)
    for turn in range(ticks):
        membership.tick(turn * step)
    greetings = membership.attempt
    assert 10 / 0.5 - 1 <= greetings <= 10 / (HELLO_EVERY_S * 0.9) + 1


# ── two routers ──────────────────────────────────────────────────────────────────────────────────────────────────


def fenced(epoch: int = 5, now: float = 10.0) -> Membership:
    """A member of a carrier with fencing, welcomed by the router of this epoch."""
    membership = Membership(fenced=True)
    membership.tick(now)
    assert membership.received(says(epoch, 0, Welcome(attempt=membership.attempt)), now) == [Joined(epoch, True)]
    return membership


def test_a_router_that_has_a_successor_is_not_obeyed() -> None:
    membership = fenced(epoch=7)
    for body in (Welcome(attempt=membership.attempt), Rejoin(), RouterHeartbeat(), NEWS):
        assert membership.received(says(6, 1, body), 10.1) == []
    assert membership.received(says(7, 1, NEWS), 10.2) == [Deliver(NEWS)], "its own router's numbers go on"


def test_any_word_of_a_successor_makes_a_live_member_greet_it() -> None:
    for body in (Rejoin(), RouterHeartbeat(), NEWS):
        membership = fenced(epoch=5)
        assert membership.received(says(6, 9, body), 11.0) == [Left(), SendHello(2)]
        assert membership.received(says(5, 1, NEWS), 11.1) == []
        assert membership.received(says(5, 0, Welcome(attempt=2)), 11.1) == []
        assert membership.received(says(6, 0, Welcome(attempt=2)), 11.2) == [Joined(6, True)]


def test_a_member_without_a_router_greets_a_successor_at_once() -> None:
    membership = fenced(epoch=5)
    membership.tick(20.0)
    membership.hello_sent(queued=True)
    assert membership.received(says(6, 3, RouterHeartbeat()), 20.2) == [SendHello(3)]


def test_a_greeting_carries_the_highest_epoch_that_was_heard() -> None:
    membership = fenced(epoch=5)
    assert membership.hello_epoch == 5
    membership.received(says(9, 0, Rejoin()), 11.0)
    assert (membership.epoch, membership.hello_epoch) == (5, 9)


def test_of_two_welcomes_for_one_greeting_the_higher_epoch_holds_in_either_order() -> None:
    for order in ((5, 6), (6, 5)):
        membership = Membership(fenced=True)
        membership.tick(0.0)
        for epoch in order:
            membership.received(says(epoch, 0, Welcome(attempt=1)), 0.0)
        assert (membership.state, membership.epoch) == (MembershipState.LIVE, 6)


def test_an_epoch_that_no_router_can_exceed_is_not_obeyed_for_good() -> None:
    for epoch in (EXCEEDABLE_EPOCH, MAX_EPOCH - 1):
        membership = fenced(epoch=5)
        membership.received(says(epoch, 3, Rejoin()), 11.0)
        assert membership.hello_epoch == epoch
        now = 11.0
        while now < 11.0 + FORGOTTEN_AFTER_S:
            assert membership.received(says(5, 0, Welcome(attempt=membership.attempt)), now) == []
            membership.tick(now)
            now += 0.25
        membership.tick(now)
        assert membership.hello_epoch == 5
        assert membership.received(says(5, 0, Welcome(attempt=membership.attempt)), now) == [Joined(5, new_epoch=False)]


def test_a_router_of_the_last_epochs_is_obeyed_while_it_speaks_and_forgotten_after_it() -> None:
    membership, now = fenced(epoch=MAX_EPOCH - 1), 10.0
    for seq in range(1, 100):
        now += 0.5
        membership.received(says(MAX_EPOCH - 1, seq, RouterHeartbeat()), now)
        membership.tick(now)
    assert (membership.state, membership.hello_epoch) == (MembershipState.LIVE, MAX_EPOCH - 1)
    membership.tick(now + FORGOTTEN_AFTER_S)
    assert membership.hello_epoch == 0


def test_an_epoch_that_a_router_can_exceed_is_never_forgotten() -> None:
    membership = fenced(epoch=5)
    membership.received(says(EXCEEDABLE_EPOCH - 1, 3, Rejoin()), 11.0)
    membership.tick(11.0 + 10 * FORGOTTEN_AFTER_S)
    assert membership.hello_epoch == EXCEEDABLE_EPOCH - 1


def test_without_fencing_a_lower_epoch_is_a_new_router_as_ever() -> None:
    membership = joined(epoch=7)
    assert membership.received(says(6, 1, NEWS), 10.1) == [Left(), SendHello(2)]
    assert membership.hello_epoch == 7
    assert membership.received(says(6, 0, Welcome(attempt=2)), 10.2) == [Joined(6, True)]
    assert membership.hello_epoch == 6


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from(["welcome", "late welcome", "rejoin", "beat", "news", "tick"]),
            st.integers(0, 4),
            st.floats(0.0, 2.0),
        ),
        max_size=60,
    )
)
def test_whatever_routers_say_the_epoch_never_falls_and_only_the_highest_is_heard(
    steps: list[tuple[int, str, int, float]],
) -> None:
    membership, now, highest = Membership(fenced=True), 0.0, 0
    for epoch, what, seq, gap in steps:
        now += gap
        before = membership.epoch
        if what == "tick":
            membership.tick(now)
            continue
        bodies: dict[str, FromRouter] = {
            "welcome": Welcome(attempt=membership.attempt), "late welcome": Welcome(attempt=membership.attempt + 1),
            "rejoin": Rejoin(), "beat": RouterHeartbeat(), "news": NEWS,
        }  # fmt: skip
        actions = membership.received(says(epoch, seq, bodies[what]), now)
        if epoch < highest:
            assert actions == [], "the words of a lower epoch have no effect"
        highest = max(highest, epoch)
        assert membership.epoch >= before
        assert membership.highest_epoch == membership.hello_epoch == highest
        if any(isinstance(action, Deliver | Joined) for action in actions):
            assert membership.epoch == highest


# ── another number of slots ──────────────────────────────────────────────────────────────────────────────────────


def test_a_member_with_another_number_of_slots_has_not_joined_and_greets_on_until_it_is_welcome() -> None:
    membership = Membership(fenced=True)
    assert membership.tick(0.0) == [SendHello(1)]
    assert membership.received(says(5, 0, SlotsDiffer(attempt=1, slots=4)), 0.1) == []
    assert membership.state is MembershipState.GREETING
    assert membership.other_slots == 4
    assert membership.tick(2.0) == [SendHello(2)]
    assert membership.received(says(6, 0, Welcome(attempt=2)), 2.1) == [Joined(6, new_epoch=True)]
    assert membership.other_slots == 0


def test_only_the_answer_to_the_last_greeting_says_it_and_no_live_member_is_told() -> None:
    membership = Membership(fenced=True)
    membership.tick(0.0)
    membership.tick(2.0)
    assert membership.received(says(5, 0, SlotsDiffer(attempt=1, slots=4)), 2.1) == []
    assert membership.other_slots == 0
    membership.received(says(5, 0, Welcome(attempt=2)), 2.2)
    assert membership.received(says(5, 0, SlotsDiffer(attempt=2, slots=4)), 2.3) == []
    assert membership.state is MembershipState.LIVE
    assert membership.other_slots == 0
