"""Alerts: one order per stream, one effect per id, the recent ones; bounded in number and age. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from watchout.common.alerts.model import SEVERITIES, Alert, Severity
from watchout.common.toolbox.bounded_queue import BoundedQueue
from watchout.router.shelves import Shelved, Shelves

#: Alerts that are looked at for one answer, at most: 20 ms of the router.
MAX_LOOKED_AT: Final = 20_000
#: Most bytes of JSON in one answer.
MAX_ANSWER_BYTES: Final = 8 << 20
#: An id is known for so long, in seconds: a signed request is good for ten minutes, and its body and the router's
#: answer take their time.
KNOWN_S: Final = 900.0
#: Most ids that are known.
MAX_KNOWN: Final = 65_536
#: Recent alerts take so many bytes at most; one user's and one stream's have this part of them.
MAX_RECENT_BYTES: Final = 32 << 20
USER_SHARE: Final = 0.5
STREAM_SHARE: Final = 0.25
#: What an alert that is kept costs beside its JSON, about.
ALERT_COST_BYTES: Final = 1000
#: Most alerts that gateways which missed some are told again, and most bytes of them.
MAX_LOGGED: Final = 20_000
MAX_LOGGED_BYTES: Final = 32 << 20


class AlertIds:
    """The ids that lately had their effect: none has a second one in `keep_s`, however few alerts are kept.

    Bounded by `limit` ids; only a stream that has more of them than others forgets sooner. It lives as long as its
    router: the next one knows no id.
    """

    def __init__(self, *, limit: int = MAX_KNOWN, keep_s: float = KNOWN_S) -> None:
        self._shelves: Shelves[None] = Shelves(limit=limit, keep=keep_s)

    def __len__(self) -> int:
        return len(self._shelves)

    def first(self, stream: str, id: str, now: float) -> bool:
        """Whether this alert of the stream is to have its effect; from now on it has had it."""
        return self._shelves.add(stream, id, None, now)

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        self._shelves.prune(now)


@dataclass(frozen=True, slots=True)
class _Recent:
    """An alert as the edge protocol sends it, its own time, its frame's id (0: none) and that frame's term.

    `severity` counts from 0, the least.
    """

    json: bytes
    timestamp: int
    frame_id: int
    term: int
    severity: int


class AlertBook:
    """The alerts of the last minutes, by stream, oldest first, as JSON. `now_ms` since the epoch.

    At most `limit` of them, and `max_bytes`, of which one user has `USER_SHARE` and one stream `STREAM_SHARE`.
    """

    def __init__(self, *, limit: int, minutes: float, max_bytes: int = MAX_RECENT_BYTES) -> None:
        self._shelves: Shelves[_Recent] = Shelves(
            limit=limit,
            keep=minutes * 60_000,
            stream_bytes=int(max_bytes * STREAM_SHARE),
            user_bytes=int(max_bytes * USER_SHARE),
            total_bytes=max_bytes,
        )

    def __len__(self) -> int:
        return len(self._shelves)

    @property
    def size_bytes(self) -> int:
        """What the alerts that are kept take."""
        return self._shelves.bytes

    @property
    def evicted(self) -> int:
        """Alerts that gave way to others before their time."""
        return self._shelves.evicted

    def accept(
        self, alert: Alert, now_ms: int, *, owner: str | None = None, term: int = 0, json: bytes | None = None
    ) -> bool:
        """Keep an alert of a stream that is now `owner`'s. `term` is that of the frame it speaks of, 0: of none.

        False when its stream already has one of this id: nobody is to get it again. `json`: the alert, where the
        caller has it at hand.
        """
        body = alert.to_json() if json is None else json
        recent = _Recent(body, alert.timestamp, alert.frame_id or 0, term, SEVERITIES.index(alert.severity))
        size_bytes = len(body) + ALERT_COST_BYTES
        return self._shelves.add(alert.stream_id, alert.id, recent, now_ms, user=owner, size_bytes=size_bytes)

    def prune(self, now_ms: int) -> None:
        """Forget what is too old."""
        self._shelves.prune(now_ms)

    def of_id(self, id: str) -> list[tuple[str, str | None, int, int]]:
        """The frames of the alerts of this id, one of each stream at most: rows of (stream, owner, term, frame id).

        The term is 0 when the picture of the frame was not announced, the frame id when the alert speaks of no frame.
        """
        rows = []
        for stream in self._shelves.holders(id):
            kept = self._shelves.of(stream)[id]
            rows.append((stream, kept.user, kept.value.term, kept.value.frame_id))
        return rows

    def recent(
        self,
        stream: str | None,
        *,
        since: int,
        limit: int,
        severity: Severity = "low",
        wanted: Callable[[str, str | None], bool] = lambda _stream, _owner: True,
        users: Collection[str | None] | None = None,
    ) -> list[tuple[str, str | None, bytes, int, str]]:
        """Of one stream or of all: the newest `limit` alerts that carry a time of, or arrived at, `since` or later.

        Only those of at least this severity, of streams and owners that are `wanted`. Rows of (id, owner, JSON, when it
        arrived, stream), oldest first. Both times count, because an alert carries the time of its frame and arrives
        later. Without a stream no more than the newest `MAX_LOOKED_AT` are looked at, of `users` where they are given.
        """
        found: list[tuple[str, str | None, bytes, int, str]] = []
        size, least = 0, SEVERITIES.index(severity)
        for name, alert_id, kept in islice(self._newest_first(stream, users), MAX_LOOKED_AT):
            if len(found) >= limit or size > MAX_ANSWER_BYTES:
                break
            recent = kept.value
            if max(kept.came, recent.timestamp) >= since and recent.severity >= least and wanted(name, kept.user):
                found.append((alert_id, kept.user, recent.json, int(kept.came), name))
                size += len(recent.json)
        found.reverse()
        return found

    def _newest_first(
        self, stream: str | None, users: Collection[str | None] | None
    ) -> Iterator[tuple[str, str, Shelved[_Recent]]]:
        if stream is not None:
            yield from ((stream, alert_id, kept) for alert_id, kept in reversed(self._shelves.of(stream).items()))
        else:
            yield from ((name, alert_id, kept) for (name, alert_id), kept in self._shelves.newest_first(users))


@dataclass(frozen=True, slots=True)
class Logged:
    """An accepted alert as JSON: its number in this router's life, and when it was first accepted, in ms."""

    number: int
    at: int
    stream_id: str
    json: bytes

    @property
    def alert(self) -> Alert:
        """The alert, made anew of its JSON."""
        return Alert.from_json(self.json)


class AlertLog:
    """The accepted alerts in their order, numbered from 1, for gateways that missed some. `now` in seconds.

    It is apart from the book: what viewers may ask for is a matter of settings, what is delivered is not.
    """

    def __init__(
        self, *, max_alerts: int = MAX_LOGGED, max_bytes: int = MAX_LOGGED_BYTES, keep_s: float = KNOWN_S
    ) -> None:
        self._keep_s = keep_s
        self._logged: BoundedQueue[int, tuple[float, Logged]] = BoundedQueue(
            max_entries=max_alerts, max_bytes=max_bytes
        )
        self.last = 0

    def __len__(self) -> int:
        return len(self._logged)

    @property
    def size_bytes(self) -> int:
        """What the alerts take, with what each costs beside its JSON."""
        return self._logged.bytes

    def add(self, alert: Alert, json: bytes, at: int, now: float) -> int:
        """An alert was accepted, which as JSON is `json`; its number."""
        self.last += 1
        logged = Logged(self.last, at, alert.stream_id, json)
        self._logged.add(self.last, (now, logged), len(json) + ALERT_COST_BYTES)
        while self._logged.pop_excess() is not None:
            pass
        return self.last

    def after(self, number: int, limit: int) -> list[Logged]:
        """The first `limit` alerts that came after this one, as far as they are still here."""
        oldest = self._logged.oldest()
        if oldest is None:
            return []
        skip = max(0, number + 1 - oldest[1].number)
        return [logged for _, logged in islice(self._logged, skip, skip + limit)]

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        while (oldest := self._logged.oldest()) is not None and now - oldest[0] > self._keep_s:
            self._logged.pop_oldest()
