"""What one socket, one user and one address may take."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.settings import Settings
from gateway.limits import BURST_S, SAY_EVERY_S, Allowance, Connections, Full


def allowance(**limits: float) -> Allowance:
    return Allowance(Settings(**limits), 0.0)  # type: ignore[arg-type]


# ── rates of one socket ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_seconds_worth_of_messages_may_come_at_once() -> None:
    rates = allowance(message_rate=10)
    assert [rates.message(0.0, 0) for _ in range(21)] == [None] * 20 + ["messages"]


def test_messages_are_allowed_again_at_their_rate() -> None:
    rates = allowance(message_rate=10)
    while rates.message(0.0, 0) is None:
        pass
    assert rates.message(0.05, 0) == "messages"
    assert rates.message(0.15, 0) is None
    assert rates.message(0.15, 0) == "messages"


def test_silence_earns_no_more_than_the_burst() -> None:
    rates = allowance(message_rate=10)
    assert [rates.message(1e6, 0) for _ in range(21)] == [None] * 20 + ["messages"]


def test_bytes_have_a_rate_of_their_own() -> None:
    rates = allowance(byte_rate=2048, max_message_bytes=1024)
    assert [rates.message(0.0, 1024) for _ in range(5)] == [None] * 4 + ["bytes"]
    assert rates.message(0.5, 1024) is None
    assert rates.message(0.5, 1) == "bytes"


def test_the_largest_message_is_allowed_however_small_the_rate() -> None:
    rates = allowance(byte_rate=1024, max_message_bytes=1 << 20)
    assert rates.message(0.0, 1 << 20) is None
    assert rates.message(1.0, 1 << 20) == "bytes"
    assert rates.message(1025.0, 1 << 20) is None


def test_a_clock_that_goes_back_earns_nothing() -> None:
    rates = Allowance(Settings(message_rate=1), 100.0)
    assert [rates.message(99.0, 0) for _ in range(3)] == [None, None, "messages"]


def test_being_over_the_rate_is_said_once_a_second() -> None:
    rates = allowance()
    assert rates.say(0.0)
    assert not rates.say(SAY_EVERY_S - 0.01)
    assert rates.say(SAY_EVERY_S)
    assert not rates.say(SAY_EVERY_S + 0.5)


def test_errors_are_suffered_up_to_the_limit_and_forgiven_one_a_second() -> None:
    rates = allowance(abuse_limit=3)
    assert [rates.strike(0.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.strike(0.9)
    assert rates.strike(1.9)
    assert not rates.strike(1.9)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 4000)), max_size=80))
@settings(max_examples=60)
def test_over_any_time_no_more_goes_through_than_the_rates_allow(arrivals: list[tuple[float, int]]) -> None:
    rates = allowance(message_rate=5, byte_rate=2000, max_message_bytes=1024)
    now, messages, size = 0.0, 0, 0
    for gap, size_bytes in arrivals:
        now += gap
        if rates.message(now, size_bytes) is None:
            messages += 1
            size += size_bytes
        assert messages <= 5 * (BURST_S + now) + 1e-6
        assert size <= 2000 * (BURST_S + now) + 1e-6


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_connections_of_one_address_are_limited_and_others_do_not_notice() -> None:
    connections = Connections(Settings(max_connections_per_address=2))
    assert [connections.opened("a") for _ in range(3)] == [None, None, Full("from this address")]
    assert connections.opened("b") is None
    assert connections.total == 4


def test_a_connection_too_many_counts_until_it_closes() -> None:
    connections = Connections(Settings(max_connections_per_address=1))
    assert connections.opened("a") is None
    assert connections.opened("a") is not None
    connections.closed("a")
    assert connections.opened("a") is not None
    connections.closed("a")
    connections.closed("a")
    assert connections.opened("a") is None


def test_all_connections_together_are_limited() -> None:
    connections = Connections(Settings(max_connections=2))
    assert [connections.opened(address) for address in "abc"] == [None, None, Full("on this gateway")]
    connections.closed("c")
    connections.closed("a")
    assert connections.opened("d") is None


def test_sockets_of_one_user_are_limited_and_one_too_many_is_not_counted() -> None:
    connections = Connections(Settings(max_connections_per_user=2))
    assert [connections.joined("ann") for _ in range(3)] == [None, None, Full("of this user")]
    assert connections.joined("bob") is None
    assert connections.joined_total == 3
    connections.left("ann")
    assert connections.joined("ann") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
@settings(max_examples=60)
def test_who_left_is_forgotten(steps: list[tuple[str, bool]]) -> None:
    connections = Connections(Settings(max_connections=5, max_connections_per_address=2, max_connections_per_user=2))
    opened: list[str] = []
    joined: list[str] = []
    for who, comes in steps:
        if comes:
            full = connections.opened(who)
            assert (full is None) == (len(opened) < 5 and opened.count(who) < 2)
            opened.append(who)
            if connections.joined(who) is None:
                joined.append(who)
            assert joined.count(who) <= 2
        elif who in opened:
            opened.remove(who)
            connections.closed(who)
            if who in joined:
                joined.remove(who)
                connections.left(who)
        assert connections.total == len(opened)
        assert connections.joined_total == len(joined)
    for who in opened:
        connections.closed(who)
    for who in joined:
        connections.left(who)
    assert connections.total == connections.joined_total == 0
    assert not connections._addresses
    assert not connections._users
