"""The alerts of the last minutes that viewers and HTTP clients may ask for, by stream and owner. Pure.

Bounded in number, bytes and age. `now_ms` is in ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import SEVERITIES, Alert, Severity
from watchout.router.alerts.completeness import Completeness
from watchout.router.alerts.log import ALERT_COST_BYTES
from watchout.router.bounded_store import BoundedStore, StoredValue

#: Alerts examined for one query at most: that takes the router 20 ms.
MAX_EXAMINED: Final = 20_000
#: Most bytes of JSON in one reply.
MAX_REPLY_BYTES: Final = 8 << 20
#: Default bound of all recent alerts, in bytes; one user has the first share of it, one stream the second.
MAX_RECENT_BYTES: Final = 32 << 20
USER_SHARE: Final = 0.5
STREAM_SHARE: Final = 0.25


@dataclass(slots=True)
class _RecentAlert:
    """The value that `RecentAlerts` keeps of an alert.

    `json` is the alert as the edge protocol sends it, `timestamp` its own time in ms. `frame_id` is that of the frame
    it refers to, 0 for none, and `term` that frame's term, 0 when no picture of it was announced. `severity` is the
    index in `SEVERITIES`, 0 for the lowest. `acknowledgement` is None while nobody has acknowledged it.
    """

    json: bytes
    timestamp: int
    frame_id: int
    term: int
    severity: int
    acknowledgement: Acknowledgement | None = None


@dataclass(frozen=True, slots=True)
class KeptAlert:
    """An alert that `RecentAlerts.acknowledge` found: its JSON, when it was accepted (ms), and who acknowledged it
    before, None for nobody.
    """

    json: bytes
    at: int
    acknowledgement: Acknowledgement | None


def _newest_ms(kept: StoredValue[_RecentAlert]) -> int:
    """Return the latest time by which an alert is found: that of its acceptance, its own, or its acknowledgement's."""
    value = kept.value
    newest = max(int(kept.added_at), value.timestamp)
    return newest if value.acknowledgement is None else max(newest, value.acknowledgement.at)


class RecentAlerts:
    """The accepted alerts of the last `minutes`, as JSON.

    Keeps `limit` alerts and `max_bytes` bytes at most, of which one user has `USER_SHARE` and one stream
    `STREAM_SHARE`; `BoundedStore` says which ones are evicted. Created by `SlotRouter`; `AlertDelivery` adds to it,
    `QueryHandler` reads it. `started_ms` is when the router started.
    """

    def __init__(self, *, limit: int, minutes: float, max_bytes: int = MAX_RECENT_BYTES, started_ms: int = 0) -> None:
        #: Since when nothing is missing.
        self.completeness = Completeness(started_ms)
        self._store: BoundedStore[_RecentAlert] = BoundedStore(
            limit=limit,
            keep=minutes * 60_000,
            stream_bytes=int(max_bytes * STREAM_SHARE),
            user_bytes=int(max_bytes * USER_SHARE),
            total_bytes=max_bytes,
            on_drop=lambda stream, dropped: self.completeness.drop(stream, _newest_ms(dropped)),
        )

    def __len__(self) -> int:
        return len(self._store)

    @property
    def size_bytes(self) -> int:
        """Memory that the kept alerts take, about."""
        return self._store.bytes

    @property
    def evicted(self) -> int:
        """Alerts evicted before their time."""
        return self._store.evicted

    def accept(
        self, alert: Alert, now_ms: int, *, owner: str | None = None, term: int = 0, json: bytes | None = None
    ) -> bool:
        """Keep an alert.

        Args:
            alert: The alert.
            now_ms: When it was accepted.
            owner: The user who owns its stream now, None when there is none.
            term: Term of the frame that it refers to, 0 when no picture of that frame was announced.
            json: The alert as JSON, if the caller has it.

        Returns:
            False when the stream already has an alert of this id: the alert is a duplicate.

        """
        body = alert.to_json() if json is None else json
        recent = _RecentAlert(body, alert.timestamp, alert.frame_id or 0, term, SEVERITIES.index(alert.severity))
        size_bytes = len(body) + ALERT_COST_BYTES
        return self._store.add(alert.stream_id, alert.id, recent, now_ms, user=owner, size_bytes=size_bytes)

    def acknowledge(self, stream: str, id: str, acknowledgement: Acknowledgement) -> KeptAlert | None:
        """Keep the first acknowledgement of an alert.

        Returns:
            The alert, with its acknowledgement of before; None when no alert of this id is kept.

        """
        stored = self._store.of(stream).get(id)
        if stored is None:
            return None
        value = stored.value
        kept = KeptAlert(value.json, int(stored.added_at), value.acknowledgement)
        if value.acknowledgement is None:
            value.acknowledgement = acknowledgement
            self._store.resize(stream, id, stored.size_bytes + acknowledgement.size_bytes)
        return kept

    def prune(self, now_ms: int) -> None:
        """Forget alerts older than `minutes`."""
        self._store.prune(now_ms)

    def of_id(self, id: str) -> list[tuple[str, str | None, int, int, bytes, int]]:
        """Return the alerts of this id, one per stream: (stream, owner, term, frame id, JSON, when it was accepted).

        The term is 0 when no picture of the frame was announced, the frame id 0 when the alert refers to no frame.
        """
        rows = []
        for stream in self._store.streams_with(id):
            kept = self._store.of(stream)[id]
            value = kept.value
            rows.append((stream, kept.user, value.term, value.frame_id, value.json, int(kept.added_at)))
        return rows

    def acknowledgement_of(self, stream: str, id: str) -> Acknowledgement | None:
        """Return who acknowledged a kept alert first; None: nobody, or it is not kept."""
        stored = self._store.of(stream).get(id)
        return None if stored is None else stored.value.acknowledgement

    def recent(
        self,
        stream: str | None,
        *,
        since: int,
        limit: int,
        severity: Severity = "low",
        wanted: Callable[[str, str | None], bool] = lambda _stream, _owner: True,
        users: Collection[str | None] | None = None,
        or_acknowledged: bool = False,
    ) -> list[tuple[str, str | None, bytes, int, str, Acknowledgement | None]]:
        """Return the newest alerts that match, oldest first.

        Args:
            stream: The stream, or None for all streams. For all, only the newest `MAX_EXAMINED` alerts are examined.
            since: Lower bound in ms since the epoch, of the alert's own time or of its acceptance: an alert carries the
                time of its frame and is accepted later.
            limit: Most alerts to return.
            severity: Lowest severity to return.
            wanted: Whether alerts of this stream and owner are returned.
            users: Owners to consider when `stream` is None; None: all of them.
            or_acknowledged: Whether older alerts that were acknowledged since `since` are returned as well.

        Returns:
            Rows of (id, owner, JSON, when it was accepted in ms, stream, acknowledgement).

        """
        found: list[tuple[str, str | None, bytes, int, str, Acknowledgement | None]] = []
        size, least = 0, SEVERITIES.index(severity)
        for name, alert_id, kept in islice(self._newest_first(stream, users), MAX_EXAMINED):
            if len(found) >= limit or size > MAX_REPLY_BYTES:
                break
            recent = kept.value
            newest = _newest_ms(kept) if or_acknowledged else max(kept.added_at, recent.timestamp)
            if newest >= since and recent.severity >= least and wanted(name, kept.user):
                found.append((alert_id, kept.user, recent.json, int(kept.added_at), name, recent.acknowledgement))
                size += len(recent.json)
        found.reverse()
        return found

    def missing(self, stream: str, since: int, found: int, now_ms: int) -> int | None:
        """Return the time of the oldest kept alert of a stream if some since `since` are missing.

        Args:
            stream: The stream.
            since: The time that `recent` was asked for, with `or_acknowledged`.
            found: How many alerts it returned.
            now_ms: The present time.

        Returns:
            None when `recent` returned all alerts that there ever were since `since`. Else the time of the oldest alert
            that it returned; without one, the time up to which alerts are missing.

        """
        kept = self._store.of(stream)
        wanted = [each for each in kept.values() if _newest_ms(each) >= since]
        if found >= len(wanted) and self.completeness.covers(stream, since, now_ms):
            return None
        if not (returned := wanted[len(wanted) - found :]):
            return min(now_ms, self.completeness.missing_until(stream) + 1)
        return min(min(int(each.added_at), each.value.timestamp) for each in returned)

    def _newest_first(
        self, stream: str | None, users: Collection[str | None] | None
    ) -> Iterator[tuple[str, str, StoredValue[_RecentAlert]]]:
        if stream is not None:
            yield from ((stream, alert_id, kept) for alert_id, kept in reversed(self._store.of(stream).items()))
        else:
            yield from ((name, alert_id, kept) for (name, alert_id), kept in self._store.newest_first(users))
