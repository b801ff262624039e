"""Owners of stream ids without a publisher, and which of them changed since they were last saved. Pure.

A stream id belongs to the user who published it last, for the time of its reservation. `now` is in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from watchout.common.reservations import Reservation, Reservations
from watchout.router.streams.stream import RouterStream

#: Seconds for which the owner of an id is known at least, also when others may register the id before: frame ids
#: continue from the last one, and late alerts still belong to the owner.
RETAIN_S: Final = 86_400.0
#: Defaults: seconds for which an id is reserved for its last owner, ids of one user, and ids in total.
RESERVED_S: Final = 604_800.0
RESERVED_PER_USER: Final = 5_000
RESERVED_MAX: Final = 100_000
#: Changed ids that are tracked one by one; past it, all are saved again.
MAX_CHANGED: Final = 20_000


class Ownership:
    """Reservations of stream ids, with the changes that `ReservationSync` has to save. Part of the registry.

    Args:
        streams: The table's streams by id; those with a publisher are saved too.
        reserved_s: Seconds for which only the last owner may register an id.
        reserved_per_user: Most reservations of one user.
        reserved_max: Most reservations in total.

    """

    def __init__(
        self, streams: Mapping[str, RouterStream], *, reserved_s: float, reserved_per_user: int, reserved_max: int
    ) -> None:
        self._streams = streams
        self._reserved_s = reserved_s
        self.reservations = Reservations(
            keep_s=max(reserved_s, RETAIN_S), per_user=reserved_per_user, total=reserved_max
        )
        #: Ids to save; None: more than `MAX_CHANGED`, so that everything is saved.
        self._changed: dict[str, None] | None = {}

    def get(self, name: str) -> Reservation | None:
        """Return the reservation of an id without a publisher."""
        return self.reservations.get(name)

    def take(self, name: str) -> Reservation | None:
        """Remove and return a reservation, when the id gets a publisher."""
        return self.reservations.take(name)

    def reserved_for(self, name: str, now: float) -> str | None:
        """Return the only user who may register this id now, None when every user may."""
        found = self.reservations.get(name)
        return found.user if found is not None and now - found.ended_at < self._reserved_s else None

    def reservation(self, name: str, now: float) -> tuple[str, float] | None:
        """Return for whom an id without a publisher is reserved, and for how many seconds; None: for nobody."""
        found = self.reservations.get(name)
        if found is None or (left_s := self._reserved_s - (now - found.ended_at)) <= 0:
            return None
        return found.user, left_s

    def reserve(self, stream: RouterStream, now: float) -> None:
        """Reserve the id of a stream whose publisher is gone for its owner."""
        if stream.user is not None:
            self.put(
                stream.id,
                Reservation(stream.user, stream.organizations, stream.term, stream.frame_id, now, stream.last_gateway),
            )

    def put(self, name: str, reservation: Reservation) -> None:
        """Keep a reservation; others are evicted as needed."""
        for gone in self.reservations.put(name, reservation):
            self.mark_changed(gone)
        self.mark_changed(name)

    def release(self, name: str) -> Reservation | None:
        """Let every user register an id. Return what was known of it, None when it was not reserved."""
        found = self.reservations.take(name)
        if found is not None:
            self.mark_changed(name)
        return found

    def prune(self, now: float) -> None:
        """Forget the owners of streams that ended long ago. The cost is that of the forgotten ones."""
        for name in self.reservations.prune(now):
            self.mark_changed(name)

    def rows(self, user: str | None, limit: int, now: float) -> list[tuple[str, str, float]]:
        """Return reserved ids, of one user or of all, oldest first: (id, user, seconds left)."""
        known = self.reservations
        names = (name for name, _ in known.items()) if user is None else known.of_user(user)
        rows: list[tuple[str, str, float]] = []
        for name in names:
            found = known.get(name)
            if found is not None and (left_s := self._reserved_s - (now - found.ended_at)) > 0:
                rows.append((name, found.user, left_s))
            if len(rows) >= limit:
                break
        return rows

    # ── changes to save ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def changed(self) -> bool:
        """Whether the owner of any id changed since `take_changes`."""
        return self._changed is None or bool(self._changed)

    @property
    def changed_all(self) -> bool:
        """Whether more than `MAX_CHANGED` ids changed since `take_changes`."""
        return self._changed is None

    def mark_changed(self, name: str) -> None:
        """Record that the owner of an id changed."""
        if self._changed is not None:
            self._changed[name] = None
            if len(self._changed) > MAX_CHANGED:
                self._changed = None

    def change_all(self) -> None:
        """Record that everything has to be saved again, because changes that were taken could not be written."""
        self._changed = None

    def take_changes(self) -> Iterator[tuple[str, Reservation | None]]:
        """Yield the ids whose owner changed since the last call, with what is known of each; None: it has no owner.

        For an id with a publisher `ended_at` is infinite. When `changed_all` was set before the call, every id with an
        owner is yielded; all others have none.
        """
        changed, self._changed = self._changed, {}
        if changed is None:
            names = [*self._streams, *(name for name, _ in self.reservations.items())]
            changed = dict.fromkeys(names)
        for name in changed:
            yield name, self._known(name)

    def _known(self, name: str) -> Reservation | None:
        stream = self._streams.get(name)
        if stream is not None and stream.gateway is not None and stream.user is not None:
            return Reservation(stream.user, stream.organizations, stream.term, stream.frame_id, math.inf)
        return self.reservations.get(name)
