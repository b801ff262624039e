"""Sign-in, back-off, close codes, watchdog and renewal of `ConnectionCore`, driven as a viewer's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.client_core import CoreRun, online
from watchout.client.commands import ConnectionPhase
from watchout.client.connection_parts import AT_ONCE_S, MOST_AT_ONCE, STEADY_S
from watchout.client.errors import (
    Disconnected,
    NoToken,
    Refused,
    SessionEnded,
    TakenOver,
    TokenRefused,
    may_reconnect,
)
from watchout.common.errors import RECONNECT_NOW

WAITING, CLOSED, ONLINE = ConnectionPhase.WAITING, ConnectionPhase.CLOSED, ConnectionPhase.ONLINE


def test_nothing_is_opened_until_something_is_wanted() -> None:
    run = CoreRun()
    assert (run.phase, run.opened, run.asked_tokens) == (ConnectionPhase.IDLE, 0, [])
    run.subscribe()
    assert (run.phase, run.opened, run.asked_tokens) == (ConnectionPhase.CONNECTING, 1, ["connect"])


def test_the_token_is_the_first_message_and_asks_for_pings() -> None:
    run = CoreRun(silence_s=60)
    run.subscribe()
    run.open()
    assert run.sent == [{"type": "auth", "token": "t1", "pingEvery": 20, "requestId": "1"}]
    assert run.phase is ConnectionPhase.CONNECTING
    run.answer()
    assert run.phase is ONLINE


@pytest.mark.parametrize("code", [None, 1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 4399, 4400, 4408, 4499, 5000])
def test_after_a_close_that_allows_it_it_comes_back(code: int | None) -> None:
    run = online()
    run.close(code)
    assert (run.phase, run.error) == (WAITING, None)
    run.until(60)
    assert run.opened == 2


@pytest.mark.parametrize("code", [1008, 4501, 4502, 4999])
def test_after_any_other_close_it_does_not(code: int) -> None:
    run = online()
    run.close(code)
    assert run.phase is CLOSED
    assert isinstance(run.error, TakenOver if code == 4501 else Disconnected)
    run.until(10_000)
    assert (run.opened, run.asked_tokens) == (1, ["connect"])
    assert not may_reconnect(code)


def test_an_error_that_the_connection_outlived_is_not_the_reason_of_its_end() -> None:
    run = online()
    run.say("error", code="RATE_LIMITED", message="slower")
    run.say("ping")
    run.close(None)
    assert run.phases[-1].code == "CONNECTION_LOST"
    assert "RATE_LIMITED" not in run.phases[-1].reason


def test_the_last_error_of_the_gateway_is_quoted() -> None:
    run = online()
    run.say("error", code="STREAM_TAKEN_OVER", message="another socket registered it")
    run.close(4501, "STREAM_TAKEN_OVER")
    assert (run.phases[-1].phase, run.phases[-1].code) == (CLOSED, "STREAM_TAKEN_OVER")
    assert "4501 STREAM_TAKEN_OVER (STREAM_TAKEN_OVER: another socket registered it)" in str(run.error)


def test_pauses_double_to_their_bound_with_all_of_it_left_to_chance() -> None:
    for chance, expected in ((1.0, [1, 2, 4, 8, 16, 30, 30]), (0.5, [0.5, 1, 2, 4, 8, 15, 15]), (0.0, [0] * 7)):
        run = CoreRun(chance=chance)
        run.subscribe()
        for _ in range(7):
            run.do(run.core.on_open_failed(OSError("nothing is running"), run.now, for_good=False))
            run.until(run.now + 31)
        assert [phase.delay_s for phase in run.phases if phase.phase is WAITING] == expected


def test_a_connection_that_was_stable_begins_with_the_shortest_pause() -> None:
    run = CoreRun()
    run.subscribe()
    for _ in range(4):
        run.sign_in()
        run.close(None)
        run.until(run.now + 31)
    assert [phase.delay_s for phase in run.phases if phase.phase is WAITING] == [1, 2, 4, 8]
    run.sign_in()
    run.keep(run.now + 11)
    run.close(None)
    assert run.phases[-1].delay_s == 1


def test_where_others_take_over_it_comes_back_at_once_but_not_for_ever() -> None:
    run = online()
    for number in range(MOST_AT_ONCE):
        run.close(1012, RECONNECT_NOW)
        assert run.phases[-1].delay_s == AT_ONCE_S, number
        run.until(run.now + AT_ONCE_S)
        run.sign_in()
    run.close(1012, RECONNECT_NOW)
    assert run.phases[-1].delay_s == 1
    run.until(run.now + 1)
    run.sign_in()
    run.keep(run.now + STEADY_S + 1)
    run.close(1012, RECONNECT_NOW)
    assert run.phases[-1].delay_s == AT_ONCE_S


def test_a_gateway_that_restarts_alone_is_given_time() -> None:
    for code, reason in ((1012, "restart"), (1013, RECONNECT_NOW)):
        run = online()
        run.close(code, reason)
        assert run.phases[-1].delay_s == 1


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_token_is_fetched_anew_once() -> None:
    run = CoreRun()
    run.subscribe()
    run.open()
    run.answer(error="AUTH_FAILED")
    assert run.asked_tokens == ["connect", "rejected"]
    run.open()
    assert run.sent[-1]["token"] == "t2"
    run.answer(error="AUTH_FAILED")
    assert isinstance(run.error, TokenRefused)
    run.until(10_000)
    assert run.asked_tokens == ["connect", "rejected"]


def test_a_token_that_is_a_text_is_not_tried_twice() -> None:
    run = CoreRun(refreshable=False)
    run.subscribe()
    run.open()
    run.answer(error="AUTH_FAILED")
    assert (run.opened, type(run.error)) == (1, TokenRefused)


def test_a_session_that_ends_is_replaced_by_the_callbacks_next() -> None:
    run = online()
    run.close(4500, "SESSION_ENDED")
    assert run.asked_tokens == ["connect", "ended"]
    run.sign_in()
    assert run.phase is ONLINE


def test_sessions_that_end_one_after_the_other_end_it() -> None:
    """A banned user whose tokens are accepted, and ended at once."""
    run = online()
    for _ in range(10):
        if run.error is None:
            run.close(4500)
        if run.error is None:
            run.sign_in()
    assert isinstance(run.error, SessionEnded)
    assert (run.opened, run.asked_tokens) == (2, ["connect", "ended"])


def test_a_session_that_was_good_for_a_while_may_end_again() -> None:
    run = online()
    for number in range(3):
        run.keep(run.now + STEADY_S)
        run.close(4500)
        run.sign_in()
        assert run.opened == number + 2


@pytest.mark.parametrize("refreshable", [True, False])
def test_an_ended_session_without_another_token_ends_it(refreshable: bool) -> None:
    run = CoreRun(refreshable=refreshable)
    run.same_token = True
    run.subscribe()
    run.sign_in()
    run.close(4500, "SESSION_ENDED")
    assert (run.opened, type(run.error)) == (1, SessionEnded)


def test_a_callback_that_fails_for_a_while_is_asked_again_and_never_twice_at_a_time() -> None:
    run = CoreRun(auto_token=False)
    run.subscribe()
    for _ in range(6):
        run.token_fails()
        assert run.phase is WAITING
        run.until(run.now + 31)
    assert run.asked_tokens == ["connect"] * 7
    run.token()
    run.sign_in()
    assert run.phase is ONLINE


def test_a_callback_that_fails_after_a_refusal_is_asked_for_the_same_reason() -> None:
    run = CoreRun(auto_token=False)
    run.subscribe()
    run.token()
    run.open()
    run.answer(error="AUTH_FAILED")
    run.token_fails()
    run.until(31)
    assert run.asked_tokens == ["connect", "rejected", "rejected"]
    run.token()
    run.do(run.core.on_open_failed(OSError("away"), run.now, for_good=False))
    run.until(62)
    assert run.asked_tokens[-1] == "connect", "the new token was not refused"


def test_nobody_signed_in_ends_it() -> None:
    run = CoreRun(auto_token=False)
    run.subscribe()
    run.token_fails(NoToken("signed out"), for_good=True)
    assert (run.phase, type(run.error)) == (CLOSED, NoToken)


@pytest.mark.parametrize("code", ["AUTH_UNAVAILABLE", "TOO_MANY_CONNECTIONS"])
def test_what_may_pass_is_tried_again(code: str) -> None:
    run = CoreRun()
    run.subscribe()
    run.open()
    run.say("error", code=code, message="later")
    run.until(60)
    assert (run.opened, run.error) == (2, None)


def test_an_unknown_answer_to_the_token_ends_it() -> None:
    run = CoreRun()
    run.subscribe()
    run.open()
    run.answer(error="UNKNOWN_MESSAGE_TYPE")
    assert isinstance(run.error, Refused)


# ── watchdog ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_connection_is_probed_and_then_given_up() -> None:
    run = online(silence_s=20)
    run.until(9.9)
    assert run.of("ping") == []
    run.until(10.1)
    assert len(run.of("ping")) == 1
    run.until(19.9)
    assert run.phase is ONLINE
    run.until(20.1)
    assert run.phase is WAITING
    assert run.closes[-1] is True, "no closing handshake with a dead peer"
    assert "nothing came for 20 s" in run.phases[-1].reason


def test_whatever_comes_keeps_it() -> None:
    run = online(silence_s=20)
    for number in range(1, 40):
        run.until(number * 9)
        (run.frame(number) if number % 2 else run.say("ping"))
    assert run.phase is ONLINE
    run.until(run.now + 11)
    run.say("pong")
    run.until(run.now + 9)
    assert run.phase is ONLINE
    assert len(run.of("ping")) == 1


def test_a_program_that_stood_still_gives_the_gateway_time_to_answer() -> None:
    run = online(silence_s=20)
    run.now = 500.0  # a suspended laptop: the timer comes late
    run.do(run.core.on_time(run.now))
    assert run.phase is ONLINE
    assert len(run.of("ping")) == 1
    run.say("pong")
    run.until(510)
    assert run.phase is ONLINE


def test_an_older_gateway_is_not_pinged() -> None:
    run = online(echoes=False)
    run.say("error", code="UNKNOWN_MESSAGE_TYPE", message="ping is not known")
    run.until(10_000)
    assert len(run.of("ping")) == 1, "the one that asks whether it knows them"
    assert (run.phase, run.reports) == (ONLINE, [])


def test_a_gateway_that_answers_a_ping_knows_request_ids() -> None:
    run = online(echoes=False)
    assert not run.core.echoes
    run.say("pong")
    assert run.core.echoes
    run.until(15.5)
    assert run.phase is WAITING


def test_a_request_without_an_answer_is_a_lost_connection() -> None:
    run = CoreRun()
    run.subscribe()
    run.open()
    run.until(14)
    assert run.phase is ConnectionPhase.CONNECTING
    run.until(15.1)
    assert "no reply to auth" in next(phase.reason for phase in run.phases if phase.phase is WAITING)


# ── renewal ──────────────────────────────────────────────────────────────────────────────────────────────────────


def expiring(**options: object) -> CoreRun:
    run = CoreRun(**options)  # type: ignore[arg-type]
    run.expires_in_s = 600.0
    run.key = run.subscribe()  # type: ignore[attr-defined]
    run.sign_in()
    run.answer()
    return run


def test_a_jwt_is_renewed_on_the_open_socket_before_it_expires() -> None:
    run = expiring()
    run.keep(480)
    assert run.asked_tokens == ["connect"]
    run.keep(490)
    assert run.asked_tokens == ["connect", "expiring"]
    renewal = run.of("auth")[-1]
    assert (renewal["token"], renewal["renew"]) == ("t2", True)
    run.answer(renewal)
    assert (run.opened, run.phase) == (1, ONLINE)
    run.keep(980)
    assert run.asked_tokens == ["connect", "expiring", "expiring"]


def test_a_jwt_that_seems_to_have_expired_long_ago_is_not_renewed_without_a_pause() -> None:
    """Whatever clock is wrong: at most one renewal a second."""
    run = CoreRun()
    run.expires_in_s = -3600.0
    run.subscribe()
    run.sign_in()
    run.answer(run.of("subscribe")[-1])
    for _ in range(200):
        run.until(run.now + 0.1)
        if run.is_open:
            for each in run.of("auth")[1:]:
                if each["requestId"] in run.core._requests:
                    run.answer(each)
    assert len(run.of("auth")) <= 22


def test_a_failing_renewal_is_repeated_with_pauses_and_harms_nothing() -> None:
    run = expiring()
    run.auto_token = False
    run.keep(490)
    run.token_fails()
    failures = 1
    while run.now < 700:
        run.keep(run.now + 5)
        if run.fetching:
            failures += 1
            run.token_fails()
    assert run.phase is ONLINE
    assert 4 <= failures <= 15
    run.auto_token = True
    run.keep(run.now + 40)
    assert run.of("auth")[-1]["renew"] is True


def test_a_refused_renewal_is_told_and_tried_again() -> None:
    run = expiring()
    run.keep(490)
    run.answer(run.of("auth")[-1], error="AUTH_FAILED")
    assert (run.phase, run.reports[-1].code) == (ONLINE, "AUTH_FAILED")
    run.keep(600)
    assert len(run.of("auth")) >= 3


def test_a_gateway_that_cannot_renew_is_not_asked_again() -> None:
    run = expiring()
    run.keep(490)
    run.answer(run.of("auth")[-1], error="ALREADY_AUTHENTICATED")
    run.keep(2000)
    assert len(run.of("auth")) == 2
    older = expiring(echoes=False)
    older.until(2000)
    assert len(older.of("auth")) == 1


def test_a_callback_that_returns_the_same_jwt_is_not_asked_in_a_loop() -> None:
    run = expiring()
    run.same_token = True
    run.keep(640)
    assert 2 <= len(run.asked_tokens) <= 12
    assert len(run.of("auth")) == 1


# ── anything, in any order ───────────────────────────────────────────────────────────────────────────────────────

EVENTS = st.lists(
    st.sampled_from(
        ["open", "fail", "yes", "no", "later", "lost", "4500", "1012", "token", "no token", "wait", "ping"]
    ),
    max_size=60,
)


@given(EVENTS, st.booleans(), st.booleans())
def test_in_any_order_of_events_it_is_online_waiting_or_closed_and_never_asks_twice(
    events: list[str], echoes: bool, refreshable: bool
) -> None:
    run = CoreRun(auto_token=False, echoes=echoes, refreshable=refreshable)
    run.subscribe()
    for event in events:
        step = run.core._step.name
        if event == "token" and run.fetching:
            run.token()
        elif event == "no-token" and run.fetching:
            run.token_fails()
        elif event == "open" and step == "OPENING":
            run.open()
        elif event == "fail" and step == "OPENING":
            run.do(run.core.on_open_failed(OSError("away"), run.now, for_good=False))
        elif event in ("yes", "no", "later") and run.is_open and run.core._requests:
            number = next(iter(run.core._requests))
            request = next(each for each in run.sent if each.get("requestId") == number)
            codes = {"yes": None, "no": "AUTH_FAILED", "later": "ROUTING_ERROR"}
            run.answer(request, error=codes[event])
        elif event in ("lost", "4500", "1012") and run.is_open:
            run.close(None if event == "lost" else int(event))
        elif event == "ping" and run.is_open:
            run.say("ping")
        elif event == "wait":
            run.until(run.now + 8)
        closed = run.phase is CLOSED
        assert closed == (run.error is not None)
        assert not (closed and run.is_open)
        # Something will happen by itself, unless it is for good, or waits for a token or a socket.
        by_itself = run.core.due_at is not None or not run.core.echoes
        assert closed or by_itself or step in ("TOKEN", "OPENING") or run.fetching or not run.is_open
    opened = run.opened
    if run.error is not None:
        run.until(run.now + 10_000)
        assert run.opened == opened
