"""Keeps alerts that the router accepted until they have certainly been delivered. Pure; `now` in seconds.

`AcceptedReply` confirms that the router has an alert, not that the gateways have it: an alert is lost when the router
is killed at that moment. So the process that raised an alert keeps it for a while and raises it again to a router of
another epoch, under the same id and with the time of its acceptance. Gateways deliver no id twice.

While a slot has no router that this process reaches, its alerts do not age: a router that is cut off together with this
process accepts alerts that nobody else gets before the network is whole again.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
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
#: The alerts of a slot that has no router for longer than this, in seconds, are given up: gateways remember the ids of
#: the last 65 536 alerts only, and after that one could be delivered twice.
MISSING_KEEP_S: Final = 600.0
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """An alert with its number in order of acceptance, the time of that by the slot's time, and the router's epoch."""

    number: int
    at: float
    epoch: int
    raised: Raised


@dataclass(slots=True)
class _Slot:
    """The alerts of one slot, oldest first. Its time stands still while it has no router."""

    kept: deque[_Kept] = field(default_factory=deque)
    stood_s: float = 0.0
    missing_since: float | None = None
    given_up: int = 0

    def time(self, now: float) -> float:
        return (now if self.missing_since is None else self.missing_since) - self.stood_s


class UnconfirmedAlerts:
    """Alerts that a router accepted lately but may not have delivered yet, each with that router's slot and epoch.

    `AlertRequests` and `AlertSender` keep one each: after a restart of the router they send these alerts again. Past a
    bound the oldest alert of all is dropped.

    Args:
        keep_s: how long an alert is kept while its slot has a router, in seconds.
        max_alerts: most alerts.
        max_bytes: most bytes; one larger alert may be kept alone.
    """

    def __init__(self, *, keep_s: float = KEEP_S, max_alerts: int = MAX_KEPT, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._keep_s = keep_s
        #: The slots of all alerts, by the alerts' numbers: it owns the bounds.
        self._bounds: BoundedQueue[int, _Slot] = BoundedQueue(max_entries=max_alerts, max_bytes=max_bytes)
        self._slots: dict[int, _Slot] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._bounds)

    @property
    def bytes(self) -> int:
        """Sizes of all alerts together, on the bus."""
        return self._bounds.bytes

    def add(self, raised: Raised, epoch: int, now: float, slot: int = 0) -> None:
        """Keep an alert that the router of this slot and epoch accepted."""
        of = self._slots.setdefault(slot, _Slot())
        kept = _Kept(next(self._numbers), of.time(now), epoch, raised)
        of.kept.append(kept)
        self._bounds.add(kept.number, of, raised.size_bytes)
        self._prune(now)
        while (full := self._bounds.pop_excess()) is not None:
            full.kept.popleft()
            full.given_up += full.missing_since is not None

    def missing(self, slot: int, now: float) -> None:
        """Note that a slot has no router that is reached: what was accepted long before has been delivered."""
        self._prune(now)
        of = self._slots.setdefault(slot, _Slot())
        if of.missing_since is None:
            of.missing_since = now

    def joined(self, slot: int, epoch: int, now: float) -> list[Raised]:
        """Note that a slot has a router. Take out and return the alerts that routers of the slot with other epochs
        accepted, oldest first, to raise them again.
        """
        self._prune(now)
        of = self._slots.setdefault(slot, _Slot())
        if of.missing_since is not None:
            of.stood_s += now - of.missing_since
            of.missing_since = None
        other = [kept for kept in of.kept if kept.epoch != epoch]
        of.kept = deque(kept for kept in of.kept if kept.epoch == epoch)
        for kept in other:
            self._bounds.pop(kept.number)
        return [kept.raised for kept in other]

    def take_given_up(self, slot: int) -> int:
        """Return how many alerts of a slot were dropped while it had no router, and forget that: they may be lost."""
        of = self._slots.get(slot)
        if of is None:
            return 0
        count, of.given_up = of.given_up, 0
        return count

    def _prune(self, now: float) -> None:
        for of in self._slots.values():
            if of.missing_since is not None and now - of.missing_since > MISSING_KEEP_S:
                of.given_up += len(of.kept)
                self._drop(of, len(of.kept))
            oldest = of.time(now) - self._keep_s
            while of.kept and of.kept[0].at < oldest:
                self._drop(of, 1)

    def _drop(self, of: _Slot, count: int) -> None:
        for _ in range(count):
            self._bounds.pop(of.kept.popleft().number)
