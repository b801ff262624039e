"""What one socket, one user and one address may take. Pure; `now` in seconds."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.common.media.rate import TokenBucket
from watchout.common.settings import Settings

#: Seconds' worth of messages and bytes that may come at once.
BURST_S: Final = 2.0
#: `RATE_LIMITED` is said at most so often on one socket, in seconds.
SAY_EVERY_S: Final = 1.0
#: Connections over a limit that may be open at once, to be told so in order: of all addresses, and of one. What comes
#: past that is cut off without a word.
MAX_REFUSED: Final = 1024
MAX_REFUSED_PER_ADDRESS: Final = 64
#: File descriptors that are kept for everything but clients: the bus, the session store, files.
RESERVED_DESCRIPTORS: Final = 48
#: However few there are, so many connections are taken, and so many are told that they are too many.
FEW_CONNECTIONS: Final = 8
FEW_REFUSED: Final = 4
#: Strangers are too many past this part of a limit.
CROWDED: Final = 0.75


class Allowance:
    """The rates of one socket, and what it earned in errors."""

    __slots__ = (
        "_at", "_byte_burst", "_byte_rate", "_bytes", "_message_burst", "_message_rate", "_messages", "_said_at",
        "_strikes",
    )  # fmt: skip

    def __init__(self, settings: Settings, now: float) -> None:
        # Two token buckets in one, with one look at the clock: every frame passes here.
        self._message_rate, self._byte_rate = settings.message_rate, settings.byte_rate
        self._messages = self._message_burst = settings.message_rate * BURST_S
        self._bytes = self._byte_burst = max(settings.byte_rate * BURST_S, float(settings.max_message_bytes))
        self._at = now
        self._strikes = TokenBucket(1.0, float(settings.abuse_limit), now)
        self._said_at = float("-inf")

    def message(self, now: float, size_bytes: int) -> str | None:
        """Count a message; None when it is within the rates, else what rate it broke."""
        elapsed = now - self._at
        if elapsed > 0:
            self._at = now
            messages = self._messages + elapsed * self._message_rate
            self._messages = min(self._message_burst, messages)
            size = self._bytes + elapsed * self._byte_rate
            self._bytes = min(self._byte_burst, size)
        if self._messages < 1:
            return "messages"
        self._messages -= 1
        if self._bytes < size_bytes:
            return "bytes"
        self._bytes -= size_bytes
        return None

    def say(self, now: float) -> bool:
        """Whether `RATE_LIMITED` is to be said now."""
        if now - self._said_at < SAY_EVERY_S:
            return False
        self._said_at = now
        return True

    def strike(self, now: float) -> bool:
        """Count an error that the client earned; False when it was one too many."""
        return self._strikes.take(now)


class AlertRates:
    """How many alerts each sender may bring to this gateway, over all his sockets and requests.

    A sender who has his whole burst again is not remembered, so there are no more than brought one lately.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_S)
        #: By sender, in the order in which they last brought one.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._used_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, sender: str, now: float, count: int = 1) -> bool:
        """Whether so many alerts are within the rate; they then count. More than a burst at once never are."""
        self._forget(now)
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = TokenBucket(self._rate, self._burst, now)
        self._buckets.move_to_end(sender)
        self._used_at[sender] = now
        return bucket.take(now, count)

    def wait_s(self, count: int = 1) -> float:
        """After how long a sender who brought too many has room for so many again, at most."""
        return min(float(count), self._burst) / self._rate

    def _forget(self, now: float) -> None:
        full_after_s = self._burst / self._rate
        while self._buckets:
            sender = next(iter(self._buckets))
            if now - self._used_at[sender] < full_after_s:
                return
            del self._buckets[sender], self._used_at[sender]


@dataclass(frozen=True, slots=True)
class Full:
    """A limit of connections that is reached; `what` ends the sentence "too many connections …"."""

    what: str


class Place:
    """What one connection takes of the limits, from `Connections.opened` until `closed`.

    A connection begins as a stranger: nobody knows yet who it is. Every event may be told again; it counts once.
    """

    __slots__ = ("_connections", "_is_open", "_is_stranger", "_key", "full", "give_way")

    def __init__(self, connections: Connections, key: str | None) -> None:
        self._connections = connections
        self._key = key
        self._is_open = self._is_stranger = True
        #: The limit that this connection is over, if any: say so and close it.
        self.full: Full | None = None
        #: Ends the connection at once, so that a newer one that is over a limit can be told so.
        self.give_way: Callable[[], object] | None = None

    @property
    def turned_away(self) -> bool:
        """Whether so many are over the limits that there is no time to tell this one."""
        return self.full is not None and self._connections.swamped(self._key)

    @property
    def key(self) -> str | None:
        """The address that it counts under; None while that is not known."""
        return self._key

    @property
    def is_stranger(self) -> bool:
        """Whether nobody knows yet who this is."""
        return self._is_stranger

    @property
    def crowded(self) -> bool:
        """Whether this is a stranger for whom there is hardly room: it goes when it has its answer."""
        if self.full is not None:
            return True
        return self._is_open and self._is_stranger and self._connections.crowded(self._key)

    def came_from(self, key: str) -> None:
        """The client's address is known now: behind a proxy only a request says it. The first that is told counts."""
        if not self._is_open or self._key is not None:
            return
        if self.full is None:
            self._connections.count(None, -1, stranger=self._is_stranger)
        else:
            self._connections.count_refused(None, -1, self)
        self._key = key
        self._take()

    def trusted(self) -> None:
        """It is known who this is: no stranger any more."""
        self._become(stranger=False)

    def doubted(self) -> None:
        """It is to be shown anew who this is: a stranger again."""
        self._become(stranger=True)

    def closed(self) -> None:
        """The connection ended."""
        self.give_way = None
        if self._is_open:
            self._leave()
            self._is_open = False

    def _become(self, *, stranger: bool) -> None:
        if self._is_open and self._is_stranger is not stranger and self.full is None:
            self._leave()
            self._is_stranger = stranger
            self._take()

    def _take(self) -> None:
        self.full = self.full or self._connections.limit(self._key, stranger=self._is_stranger)
        if self.full is None:
            self._connections.count(self._key, 1, stranger=self._is_stranger)
        else:
            self._connections.count_refused(self._key, 1, self)

    def _leave(self) -> None:
        if self.full is None:
            self._connections.count(self._key, -1, stranger=self._is_stranger)
        else:
            self._connections.count_refused(self._key, -1, self)


class Connections:
    """How many connections there are, by address and by user.

    Addresses are keys of `gateway.requests.addresses.limit_key`. Who is over a limit is counted apart, until he is told
    and gone: so one address that is over its own limit takes nothing from the others. `descriptors`: how many files and
    sockets the process may have open; None: enough.
    """

    def __init__(self, settings: Settings, descriptors: int | None = None) -> None:
        self._settings = settings
        self._most = settings.max_connections
        self._most_refused = MAX_REFUSED
        if descriptors is not None:
            self._most_refused = max(FEW_REFUSED, min(MAX_REFUSED, descriptors // 16))
            room = descriptors - RESERVED_DESCRIPTORS - self._most_refused
            self._most = min(self._most, max(FEW_CONNECTIONS, room))
        self._most_strangers = max(1, self._most // 2)
        self._taken = 0
        self._strangers = 0
        self._refused = 0
        self._by_address: Counter[str] = Counter()
        self._strangers_by_address: Counter[str] = Counter()
        self._refused_by_address: Counter[str] = Counter()
        #: Those that are over a limit, the oldest first.
        self._refused_places: OrderedDict[Place, None] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._subscriptions: Counter[str] = Counter()
        self.joined_total = 0
        #: Most connections since somebody set it back.
        self.peak = 0

    @property
    def most(self) -> int:
        """Most connections: `MAX_CONNECTIONS`, or what the descriptors allow."""
        return self._most

    @property
    def total(self) -> int:
        """All open connections, also those that are over a limit and about to be closed."""
        return self._taken + self._refused

    @property
    def strangers(self) -> int:
        """Connections of whom nobody knows yet who they are."""
        return self._strangers

    def opened(self, key: str | None) -> Place:
        """Count a connection; None: its address is not known yet, and `Place.came_from` follows."""
        place = Place(self, key)
        place._take()
        self.peak = max(self.peak, self.total)
        return place

    def joined(self, user: str) -> Full | None:
        """Count an authenticated socket; not counted when it is one too many."""
        if (full := self.full_for(user)) is not None:
            return full
        self._users[user] += 1
        self.joined_total += 1
        return None

    def full_for(self, user: str) -> Full | None:
        """The limit that one more authenticated socket of this user would break."""
        return Full("of this user") if self._users.get(user, 0) >= self._settings.max_connections_per_user else None

    def left(self, user: str) -> None:
        """An authenticated socket ended."""
        self.joined_total -= 1
        _add(self._users, user, -1)

    def may_subscribe(self, user: str) -> bool:
        """Whether the user may have one more subscription, over all of his sockets."""
        return self._subscriptions.get(user, 0) < self._settings.max_subscriptions_per_user

    def subscribed(self, user: str) -> None:
        """A subscription begins."""
        self._subscriptions[user] += 1

    def unsubscribed(self, user: str) -> None:
        """It ends."""
        _add(self._subscriptions, user, -1)

    def may_wait(self, user: str) -> bool:
        """Whether the user may subscribe to one more stream that nobody owns yet."""
        return self._waits.get(user, 0) < self._settings.max_waits_per_user

    def waits(self, user: str) -> None:
        """Such a subscription begins."""
        self._waits[user] += 1

    def waits_no_more(self, user: str) -> None:
        """It ends."""
        _add(self._waits, user, -1)

    # ── for Place ────────────────────────────────────────────────────────────────────────────────────────────────

    def limit(self, key: str | None, *, stranger: bool) -> Full | None:
        """The limit that one more connection would break."""
        settings = self._settings
        if self._taken >= self._most:
            return Full("on this gateway")
        if key is not None and self._by_address.get(key, 0) >= settings.max_connections_per_address:
            return Full("from this address")
        if not stranger:
            return None
        if self._strangers >= self._most_strangers:
            return Full("that have not signed in")
        if key is not None and self._strangers_by_address.get(key, 0) >= settings.max_strangers_per_address:
            return Full("from this address that have not signed in")
        return None

    def crowded(self, key: str | None) -> bool:
        """Whether a limit that a stranger of this address may meet is nearly reached."""
        settings = self._settings
        counts = [(self._taken, self._most), (self._strangers, self._most_strangers)]
        if key is not None:
            counts += [
                (self._by_address.get(key, 0), settings.max_connections_per_address),
                (self._strangers_by_address.get(key, 0), settings.max_strangers_per_address),
            ]
        return any(count > most * CROWDED for count, most in counts)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for anybody more, from wherever he comes: each begins as a stranger."""
        return self._taken >= self._most or self._strangers >= self._most_strangers

    def make_room_for_refused(self) -> None:
        """When too many that are over a limit wait to be told, the oldest ones that can give way do.

        What asks at once, as a health check does, so has its answer although others hold their connections in silence.
        """
        while self._refused > self._most_refused:
            oldest = next(iter(self._refused_places))
            if (end := oldest.give_way) is None:
                return
            oldest.closed()
            end()

    def swamped(self, key: str | None) -> bool:
        """Whether too many that are over a limit wait to be told, of this address or of all."""
        of_address = 0 if key is None else self._refused_by_address.get(key, 0)
        return self._refused > self._most_refused or of_address > MAX_REFUSED_PER_ADDRESS

    def count(self, key: str | None, change: int, *, stranger: bool) -> None:
        """A connection within the limits comes (1) or goes (-1)."""
        self._taken += change
        if key is not None:
            _add(self._by_address, key, change)
        if stranger:
            self._strangers += change
            if key is not None:
                _add(self._strangers_by_address, key, change)

    def count_refused(self, key: str | None, change: int, place: Place) -> None:
        """A connection over a limit comes (1) or goes (-1)."""
        self._refused += change
        if change > 0:
            self._refused_places[place] = None
        else:
            self._refused_places.pop(place, None)
        if key is not None:
            _add(self._refused_by_address, key, change)


def _add(counter: Counter[str], key: str, change: int) -> None:
    counter[key] += change
    if counter[key] <= 0:
        del counter[key]
