"""What waits for one slow peer of the bus: the newest frame of each stream, in fair turns, bounded in bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from watchout.common.media.drop_policy import STANDALONE, AwaitedKeyFrames, FrameKind

#: Frames that wait for one peer hold so many bytes together, or one frame more than that.
MAX_BACKLOG_BYTES: Final = 32 << 20

F = TypeVar("F")


class PeerQueue(Generic[F]):
    """One slot per key; a key is a stream, with the one member that a frame is for if there is one.

    A newer frame takes the place of the older one and its turn: whoever began to wait first goes first, and stands
    behind all others after that. Past `max_bytes` the frame whose turn is next gives way, so that the newest always
    has room. `put == taken + replaced + dropped` + those that wait.

    `awaited`: the keys of which a frame was dropped that later ones depend on. While there are any, every frame has to
    pass through `put`, which drops those that cannot be decoded any more.
    """

    __slots__ = ("_max_bytes", "_slots", "awaited", "bytes", "dropped", "replaced")

    def __init__(self, max_bytes: int = MAX_BACKLOG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._slots: OrderedDict[Hashable, tuple[F, int, FrameKind]] = OrderedDict()
        self.awaited = AwaitedKeyFrames()
        self.bytes = 0
        self.replaced = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, key: Hashable, frame: F, size: int, kind: FrameKind = STANDALONE) -> None:
        """Queue a frame of `size` bytes, in place of an older one of its key, or drop it if its `kind` demands that."""
        older = self._slots.get(key)
        if kind is not STANDALONE and not self.awaited.admits(key, None if older is None else older[2], kind):
            self.dropped += 1
            return
        if older is not None:
            self.bytes -= older[1]
            self.replaced += 1
        self._slots[key] = frame, size, kind
        self.bytes += size
        while self.bytes > self._max_bytes and len(self._slots) > 1:
            first = next(iter(self._slots))
            if first == key:  # its turn is next, but it is the newest of all: the one behind it gives way
                self._slots.move_to_end(key)
                first = next(iter(self._slots))
            _, size, kind = self._slots.pop(first)
            self.bytes -= size
            self.dropped += 1
            self.awaited.dropped(first, kind)

    def take(self) -> F:
        """The frame whose turn it is. Raises `KeyError` when nothing waits."""
        if not self._slots:
            raise KeyError("nothing waits")
        key = next(iter(self._slots))
        frame, size, _ = self._slots.pop(key)
        self.bytes -= size
        return frame

    def clear(self) -> None:
        """Nobody will take what waits."""
        self.dropped += len(self._slots)
        for key, (_, _, kind) in self._slots.items():
            self.awaited.dropped(key, kind)
        self._slots.clear()
        self.bytes = 0
