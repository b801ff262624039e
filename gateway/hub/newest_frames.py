"""Bounds the memory of the newest frames of all streams: past it the least recent ones are evicted. Pure."""

from __future__ import annotations

from collections import OrderedDict


class NewestFrames:
    """Sizes of the newest frames by key, the least recent first. `Delivery` keeps the frames themselves.

    Args:
        max_bytes: Most bytes of all frames together; one single frame may exceed it.

    Attributes:
        total: Bytes of all frames.
        evicted: Frames evicted so far.
    """

    __slots__ = ("_max_bytes", "_sizes", "evicted", "total")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self.total = self.evicted = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def put(self, key: str, size_bytes: int) -> list[str]:
        """Enter a newer frame under `key` as the most recent one. Returns the keys whose frames are to be discarded."""
        self.total += size_bytes - self._sizes.get(key, 0)
        self._sizes[key] = size_bytes
        self._sizes.move_to_end(key)
        return self._evict() if self.total > self._max_bytes else []

    def resize(self, key: str, size_bytes: int) -> list[str]:
        """Correct the size of the frame under `key`, if there is one. Returns as `put`."""
        if key not in self._sizes:
            return []
        self.total += size_bytes - self._sizes[key]
        self._sizes[key] = size_bytes
        return self._evict()

    def remove(self, key: str) -> None:
        """Remove the entry under `key`, if there is one."""
        self.total -= self._sizes.pop(key, 0)

    def _evict(self) -> list[str]:
        evicted: list[str] = []
        while self.total > self._max_bytes and len(self._sizes) > 1:
            key, size_bytes = self._sizes.popitem(last=False)
            self.total -= size_bytes
            evicted.append(key)
        self.evicted += len(evicted)
        return evicted
