"""The accepted alerts in their order, for gateways that missed some. Pure; `now` in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.toolbox.bounded_queue import BoundedQueue
from watchout.router.alerts.ids import KNOWN_S

#: Alerts that are logged at most, and their bytes.
MAX_LOGGED: Final = 20_000
MAX_LOGGED_BYTES: Final = 32 << 20
#: Memory that a kept alert takes beside its JSON, about.
ALERT_COST_BYTES: Final = 1000


@dataclass(frozen=True, slots=True)
class LoggedAlert:
    """An accepted alert as JSON, or its acknowledgement; made and kept by `AlertLog`.

    `number` counts both of this router from 1; `at` is when a router first accepted the alert, in ms since the epoch.
    `since_s` is when a router accepted the entry, in seconds of the router's monotonic clock.
    `acknowledgement` is None where the entry is the alert itself.
    """

    number: int
    at: int
    since_s: float
    stream_id: str
    json: bytes
    acknowledgement: Acknowledgement | None = None

    @property
    def alert(self) -> Alert:
        """The alert, decoded from its JSON."""
        return Alert.from_json(self.json)


class AlertLog:
    """The last accepted alerts, numbered from 1, for `keep_s` seconds, bounded in number and bytes.

    Separate from `RecentAlerts`: settings decide what viewers may ask for, but not what is delivered to gateways.
    Created by `SlotRouter`; `AlertDelivery` adds to it, `AlertReplay` reads it.
    """

    def __init__(
        self, *, max_alerts: int = MAX_LOGGED, max_bytes: int = MAX_LOGGED_BYTES, keep_s: float = KNOWN_S
    ) -> None:
        self._keep_s = keep_s
        self._logged: BoundedQueue[int, tuple[float, LoggedAlert]] = BoundedQueue(
            max_entries=max_alerts, max_bytes=max_bytes
        )
        #: Number of the last alert, 0 before the first.
        self.last = 0

    def __len__(self) -> int:
        return len(self._logged)

    @property
    def size_bytes(self) -> int:
        """Memory that the logged alerts take, about."""
        return self._logged.bytes

    def add(
        self, alert: Alert, json: bytes, at: int, now: float, acknowledgement: Acknowledgement | None = None,
        *, age_ms: int = 0,
    ) -> int:  # fmt: skip
        """Log an accepted alert, or its acknowledgement, and return its number.

        Args:
            alert: The alert.
            json: The alert as JSON.
            at: When a router first accepted it, in ms since the epoch.
            now: The router's monotonic clock.
            acknowledgement: What is logged in place of the alert itself.
            age_ms: How long ago a router first accepted what is logged, in ms.

        """
        self.last += 1
        logged = LoggedAlert(self.last, at, now - age_ms / 1000, alert.stream_id, json, acknowledgement)
        size_bytes = len(json) + ALERT_COST_BYTES + (0 if acknowledgement is None else acknowledgement.size_bytes)
        self._logged.add(self.last, (now, logged), size_bytes)
        while self._logged.pop_excess() is not None:
            pass
        return self.last

    def after(self, number: int, limit: int) -> list[LoggedAlert]:
        """Return the first `limit` alerts after this number that are still logged."""
        oldest = self._logged.oldest()
        if oldest is None:
            return []
        skip = max(0, number + 1 - oldest[1].number)
        return [logged for _, logged in islice(self._logged, skip, skip + limit)]

    def of_stream_after(self, stream_id: str, number: int, limit: int) -> list[LoggedAlert]:
        """Return the last `limit` alerts of a stream after this number that are still logged, oldest first.

        Looks at no more entries than came after this number.
        """
        if number >= self.last:
            return []
        later = takewhile(lambda logged: logged.number > number, (logged for _, logged in self._logged.newest_first()))
        found = list(islice((logged for logged in later if logged.stream_id == stream_id), limit))
        return found[::-1]

    def prune(self, now: float) -> None:
        """Forget alerts older than `keep_s`."""
        while (oldest := self._logged.oldest()) is not None and now - oldest[0] > self._keep_s:
            self._logged.pop_oldest()
