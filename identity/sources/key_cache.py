"""When an issuer's published keys are fetched, for how long they are good, and what a look-up finds. Pure."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.retry import backoff_s
from watchout.identity.sources.keys import KeySet, VerificationKey

#: Keys older than this many seconds are fetched anew in the background, while they go on verifying.
TTL_S: Final = 300.0
#: Tokens with an unknown key id cause at most one fetch in this many seconds, all of them together.
REFETCH_S: Final = 10.0
#: How long keys stay valid while the issuer cannot be reached, in seconds.
STALE_S: Final = 86_400.0
#: Pause after a first failed fetch, in seconds; it doubles with each further failure, up to `MAX_BACKOFF_S`.
FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class KeyLookup:
    """Result of `KeyCache.look_up` when keys were found. With `refresh` the caller, `IssuerKeys.find`, also starts a
    fetch of newer keys, and does not wait for it.
    """

    keys: tuple[VerificationKey, ...]
    refresh: bool = False


class KeyMiss(enum.Enum):
    """Result of `KeyCache.look_up` when no key was found; each value says what `IssuerKeys.find` does next."""

    FETCH = "fetch, or wait for the fetch under way, then look up again"
    UNKNOWN = "the issuer has no such key: refuse the token"
    UNAVAILABLE = "no keys, and too early to fetch again: the client tries again later"


class KeyCache:
    """The published keys of one issuer, and the decision when to fetch them. `IssuerKeys` owns it and does the
    fetching.

    The owner reports each fetch with `fetch_started`, then `fetched` or `failed`; at most one is under way. `now` is
    monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._started_at = -math.inf
        self._retry_at = -math.inf
        self._failures = 0
        self._under_way = False

    def look_up(self, kid: str | None, now: float, *, waited: bool = False) -> KeyLookup | KeyMiss:
        """Return the keys for a token with this key id, or why there are none.

        Args:
            kid: The key id of the token's header, or None.
            now: The current time.
            waited: Whether the caller has already waited for a fetch; the result is then never `KeyMiss.FETCH`.
        """
        if self._keys is None or not self.usable(now):
            self._keys = None
            return KeyMiss.FETCH if self._may_fetch(now, 0.0) and not waited else KeyMiss.UNAVAILABLE
        if keys := self._keys.find(kid):
            due = now >= self._fetched_at + TTL_S
            return KeyLookup(keys, refresh=due and not self._under_way and self._may_fetch(now, 0.0))
        if self._may_fetch(now, REFETCH_S) and not waited:
            return KeyMiss.FETCH
        # While the issuer is down it may have a new key that could not be fetched: the token may be valid.
        return KeyMiss.UNAVAILABLE if self._failures else KeyMiss.UNKNOWN

    def usable(self, now: float) -> bool:
        """Return whether there are keys that are not too old."""
        return self._keys is not None and now < self._fetched_at + STALE_S

    def _may_fetch(self, now: float, interval_s: float) -> bool:
        return self._under_way or now >= max(self._retry_at, self._started_at + interval_s)

    def fetch_started(self, now: float) -> None:
        """Record that a fetch has begun."""
        self._under_way, self._started_at = True, now

    def fetched(self, keys: KeySet, now: float) -> bool:
        """Replace all keys by fetched ones, and return whether their key ids differ from before."""
        news = self._keys is None or [k.kid for k in keys.keys] != [k.kid for k in self._keys.keys]
        self._keys, self._fetched_at = keys, now
        self._under_way, self._failures, self._retry_at = False, 0, -math.inf
        return news

    def failed(self, now: float) -> None:
        """Record that a fetch failed; the next one waits for a pause that doubles with each failure."""
        self._under_way = False
        self._retry_at = now + backoff_s(self._failures, first_s=FIRST_BACKOFF_S, most_s=MAX_BACKOFF_S)
        self._failures += 1
