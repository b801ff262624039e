"""Ids of the alerts that were accepted lately, so that none takes effect twice. Pure; `now` in seconds."""

from __future__ import annotations

from typing import Final

from watchout.router.bounded_store import BoundedStore

#: Seconds for which an id is known. A signed request to `POST /alerts` is valid for ten minutes; its body and the
#: router's reply take their time.
KNOWN_S: Final = 900.0
#: Ids that are known at most.
MAX_KNOWN: Final = 65_536


class AlertIds:
    """The ids of accepted alerts by stream, for `keep_s` seconds, however few alerts themselves are kept.

    Past `limit` ids, a stream that has more of them than others forgets its oldest first. A restarted router knows no
    id. Created by `SlotRouter`, used by `AlertDelivery`.
    """

    def __init__(self, *, limit: int = MAX_KNOWN, keep_s: float = KNOWN_S) -> None:
        self._store: BoundedStore[None] = BoundedStore(limit=limit, keep=keep_s)

    def __len__(self) -> int:
        return len(self._store)

    def add(self, stream: str, id: str, now: float) -> bool:
        """Remember the id of an alert of this stream. Return False when it was known: the alert is a duplicate."""
        return self._store.add(stream, id, None, now)

    def prune(self, now: float) -> None:
        """Forget ids older than `keep_s`."""
        self._store.prune(now)
