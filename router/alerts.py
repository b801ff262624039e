"""Recent alerts: one order, one effect per id, bounded in number and age. Pure; `now_ms` since the epoch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from common.alerts import Alert

#: Most bytes of JSON in one answer.
MAX_ANSWER_BYTES: Final = 8 << 20


class AlertBook:
    """The alerts of the last minutes, oldest first."""

    def __init__(self, *, limit: int, minutes: float) -> None:
        self._limit = limit
        self._keep_ms = minutes * 60_000
        self._kept: OrderedDict[str, tuple[int, str | None, Alert]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def accept(self, alert: Alert, now_ms: int, *, owner: str | None = None) -> bool:
        """Keep an alert of a stream that is now `owner`'s.

        False when its id is already known: nobody is to get it again.
        """
        self.prune(now_ms)
        if alert.id in self._kept:
            return False
        self._kept[alert.id] = (now_ms, owner, alert)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return True

    def prune(self, now_ms: int) -> None:
        """Forget what is too old."""
        while self._kept:
            arrived, _, _ = next(iter(self._kept.values()))
            if now_ms - arrived <= self._keep_ms:
                return
            self._kept.popitem(last=False)

    def recent(self, stream: str | None, *, since: int, limit: int) -> list[tuple[str, str | None, str]]:
        """Of one stream or of all: the newest `limit` alerts that carry a time of, or arrived at, `since` or later.

        Rows of (id, owner, JSON), oldest first. Both times count, because an alert carries the time of its frame
        and arrives later.
        """
        found: list[tuple[str, str | None, str]] = []
        size = 0
        for arrived, owner, alert in reversed(self._kept.values()):
            if len(found) >= limit or size > MAX_ANSWER_BYTES:
                break
            if (stream is None or alert.stream_id == stream) and max(arrived, alert.timestamp) >= since:
                text = alert.to_json().decode()
                found.append((alert.id, owner, text))
                size += len(text)
        found.reverse()
        return found
