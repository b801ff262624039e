"""How many bytes the newest frames of all streams hold together; past the bound the oldest give way. Pure."""

from __future__ import annotations

from collections import OrderedDict


class NewestBytes:
    """Sizes by stream, in the order in which their frames came; not over `max_bytes`, but always room for one."""

    __slots__ = ("_max_bytes", "_sizes", "evicted", "total")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        #: Bytes of all together, and how many frames gave way so far.
        self.total = self.evicted = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def came(self, stream: str, size_bytes: int) -> list[str]:
        """A stream has a new newest frame, of so many bytes. Returns the streams whose frame gives way."""
        self.total += size_bytes - self._sizes.get(stream, 0)
        self._sizes[stream] = size_bytes
        self._sizes.move_to_end(stream)
        return self._make_room() if self.total > self._max_bytes else []

    def grew(self, stream: str, size_bytes: int) -> list[str]:
        """The frame of a stream holds so many bytes now. Returns the streams whose frame gives way."""
        if stream not in self._sizes:
            return []
        self.total += size_bytes - self._sizes[stream]
        self._sizes[stream] = size_bytes
        return self._make_room()

    def drop(self, stream: str) -> None:
        """A stream has no newest frame any more."""
        self.total -= self._sizes.pop(stream, 0)

    def _make_room(self) -> list[str]:
        gone: list[str] = []
        while self.total > self._max_bytes and len(self._sizes) > 1:
            stream, size_bytes = self._sizes.popitem(last=False)
            self.total -= size_bytes
            gone.append(stream)
        self.evicted += len(gone)
        return gone
