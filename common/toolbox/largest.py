"""Tracks sizes by key and returns the key with the largest, so that the largest holder can be evicted. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

#: The heap is rebuilt when it has more entries than this many per key plus the second number.
OUTDATED_PER_KEY: Final = 4
OUTDATED_SPARE: Final = 64

K = TypeVar("K", bound=Hashable)


class Largest(Generic[K]):
    """Sizes by key, such as bytes by stream, of which the largest is found fast: `add` and `largest` take O(log n)
    amortized.

    Used by `ByteBudget`, `WaitingFrames` and others that bound a total, and drop from the key with the most.
    """

    __slots__ = ("_heap", "_numbers", "_sizes", "total")

    def __init__(self) -> None:
        self._sizes: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._numbers = itertools.count()
        #: Sum of all sizes.
        self.total = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def size(self, key: K) -> int:
        """Return the size of a key, 0 when it has none."""
        return self._sizes.get(key, 0)

    def add(self, key: K, change: int) -> None:
        """Change the size of a key by `change`; a key whose size falls to 0 is forgotten."""
        size = self._sizes.get(key, 0) + change
        self.total += change
        if size > 0:
            self._sizes[key] = size
            heapq.heappush(self._heap, (-size, next(self._numbers), key))
        else:
            self._sizes.pop(key, None)
        if len(self._heap) > OUTDATED_PER_KEY * len(self._sizes) + OUTDATED_SPARE:
            self._heap = [(-size, next(self._numbers), key) for key, size in self._sizes.items()]
            heapq.heapify(self._heap)

    def largest(self) -> K | None:
        """Return the key with the largest size, the earliest of equal ones; None when there are no keys."""
        while self._heap:
            size, _, key = self._heap[0]
            if self._sizes.get(key) == -size:
                return key
            heapq.heappop(self._heap)
        return None
