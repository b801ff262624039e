"""Alerts that the router accepted, kept until it is certain that they went out. Pure; `now` in seconds.

`Accepted` says that the router has an alert, not that the gateways have it: a router that is killed in that moment
takes it with it. So whoever raised an alert keeps it for a while, and raises it again, under the same id and with the
time of its acceptance, to a router of another epoch. Gateways tell no id twice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.model import Alert
from watchout.common.toolbox.bounded_queue import BoundedQueue

#: A message that a router queued went out within this, or its receiver was taken for gone and asks again: longer than
#: `membership.MEMBER_LOST_AFTER_S` by a good deal.
KEEP_S: Final = 10.0
#: Most alerts that are kept, and most bytes of them; past either the oldest is let go.
MAX_KEPT: Final = 20_000
MAX_KEPT_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert on its way to the router: its size on the bus, and the term of the frame that it speaks of, 0: none.

    `accepted_at` is when a router first had it, in ms of the router's clock; None: none had it yet.
    """

    alert: Alert
    size_bytes: int = 0
    term: int = 0
    accepted_at: int | None = None


class UnconfirmedAlerts:
    """What was accepted lately, oldest first, each with the epoch of the router that had it."""

    def __init__(self, *, keep_s: float = KEEP_S, max_alerts: int = MAX_KEPT, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._keep_s = keep_s
        self._kept: BoundedQueue[int, tuple[float, int, Raised]] = BoundedQueue(
            max_entries=max_alerts, max_bytes=max_bytes
        )
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Sizes of all alerts together, on the bus."""
        return self._kept.bytes

    def add(self, raised: Raised, epoch: int, now: float) -> None:
        """The router of this epoch accepted an alert."""
        self._kept.add(next(self._numbers), (now, epoch, raised), raised.size_bytes)
        self.prune(now)
        while self._kept.pop_excess() is not None:
            pass

    def prune(self, now: float) -> None:
        """The router lives, or lived until just now: what it accepted long ago has gone out."""
        while (oldest := self._kept.oldest()) is not None and now - oldest[0] > self._keep_s:
            self._kept.pop_oldest()

    def take_other(self, epoch: int) -> list[Raised]:
        """Take out what another router than that of `epoch` accepted, oldest first: it is to be raised again."""
        other = [number for number, (_, of, _) in self._kept.items() if of != epoch]
        return [self._kept.pop(number)[2] for number in other]
