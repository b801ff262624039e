"""A store of values by stream and id, bounded in age, number and bytes, per stream, per user and in total. Pure.

Whoever has the most is evicted from: past the bound of a stream or a user its own oldest value; past a total bound the
oldest value of the stream with the most values, or of the user with the most bytes. So a noisy stream evicts its own
values and not those of others.
"""

from __future__ import annotations

import heapq
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from watchout.common.toolbox.largest import Largest

UNBOUNDED: Final = sys.maxsize

_V = TypeVar("_V")

#: Stream id, and id of the value within the stream.
StoreKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StoredValue(Generic[_V]):
    """An entry of a `BoundedStore`; made by `BoundedStore.add`, returned by its look-ups.

    Attributes:
        added_at: When the value was added, in the unit of the store's `now`.
        value: The value.
        user: Whose share of the store it takes; None: nobody's.
        size_bytes: Its size as the caller stated it.
    """

    added_at: float
    value: _V
    user: str | None
    size_bytes: int


class BoundedStore(Generic[_V]):
    """Values by stream and id, each kept for `keep` at most. The cost of an operation does not grow with the store.

    `keep` is in the unit of the caller's `now`. Created by `AlertIds` and `RecentAlerts`.

    Args:
        limit: Most values in total.
        keep: Age at which a value is dropped.
        stream_bytes: Most bytes of one stream, except that its newest value is always kept.
        user_bytes: Most bytes of one user, except that the newest value is always kept.
        total_bytes: Most bytes in total.
        on_drop: Called with the stream and the value that is dropped, for whatever reason.

    """

    def __init__(
        self,
        *,
        limit: int,
        keep: float,
        stream_bytes: int = UNBOUNDED,
        user_bytes: int = UNBOUNDED,
        total_bytes: int = UNBOUNDED,
        on_drop: Callable[[str, StoredValue[_V]], None] | None = None,
    ) -> None:
        self._limit = limit
        self._keep = keep
        self._on_drop = on_drop
        self._stream_bytes = stream_bytes
        self._user_bytes = user_bytes
        self._total_bytes = total_bytes
        #: All values, oldest first; then indexes of them by stream, by user and by id.
        self._all: OrderedDict[StoreKey, StoredValue[_V]] = OrderedDict()
        self._streams: dict[str, OrderedDict[str, StoredValue[_V]]] = {}
        self._of_user: dict[str | None, OrderedDict[StoreKey, None]] = {}
        self._ids: dict[str, dict[str, None]] = {}
        self._counts: Largest[str] = Largest()
        self._bytes_of_stream: Largest[str] = Largest()
        self._bytes_of_user: Largest[str | None] = Largest()
        #: Values evicted before their time.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bytes(self) -> int:
        """Total size of all values."""
        return self._bytes_of_user.total

    def of(self, stream: str) -> OrderedDict[str, StoredValue[_V]]:
        """Return the values of a stream by id, oldest first."""
        return self._streams.get(stream, OrderedDict())

    def newest_first(self, users: Collection[str | None] | None = None) -> Iterator[tuple[StoreKey, StoredValue[_V]]]:
        """Iterate over all values with their keys, or those of some users, newest first."""
        if users is None:
            return reversed(self._all.items())
        return heapq.merge(*map(self._of_one_user, users), key=lambda entry: -entry[1].added_at)

    def _of_one_user(self, user: str | None) -> Iterator[tuple[StoreKey, StoredValue[_V]]]:
        return ((key, self._all[key]) for key in reversed(self._of_user.get(user, OrderedDict())))

    def streams_with(self, id: str) -> Iterable[str]:
        """Return the streams that have a value of this id."""
        return self._ids.get(id, ())

    def add(self, stream: str, id: str, value: _V, now: float, *, user: str | None = None, size_bytes: int = 0) -> bool:
        """Add a value and evict others as needed. Return False when the stream already has a value of this id."""
        self.prune(now)
        key = stream, id
        if key in self._all:
            return False
        stored = StoredValue(now, value, user, size_bytes)
        self._all[key] = stored
        self._streams.setdefault(stream, OrderedDict())[id] = stored
        self._of_user.setdefault(user, OrderedDict())[key] = None
        self._ids.setdefault(id, {})[stream] = None
        self._counts.add(stream, 1)
        self._bytes_of_stream.add(stream, size_bytes)
        self._bytes_of_user.add(user, size_bytes)
        self._make_room(stream, user)
        return True

    def resize(self, stream: str, id: str, size_bytes: int) -> None:
        """Change the size of a value that is there, and evict others as needed."""
        key = stream, id
        before = self._all[key]
        self._all[key] = self._streams[stream][id] = replace(before, size_bytes=size_bytes)
        self._bytes_of_stream.add(stream, size_bytes - before.size_bytes)
        self._bytes_of_user.add(before.user, size_bytes - before.size_bytes)
        self._make_room(stream, before.user)

    def prune(self, now: float) -> None:
        """Drop values older than `keep`. The cost is that of the dropped ones."""
        while self._all:
            key = next(iter(self._all))
            if now - self._all[key].added_at <= self._keep:
                return
            self._drop(key)

    def _make_room(self, stream: str, user: str | None) -> None:
        before = len(self._all)
        while self._bytes_of_stream.size(stream) > self._stream_bytes and len(self._streams[stream]) > 1:
            self._drop_oldest_of_stream(stream)
        while self._bytes_of_user.size(user) > self._user_bytes and len(self._of_user[user]) > 1:
            self._drop(next(iter(self._of_user[user])))
        while len(self._all) > self._limit and (most := self._counts.largest()) is not None:
            self._drop_oldest_of_stream(most)
        while self.bytes > self._total_bytes and len(self._all) > 1:
            self._drop(next(iter(self._of_user[self._bytes_of_user.largest()])))
        self.evicted += before - len(self._all)

    def _drop_oldest_of_stream(self, stream: str) -> None:
        self._drop((stream, next(iter(self._streams[stream]))))

    def _drop(self, key: StoreKey) -> None:
        stream, name = key
        stored = self._all.pop(key)
        del self._streams[stream][name]
        if not self._streams[stream]:
            del self._streams[stream]
        del self._ids[name][stream]
        if not self._ids[name]:
            del self._ids[name]
        del self._of_user[stored.user][key]
        if not self._of_user[stored.user]:
            del self._of_user[stored.user]
        self._counts.add(stream, -1)
        self._bytes_of_stream.add(stream, -stored.size_bytes)
        self._bytes_of_user.add(stored.user, -stored.size_bytes)
        if self._on_drop is not None:
            self._on_drop(stream, stored)
