"""Alerts that have to be acknowledged in time, and when that time is over. Pure; times in ms since the epoch.

Each alert is escalated at most once. It waits here with all that it says, so whether it is still among the recent
alerts does not matter. Times are those of the wall clock, because they outlive the router.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from watchout.common.alerts.model import SEVERITIES, Alert, AlertFault, Milliseconds, Severity

#: Alerts that wait at most, and their bytes; past either the one whose time is over first is escalated early.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 16 << 20
#: Alerts that are remembered as settled, so that one that is raised again is not escalated twice; past it the oldest is
#: forgotten.
MAX_SETTLED: Final = 20_000
#: Milliseconds for which they are remembered: longer than an alert is raised again to a restarted router.
SETTLED_MS: Final = 900_000
#: An alert whose time was over for longer than this when the router started is not escalated any more, in ms.
STALE_MS: Final = 86_400_000
#: Memory that a waiting alert takes beside its JSON, about.
COST_BYTES: Final = 1000


class WaitingRecord(msgspec.Struct, frozen=True, array_like=True):
    """What the file keeps of an alert: it waits until `at`, or was settled `at` (ms), by escalation or acknowledgement.

    `json` is the alert, empty when it is settled; `accepted_at` is when a router first accepted it (ms), `owner` who
    owned its stream then.
    """

    state: Literal["waiting", "settled"]
    at: Milliseconds
    json: str = ""
    accepted_at: Milliseconds = 0
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class WaitingAlert:
    """An alert that nobody has acknowledged yet; listed by `Escalations.alerts`.

    `at` is when it is escalated, `accepted_at` when a router first accepted it, `owner` who owned its stream then.
    """

    alert: Alert
    at: int
    accepted_at: int
    owner: str | None

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, about."""
        return len(self.alert.to_json()) + COST_BYTES


class Escalations:
    """Decides which alerts are escalated, and when. Made by `SlotRouter`; `AlertDelivery` adds and settles alerts.

    Args:
        severity: The least severity of an alert that is escalated.
        after_ms: For how long anybody may acknowledge it before.
        max_waiting: Alerts that wait at most.
        max_bytes: Bytes of those at most.
    """

    def __init__(
        self,
        severity: Severity,
        after_ms: int,
        *,
        max_waiting: int = MAX_WAITING,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._least = SEVERITIES.index(severity)
        self._after_ms = after_ms
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        #: By key.
        self._waiting: dict[str, WaitingAlert] = {}
        self._bytes = 0
        #: Keys by time; one that does not wait any more is passed over.
        self._schedule: list[tuple[int, str]] = []
        #: By key: when it was settled; oldest first.
        self._settled: OrderedDict[str, int] = OrderedDict()
        #: Whether `restore` was called.
        self.is_restored = False
        self._changed: set[str] = set()

    @property
    def waiting(self) -> int:
        """Number of alerts that nobody has acknowledged yet."""
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Memory that they take, about."""
        return self._bytes

    def alerts(self) -> list[WaitingAlert]:
        """Return the alerts that wait, in no order."""
        return list(self._waiting.values())

    def watch(self, alert: Alert, accepted_at: int, owner: str | None = None) -> None:
        """Let an alert wait for its acknowledgement, if its severity is high enough and it is not known yet.

        Args:
            alert: The accepted alert.
            accepted_at: When a router first accepted it.
            owner: Who owns its stream.
        """
        key = _key(alert.stream_id, alert.id)
        if SEVERITIES.index(alert.severity) >= self._least and key not in self._waiting and key not in self._settled:
            self._add(key, WaitingAlert(alert, accepted_at + self._after_ms, accepted_at, owner))
            self._changed.add(key)

    def acknowledged(self, stream: str, alert_id: str, now_ms: int) -> None:
        """Settle an alert: it is not escalated any more.

        Args:
            stream: Id of its stream.
            alert_id: Its id.
            now_ms: Now.
        """
        key = _key(stream, alert_id)
        if self._remove(key) is not None or not self.is_restored:  # its record may not be read yet
            self._settle(key, now_ms)

    def due(self, now_ms: int) -> list[Alert]:
        """Settle and return the alerts that nobody acknowledged in time, and those that do not fit.

        Args:
            now_ms: Now.
        """
        while self._settled and now_ms - next(iter(self._settled.values())) > SETTLED_MS:
            self._forget_oldest()
        found: list[Alert] = []
        while self._schedule:
            at, key = self._schedule[0]
            entry = self._waiting.get(key)
            if entry is not None and entry.at == at:
                over = len(self._waiting) > self._max_waiting or self._bytes > self._max_bytes
                if at > now_ms and not over:
                    break
                self._remove(key)
                self._settle(key, now_ms)
                found.append(entry.alert)
            heapq.heappop(self._schedule)
        return found

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, records: Mapping[str, bytes], now_ms: int) -> int:
        """Go on with what a former router had.

        Args:
            records: The records of the file.
            now_ms: Now; alerts whose time was over long ago are forgotten.

        Returns:
            The number of records that cannot be read.
        """
        bad, self.is_restored = 0, True
        settled: list[tuple[int, str]] = []
        for key, body in records.items():
            try:
                record = msgspec.json.decode(body, type=WaitingRecord)
                alert = Alert.from_json(record.json.encode()) if record.json else None
            except (msgspec.DecodeError, UnicodeError, AlertFault):
                bad += 1
                self._changed.add(key)
                continue
            if record.state == "settled" or alert is None:
                settled.append((min(record.at, now_ms), key))
                self._remove(key)  # raised again before this record was read
            elif key in self._waiting or key in self._settled:
                continue  # what came before this record was read holds
            elif now_ms - record.at > STALE_MS:
                self._changed.add(key)
            else:
                at = min(record.at, now_ms + self._after_ms)
                self._add(key, WaitingAlert(alert, at, min(record.accepted_at, now_ms), record.owner))
        every = sorted([*settled, *((at, key) for key, at in self._settled.items())])
        self._settled = OrderedDict((key, at) for at, key in every[-MAX_SETTLED:])
        return bad

    def take_changes(self) -> dict[str, bytes | None]:
        """Return the records to write since the last call, None for one to delete."""
        changes: dict[str, bytes | None] = {}
        for key in self._changed:
            record = None
            if (entry := self._waiting.get(key)) is not None:
                json = entry.alert.to_json().decode()
                record = WaitingRecord("waiting", entry.at, json, entry.accepted_at, entry.owner)
            elif (at := self._settled.get(key)) is not None:
                record = WaitingRecord("settled", at)
            changes[key] = None if record is None else msgspec.json.encode(record)
        self._changed = set()
        return changes

    def _add(self, key: str, waiting: WaitingAlert) -> None:
        self._waiting[key] = waiting
        self._bytes += waiting.size_bytes
        heapq.heappush(self._schedule, (waiting.at, key))
        if len(self._schedule) > 2 * len(self._waiting) + MAX_WAITING:  # many were acknowledged long before their time
            self._schedule = [(each.at, key) for key, each in self._waiting.items()]
            heapq.heapify(self._schedule)

    def _remove(self, key: str) -> WaitingAlert | None:
        entry = self._waiting.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size_bytes
        return entry

    def _settle(self, key: str, now_ms: int) -> None:
        self._settled[key] = now_ms
        self._changed.add(key)
        if len(self._settled) > MAX_SETTLED:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget what was settled first, and delete its record. Before the records are read there is none to delete."""
        key, _ = self._settled.popitem(last=False)
        if self.is_restored:
            self._changed.add(key)
        else:
            self._changed.discard(key)


def _key(stream: str, alert_id: str) -> str:
    return f"{stream} {alert_id}"  # neither has a space
