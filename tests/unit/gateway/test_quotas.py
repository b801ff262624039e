"""What one socket, one user and one address may take."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from watchout.common.settings import Settings, load
from watchout.gateway.quotas import (
    BURST_S,
    MAX_REFUSED,
    MAX_REFUSED_PER_ADDRESS,
    MIN_REFUSED,
    REPORT_EVERY_S,
    AlertRates,
    Allowance,
    Connections,
    ConnectionSlot,
    LimitReached,
)


def allowance(**limits: float) -> Allowance:
    return Allowance(Settings(**limits), 0.0)  # type: ignore[arg-type]


# ── rates of one socket ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_seconds_worth_of_messages_may_come_at_once() -> None:
    rates = allowance(message_rate=10)
    assert [rates.count_message(0.0, 0) for _ in range(21)] == [None] * 20 + ["messages"]


def test_messages_are_allowed_again_at_their_rate() -> None:
    rates = allowance(message_rate=10)
    while rates.count_message(0.0, 0) is None:
        pass
    assert rates.count_message(0.05, 0) == "messages"
    assert rates.count_message(0.15, 0) is None
    assert rates.count_message(0.15, 0) == "messages"


def test_silence_earns_no_more_than_the_burst() -> None:
    rates = allowance(message_rate=10)
    assert [rates.count_message(1e6, 0) for _ in range(21)] == [None] * 20 + ["messages"]


def test_bytes_have_a_rate_of_their_own() -> None:
    rates = allowance(byte_rate=2048, max_message_bytes=1024)
    assert [rates.count_message(0.0, 1024) for _ in range(5)] == [None] * 4 + ["bytes"]
    assert rates.count_message(0.5, 1024) is None
    assert rates.count_message(0.5, 1) == "bytes"


def test_the_largest_message_is_allowed_however_small_the_rate() -> None:
    rates = allowance(byte_rate=1024, max_message_bytes=1 << 20)
    assert rates.count_message(0.0, 1 << 20) is None
    assert rates.count_message(1.0, 1 << 20) == "bytes"
    assert rates.count_message(1025.0, 1 << 20) is None


def test_a_clock_that_goes_back_earns_nothing() -> None:
    rates = Allowance(Settings(message_rate=1), 100.0)
    assert [rates.count_message(99.0, 0) for _ in range(3)] == [None, None, "messages"]


def test_being_over_the_rate_is_said_once_a_second() -> None:
    rates = allowance()
    assert rates.take_report(0.0)
    assert not rates.take_report(REPORT_EVERY_S - 0.01)
    assert rates.take_report(REPORT_EVERY_S)
    assert not rates.take_report(REPORT_EVERY_S + 0.5)


def test_errors_are_suffered_up_to_the_limit_and_forgiven_one_a_second() -> None:
    rates = allowance(abuse_limit=3)
    assert [rates.count_error(0.0) for _ in range(4)] == [True, True, True, False]
    assert not rates.count_error(0.9)
    assert rates.count_error(1.9)
    assert not rates.count_error(1.9)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 4000)), max_size=80))
@settings(max_examples=60)
def test_over_any_time_no_more_goes_through_than_the_rates_allow(arrivals: list[tuple[float, int]]) -> None:
    rates = allowance(message_rate=5, byte_rate=2000, max_message_bytes=1024)
    now, messages, size = 0.0, 0, 0
    for gap, size_bytes in arrivals:
        now += gap
        if rates.count_message(now, size_bytes) is None:
            messages += 1
            size += size_bytes
        assert messages <= 5 * (BURST_S + now) + 1e-6
        assert size <= 2000 * (BURST_S + now) + 1e-6


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────

FROM_HERE = LimitReached("from this address")
NOT_SIGNED_IN = LimitReached("that have not signed in")
NOT_SIGNED_IN_HERE = LimitReached("from this address that have not signed in")


def opened(connections: Connections, key: str | None, *, known: bool = False) -> ConnectionSlot:
    slot = connections.open_slot(key)
    if known:
        slot.mark_authenticated()
    return slot


def test_connections_of_one_address_are_limited_and_others_do_not_notice() -> None:
    connections = Connections(Settings(max_connections_per_address=2))
    assert [connections.open_slot("a").reached for _ in range(3)] == [None, None, FROM_HERE]
    assert connections.open_slot("b").reached is None
    assert connections.total == 4


def test_a_connection_too_many_takes_nobody_elses_place() -> None:
    connections = Connections(Settings(max_connections_per_address=1, max_connections=4))
    first = connections.open_slot("a")
    over = [connections.open_slot("a") for _ in range(10)]
    assert all(slot.reached == FROM_HERE for slot in over)
    assert connections.open_slot("b").reached is None
    first.release()
    assert connections.open_slot("a").reached is None
    assert connections.total == 12
    for slot in over:
        slot.release()
    assert connections.total == 2


def test_all_connections_together_are_limited() -> None:
    connections = Connections(Settings(max_connections=2))
    slots = [opened(connections, key, known=True) for key in "abc"]
    assert [slot.reached for slot in slots] == [None, None, LimitReached("on this gateway")]
    slots[0].release()
    assert connections.open_slot("d").reached is None


def test_strangers_never_have_more_than_half_of_all() -> None:
    connections = Connections(Settings(max_connections=8))
    strangers = [connections.open_slot(str(number)) for number in range(5)]
    assert [slot.reached for slot in strangers] == [None] * 4 + [NOT_SIGNED_IN]
    strangers[0].mark_authenticated()
    assert connections.unauthenticated == 3
    assert connections.open_slot("x").reached is None
    assert connections.open_slot("y").reached == NOT_SIGNED_IN


def test_a_gateway_of_one_connection_takes_one_stranger() -> None:
    assert Connections(Settings(max_connections=1)).open_slot("a").reached is None


def test_strangers_of_one_address_are_limited_until_they_sign_in() -> None:
    connections = Connections(Settings(max_unauthenticated_per_address=2))
    slots = [connections.open_slot("a") for _ in range(3)]
    assert [slot.reached for slot in slots] == [None, None, NOT_SIGNED_IN_HERE]
    assert connections.open_slot("b").reached is None
    slots[0].mark_authenticated()
    assert connections.open_slot("a").reached is None


def test_who_is_doubted_again_is_a_stranger_again_or_one_too_many() -> None:
    connections = Connections(Settings(max_unauthenticated_per_address=1))
    first, second = opened(connections, "a", known=True), opened(connections, "a", known=True)
    first.mark_unauthenticated()
    assert first.reached is None
    second.mark_unauthenticated()
    assert second.reached == NOT_SIGNED_IN_HERE
    first.release()
    assert connections.open_slot("a").reached is None


def test_behind_a_proxy_a_connection_counts_under_the_first_client_that_is_told() -> None:
    connections = Connections(Settings(max_connections_per_address=1))
    proxied = [connections.open_slot(None) for _ in range(3)]
    assert all(slot.reached is None for slot in proxied)
    proxied[0].set_address("a")
    proxied[0].set_address("b")
    proxied[1].set_address("a")
    proxied[2].set_address("b")
    assert [slot.reached for slot in proxied] == [None, FROM_HERE, None]
    assert connections.total == 3


def test_what_comes_past_the_refused_ones_that_are_told_is_turned_away() -> None:
    connections = Connections(Settings(max_connections_per_address=1))
    connections.open_slot("a")
    over = [connections.open_slot("a") for _ in range(MAX_REFUSED_PER_ADDRESS + 1)]
    assert [slot.must_drop for slot in over[-2:]] == [True, True]  # what is true now, for all of them
    over[0].release()
    assert not over[-1].must_drop
    assert not connections.open_slot("b").must_drop


def test_refused_ones_of_many_addresses_are_bounded_together() -> None:
    connections = Connections(Settings(max_connections=1))
    connections.open_slot("x")
    over = [connections.open_slot(str(number)) for number in range(MAX_REFUSED + 1)]
    assert all(slot.reached == LimitReached("on this gateway") for slot in over)
    assert over[-1].must_drop
    over[0].release()
    assert not over[-1].must_drop


def test_a_connection_ends_once_however_often_that_is_told() -> None:
    connections = Connections(Settings())
    slot, other = connections.open_slot("a"), connections.open_slot("a")
    for _ in range(3):
        slot.release()
        slot.mark_authenticated()
        slot.mark_unauthenticated()
        slot.set_address("b")
    assert (connections.total, connections.unauthenticated) == (1, 1)
    other.mark_authenticated()
    other.mark_authenticated()
    assert (connections.total, connections.unauthenticated) == (1, 0)


def test_sockets_of_one_user_are_limited_and_one_too_many_is_not_counted() -> None:
    connections = Connections(Settings(max_connections_per_user=2))
    assert [connections.add_socket("ann") for _ in range(3)] == [None, None, LimitReached("of this user")]
    assert connections.add_socket("bob") is None
    assert connections.authenticated == 3
    connections.remove_socket("ann")
    assert connections.add_socket("ann") is None


def test_streams_that_nobody_owns_yet_are_waited_for_by_so_many_subscriptions_of_one_user() -> None:
    connections = Connections(Settings(max_waits_per_user=2))
    for _ in range(2):
        assert connections.may_await_stream("ann")
        connections.add_awaited("ann")
    assert not connections.may_await_stream("ann")
    assert connections.may_await_stream("ben")
    connections.remove_awaited("ann")
    assert connections.may_await_stream("ann")


def test_strangers_of_one_address_are_many_past_three_quarters_of_their_limit() -> None:
    connections = Connections(Settings(max_unauthenticated_per_address=8))
    slots = [connections.open_slot("a") for _ in range(6)]
    assert not any(slot.crowded for slot in slots)
    slots.append(connections.open_slot("a"))
    assert all(slot.crowded for slot in slots)
    assert not connections.open_slot("b").crowded
    slots[0].release()
    assert not slots[1].crowded


def test_strangers_of_all_addresses_are_many_past_three_quarters_of_their_limit() -> None:
    connections = Connections(Settings(max_connections=16))
    slots = [connections.open_slot(str(number)) for number in range(6)]
    assert not any(slot.crowded for slot in slots)
    slots.append(connections.open_slot(None))
    assert all(slot.crowded for slot in slots)


def test_strangers_are_too_many_when_the_known_fill_the_gateway_or_their_address() -> None:
    whole, one_address = Settings(max_connections=8), Settings(max_connections_per_address=8)
    for limits, others in ((whole, "b"), (one_address, "a")):
        connections = Connections(limits)
        for _ in range(5):
            opened(connections, others, known=True)
        slot = connections.open_slot("a")
        assert not slot.crowded
        opened(connections, others, known=True)
        assert slot.crowded


def test_who_is_known_is_in_nobodys_way() -> None:
    connections = Connections(Settings(max_unauthenticated_per_address=1))
    slot = connections.open_slot("a")
    assert slot.crowded
    slot.mark_authenticated()
    assert not slot.crowded
    slot.mark_unauthenticated()
    assert slot.crowded
    slot.release()
    assert not slot.crowded


class ConnectionsMachine(RuleBasedStateMachine):
    """Connections come, become known, are doubted and go, in any order, beside a plain count of them."""

    slots = Bundle("slots")

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings(max_connections=8, max_connections_per_address=4, max_unauthenticated_per_address=2)
        self.connections = Connections(self.settings)
        self.open: dict[ConnectionSlot, str | None] = {}
        self.strangers: set[ConnectionSlot] = set()

    @rule(target=slots, key=st.sampled_from(["a", "b", "c", None]))
    def comes(self, key: str | None) -> ConnectionSlot:
        slot = self.connections.open_slot(key)
        self.open[slot] = key
        self.strangers.add(slot)
        return slot

    @rule(slot=slots, key=st.sampled_from("abc"))
    def is_from(self, slot: ConnectionSlot, key: str) -> None:
        slot.set_address(key)
        if slot in self.open and self.open[slot] is None:
            self.open[slot] = key

    @rule(slot=slots)
    def is_known(self, slot: ConnectionSlot) -> None:
        before = slot.reached
        slot.mark_authenticated()
        assert slot.reached is before
        self.strangers.discard(slot)

    @rule(slot=slots)
    def is_doubted(self, slot: ConnectionSlot) -> None:
        slot.mark_unauthenticated()
        if slot in self.open:
            self.strangers.add(slot)

    @rule(slot=slots)
    def goes(self, slot: ConnectionSlot) -> None:
        slot.release()
        self.open.pop(slot, None)
        self.strangers.discard(slot)

    @rule(slot=slots)
    def is_asked(self, slot: ConnectionSlot) -> None:
        assert slot.must_drop in (True, False)

    @rule(slot=slots)
    def is_looked_at(self, slot: ConnectionSlot) -> None:
        assert not slot.crowded or slot.reached is not None or (slot.is_unauthenticated and slot in self.strangers)

    @invariant()
    def the_counts_are_those_of_what_is_open(self) -> None:
        connections, within = self.connections, [slot for slot in self.open if slot.reached is None]
        strangers = [slot for slot in within if slot in self.strangers]
        assert connections.total == len(self.open)
        assert connections._taken == len(within) <= self.settings.max_connections
        assert connections.unauthenticated == len(strangers) <= self.settings.max_connections // 2
        assert connections._by_address == Counter(self.open[p] for p in within if self.open[p] is not None)
        by_address = connections._unauthenticated_by_address
        assert by_address == Counter(self.open[p] for p in strangers if self.open[p] is not None)
        assert all(count <= self.settings.max_connections_per_address for count in connections._by_address.values())
        assert all(count <= self.settings.max_unauthenticated_per_address for count in by_address.values())
        refused = [slot for slot in self.open if slot.reached is not None]
        assert connections._refused == len(refused)
        assert connections._refused_by_address == Counter(self.open[p] for p in refused if self.open[p] is not None)

    def teardown(self) -> None:
        for slot in self.open:
            slot.release()
        connections = self.connections
        assert (connections.total, connections.unauthenticated) == (0, 0)
        assert not connections._by_address
        assert not connections._unauthenticated_by_address
        assert not connections._refused_by_address


TestConnections = ConnectionsMachine.TestCase
TestConnections.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
@settings(max_examples=60)
def test_a_user_who_left_is_forgotten(steps: list[tuple[str, bool]]) -> None:
    connections = Connections(Settings(max_connections_per_user=2))
    joined: list[str] = []
    for who, comes in steps:
        if comes:
            if connections.add_socket(who) is None:
                joined.append(who)
            assert joined.count(who) <= 2
        elif who in joined:
            joined.remove(who)
            connections.remove_socket(who)
        assert connections.authenticated == len(joined)
    for who in joined:
        connections.remove_socket(who)
    assert connections.authenticated == 0
    assert not connections._users


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_users_alerts_are_bounded_over_all_his_sockets_and_nobody_elses() -> None:
    rates = AlertRates(5.0)
    assert [rates.take("ann", 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert rates.take("bob", 0.0)
    assert [rates.take("ann", 0.4) for _ in range(3)] == [True, True, False]


def test_a_rate_below_one_in_two_seconds_allows_one() -> None:
    rates = AlertRates(0.1)
    assert [rates.take("ann", now) for now in (0.0, 9.0, 10.1)] == [True, False, True]


def test_many_alerts_together_are_taken_or_not_and_it_is_said_when_there_is_room() -> None:
    rates = AlertRates(50.0)
    assert rates.take("", 0.0, 60)
    assert not rates.take("", 0.0, 60)
    assert rates.take("", 0.0, 40)
    assert rates.wait_s(60) == 1.2
    assert rates.take("", 1.2, 60)


def test_who_has_his_whole_burst_again_is_forgotten_and_gains_nothing_by_it() -> None:
    rates = AlertRates(5.0)
    for number in range(1000):
        rates.take(f"user{number}", number / 1000)
    for _ in range(10):
        rates.take("ann", 1.0)
    assert not rates.take("ann", 1.1)
    rates.take("bob", 3.05)
    assert len(rates) == 2
    rates.take("bob", 3.2)
    assert len(rates) == 1


def test_few_descriptors_leave_room_for_everything_but_clients() -> None:
    for descriptors in (16, 64, 256, 1024, 65_536):
        connections = Connections(load({"MAX_CONNECTIONS": "20000"}), descriptors)
        assert 8 <= connections.most <= max(8, descriptors - 48)
    assert Connections(load({"MAX_CONNECTIONS": "20000"}), 65_536).most == 20_000
    few = Connections(load({"MAX_CONNECTIONS": "20000", "MAX_UNAUTHENTICATED_PER_ADDRESS": "20000"}), 64)
    slots = [few.open_slot(str(number)) for number in range(40)]
    assert sum(slot.reached is None for slot in slots) == few.most // 2  # strangers have half
    assert sum(slot.must_drop for slot in slots) >= 40 - few.most // 2 - 5


def test_a_users_subscriptions_are_counted_over_all_sockets() -> None:
    connections = Connections(load({"MAX_SUBSCRIPTIONS_PER_USER": "2"}))
    for _ in range(2):
        assert connections.may_subscribe("ann")
        connections.add_subscription("ann")
    assert not connections.may_subscribe("ann")
    assert connections.may_subscribe("bob")
    connections.remove_subscription("ann")
    assert connections.may_subscribe("ann")


def test_past_the_refused_ones_that_are_told_the_oldest_give_way() -> None:
    connections = Connections(Settings(max_connections=2), descriptors=0)
    ended: list[int] = []
    slots = [connections.open_slot(f"10.0.0.{number}") for number in range(12)]
    for number, slot in enumerate(slots):
        slot.give_way = lambda number=number: ended.append(number)  # type: ignore[misc]
    taken = [slot for slot in slots if slot.reached is None]
    connections.make_room_for_refused()
    assert ended == list(range(len(taken), 12 - MIN_REFUSED))
    assert not any(slot.must_drop for slot in slots[-MIN_REFUSED:])
    assert all(slot.reached is None for slot in taken)
    assert connections.total == len(taken) + MIN_REFUSED
    connections.make_room_for_refused()
    assert len(ended) == 12 - len(taken) - MIN_REFUSED


def test_there_is_no_room_when_no_stranger_is_taken_any_more() -> None:
    connections = Connections(Settings(max_connections=4))
    first, second = connections.open_slot("10.0.0.1"), connections.open_slot("10.0.0.2")
    assert connections.is_full
    first.mark_authenticated()
    assert not connections.is_full
    second.mark_authenticated()
    connections.open_slot("10.0.0.3").mark_authenticated()
    connections.open_slot("10.0.0.4")
    assert connections.is_full


def test_another_rate_of_alerts_holds_at_once() -> None:
    rates = AlertRates(50.0)
    assert rates.take("ann", 0.0, 100)
    rates.change(1.0)
    assert rates.take("ann", 0.0, 2)
    assert not rates.take("ann", 0.0)
    rates.change(1.0)
    assert not rates.take("ann", 0.0), "the same rate again gives nothing anew"
