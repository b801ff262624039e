"""Accepted callers, remembered for a moment. Pure; `now` in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from identity.caller import Identity


class Memory:
    """Who was accepted with which key, for `lifetime_s`, at most `size` of them: the oldest goes first.

    Only what was accepted is remembered: a token that is refused now may be good in a moment.
    """

    def __init__(self, lifetime_s: float, size: int) -> None:
        self._lifetime_s = lifetime_s
        self._size = size
        self._found: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str, now: float) -> Identity | None:
        """Who was accepted with this key not long ago."""
        found = self._found.get(key)
        if found is None:
            return None
        if now >= found[0]:
            del self._found[key]
            return None
        return found[1]

    def put(self, key: str, identity: Identity, now: float) -> None:
        """Remember an answer of now."""
        if self._lifetime_s <= 0:
            return
        self._found[key] = (now + self._lifetime_s, identity)
        self._found.move_to_end(key)
        while self._found and (len(self._found) > self._size or next(iter(self._found.values()))[0] <= now):
            self._found.popitem(last=False)

    def compare(self, asked: frozenset[str], live: Mapping[str, Identity]) -> None:
        """Of the sessions that were `asked` for these are `live`: what is remembered otherwise is forgotten."""
        stale = [
            key
            for key, (_, identity) in self._found.items()
            if identity.session_id in asked and live.get(identity.session_id) != identity
        ]
        for key in stale:
            del self._found[key]
