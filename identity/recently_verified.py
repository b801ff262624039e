"""Accepted callers, remembered for a moment. Pure; `now` in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from watchout.identity.caller import Identity


class RecentlyVerified:
    """Who was accepted with which key, for `lifetime_s`, at most `size` of them: the oldest goes first.

    Only what was accepted is remembered: a token that is refused now may be good in a moment.
    """

    def __init__(self, lifetime_s: float, size: int) -> None:
        self._lifetime_s = lifetime_s
        self._size = size
        self._found: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        self._by_session: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str, now: float) -> Identity | None:
        """Who was accepted with this key not long ago."""
        found = self._found.get(key)
        if found is None:
            return None
        if now >= found[0]:
            self._forget(key)
            return None
        return found[1]

    def put(self, key: str, identity: Identity, now: float) -> None:
        """Remember an answer of now."""
        if self._lifetime_s <= 0:
            return
        self._forget(key)
        self._found[key] = (now + self._lifetime_s, identity)
        if identity.session_id is not None:
            self._by_session.setdefault(identity.session_id, set()).add(key)
        while len(self._found) > self._size or next(iter(self._found.values()))[0] <= now:
            self._forget(next(iter(self._found)))

    def drop_changed(self, asked: Iterable[str], live: Mapping[str, Identity]) -> None:
        """Of the sessions that were `asked` for these are `live`: what is remembered otherwise is forgotten."""
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
