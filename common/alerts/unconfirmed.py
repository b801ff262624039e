"""Alerts that the router accepted, kept until it is certain that they went out. Pure; `now` in seconds.

`Accepted` says that the router has an alert, not that the gateways have it: a router that is killed in that moment
takes it with it. So whoever raised an alert keeps it for a while, and raises it again, under the same id and with the
time of its acceptance, to a router of another epoch. Gateways tell no id twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.model import Alert

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
        self._max_alerts = max_alerts
        self._max_bytes = max_bytes
        self._kept: deque[tuple[float, int, Raised]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, raised: Raised, epoch: int, now: float) -> None:
        """The router of this epoch accepted an alert."""
        self._kept.append((now, epoch, raised))
        self.bytes += raised.size_bytes
        self.prune(now)
        while len(self._kept) > self._max_alerts or (self.bytes > self._max_bytes and len(self._kept) > 1):
            self._pop()

    def prune(self, now: float) -> None:
        """The router lives, or lived until just now: what it accepted long ago has gone out."""
        while self._kept and now - self._kept[0][0] > self._keep_s:
            self._pop()

    def take_other(self, epoch: int) -> list[Raised]:
        """Take out what another router than that of `epoch` accepted, oldest first: it is to be raised again."""
        again = [raised for _, of, raised in self._kept if of != epoch]
        self._kept = deque(each for each in self._kept if each[1] == epoch)
        self.bytes = sum(raised.size_bytes for _, _, raised in self._kept)
        return again

    def _pop(self) -> None:
        _, _, raised = self._kept.popleft()
        self.bytes -= raised.size_bytes
