"""Limits of one socket, one user and one address: message rates, alert rates, connections, subscriptions. Pure.

`now` in seconds. An *unauthenticated* connection is one whose user is not known, or not yet.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.common.media.rate import TokenBucket
from watchout.common.settings import Settings

#: A burst of messages or bytes may be as large as the rate over this many seconds.
BURST_S: Final = 2.0
#: Least time between two `RATE_LIMITED` errors on one socket, in seconds; messages with a `requestId` are all answered.
REPORT_EVERY_S: Final = 1.0
#: Least time between two `ping` messages of a client that are free of the message rate, in seconds.
FREE_PING_EVERY_S: Final = 1.0
#: Refused connections that stay open until the error is delivered: of all addresses, and of one. Further ones are
#: dropped without an error.
MAX_REFUSED: Final = 1024
MAX_REFUSED_PER_ADDRESS: Final = 64
#: File descriptors reserved for everything but clients: the bus, the session store, files.
RESERVED_DESCRIPTORS: Final = 48
#: Connections accepted, and refusals delivered, even where file descriptors are scarce.
MIN_CONNECTIONS: Final = 8
MIN_REFUSED: Final = 4
#: Part of a limit above which unauthenticated connections are closed after each response.
CROWDED: Final = 0.75


class Allowance:
    """Token buckets of one socket: messages, bytes, and errors that the client caused. Used by `ClientProtocol`.

    Args:
        settings: `MESSAGE_RATE`, `BYTE_RATE`, `ABUSE_LIMIT` and `MAX_MESSAGE_BYTES`.
        now: Time of the connection.
    """

    __slots__ = (
        "_at",
        "_byte_burst",
        "_byte_rate",
        "_bytes",
        "_errors",
        "_message_burst",
        "_message_rate",
        "_messages",
        "_pinged_at",
        "_reported_at",
    )  # fmt: skip

    def __init__(self, settings: Settings, now: float) -> None:
        # Two token buckets in one, with one reading of the clock: every frame passes here.
        self._message_rate, self._byte_rate = settings.message_rate, settings.byte_rate
        self._messages = self._message_burst = settings.message_rate * BURST_S
        self._bytes = self._byte_burst = max(settings.byte_rate * BURST_S, float(settings.max_message_bytes))
        self._at = now
        self._errors = TokenBucket(1.0, float(settings.abuse_limit), now)
        self._reported_at = self._pinged_at = float("-inf")

    def take_ping(self, now: float) -> bool:
        """Return whether a `ping` is free of the rates: one in `FREE_PING_EVERY_S` is."""
        if now - self._pinged_at < FREE_PING_EVERY_S:
            return False
        self._pinged_at = now
        return True

    def count_message(self, now: float, size_bytes: int) -> str | None:
        """Count a message; return None within the rates, else the exceeded one: "messages" or "bytes"."""
        elapsed = now - self._at
        if elapsed > 0:
            self._at = now
            self._messages += elapsed * self._message_rate
            if self._messages > self._message_burst:
                self._messages = self._message_burst
            self._bytes += elapsed * self._byte_rate
            if self._bytes > self._byte_burst:
                self._bytes = self._byte_burst
        if self._messages < 1:
            return "messages"
        self._messages -= 1
        if self._bytes < size_bytes:
            return "bytes"
        self._bytes -= size_bytes
        return None

    def take_report(self, now: float) -> bool:
        """Return whether to send `RATE_LIMITED` now; it then counts as sent."""
        if now - self._reported_at < REPORT_EVERY_S:
            return False
        self._reported_at = now
        return True

    def count_error(self, now: float) -> bool:
        """Count an error that the client caused; return False when there were too many: the caller closes it."""
        return self._errors.take(now)


class AlertRates:
    """Rate of the alerts of each sender on this gateway, over all their sockets and requests.

    A sender whose burst is full again is forgotten, so only recent senders take memory.

    Args:
        rate: Alerts per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_S)
        #: By sender, the least recent first.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._used_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def change(self, rate: float) -> None:
        """Apply another rate from now on; what senders have used of the former one is forgotten."""
        if rate != self._rate:
            self._rate, self._burst = rate, max(1.0, rate * BURST_S)
            self._buckets.clear()
            self._used_at.clear()

    def take(self, sender: str, now: float, count: int = 1) -> bool:
        """Return whether `count` alerts are within the rate; they then count. More than a burst at once never are."""
        self._forget(now)
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = TokenBucket(self._rate, self._burst, now)
        self._buckets.move_to_end(sender)
        self._used_at[sender] = now
        return bucket.take(now, count)

    def wait_s(self, count: int = 1) -> float:
        """Return after how many seconds, at most, a sender may send `count` alerts again."""
        return min(float(count), self._burst) / self._rate

    def _forget(self, now: float) -> None:
        full_after_s = self._burst / self._rate
        while self._buckets:
            sender = next(iter(self._buckets))
            if now - self._used_at[sender] < full_after_s:
                return
            del self._buckets[sender], self._used_at[sender]


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A limit of connections that is exceeded; returned by `Connections`, kept in `ConnectionSlot.reached`.

    `what` completes the sentence "too many connections …", which the client receives before its connection is closed.
    """

    what: str


class ConnectionSlot:
    """One connection as the connection limits count it, from `Connections.open_slot` until `release`.

    Created by `ConnectionDispatcher` for each accepted connection, and passed on to the socket. It counts as
    unauthenticated until `mark_authenticated`. To call a method twice has no further effect.

    Attributes:
        reached: The limit that this connection exceeds: send the error and close it. None: it is within all limits.
        address: The client's address as text; empty while it is not known.
        give_way: Ends the connection at once, so that the error of a newer refused one can be delivered; None: it
            cannot be ended so.
    """

    __slots__ = ("_connections", "_is_open", "_is_unauthenticated", "_key", "address", "give_way", "reached")

    def __init__(self, connections: Connections, key: str | None) -> None:
        self._connections = connections
        self._key = key
        self.address = ""
        self._is_open = self._is_unauthenticated = True
        self.reached: LimitReached | None = None
        self.give_way: Callable[[], object] | None = None

    @property
    def must_drop(self) -> bool:
        """Whether too many refused connections are open to deliver the error to this one: drop it."""
        return self.reached is not None and self._connections.too_many_refused(self._key)

    @property
    def key(self) -> str | None:
        """Key of the address that it counts for; None while that is not known."""
        return self._key

    @property
    def is_unauthenticated(self) -> bool:
        """Whether the user of this connection is not known."""
        return self._is_unauthenticated

    @property
    def crowded(self) -> bool:
        """Whether this is an unauthenticated connection close to a limit, or over one: close it after its response."""
        if self.reached is not None:
            return True
        return self._is_open and self._is_unauthenticated and self._connections.crowded(self._key)

    def set_address(self, key: str) -> None:
        """Count the connection for an address, which behind a proxy only the request names. The first one counts."""
        if not self._is_open or self._key is not None:
            return
        if self.reached is None:
            self._connections.count(None, -1, unauthenticated=self._is_unauthenticated)
        else:
            self._connections.count_refused(None, -1, self)
        self._key = key
        self._take()

    def mark_authenticated(self) -> None:
        """Record that the user is known."""
        self._become(unauthenticated=False)

    def mark_unauthenticated(self) -> None:
        """Record that the user is no longer known: the next request has to authenticate again."""
        self._become(unauthenticated=True)

    def release(self) -> None:
        """Count the connection no more: it ended."""
        self.give_way = None
        if self._is_open:
            self._leave()
            self._is_open = False

    def _become(self, *, unauthenticated: bool) -> None:
        if self._is_open and self._is_unauthenticated is not unauthenticated and self.reached is None:
            self._leave()
            self._is_unauthenticated = unauthenticated
            self._take()

    def _take(self) -> None:
        self.reached = self.reached or self._connections.limit(self._key, unauthenticated=self._is_unauthenticated)
        if self.reached is None:
            self._connections.count(self._key, 1, unauthenticated=self._is_unauthenticated)
        else:
            self._connections.count_refused(self._key, 1, self)

    def _leave(self) -> None:
        if self.reached is None:
            self._connections.count(self._key, -1, unauthenticated=self._is_unauthenticated)
        else:
            self._connections.count_refused(self._key, -1, self)


class Connections:
    """Counts the connections of one gateway by address, and sockets and subscriptions by user.

    Addresses are keys of `gateway.requests.addresses.limit_key`. Connections over a limit are counted separately until
    they have received the error and are closed, so that an address over its own limit takes nothing from others.

    Args:
        settings: The limits.
        descriptors: Most file descriptors of the process; None: enough.

    Attributes:
        authenticated: Sockets of which the user is known.
        peak: Most connections since it was last reset, which the caller does.
    """

    def __init__(self, settings: Settings, descriptors: int | None = None) -> None:
        self._settings = settings
        self._most = settings.max_connections
        self._most_refused = MAX_REFUSED
        if descriptors is not None:
            self._most_refused = max(MIN_REFUSED, min(MAX_REFUSED, descriptors // 16))
            room = descriptors - RESERVED_DESCRIPTORS - self._most_refused
            self._most = min(self._most, max(MIN_CONNECTIONS, room))
        self._most_unauthenticated = max(1, self._most // 2)
        self._taken = 0
        self._unauthenticated = 0
        self._refused = 0
        self._by_address: Counter[str] = Counter()
        self._unauthenticated_by_address: Counter[str] = Counter()
        self._refused_by_address: Counter[str] = Counter()
        #: Slots over a limit, oldest first.
        self._refused_slots: OrderedDict[ConnectionSlot, None] = OrderedDict()
        self._users: Counter[str] = Counter()
        self._awaited: Counter[str] = Counter()
        self._subscriptions: Counter[str] = Counter()
        self.authenticated = 0
        self.peak = 0

    @property
    def most(self) -> int:
        """Most connections: `MAX_CONNECTIONS`, or fewer where file descriptors are scarce."""
        return self._most

    @property
    def total(self) -> int:
        """All open connections, including those over a limit that are about to be closed."""
        return self._taken + self._refused

    @property
    def unauthenticated(self) -> int:
        """Connections of which the user is not known."""
        return self._unauthenticated

    def open_slot(self, key: str | None) -> ConnectionSlot:
        """Count a connection. `key` None: its address is not known yet, `ConnectionSlot.set_address` follows."""
        slot = ConnectionSlot(self, key)
        slot._take()
        self.peak = max(self.peak, self.total)
        return slot

    def add_socket(self, user: str) -> LimitReached | None:
        """Count an authenticated socket of a user; return the limit, without counting, when it is one too many."""
        if (reached := self.limit_of_user(user)) is not None:
            return reached
        self._users[user] += 1
        self.authenticated += 1
        return None

    def limit_of_user(self, user: str) -> LimitReached | None:
        """Return the limit that one more authenticated socket of this user would exceed, else None."""
        return (
            LimitReached("of this user")
            if self._users.get(user, 0) >= self._settings.max_connections_per_user
            else None
        )

    def remove_socket(self, user: str) -> None:
        """Count an authenticated socket no more."""
        self.authenticated -= 1
        _add(self._users, user, -1)

    def may_subscribe(self, user: str) -> bool:
        """Return whether the user may have one more subscription, over all their sockets."""
        return self._subscriptions.get(user, 0) < self._settings.max_subscriptions_per_user

    def add_subscription(self, user: str) -> None:
        """Count a subscription of a user."""
        self._subscriptions[user] += 1

    def remove_subscription(self, user: str) -> None:
        """Count a subscription no more."""
        _add(self._subscriptions, user, -1)

    def may_await_stream(self, user: str) -> bool:
        """Return whether the user may subscribe to one more stream that nobody has registered."""
        return self._awaited.get(user, 0) < self._settings.max_waits_per_user

    def add_awaited(self, user: str) -> None:
        """Count a subscription to a stream that nobody has registered."""
        self._awaited[user] += 1

    def remove_awaited(self, user: str) -> None:
        """Count such a subscription no more."""
        _add(self._awaited, user, -1)

    # ── for ConnectionSlot ────────────────────────────────────────────────────────────────────────────────────────────

    def limit(self, key: str | None, *, unauthenticated: bool) -> LimitReached | None:
        """Return the limit that one more connection would exceed, else None."""
        settings = self._settings
        if self._taken >= self._most:
            return LimitReached("on this gateway")
        if key is not None and self._by_address.get(key, 0) >= settings.max_connections_per_address:
            return LimitReached("from this address")
        if not unauthenticated:
            return None
        if self._unauthenticated >= self._most_unauthenticated:
            return LimitReached("that have not signed in")
        if key is not None and self._unauthenticated_by_address.get(key, 0) >= settings.max_unauthenticated_per_address:
            return LimitReached("from this address that have not signed in")
        return None

    def crowded(self, key: str | None) -> bool:
        """Return whether a limit of unauthenticated connections from this address is nearly reached."""
        settings = self._settings
        counts = [(self._taken, self._most), (self._unauthenticated, self._most_unauthenticated)]
        if key is not None:
            counts += [
                (self._by_address.get(key, 0), settings.max_connections_per_address),
                (self._unauthenticated_by_address.get(key, 0), settings.max_unauthenticated_per_address),
            ]
        return any(count > most * CROWDED for count, most in counts)

    @property
    def is_full(self) -> bool:
        """Whether no connection is accepted from any address: each begins unauthenticated."""
        return self._taken >= self._most or self._unauthenticated >= self._most_unauthenticated

    def make_room_for_refused(self) -> None:
        """End the oldest refused connections that can give way, while too many of them are open.

        So a client that sends its request at once, such as a health check, gets its response although others keep their
        refused connections open without a request.
        """
        while self._refused > self._most_refused:
            oldest = next(iter(self._refused_slots))
            if (end := oldest.give_way) is None:
                return
            oldest.release()
            end()

    def too_many_refused(self, key: str | None) -> bool:
        """Return whether too many refused connections are open, of this address or of all."""
        of_address = 0 if key is None else self._refused_by_address.get(key, 0)
        return self._refused > self._most_refused or of_address > MAX_REFUSED_PER_ADDRESS

    def count(self, key: str | None, change: int, *, unauthenticated: bool) -> None:
        """Count a connection within the limits that begins (1) or ends (-1)."""
        self._taken += change
        if key is not None:
            _add(self._by_address, key, change)
        if unauthenticated:
            self._unauthenticated += change
            if key is not None:
                _add(self._unauthenticated_by_address, key, change)

    def count_refused(self, key: str | None, change: int, slot: ConnectionSlot) -> None:
        """Count a connection over a limit that begins (1) or ends (-1)."""
        self._refused += change
        if change > 0:
            self._refused_slots[slot] = None
        else:
            self._refused_slots.pop(slot, None)
        if key is not None:
            _add(self._refused_by_address, key, change)


def _add(counter: Counter[str], key: str, change: int) -> None:
    counter[key] += change
    if counter[key] <= 0:
        del counter[key]
