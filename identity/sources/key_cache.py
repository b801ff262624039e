"""When an issuer's published keys are fetched, for how long they are good, and what a look-up finds. Pure."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.retry import backoff_s
from watchout.identity.sources.keys import KeySet, VerificationKey

#: Keys are fetched anew, behind the back of who asks, when they are older than this.
TTL_S: Final = 300.0


#: A token whose kid is unknown makes us fetch at most so often, all such tokens together.
REFETCH_S: Final = 10.0


#: While the issuer cannot be asked, its keys are good for so long.
STALE_S: Final = 86_400.0


#: Pause before the next fetch after a failed one, in seconds; it doubles with each failure up to the second number.
FIRST_BACKOFF_S: Final = 1.0


MAX_BACKOFF_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class KeyLookup:
    """The keys of a kid; `refresh`: start a fetch beside it, and do not wait for it."""

    keys: tuple[VerificationKey, ...]
    refresh: bool = False


class KeyMiss(enum.Enum):
    """What else a look-up may come to."""

    FETCH = "fetch, or wait for the fetch under way, and look again"
    UNKNOWN = "no such key"
    UNAVAILABLE = "no keys at all, and too early to try again"


class KeyCache:
    """What is known of an issuer's keys. `now` is monotonic, in s. At most one fetch is under way."""

    def __init__(self) -> None:
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._started_at = -math.inf
        self._retry_at = -math.inf
        self._failures = 0
        self._under_way = False

    def look_up(self, kid: str | None, now: float, *, waited: bool = False) -> KeyLookup | KeyMiss:
        """What to do for a token of this kid. `asked`: a fetch was waited for already, so it is not FETCH again."""
        if self._keys is None or not self.usable(now):
            self._keys = None
            return KeyMiss.FETCH if self._may_fetch(now, 0.0) and not waited else KeyMiss.UNAVAILABLE
        if keys := self._keys.find(kid):
            due = now >= self._fetched_at + TTL_S
            return KeyLookup(keys, refresh=due and not self._under_way and self._may_fetch(now, 0.0))
        if self._may_fetch(now, REFETCH_S) and not waited:
            return KeyMiss.FETCH
        # An issuer that is down may have a new key that nobody could fetch: that is not the client's fault.
        return KeyMiss.UNAVAILABLE if self._failures else KeyMiss.UNKNOWN

    def usable(self, now: float) -> bool:
        """Whether there are keys at all."""
        return self._keys is not None and now < self._fetched_at + STALE_S

    def _may_fetch(self, now: float, interval_s: float) -> bool:
        return self._under_way or now >= max(self._retry_at, self._started_at + interval_s)

    def fetch_started(self, now: float) -> None:
        """A request went out."""
        self._under_way, self._started_at = True, now

    def fetched(self, keys: KeySet, now: float) -> bool:
        """It brought these keys, which replace all others; True when they are news."""
        news = self._keys is None or [k.kid for k in keys.keys] != [k.kid for k in self._keys.keys]
        self._keys, self._fetched_at = keys, now
        self._under_way, self._failures, self._retry_at = False, 0, -math.inf
        return news

    def failed(self, now: float) -> None:
        """It brought none."""
        self._under_way = False
        self._retry_at = now + backoff_s(self._failures, first_s=FIRST_BACKOFF_S, most_s=MAX_BACKOFF_S)
        self._failures += 1
