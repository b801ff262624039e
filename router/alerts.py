"""Alerts: one order per stream, one effect per id, the recent ones; bounded in number and age. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from common.alerts import Alert

#: Most bytes of JSON in one answer.
MAX_ANSWER_BYTES: Final = 8 << 20
#: An id is known for so long, in seconds: a signed request is good for ten minutes, and its body and the router's
#: answer take their time.
KNOWN_S: Final = 900.0
#: Most ids that are known.
MAX_KNOWN: Final = 65_536
#: Most alerts that gateways which missed some are told again, and most bytes of them.
MAX_LOGGED: Final = 20_000
MAX_LOGGED_BYTES: Final = 16 << 20

_V = TypeVar("_V")


class _Shelves(Generic[_V]):
    """Values by stream and id, oldest first. `keep` is in the unit of every `now`.

    When there are more than `limit` the stream with the most loses its oldest, so that a noisy camera forgets its own.
    """

    def __init__(self, *, limit: int, keep: float) -> None:
        self._limit = limit
        self._keep = keep
        self._streams: dict[str, OrderedDict[str, tuple[float, _V]]] = {}
        self._ids: dict[str, dict[str, None]] = {}
        #: Streams by how many values they have, and the highest of these numbers.
        self._by_size: dict[int, dict[str, None]] = {}
        self._longest = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def streams(self) -> Iterable[str]:
        return self._streams

    def of(self, stream: str) -> OrderedDict[str, tuple[float, _V]]:
        """Id → when it came, the value."""
        return self._streams.get(stream, OrderedDict())

    def holders(self, id: str) -> Iterable[str]:
        """The streams that have a value of this id."""
        return self._ids.get(id, ())

    def add(self, stream: str, id: str, value: _V, now: float) -> bool:
        """Keep a value; False when there is one of this id."""
        self._prune_stream(stream, now)
        shelf = self._streams.setdefault(stream, OrderedDict())
        if id in shelf:
            return False
        shelf[id] = (now, value)
        self._ids.setdefault(id, {})[stream] = None
        self._resized(stream, len(shelf) - 1, len(shelf))
        while self._count > self._limit:
            self._drop_oldest(next(iter(self._by_size[self._longest])))
        return True

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        for stream in list(self._streams):
            self._prune_stream(stream, now)

    def _prune_stream(self, stream: str, now: float) -> None:
        while (shelf := self._streams.get(stream)) is not None:
            came, _ = next(iter(shelf.values()))
            if now - came <= self._keep:
                return
            self._drop_oldest(stream)

    def _drop_oldest(self, stream: str) -> None:
        shelf = self._streams[stream]
        name, _ = shelf.popitem(last=False)
        del self._ids[name][stream]
        if not self._ids[name]:
            del self._ids[name]
        self._resized(stream, len(shelf) + 1, len(shelf))
        if not shelf:
            del self._streams[stream]

    def _resized(self, stream: str, old: int, new: int) -> None:
        self._count += new - old
        if old:
            del self._by_size[old][stream]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, {})[stream] = None
        if new > self._longest or self._longest not in self._by_size:
            self._longest = new


class AlertIds:
    """The ids that lately had their effect: none has a second one in `keep_s`, however few alerts are kept.

    Bounded by `limit` ids; only a stream that has more of them than others forgets sooner. It lives as long as its
    router: the next one knows no id.
    """

    def __init__(self, *, limit: int = MAX_KNOWN, keep_s: float = KNOWN_S) -> None:
        self._shelves: _Shelves[None] = _Shelves(limit=limit, keep=keep_s)

    def __len__(self) -> int:
        return len(self._shelves)

    def first(self, stream: str, id: str, now: float) -> bool:
        """Whether this alert of the stream is to have its effect; from now on it has had it."""
        return self._shelves.add(stream, id, None, now)

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        self._shelves.prune(now)


class AlertBook:
    """The alerts of the last minutes, by stream, oldest first. `now_ms` since the epoch."""

    def __init__(self, *, limit: int, minutes: float) -> None:
        #: Whose the stream was when the alert came, the alert, the term of its frame.
        self._shelves: _Shelves[tuple[str | None, Alert, int]] = _Shelves(limit=limit, keep=minutes * 60_000)

    def __len__(self) -> int:
        return len(self._shelves)

    def accept(self, alert: Alert, now_ms: int, *, owner: str | None = None, term: int = 0) -> bool:
        """Keep an alert of a stream that is now `owner`'s. `term` is that of the frame it speaks of, 0: of none.

        False when its stream already has one of this id: nobody is to get it again.
        """
        return self._shelves.add(alert.stream_id, alert.id, (owner, alert, term), now_ms)

    def prune(self, now_ms: int) -> None:
        """Forget what is too old."""
        self._shelves.prune(now_ms)

    def of_id(self, id: str) -> list[tuple[str, str | None, int, int]]:
        """The frames of the alerts of this id, one of each stream at most: rows of (stream, owner, term, frame id).

        The term is 0 when the picture of the frame was not announced, the frame id when the alert speaks of no frame.
        """
        rows = []
        for stream in self._shelves.holders(id):
            _, (owner, alert, term) = self._shelves.of(stream)[id]
            rows.append((stream, owner, term, alert.frame_id or 0))
        return rows

    def recent(self, stream: str | None, *, since: int, limit: int) -> list[tuple[str, str | None, str, int]]:
        """Of one stream or of all: the newest `limit` alerts that carry a time of, or arrived at, `since` or later.

        Rows of (id, owner, JSON, when it arrived), oldest first. Both times count, because an alert carries the time of
        its frame and arrives later.
        """
        streams = self._shelves.streams() if stream is None else [stream]
        rows = [row for each in streams for row in reversed(self._shelves.of(each).values())]
        if stream is None:
            rows.sort(key=lambda row: row[0], reverse=True)
        found: list[tuple[str, str | None, str, int]] = []
        size = 0
        for arrived, (owner, alert, _) in rows:
            if len(found) >= limit or size > MAX_ANSWER_BYTES:
                break
            if max(arrived, alert.timestamp) >= since:
                text = alert.to_json().decode()
                found.append((alert.id, owner, text, int(arrived)))
                size += len(text)
        found.reverse()
        return found


@dataclass(frozen=True, slots=True)
class Logged:
    """An accepted alert: its number in this router's life, and when it was first accepted, in ms."""

    number: int
    at: int
    alert: Alert
    size_bytes: int


class AlertLog:
    """The accepted alerts in their order, numbered from 1, for gateways that missed some. `now` in seconds.

    It is apart from the book: what viewers may ask for is a matter of settings, what is delivered is not.
    """

    def __init__(
        self, *, max_alerts: int = MAX_LOGGED, max_bytes: int = MAX_LOGGED_BYTES, keep_s: float = KNOWN_S
    ) -> None:
        self._max_alerts = max_alerts
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._logged: deque[tuple[float, Logged]] = deque()
        self.bytes = 0
        self.last = 0

    def __len__(self) -> int:
        return len(self._logged)

    def add(self, alert: Alert, at: int, size_bytes: int, now: float) -> int:
        """An alert was accepted; its number."""
        self.last += 1
        self._logged.append((now, Logged(self.last, at, alert, size_bytes)))
        self.bytes += size_bytes
        while len(self._logged) > self._max_alerts or (self.bytes > self._max_bytes and len(self._logged) > 1):
            self._pop()
        return self.last

    def after(self, number: int, limit: int) -> list[Logged]:
        """The first `limit` alerts that came after this one, as far as they are still here."""
        if not self._logged:
            return []
        skip = max(0, number + 1 - self._logged[0][1].number)
        return [logged for _, logged in islice(self._logged, skip, skip + limit)]

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        while self._logged and now - self._logged[0][0] > self._keep_s:
            self._pop()

    def _pop(self) -> None:
        self.bytes -= self._logged.popleft()[1].size_bytes
