"""A short-lived cache of users that were verified. Pure; `now` is monotonic, in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from watchout.identity.caller import Identity


class RecentlyVerified:
    """Caches identities by token. Used by `Authenticator` for sessions and for introspected tokens.

    Refusals are not cached: a token that is refused now may be valid in a moment.

    Args:
        lifetime_s: How long an entry counts, in seconds (`AUTH_CACHE_S`); 0 or less disables the cache.
        size: Most entries (`AUTH_CACHE_TOKENS`); past it the oldest is dropped.
    """

    def __init__(self, lifetime_s: float, size: int) -> None:
        self._lifetime_s = lifetime_s
        self._size = size
        self._found: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        self._by_session: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str, now: float) -> Identity | None:
        """Return the identity of a token that was verified less than `lifetime_s` ago, else None."""
        found = self._found.get(key)
        if found is None:
            return None
        if now >= found[0]:
            self._forget(key)
            return None
        return found[1]

    def put(self, key: str, identity: Identity, now: float) -> None:
        """Cache the identity of a token that was verified now."""
        if self._lifetime_s <= 0:
            return
        self._forget(key)
        self._found[key] = (now + self._lifetime_s, identity)
        if identity.session_id is not None:
            self._by_session.setdefault(identity.session_id, set()).add(key)
        while len(self._found) > self._size or next(iter(self._found.values()))[0] <= now:
            self._forget(next(iter(self._found)))

    def drop_changed(self, asked: Iterable[str], live: Mapping[str, Identity]) -> None:
        """Drop entries whose session has ended or changed: of `asked`, only those in `live` are live, and as given."""
        for session_id in asked:
            for key in list(self._by_session.get(session_id, ())):
                if live.get(session_id) != self._found[key][1]:
                    self._forget(key)

    def _forget(self, key: str) -> None:
        found = self._found.pop(key, None)
        if found is None or (session_id := found[1].session_id) is None:
            return
        keys = self._by_session[session_id]
        keys.discard(key)
        if not keys:
            del self._by_session[session_id]
