"""Keeps alerts that the router accepted until they have certainly been delivered. Pure; `now` in seconds.

`AcceptedReply` confirms that the router has an alert, not that the gateways have it: an alert is lost when the router
is killed at that moment. So the process that raised an alert keeps it for a while and raises it again to a router of
another epoch, under the same id and with the time of its acceptance. Gateways deliver no id twice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages.latency_rows import AlertStamps
from watchout.common.toolbox.bounded_queue import BoundedQueue

#: Within this time the router has delivered a queued message, or has dropped the receiver, which then asks again, in
#: seconds: much longer than `membership.MEMBER_LOST_AFTER_S`.
KEEP_S: Final = 10.0
#: The same where epochs are fenced: a router that is cut off may accept alerts until its lease is over, and the member
#: notices later that it has ended.
FENCED_KEEP_S: Final = 30.0
#: Most alerts that are kept, by number and by bytes; past either the oldest is dropped.
MAX_KEPT: Final = 20_000
MAX_KEPT_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert on its way to the router. Made by `AlertSender` and by the gateway.

    Attributes:
        alert: the alert.
        size_bytes: its size on the bus.
        term: term of the frame that it is about; 0: none.
        accepted_at: when a router first accepted it, in ms of the clock here; None: not yet.
        acknowledgement: set where not the alert is under way, but that it was acknowledged.
        owner: user who owned the stream when the alert was accepted; only known with `acknowledgement`.
        stamps: when its frame was captured and looked at, by the clock here; None: not measured.
    """

    alert: Alert
    size_bytes: int = 0
    term: int = 0
    accepted_at: int | None = None
    acknowledgement: Acknowledgement | None = None
    owner: str | None = None
    stamps: AlertStamps | None = None


class UnconfirmedAlerts:
    """Alerts that a router accepted lately but may not have delivered yet, oldest first, each with that router's slot
    and epoch.

    `RouterClient` and `AlertSender` keep one each: after a restart of the router they send these alerts again.

    Args:
        keep_s: how long an alert is kept, in seconds.
        max_alerts: most alerts.
        max_bytes: most bytes; one larger alert may be kept alone.
    """

    def __init__(self, *, keep_s: float = KEEP_S, max_alerts: int = MAX_KEPT, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._keep_s = keep_s
        self._kept: BoundedQueue[int, tuple[float, tuple[int, int], Raised]] = BoundedQueue(
            max_entries=max_alerts, max_bytes=max_bytes
        )
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Sizes of all alerts together, on the bus."""
        return self._kept.bytes

    def add(self, raised: Raised, epoch: int, now: float, slot: int = 0) -> None:
        """Keep an alert that the router of this slot and epoch accepted."""
        self._kept.add(next(self._numbers), (now, (slot, epoch), raised), raised.size_bytes)
        self.prune(now)
        while self._kept.pop_excess() is not None:
            pass

    def prune(self, now: float) -> None:
        """Drop alerts that were accepted more than `keep_s` ago: they have been delivered."""
        while (oldest := self._kept.oldest()) is not None and now - oldest[0] > self._keep_s:
            self._kept.pop_oldest()

    def take_other(self, epoch: int, slot: int = 0) -> list[Raised]:
        """Take out and return the alerts that routers of the slot with other epochs accepted, oldest first, to raise
        them again.
        """
        other = [number for number, (_, (of, then), _) in self._kept.items() if of == slot and then != epoch]
        return [self._kept.pop(number)[2] for number in other]
