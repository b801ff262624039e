"""A queue that is bounded in entries and in bytes, and whose oldest entries give way to newer ones. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedQueue(Generic[K, V]):
    """A queue of values, each with a key and a size in bytes, in the order in which they were added; used for alerts.

    The caller enforces the bounds, as it has to account for what it drops: after `add`, call `pop_excess` until it
    returns None. A value that alone exceeds `max_bytes` stays, so that none is too large to pass.

    Args:
        max_entries: Most values.
        max_bytes: Most bytes of all values together.
    """

    __slots__ = ("_entries", "_max_bytes", "_max_entries", "bytes")

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        #: Sizes of all values together.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[V]:
        """Iterate over the values, oldest first."""
        return (value for value, _ in self._entries.values())

    def newest_first(self) -> Iterator[V]:
        """Iterate over the values, newest first. The queue must not change meanwhile."""
        return (value for value, _ in reversed(self._entries.values()))

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over keys and values, oldest first. The queue must not change meanwhile."""
        return ((key, value) for key, (value, _) in self._entries.items())

    def add(self, key: K, value: V, size_bytes: int) -> None:
        """Append a value under a key that is not in the queue. Raises `KeyError` when it is."""
        if key in self._entries:
            raise KeyError(key)
        self._entries[key] = value, size_bytes
        self.bytes += size_bytes

    def oldest(self) -> V | None:
        """Return the oldest value without removing it; None when the queue is empty."""
        for value, _ in self._entries.values():
            return value
        return None

    def pop(self, key: K) -> V:
        """Remove and return the value of a key. Raises `KeyError` when there is none."""
        value, size_bytes = self._entries.pop(key)
        self.bytes -= size_bytes
        return value

    def pop_oldest(self) -> V:
        """Remove and return the oldest value. Raises `KeyError` when the queue is empty."""
        value, size_bytes = self._entries.popitem(last=False)[1]
        self.bytes -= size_bytes
        return value

    def pop_excess(self) -> V | None:
        """Remove and return the oldest value while the queue exceeds a bound; None when it is within both."""
        if len(self._entries) > self._max_entries or (self.bytes > self._max_bytes and len(self._entries) > 1):
            return self.pop_oldest()
        return None
