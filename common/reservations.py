"""Reservations of stream ids for their last owners, bounded per user and in total. Pure; `now` in seconds.

Past the bound of a user, their oldest reservation is evicted; past the total bound, the oldest of the user with the
most. So no user can evict a reservation of a user who has fewer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.largest import Largest

#: Reservations that one call of `prune` removes at most: those of a restart end all at once.
MAX_PRUNED: Final = 2_000


@dataclass(frozen=True, slots=True)
class Reservation:
    """A stream id without a publisher that only its last owner may register; kept in `Reservations`.

    `term` and `frame_id` are the last ones of its publishers, `last_gateway` the member whose `Release` reported them
    (None: nobody did), `ended_at` when the publisher left, in seconds of the caller's clock.
    """

    user: str
    organizations: tuple[str, ...]
    term: int
    frame_id: int
    ended_at: float
    last_gateway: bytes | None = None


class Reservations:
    """Which stream ids are reserved for the user who published them last, after the publisher has disconnected.

    Used by the router, and by each gateway for the publishers that left it. Past `per_user` the user's oldest
    reservation is evicted, past `total` the oldest one of the user with the most; another user may have that id then.

    Args:
        keep_s: Seconds for which a reservation is kept after its publisher left.
        per_user: Most reservations of one user.
        total: Most reservations in total.

    """

    def __init__(self, *, keep_s: float, per_user: int, total: int) -> None:
        self._keep_s = keep_s
        self._per_user = per_user
        self._total = total
        #: By stream id, oldest first.
        self._all: OrderedDict[str, Reservation] = OrderedDict()
        self._of_user: dict[str, OrderedDict[str, None]] = {}
        self._counts: Largest[str] = Largest()
        #: Reservations evicted before their time.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def users(self) -> int:
        """Number of users with reservations."""
        return len(self._of_user)

    def get(self, stream: str) -> Reservation | None:
        """Return the reservation of a stream id, None when there is none."""
        return self._all.get(stream)

    def items(self) -> Iterator[tuple[str, Reservation]]:
        """Iterate over stream ids and reservations, oldest first."""
        return iter(self._all.items())

    def of_user(self, user: str) -> list[str]:
        """Return the reserved stream ids of one user, oldest first."""
        return list(self._of_user.get(user, ()))

    def put(self, stream: str, reservation: Reservation) -> list[str]:
        """Add a reservation, in the place of an earlier one of the id. Return the ids of evicted ones."""
        self.take(stream)
        user = reservation.user
        self._all[stream] = reservation
        self._of_user.setdefault(user, OrderedDict())[stream] = None
        self._counts.add(user, 1)
        gone: list[str] = []
        while self._counts.size(user) > self._per_user:
            gone.append(self._drop_oldest(user))
        while len(self._all) > self._total and (most := self._counts.largest()) is not None:
            gone.append(self._drop_oldest(most))
        self.evicted += len(gone)
        return gone

    def take(self, stream: str) -> Reservation | None:
        """Remove the reservation of a stream id and return it."""
        found = self._all.pop(stream, None)
        if found is not None:
            ids = self._of_user[found.user]
            del ids[stream]
            if not ids:
                del self._of_user[found.user]
            self._counts.add(found.user, -1)
        return found

    def prune(self, now: float) -> list[str]:
        """Remove reservations older than `keep_s`, at most `MAX_PRUNED`. Return their ids."""
        gone: list[str] = []
        while self._all and len(gone) < MAX_PRUNED and now - next(iter(self._all.values())).ended_at > self._keep_s:
            stream = next(iter(self._all))
            self.take(stream)
            gone.append(stream)
        return gone

    def _drop_oldest(self, user: str) -> str:
        stream = next(iter(self._of_user[user]))
        self.take(stream)
        return stream
