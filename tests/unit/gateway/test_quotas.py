"""What one socket, one user and one address may take."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from watchout.common.settings import Settings, load
from watchout.gateway.quotas import (
    BURST_S,
    FEW_REFUSED,
    MAX_REFUSED,
    MAX_REFUSED_PER_ADDRESS,
    SAY_EVERY_S,
    AlertRates,
    Allowance,
    Connections,
    Full,
    Place,
)


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

FROM_HERE = Full("from this address")
NOT_SIGNED_IN = Full("that have not signed in")
NOT_SIGNED_IN_HERE = Full("from this address that have not signed in")


def opened(connections: Connections, key: str | None, *, known: bool = False) -> Place:
    place = connections.opened(key)
    if known:
        place.trusted()
    return place


def test_connections_of_one_address_are_limited_and_others_do_not_notice() -> None:
    connections = Connections(Settings(max_connections_per_address=2))
    assert [connections.opened("a").full for _ in range(3)] == [None, None, FROM_HERE]
    assert connections.opened("b").full is None
    assert connections.total == 4


def test_a_connection_too_many_takes_nobody_elses_place() -> None:
    connections = Connections(Settings(max_connections_per_address=1, max_connections=4))
    first = connections.opened("a")
    over = [connections.opened("a") for _ in range(10)]
    assert all(place.full == FROM_HERE for place in over)
    assert connections.opened("b").full is None
    first.closed()
    assert connections.opened("a").full is None
    assert connections.total == 12
    for place in over:
        place.closed()
    assert connections.total == 2


def test_all_connections_together_are_limited() -> None:
    connections = Connections(Settings(max_connections=2))
    places = [opened(connections, key, known=True) for key in "abc"]
    assert [place.full for place in places] == [None, None, Full("on this gateway")]
    places[0].closed()
    assert connections.opened("d").full is None


def test_strangers_never_have_more_than_half_of_all() -> None:
    connections = Connections(Settings(max_connections=8))
    strangers = [connections.opened(str(number)) for number in range(5)]
    assert [place.full for place in strangers] == [None] * 4 + [NOT_SIGNED_IN]
    strangers[0].trusted()
    assert connections.strangers == 3
    assert connections.opened("x").full is None
    assert connections.opened("y").full == NOT_SIGNED_IN


def test_a_gateway_of_one_connection_takes_one_stranger() -> None:
    assert Connections(Settings(max_connections=1)).opened("a").full is None


def test_strangers_of_one_address_are_limited_until_they_sign_in() -> None:
    connections = Connections(Settings(max_strangers_per_address=2))
    places = [connections.opened("a") for _ in range(3)]
    assert [place.full for place in places] == [None, None, NOT_SIGNED_IN_HERE]
    assert connections.opened("b").full is None
    places[0].trusted()
    assert connections.opened("a").full is None


def test_who_is_doubted_again_is_a_stranger_again_or_one_too_many() -> None:
    connections = Connections(Settings(max_strangers_per_address=1))
    first, second = opened(connections, "a", known=True), opened(connections, "a", known=True)
    first.doubted()
    assert first.full is None
    second.doubted()
    assert second.full == NOT_SIGNED_IN_HERE
    first.closed()
    assert connections.opened("a").full is None


def test_behind_a_proxy_a_connection_counts_under_the_first_client_that_is_told() -> None:
    connections = Connections(Settings(max_connections_per_address=1))
    proxied = [connections.opened(None) for _ in range(3)]
    assert all(place.full is None for place in proxied)
    proxied[0].came_from("a")
    proxied[0].came_from("b")
    proxied[1].came_from("a")
    proxied[2].came_from("b")
    assert [place.full for place in proxied] == [None, FROM_HERE, None]
    assert connections.total == 3


def test_what_comes_past_the_refused_ones_that_are_told_is_turned_away() -> None:
    connections = Connections(Settings(max_connections_per_address=1))
    connections.opened("a")
    over = [connections.opened("a") for _ in range(MAX_REFUSED_PER_ADDRESS + 1)]
    assert [place.turned_away for place in over[-2:]] == [True, True]  # what is true now, for all of them
    over[0].closed()
    assert not over[-1].turned_away
    assert not connections.opened("b").turned_away


def test_refused_ones_of_many_addresses_are_bounded_together() -> None:
    connections = Connections(Settings(max_connections=1))
    connections.opened("x")
    over = [connections.opened(str(number)) for number in range(MAX_REFUSED + 1)]
    assert all(place.full == Full("on this gateway") for place in over)
    assert over[-1].turned_away
    over[0].closed()
    assert not over[-1].turned_away


def test_a_connection_ends_once_however_often_that_is_told() -> None:
    connections = Connections(Settings())
    place, other = connections.opened("a"), connections.opened("a")
    for _ in range(3):
        place.closed()
        place.trusted()
        place.doubted()
        place.came_from("b")
    assert (connections.total, connections.strangers) == (1, 1)
    other.trusted()
    other.trusted()
    assert (connections.total, connections.strangers) == (1, 0)


def test_sockets_of_one_user_are_limited_and_one_too_many_is_not_counted() -> None:
    connections = Connections(Settings(max_connections_per_user=2))
    assert [connections.joined("ann") for _ in range(3)] == [None, None, Full("of this user")]
    assert connections.joined("bob") is None
    assert connections.joined_total == 3
    connections.left("ann")
    assert connections.joined("ann") is None


def test_streams_that_nobody_owns_yet_are_waited_for_by_so_many_subscriptions_of_one_user() -> None:
    connections = Connections(Settings(max_waits_per_user=2))
    for _ in range(2):
        assert connections.may_wait("ann")
        connections.waits("ann")
    assert not connections.may_wait("ann")
    assert connections.may_wait("ben")
    connections.waits_no_more("ann")
    assert connections.may_wait("ann")


def test_strangers_of_one_address_are_many_past_three_quarters_of_their_limit() -> None:
    connections = Connections(Settings(max_strangers_per_address=8))
    places = [connections.opened("a") for _ in range(6)]
    assert not any(place.crowded for place in places)
    places.append(connections.opened("a"))
    assert all(place.crowded for place in places)
    assert not connections.opened("b").crowded
    places[0].closed()
    assert not places[1].crowded


def test_strangers_of_all_addresses_are_many_past_three_quarters_of_their_limit() -> None:
    connections = Connections(Settings(max_connections=16))
    places = [connections.opened(str(number)) for number in range(6)]
    assert not any(place.crowded for place in places)
    places.append(connections.opened(None))
    assert all(place.crowded for place in places)


def test_strangers_are_too_many_when_the_known_fill_the_gateway_or_their_address() -> None:
    whole, one_address = Settings(max_connections=8), Settings(max_connections_per_address=8)
    for limits, others in ((whole, "b"), (one_address, "a")):
        connections = Connections(limits)
        for _ in range(5):
            opened(connections, others, known=True)
        place = connections.opened("a")
        assert not place.crowded
        opened(connections, others, known=True)
        assert place.crowded


def test_who_is_known_is_in_nobodys_way() -> None:
    connections = Connections(Settings(max_strangers_per_address=1))
    place = connections.opened("a")
    assert place.crowded
    place.trusted()
    assert not place.crowded
    place.doubted()
    assert place.crowded
    place.closed()
    assert not place.crowded


class ConnectionsMachine(RuleBasedStateMachine):
    """Connections come, become known, are doubted and go, in any order, beside a plain count of them."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings(max_connections=8, max_connections_per_address=4, max_strangers_per_address=2)
        self.connections = Connections(self.settings)
        self.open: dict[Place, str | None] = {}
        self.strangers: set[Place] = set()

    @rule(target=places, key=st.sampled_from(["a", "b", "c", None]))
    def comes(self, key: str | None) -> Place:
        place = self.connections.opened(key)
        self.open[place] = key
        self.strangers.add(place)
        return place

    @rule(place=places, key=st.sampled_from("abc"))
    def is_from(self, place: Place, key: str) -> None:
        place.came_from(key)
        if place in self.open and self.open[place] is None:
            self.open[place] = key

    @rule(place=places)
    def is_known(self, place: Place) -> None:
        before = place.full
        place.trusted()
        assert place.full is before
        self.strangers.discard(place)

    @rule(place=places)
    def is_doubted(self, place: Place) -> None:
        place.doubted()
        if place in self.open:
            self.strangers.add(place)

    @rule(place=places)
    def goes(self, place: Place) -> None:
        place.closed()
        self.open.pop(place, None)
        self.strangers.discard(place)

    @rule(place=places)
    def is_asked(self, place: Place) -> None:
        assert place.turned_away in (True, False)

    @rule(place=places)
    def is_looked_at(self, place: Place) -> None:
        assert not place.crowded or place.full is not None or (place.is_stranger and place in self.strangers)

    @invariant()
    def the_counts_are_those_of_what_is_open(self) -> None:
        connections, within = self.connections, [place for place in self.open if place.full is None]
        strangers = [place for place in within if place in self.strangers]
        assert connections.total == len(self.open)
        assert connections._taken == len(within) <= self.settings.max_connections
        assert connections.strangers == len(strangers) <= self.settings.max_connections // 2
        assert connections._by_address == Counter(self.open[p] for p in within if self.open[p] is not None)
        assert connections._strangers_by_address == Counter(self.open[p] for p in strangers if self.open[p] is not None)
        assert all(count <= self.settings.max_connections_per_address for count in connections._by_address.values())
        assert all(
            count <= self.settings.max_strangers_per_address for count in connections._strangers_by_address.values()
        )
        refused = [place for place in self.open if place.full is not None]
        assert connections._refused == len(refused)
        assert connections._refused_by_address == Counter(self.open[p] for p in refused if self.open[p] is not None)

    def teardown(self) -> None:
        for place in self.open:
            place.closed()
        connections = self.connections
        assert (connections.total, connections.strangers) == (0, 0)
        assert not connections._by_address
        assert not connections._strangers_by_address
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
            if connections.joined(who) is None:
                joined.append(who)
            assert joined.count(who) <= 2
        elif who in joined:
            joined.remove(who)
            connections.left(who)
        assert connections.joined_total == len(joined)
    for who in joined:
        connections.left(who)
    assert connections.joined_total == 0
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
    few = Connections(load({"MAX_CONNECTIONS": "20000", "MAX_STRANGERS_PER_ADDRESS": "20000"}), 64)
    places = [few.opened(str(number)) for number in range(40)]
    assert sum(place.full is None for place in places) == few.most // 2  # strangers have half
    assert sum(place.turned_away for place in places) >= 40 - few.most // 2 - 5


def test_a_users_subscriptions_are_counted_over_all_sockets() -> None:
    connections = Connections(load({"MAX_SUBSCRIPTIONS_PER_USER": "2"}))
    for _ in range(2):
        assert connections.may_subscribe("ann")
        connections.subscribed("ann")
    assert not connections.may_subscribe("ann")
    assert connections.may_subscribe("bob")
    connections.unsubscribed("ann")
    assert connections.may_subscribe("ann")


def test_past_the_refused_ones_that_are_told_the_oldest_give_way() -> None:
    connections = Connections(Settings(max_connections=2), descriptors=0)
    ended: list[int] = []
    places = [connections.opened(f"10.0.0.{number}") for number in range(12)]
    for number, place in enumerate(places):
        place.give_way = lambda number=number: ended.append(number)  # type: ignore[misc]
    taken = [place for place in places if place.full is None]
    connections.make_room_for_refused()
    assert ended == list(range(len(taken), 12 - FEW_REFUSED))
    assert not any(place.turned_away for place in places[-FEW_REFUSED:])
    assert all(place.full is None for place in taken)
    assert connections.total == len(taken) + FEW_REFUSED
    connections.make_room_for_refused()
    assert len(ended) == 12 - len(taken) - FEW_REFUSED


def test_there_is_no_room_when_no_stranger_is_taken_any_more() -> None:
    connections = Connections(Settings(max_connections=4))
    first, second = connections.opened("10.0.0.1"), connections.opened("10.0.0.2")
    assert connections.is_full
    first.trusted()
    assert not connections.is_full
    second.trusted()
    connections.opened("10.0.0.3").trusted()
    connections.opened("10.0.0.4")
    assert connections.is_full
