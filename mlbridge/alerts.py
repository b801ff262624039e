"""Checks alerts of the ML service, completes them, and queues them for the router. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.model import Alert, AlertFault, check_draft, complete
from watchout.common.alerts.unconfirmed import Raised
from watchout.common.bus.messages import RaiseAlert, decode_from_member, encode
from watchout.common.errors import BusError
from watchout.common.media.frames import Frame
from watchout.common.toolbox.jsontext import write_json
from watchout.common.tracing.context import TRACEPARENT

#: Most alerts that wait for the router, by number and by bytes; past either the oldest is dropped.
MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 4 << 20
_NO_ID: Final = "-"


@dataclass(frozen=True, slots=True)
class ReadAlerts:
    """The alerts in one message of the ML service. Returned by `read_alerts`.

    Attributes:
        alerts: valid alerts, each with its size on the bus in bytes.
        refused: why others were refused.
    """

    alerts: list[tuple[Alert, int]]
    refused: list[str]


def read_alerts(values: Iterable[object], frame: Frame | None, *, now_ms: int) -> ReadAlerts:
    """Check the alerts in a message and complete them.

    Args:
        values: the alerts as they were decoded.
        frame: the frame of the result, from which missing fields are taken; None: the alerts belong to no known frame.
        now_ms: the current time in ms, for alerts without a time and a frame.
    """
    read = ReadAlerts([], [])
    for value in values:
        try:
            draft = check_draft(value)
            alert = complete(
                draft,
                alert_id=_NO_ID,
                timestamp=now_ms if frame is None else frame.timestamp,
                stream_id=None if frame is None else frame.stream_id,
                frame_id=None if frame is None else frame.frame_id,
            )
            if draft.id is None:
                alert = alert.changed(id=content_id(alert))
            read.alerts.append((alert, _bus_bytes(alert)))
        except AlertFault as fault:
            read.refused.append(str(fault))
    return read


def content_id(alert: Alert) -> str:
    """Return the id of an alert without one: 32 hexadecimal digits that depend on stream, frame, time and content.

    An alert that is received twice, also by another bridge or after a restart, has the same id both times.
    """
    body = alert.body() | {"id": _NO_ID}
    body.pop(TRACEPARENT, None)
    content = write_json(body, in_order=True)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def mark_stale(alert: Alert, age_ms: int) -> Alert:
    """Return the alert with the age of its frame, in ms, at the time of the result."""
    return alert.changed(metadata={**(alert.metadata or {}), "ageMs": age_ms, "stale": True})


def _bus_bytes(alert: Alert) -> int:
    """Return the size of an alert on the bus.

    Raises `AlertFault` when the router could not decode it: such an alert would be sent again for ever.
    """
    try:
        data = encode(0, 0, RaiseAlert(request=0, alert=alert))
        decode_from_member(data)
    except (BusError, ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise AlertFault(f"it cannot cross the bus: {type(exc).__name__}") from None
    return len(data)


class AlertQueue:
    """Alerts that a router has not accepted yet, those of each slot oldest first. Owned by `AlertSender`.

    `AlertSender` puts alerts in at the end; for each slot an `AlertLane` sends the `first` one, and takes it out with
    `done` when the router has accepted it. Past either bound the oldest alerts of all slots are dropped: those of
    a slot that has no router, mostly. `put` returns how many, and `AlertSender` counts them.

    Args:
        max_alerts: most alerts.
        max_bytes: most bytes; one larger alert may wait alone.

    Attributes:
        bytes: bytes of those that wait.
        dropped: those that the last `put` dropped.
    """

    def __init__(self, *, max_alerts: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_alerts = max_alerts
        self._max_bytes = max_bytes
        self._waiting: dict[int, deque[tuple[int, Raised]]] = {}
        self._numbers = itertools.count()
        self._count = 0
        self.bytes = 0
        self.dropped: list[Raised] = []

    def __len__(self) -> int:
        return self._count

    def put(self, raised: Raised, slot: int = 0) -> int:
        """Add an alert at the end of its slot. Returns how many of the oldest were dropped for it."""
        self._waiting.setdefault(slot, deque()).append((next(self._numbers), raised))
        self._count += 1
        self.bytes += raised.size_bytes
        self.dropped = []
        while self._count > self._max_alerts or (self.bytes > self._max_bytes and self._count > 1):
            slots = (slot for slot, waiting in self._waiting.items() if waiting)
            self.dropped.append(self._pop(min(slots, key=self._oldest)))
        return len(self.dropped)

    def first(self, slot: int = 0) -> Raised | None:
        """Return the oldest alert of a slot, None when there is none. It stays until `done`."""
        waiting = self._waiting.get(slot)
        return waiting[0][1] if waiting else None

    def done(self, raised: Raised, slot: int = 0) -> None:
        """Take an alert out that `first` returned, if it was not dropped meanwhile."""
        if self.first(slot) is raised:
            self._pop(slot)

    def _oldest(self, slot: int) -> int:
        return self._waiting[slot][0][0]

    def _pop(self, slot: int) -> Raised:
        self._count -= 1
        raised = self._waiting[slot].popleft()[1]
        self.bytes -= raised.size_bytes
        return raised
