"""Values by stream and id that are kept for a while: bounded in number and bytes, for a stream, a user, in all. Pure.

Whoever has the most gives way: past a bound of a stream or a user his own oldest, past a bound of all the oldest of the
stream that has the most values, or of the user that has the most bytes. So a noisy camera forgets its own.
"""

from __future__ import annotations

import heapq
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from watchout.common.toolbox.largest import Largest

UNBOUNDED: Final = sys.maxsize

_V = TypeVar("_V")

#: A stream and an id.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Shelved(Generic[_V]):
    """A value, when it came, whose it is and its size."""

    came: float
    value: _V
    user: str | None
    size_bytes: int


class Shelves(Generic[_V]):
    """`keep` is in the unit of every `now`. Nothing costs more for what is kept of others."""

    def __init__(
        self,
        *,
        limit: int,
        keep: float,
        stream_bytes: int = UNBOUNDED,
        user_bytes: int = UNBOUNDED,
        total_bytes: int = UNBOUNDED,
    ) -> None:
        self._limit = limit
        self._keep = keep
        self._stream_bytes = stream_bytes
        self._user_bytes = user_bytes
        self._total_bytes = total_bytes
        #: Every value, oldest first; and the same by stream, by user and by id.
        self._all: OrderedDict[Key, Shelved[_V]] = OrderedDict()
        self._streams: dict[str, OrderedDict[str, Shelved[_V]]] = {}
        self._of_user: dict[str | None, OrderedDict[Key, None]] = {}
        self._ids: dict[str, dict[str, None]] = {}
        self._counts: Largest[str] = Largest()
        self._bytes_of_stream: Largest[str] = Largest()
        self._bytes_of_user: Largest[str | None] = Largest()
        #: Values that gave way before their time.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bytes(self) -> int:
        """Sizes of all values together."""
        return self._bytes_of_user.total

    def streams(self) -> Iterable[str]:
        """Those that have values."""
        return self._streams

    def of(self, stream: str) -> OrderedDict[str, Shelved[_V]]:
        """What is kept of a stream by id, oldest first."""
        return self._streams.get(stream, OrderedDict())

    def newest_first(self, users: Collection[str | None] | None = None) -> Iterator[tuple[Key, Shelved[_V]]]:
        """Everything that is kept, with its stream and id; of these users alone, where they are given."""
        if users is None:
            return reversed(self._all.items())
        return heapq.merge(*map(self._of_one_user, users), key=lambda entry: -entry[1].came)

    def _of_one_user(self, user: str | None) -> Iterator[tuple[Key, Shelved[_V]]]:
        return ((key, self._all[key]) for key in reversed(self._of_user.get(user, OrderedDict())))

    def holders(self, id: str) -> Iterable[str]:
        """The streams that have a value of this id."""
        return self._ids.get(id, ())

    def add(self, stream: str, id: str, value: _V, now: float, *, user: str | None = None, size_bytes: int = 0) -> bool:
        """Keep a value; False when there is one of this id in the stream."""
        self.prune(now)
        key = stream, id
        if key in self._all:
            return False
        shelved = Shelved(now, value, user, size_bytes)
        self._all[key] = shelved
        self._streams.setdefault(stream, OrderedDict())[id] = shelved
        self._of_user.setdefault(user, OrderedDict())[key] = None
        self._ids.setdefault(id, {})[stream] = None
        self._counts.add(stream, 1)
        self._bytes_of_stream.add(stream, size_bytes)
        self._bytes_of_user.add(user, size_bytes)
        self._make_room(stream, user)
        return True

    def prune(self, now: float) -> None:
        """Forget what is too old. Costs only what it forgets."""
        while self._all:
            key = next(iter(self._all))
            if now - self._all[key].came <= self._keep:
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

    def _drop(self, key: Key) -> None:
        stream, name = key
        shelved = self._all.pop(key)
        del self._streams[stream][name]
        if not self._streams[stream]:
            del self._streams[stream]
        del self._ids[name][stream]
        if not self._ids[name]:
            del self._ids[name]
        del self._of_user[shelved.user][key]
        if not self._of_user[shelved.user]:
            del self._of_user[shelved.user]
        self._counts.add(stream, -1)
        self._bytes_of_stream.add(stream, -shelved.size_bytes)
        self._bytes_of_user.add(shelved.user, -shelved.size_bytes)
