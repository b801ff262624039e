"""What one socket, one user and one address may take. Pure; `now` in seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from common.pacing import TokenBucket
from common.settings import Settings

#: Seconds' worth of messages and bytes that may come at once.
BURST_S: Final = 2.0
#: `RATE_LIMITED` is said at most so often on one socket, in seconds.
SAY_EVERY_S: Final = 1.0


class Allowance:
    """The rates of one socket, and what it earned in errors."""

    __slots__ = ("_bytes", "_messages", "_said_at", "_strikes")

    def __init__(self, settings: Settings, now: float) -> None:
        self._messages = TokenBucket(settings.message_rate, settings.message_rate * BURST_S, now)
        burst_bytes = max(settings.byte_rate * BURST_S, float(settings.max_message_bytes))
        self._bytes = TokenBucket(settings.byte_rate, burst_bytes, now)
        self._strikes = TokenBucket(1.0, float(settings.abuse_limit), now)
        self._said_at = float("-inf")

    def message(self, now: float, size_bytes: int) -> str | None:
        """Count a message; None when it is within the rates, else what rate it broke."""
        if not self._messages.take(now):
            return "messages"
        if not self._bytes.take(now, size_bytes):
            return "bytes"
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


@dataclass(frozen=True, slots=True)
class Full:
    """A limit of connections that is reached; `what` ends the sentence "too many connections …"."""

    what: str


class Connections:
    """How many connections there are, by address and by user."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self.total = 0
        self.joined_total = 0

    def opened(self, address: str) -> Full | None:
        """Count a connection; it is counted even when it is one too many, until `closed`."""
        self.total += 1
        self._addresses[address] += 1
        if self.total > self._settings.max_connections:
            return Full("on this gateway")
        if self._addresses[address] > self._settings.max_connections_per_address:
            return Full("from this address")
        return None

    def closed(self, address: str) -> None:
        """A connection ended."""
        self.total -= 1
        _less(self._addresses, address)

    def joined(self, user: str) -> Full | None:
        """Count an authenticated socket; not counted when it is one too many."""
        if self._users[user] >= self._settings.max_connections_per_user:
            return Full("of this user")
        self._users[user] += 1
        self.joined_total += 1
        return None

    def left(self, user: str) -> None:
        """An authenticated socket ended."""
        self.joined_total -= 1
        _less(self._users, user)


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
