"""Alerts between the ML service and the router: what came is checked and given an identity, what waits is bounded.

Pure: ids come from the caller; no socket, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from common.alerts import Alert, AlertFault, check_draft, complete
from common.errors import BusError
from common.frames import Frame
from common.messages import RaiseAlert, decode_from_member, encode

#: Alerts that may wait for the router; past it, or past the bytes, the oldest is dropped.
MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ReadAlerts:
    """What a message of the ML service brought: alerts with their bytes on the bus, and why others were refused."""

    alerts: list[tuple[Alert, int]]
    refused: list[str]


def read_alerts(values: Iterable[object], frame: Frame | None, *, new_id: Callable[[], str], now_ms: int) -> ReadAlerts:
    """Check alerts as they came; what they leave out is taken from the frame that they answer, if that is known."""
    read = ReadAlerts([], [])
    for value in values:
        try:
            alert = complete(
                check_draft(value),
                alert_id=new_id(),
                timestamp=now_ms if frame is None else frame.timestamp,
                stream_id=None if frame is None else frame.stream_id,
                frame_id=None if frame is None else frame.frame_id,
            )
            read.alerts.append((alert, _bus_bytes(alert)))
        except AlertFault as fault:
            read.refused.append(str(fault))
    return read


def _bus_bytes(alert: Alert) -> int:
    """Size on the bus. An alert that the router could not read would be sent again for ever: `AlertFault`."""
    try:
        data = encode(0, 0, RaiseAlert(request=0, alert=alert))
        decode_from_member(data)
    except (BusError, ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise AlertFault(f"it cannot cross the bus: {type(exc).__name__}") from None
    return len(data)


class AlertQueue:
    """Alerts that the router has not yet accepted, oldest first."""

    def __init__(self, *, max_alerts: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_alerts = max_alerts
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Alert, int]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, alert: Alert, size_bytes: int) -> int:
        """Add one at the end; how many of the oldest were dropped for it."""
        self._waiting.append((alert, size_bytes))
        self.bytes += size_bytes
        dropped = 0
        while len(self._waiting) > self._max_alerts or (self.bytes > self._max_bytes and len(self._waiting) > 1):
            self._pop()
            dropped += 1
        return dropped

    def first(self) -> Alert | None:
        """The oldest; it stays until it is `done`."""
        return self._waiting[0][0] if self._waiting else None

    def done(self, alert: Alert) -> None:
        """Take it out, if it was not dropped meanwhile."""
        if self._waiting and self._waiting[0][0] is alert:
            self._pop()

    def _pop(self) -> None:
        self.bytes -= self._waiting.popleft()[1]
