"""The frames that wait for one peer of the bus: newest wins per queue key, bounded, sent as the credit allows. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from watchout.common.media.drop_policy import STANDALONE, AwaitedKeyFrames, FrameKind
from watchout.common.media.frames import kind_on_bus

#: Largest sum of the sizes of queued frames, in bytes; one frame may exceed it when it is the only one.
MAX_QUEUED_BYTES: Final = 32 << 20
#: Most frames queued at once: with `MAX_QUEUED_BYTES` it bounds the memory that small frames of many streams take.
MAX_QUEUED_FRAMES: Final = 65_536

#: A frame in parts, which are sent as one message. The header is within the first part.
Parts = tuple[bytes | memoryview, ...]


class Credit(Protocol):
    """Tells a `PeerQueue` whether a peer accepts frames now; each kind of connection has its own.

    `frame_connection.ConnectionCredit`: while the write buffer of a stream connection is not full.
    `credit.WindowCredit`: while the peer has acknowledged enough bytes, over TCP, where libzmq's own queue cannot be
    bounded in bytes.
    """

    @property
    def exhausted(self) -> bool:
        """Whether frames have to wait."""

    def spend(self, size: int) -> None:
        """A frame of `size` bytes was handed to the connection."""


class PeerQueue:
    """Frames for one peer: sent at once while there is credit, queued otherwise. One queue per peer and direction.

    It holds at most one frame per queue key (a stream, or a stream and the one member that a frame is for). A newer
    frame replaces the older one and keeps its turn; the key that was queued first is sent first. Past `max_bytes` or
    `max_frames` the frame whose turn is next is dropped, never the one just offered. With delta frames, the codec's
    drop policy decides what is replaced, and after a drop no frame is sent before the next key frame.

    Frames offered = `sent` + `dropped` + those that are queued (`len`).

    Args:
        key_of: Returns the queue key of a frame, from its first part. Called only for a frame that has to be queued.
        write: Hands (parts, size in bytes) to the connection; returns False when the connection did not take the frame,
            which then stays queued until the next `pump`.
        credit: Says when frames have to wait.
        max_bytes: Bound of the queue in bytes.
        max_frames: Bound of the queue in frames.

    """

    __slots__ = (
        "_awaited", "_credit", "_key_of", "_max_bytes", "_max_frames", "_queued", "_write", "bytes", "evicted",
        "replaced", "sent", "sent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        key_of: Callable[[bytes | memoryview], Hashable],
        write: Callable[[Parts, int], bool],
        credit: Credit,
        *,
        max_bytes: int = MAX_QUEUED_BYTES,
        max_frames: int = MAX_QUEUED_FRAMES,
    ) -> None:
        self._key_of = key_of
        self._write = write
        self._credit = credit
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._queued: OrderedDict[Hashable, tuple[Parts, int, FrameKind]] = OrderedDict()
        #: Keys of which frames have to pass through the queue, because some of them have to be dropped.
        self._awaited = AwaitedKeyFrames()
        #: Sum of the sizes of the queued frames.
        self.bytes = 0
        #: Frames that the connection took.
        self.sent = 0
        #: Their sizes together.
        self.sent_bytes = 0
        #: Queued frames that a newer one of their key replaced.
        self.replaced = 0
        #: Frames dropped because a bound was exceeded, because they cannot be decoded without one that was dropped, or
        #: by `clear`.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def dropped(self) -> int:
        """Frames that were queued and not sent."""
        return self.replaced + self.evicted

    def passes(self, size: int) -> bool:
        """Return whether a frame may be sent past the queue, because nothing waits; it is counted as sent then.

        For callers that know that there is credit, and send the frame at once: every frame to a fast peer.

        Args:
            size: The frame's size in bytes.

        """
        if self._queued or self._awaited.keys:
            return False
        self.sent += 1
        self.sent_bytes += size
        return True

    def offer(self, parts: Parts, *, delayed: bool = False) -> None:
        """Send a frame, or queue it when there is no credit or other frames are queued.

        Args:
            parts: The frame.
            delayed: Queue it in any case, until the next `pump`, which the caller schedules.

        """
        size = sum(map(len, parts))
        if delayed:
            self._put(parts, size)
        elif self._queued or self._awaited.keys or self._credit.exhausted:
            self._put(parts, size)
            self.pump()
        elif not self._send(parts, size):
            self._put(parts, size)

    def pump(self) -> None:
        """Send queued frames as far as the credit goes. Called when there is credit again."""
        while self._queued and not self._credit.exhausted:
            key, (parts, size, kind) = self._queued.popitem(last=False)
            self.bytes -= size
            if not self._send(parts, size):
                self.bytes += size
                self._queued[key] = parts, size, kind
                self._queued.move_to_end(key, last=False)
                return

    def clear(self) -> None:
        """Drop all queued frames: the peer is gone."""
        self.evicted += len(self._queued)
        for key, (_, _, kind) in self._queued.items():
            self._awaited.dropped(key, kind)
        self._queued.clear()
        self.bytes = 0

    def _send(self, parts: Parts, size: int) -> bool:
        """Hand a frame to the connection and count it; False when the connection did not take it."""
        if not self._write(parts, size):
            return False
        self._credit.spend(size)
        self.sent += 1
        self.sent_bytes += size
        return True

    def _put(self, parts: Parts, size: int) -> None:
        """Queue a frame, or drop it if its codec's policy demands that; then drop what exceeds the bounds."""
        key = self._key_of(parts[0])
        kind = kind_on_bus(parts)
        older = self._queued.get(key)
        if kind is not STANDALONE and not self._awaited.admits(key, None if older is None else older[2], kind):
            self.evicted += 1
            return
        if older is not None:
            self.bytes -= older[1]
            self.replaced += 1
        self._queued[key] = parts, size, kind
        self.bytes += size
        while len(self._queued) > 1 and (self.bytes > self._max_bytes or len(self._queued) > self._max_frames):
            first = next(iter(self._queued))
            if first == key:  # the frame just offered is never dropped: the one behind it is
                self._queued.move_to_end(key)
                first = next(iter(self._queued))
            _, size, kind = self._queued.pop(first)
            self.bytes -= size
            self._awaited.dropped(first, kind)
            self.evicted += 1
