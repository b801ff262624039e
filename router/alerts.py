"""Recent alerts: one order per stream, one effect per id, bounded in number and age. Pure; `now_ms` since the epoch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from common.alerts import Alert

#: Most bytes of JSON in one answer.
MAX_ANSWER_BYTES: Final = 8 << 20

#: When it arrived, whose the stream was then, the alert.
Kept = tuple[int, str | None, Alert]


class AlertBook:
    """The alerts of the last minutes, by stream, oldest first.

    When there are too many the stream with the most loses its oldest, so that a noisy camera forgets its own.
    """

    def __init__(self, *, limit: int, minutes: float) -> None:
        self._limit = limit
        self._keep_ms = minutes * 60_000
        self._streams: dict[str, OrderedDict[str, Kept]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def accept(self, alert: Alert, now_ms: int, *, owner: str | None = None) -> bool:
        """Keep an alert of a stream that is now `owner`'s.

        False when its stream already has one of this id: nobody is to get it again.
        """
        self._prune_stream(alert.stream_id, now_ms)
        kept = self._streams.setdefault(alert.stream_id, OrderedDict())
        if alert.id in kept:
            return False
        kept[alert.id] = (now_ms, owner, alert)
        self._count += 1
        while self._count > self._limit:
            longest = max(self._streams, key=lambda stream: len(self._streams[stream]))
            self._drop_oldest(longest)
        return True

    def prune(self, now_ms: int) -> None:
        """Forget what is too old."""
        for stream in list(self._streams):
            self._prune_stream(stream, now_ms)

    def recent(self, stream: str | None, *, since: int, limit: int) -> list[tuple[str, str | None, str]]:
        """Of one stream or of all: the newest `limit` alerts that carry a time of, or arrived at, `since` or later.

        Rows of (id, owner, JSON), oldest first. Both times count, because an alert carries the time of its frame
        and arrives later.
        """
        books = self._streams.values() if stream is None else [self._streams.get(stream, OrderedDict())]
        rows = [row for book in books for row in reversed(book.values())]
        if stream is None:
            rows.sort(key=lambda row: row[0], reverse=True)
        found: list[tuple[str, str | None, str]] = []
        size = 0
        for arrived, owner, alert in rows:
            if len(found) >= limit or size > MAX_ANSWER_BYTES:
                break
            if max(arrived, alert.timestamp) >= since:
                text = alert.to_json().decode()
                found.append((alert.id, owner, text))
                size += len(text)
        found.reverse()
        return found

    def _prune_stream(self, stream: str, now_ms: int) -> None:
        while (kept := self._streams.get(stream)) is not None:
            arrived, _, _ = next(iter(kept.values()))
            if now_ms - arrived <= self._keep_ms:
                return
            self._drop_oldest(stream)

    def _drop_oldest(self, stream: str) -> None:
        kept = self._streams[stream]
        kept.popitem(last=False)
        self._count -= 1
        if not kept:
            del self._streams[stream]
