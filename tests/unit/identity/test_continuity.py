from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.identity import Identity
from watchout.identity.sources.continuity import (
    CLOCK_JUMP_S,
    EMPTIED_S,
    LOOK_AGAIN_S,
    LOOKED_FOR,
    OTHER_S,
    REMEMBERED,
    Continuity,
    Evidence,
    StoreLocation,
    StoreState,
)

HERE = StoreState(StoreLocation("cluster", "1", "session:10"), "a")
REWRITTEN = replace(HERE, mark="b")
STANDBY = replace(HERE, mark="c", standby=True)
OTHERS = [
    StoreState(StoreLocation("other", "1", "session:10"), "a"),
    StoreState(StoreLocation("cluster", "2", "session:10"), "a"),
    StoreState(StoreLocation("cluster", "1", "session:11"), "a"),
]
SEEN = Evidence(any_live=True, looked_for=3, seen=1)
STRANGERS = Evidence(any_live=True, looked_for=3, seen=0)
EMPTY = Evidence(any_live=False, looked_for=3, seen=0)


def who(session_id: str, ends: float | None = None) -> Identity:
    return Identity("u", session_id, time.time() + 3600 if ends is None else ends)


def in_use() -> Continuity:
    made = Continuity()
    assert made.accepts(HERE)
    made.remember([who("s1"), who("s2")])
    return made


def test_the_first_state_is_accepted_and_needs_no_evidence_again() -> None:
    made = in_use()
    assert made.accepts(HERE)
    assert not made.accepts(REWRITTEN)


@pytest.mark.parametrize("state", [REWRITTEN, STANDBY, *OTHERS])
def test_while_nobody_is_here_any_state_is_accepted(state: StoreState) -> None:
    made = Continuity()
    made.accepts(HERE)
    assert made.accepts(state)
    made = in_use()
    made.forget_ended(["s1", "s2"], {})
    assert made.accepts(state)


@pytest.mark.parametrize("state", [REWRITTEN, *OTHERS])
def test_a_state_that_shows_one_of_those_that_were_here_is_accepted(state: StoreState) -> None:
    made = in_use()
    assert made.judge(state, SEEN, 0) is None
    assert made.accepts(state)


@pytest.mark.parametrize("state", OTHERS)
def test_another_place_with_none_of_them_is_accepted_late_and_only_if_it_is_in_use(state: StoreState) -> None:
    made = in_use()
    what = "server" if state.location.cluster == "other" else "database" if state.location.database == "2" else "table"
    assert what in (made.judge(state, STRANGERS, 0) or "")
    assert made.judge(state, STRANGERS, OTHER_S - 1) is not None
    assert made.judge(state, EMPTY, OTHER_S + 1) is not None
    assert not made.accepts(state)
    assert made.judge(state, STRANGERS, OTHER_S + 1) is None
    assert made.accepts(state)
    assert not made.accepts(HERE)


def test_the_same_tables_in_use_are_accepted_and_emptied_ones_after_a_moment() -> None:
    assert in_use().judge(REWRITTEN, STRANGERS, 0) is None
    made = in_use()
    assert "emptied" in (made.judge(REWRITTEN, EMPTY, 100) or "")
    assert made.judge(REWRITTEN, EMPTY, 100 + EMPTIED_S - 1) is not None
    assert made.judge(REWRITTEN, EMPTY, 100 + EMPTIED_S) is None


def test_a_standby_is_accepted_when_it_has_caught_up() -> None:
    made = in_use()
    assert "behind" in (made.judge(STANDBY, SEEN, 0) or "")
    assert made.judge(STANDBY, Evidence(any_live=True, looked_for=3, seen=3), 1) is None


def test_the_wait_begins_anew_with_each_state() -> None:
    made = in_use()
    made.judge(REWRITTEN, EMPTY, 0)
    made.judge(replace(HERE, mark="z"), EMPTY, EMPTIED_S)
    assert made.judge(REWRITTEN, EMPTY, EMPTIED_S + 1) is not None


def test_a_state_in_doubt_is_not_looked_at_again_at_once() -> None:
    made = in_use()
    assert made.recent_doubt(REWRITTEN, 0) is None
    reason = made.judge(REWRITTEN, EMPTY, 0)
    assert made.recent_doubt(REWRITTEN, LOOK_AGAIN_S / 2) == reason
    assert made.recent_doubt(REWRITTEN, LOOK_AGAIN_S) is None
    assert made.recent_doubt(OTHERS[0], LOOK_AGAIN_S / 2) is None


def test_hosts_that_answer_in_turn_are_each_judged_once() -> None:
    made = in_use()
    for mark in "bcde":
        assert made.judge(replace(HERE, mark=mark), SEEN, 0) is None
    for mark in "abcde":
        assert made.accepts(replace(HERE, mark=mark))


def test_who_is_looked_for_is_bounded_and_has_not_expired() -> None:
    made = in_use()
    made.remember([who(f"x{n}") for n in range(REMEMBERED * 2)] + [who("old", time.time() - 1)])
    made.remember([Identity("u")])
    assert made.sessions_to_probe() == [f"x{n}" for n in range(REMEMBERED * 2 - LOOKED_FOR, REMEMBERED * 2)]
    assert len(made._known) < REMEMBERED


def test_a_clock_that_jumps_ahead_alone_is_not_believed_until_it_is_back() -> None:
    made = Continuity()
    assert made.check_clock(1000, 1000, 0) is None
    assert made.check_clock(1010, 1010, 10) is None
    assert "clock has jumped ahead" in (made.check_clock(1020 + 3600, 1020, 20) or "")
    assert made.check_clock(1030 + 3600, 1030, 30) is not None
    assert made.check_clock(1040, 1040, 40) is None


@pytest.mark.parametrize(
    ("server_s", "own_s", "elapsed_s"),
    [
        (1000 + 3600, 1000 + 3600, 10),  # this machine slept
        (1000 + CLOCK_JUMP_S - 1, 1000, 10),
        (1000 - 3600, 1010, 10),  # a clock that is behind makes nothing expire
    ],
)
def test_a_clock_is_believed_that_another_witness_bears_out(server_s: float, own_s: float, elapsed_s: float) -> None:
    made = Continuity()
    made.check_clock(1000, 1000, 0)
    assert made.check_clock(server_s, own_s, elapsed_s) is None


def test_clocks_that_never_agreed_are_no_witnesses() -> None:
    made = Continuity()
    made.check_clock(1000, 5000, 0)
    assert made.check_clock(5010, 5010, 10) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([HERE, REWRITTEN, STANDBY, *OTHERS]),
            st.sampled_from([SEEN, STRANGERS, EMPTY]),
            st.floats(0, 700),
        )
    )
)
def test_nothing_is_accepted_that_was_not_judged_and_the_first_doubt_is_told(
    history: list[tuple[StoreState, Evidence, float]],
) -> None:
    made, now = in_use(), 0.0
    for state, evidence, wait_s in history:
        now += wait_s
        if made.accepts(state):
            assert state.location == made._state.location if made._state else False
            continue
        reason = made.judge(state, evidence, now)
        assert made.accepts(state) is (reason is None)
        if state.location != HERE.location and evidence == EMPTY:
            assert reason is not None
