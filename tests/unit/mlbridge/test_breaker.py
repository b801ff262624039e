"""The breaker's states, each change as a short history; then its promises over random ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.retry import JITTER
from watchout.mlbridge.breaker import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MAX_RETRY_AFTER_S,
    OPEN_AFTER,
    Breaker,
    BreakerState,
)

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def make(chance: float = 0.0) -> Breaker:
    return Breaker(chance=lambda: chance)


def opened(chance: float = 0.0, at: float = 0.0) -> Breaker:
    breaker = make(chance)
    for _ in range(OPEN_AFTER):
        breaker.on_failure(at, at, probe=False)
    assert breaker.state is OPEN
    return breaker


def test_a_closed_breaker_allows_everything() -> None:
    breaker = make()
    for _ in range(100):
        assert breaker.allows(0.0)
        assert not breaker.on_sent()
    assert breaker.next_at() is None


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = make()
    for _ in range(OPEN_AFTER - 1):
        breaker.on_failure(0.0, 0.0, probe=False)
        assert breaker.state is CLOSED
    breaker.on_failure(0.0, 0.0, probe=False)
    assert breaker.state is OPEN
    assert breaker.opened == 1
    assert not breaker.allows(0.0)
    assert breaker.next_at() == FIRST_PAUSE_S


def test_an_answer_between_failures_begins_a_new_row() -> None:
    breaker = make()
    for _ in range(20):
        for _ in range(OPEN_AFTER - 1):
            breaker.on_failure(0.0, 0.0, probe=False)
        breaker.on_result(0.0, probe=False)
    assert breaker.state is CLOSED


def test_when_the_pause_is_over_one_probe_goes_and_no_second() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_PAUSE_S)
    assert breaker.on_sent()
    assert breaker.state is HALF_OPEN
    assert not breaker.allows(1e9)
    assert breaker.next_at() is None


def test_a_probes_answer_closes_it_and_pauses_begin_small_again() -> None:
    breaker = opened()
    for _ in range(10):
        at = breaker.next_at()
        assert at is not None
        breaker.on_sent()
        breaker.on_failure(at, at, probe=True)
    breaker.on_sent()
    breaker.on_result(100.0, probe=True)
    assert breaker.state is CLOSED
    for _ in range(OPEN_AFTER):
        breaker.on_failure(200.0, 200.0, probe=False)
    assert breaker.next_at() == 200.0 + FIRST_PAUSE_S
    assert breaker.opened == 2


def test_pauses_grow_to_a_bound() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        at = breaker.next_at()
        assert at is not None
        pauses.append(round(at - now, 6))
        now = at
        breaker.on_sent()
        breaker.on_failure(now, now, probe=True)
    assert pauses == [0.1, 0.2, 0.4] + [LONGEST_PAUSE_S] * 5
    assert breaker.opened == 1, "a probe that fails opens nothing that was closed"


def test_chance_makes_pauses_shorter_and_never_longer() -> None:
    for chance in (0.0, 0.5, 0.999):
        at = opened(chance).next_at()
        assert at == pytest.approx(FIRST_PAUSE_S * (1 - JITTER * chance))


def test_a_request_from_before_proves_the_service_and_closes_it() -> None:
    breaker = opened()
    breaker.on_result(0.01, probe=False)
    assert breaker.state is CLOSED


def test_while_a_probe_is_under_way_only_the_probe_decides() -> None:
    breaker = opened()
    breaker.on_sent()
    breaker.on_result(0.2, probe=False)
    assert breaker.state is HALF_OPEN
    breaker.on_failure(0.0, 0.2, probe=False)
    assert breaker.state is HALF_OPEN
    breaker.on_failure(0.1, 0.3, probe=True)
    assert breaker.state is OPEN


def test_failures_of_an_outage_that_was_judged_do_not_open_it_again() -> None:
    breaker = opened(at=1.0)
    breaker.on_sent()
    breaker.on_result(2.0, probe=True)
    for _ in range(10):
        breaker.on_failure(0.5, 2.1, probe=False)
    assert breaker.state is CLOSED


def test_one_word_to_come_back_later_opens_it_for_that_time() -> None:
    breaker = make()
    breaker.on_failure(0.0, 0.0, probe=False, retry_after_s=7.0)
    assert breaker.state is OPEN
    assert breaker.next_at() == 7.0
    breaker.on_result(1.0, probe=False)
    assert breaker.state is OPEN, "it asked for time, and an older request changes nothing of that"
    assert not breaker.allows(6.9)
    assert breaker.allows(7.0)


def test_while_it_is_open_a_later_word_prolongs_it() -> None:
    breaker = opened()
    breaker.on_failure(0.0, 0.05, probe=False, retry_after_s=5.0)
    assert breaker.next_at() == 5.05


@pytest.mark.parametrize("asked", [1e9, math.inf])
def test_what_a_service_asks_for_is_bounded(asked: float) -> None:
    breaker = make()
    breaker.on_failure(0.0, 0.0, probe=False, retry_after_s=asked)
    assert breaker.next_at() == MAX_RETRY_AFTER_S


@pytest.mark.parametrize("asked", [0.0, -5.0, math.nan, -math.inf])
def test_what_is_no_time_to_wait_is_passed_over(asked: float) -> None:
    breaker = make()
    breaker.on_failure(0.0, 0.0, probe=False, retry_after_s=asked)
    assert breaker.state is CLOSED


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "answer", "fail", "fail", "wait"]),
        st.floats(0.0, 3.0),
        st.one_of(st.none(), st.floats(allow_nan=True)),
    ),
    max_size=100,
)


@given(steps=STEPS, chance=st.floats(0.0, 0.999))
def test_whatever_happens_there_is_one_probe_and_no_pause_without_end(
    steps: list[tuple[str, float, float | None]], chance: float
) -> None:
    breaker, now = make(chance), 0.0
    under_way: list[tuple[float, bool]] = []
    for what, length, asked in steps:
        match what:
            case "send" if breaker.allows(now):
                closed = breaker.state is CLOSED
                probe = breaker.on_sent()
                assert probe is not closed
                under_way.append((now, probe))
            case "answer" if under_way:
                _, probe = under_way.pop(int(length * 10) % len(under_way))
                breaker.on_result(now, probe=probe)
                assert not probe or breaker.state is CLOSED
            case "fail" if under_way:
                sent_at, probe = under_way.pop(int(length * 10) % len(under_way))
                breaker.on_failure(sent_at, now, probe=probe, retry_after_s=asked)
                assert not probe or breaker.state is OPEN
            case "wait":
                now += length
        probes = sum(probe for _, probe in under_way)
        assert probes == (breaker.state is HALF_OPEN)
        at = breaker.next_at()
        assert at is None or at <= now + MAX_RETRY_AFTER_S
        if breaker.state is OPEN:
            assert breaker.allows(now + MAX_RETRY_AFTER_S)
