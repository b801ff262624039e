"""Keeps frames for later use, bounded in bytes for each stream and in total, and in age. Pure; times in seconds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

#: Share of the bytes that one stream may use; one frame always fits.
STREAM_SHARE: Final = 0.25
#: Estimated memory of a frame beside its bytes.
FRAME_COST_BYTES: Final = 400

#: A frame's term and id: ids repeat when a stream ends and begins again.
Number = tuple[int, int]

V = TypeVar("V")


class HeldFrames(Generic[V]):
    """Frames, or pictures, by stream and number, bounded in bytes and age; the oldest is dropped first.

    The router keeps pictures of alerts in it, the bridge the frames that it sent.

    Args:
        max_bytes: most bytes in total; the oldest is dropped first, and one frame always fits. 0: nothing is kept.
        max_age_s: age after which a frame is dropped, in seconds; None: never.
        stream_bytes: most bytes of one stream; None: `STREAM_SHARE` of `max_bytes`.

    Attributes:
        bytes: bytes of all frames, with `FRAME_COST_BYTES` for each.
    """

    def __init__(self, max_bytes: int, *, max_age_s: float | None = None, stream_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._stream_bytes = int(max_bytes * STREAM_SHARE) if stream_bytes is None else stream_bytes
        self._max_age_s = max_age_s
        self._frames: OrderedDict[tuple[str, Number], tuple[float, V, int]] = OrderedDict()
        self._numbers: dict[str, OrderedDict[Number, None]] = {}
        self._of_stream: dict[str, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, stream: str, number: Number, frame: V, size_bytes: int, now: float) -> bool:
        """Keep a frame. Returns False when it is kept already, or nothing is kept at all."""
        self.prune(now)
        if not self._max_bytes or (stream, number) in self._frames:
            return False
        size_bytes += FRAME_COST_BYTES
        self._frames[stream, number] = now, frame, size_bytes
        numbers = self._numbers.setdefault(stream, OrderedDict())
        numbers[number] = None
        self.bytes += size_bytes
        self._of_stream[stream] = self._of_stream.get(stream, 0) + size_bytes
        while self._of_stream[stream] > self._stream_bytes and len(numbers) > 1:
            self._drop(stream, next(iter(numbers)))
        while self.bytes > self._max_bytes and len(self._frames) > 1:
            self._drop(*next(iter(self._frames)))
        return True

    def find(self, stream: str, number: Number) -> V | None:
        """Return the frame with this number, None when it is not kept."""
        found = self._frames.get((stream, number))
        return None if found is None else found[1]

    def newest(self, stream: str, frame_id: int) -> Number | None:
        """Return the number of the newest frame with this id, None when there is none."""
        for number in reversed(self._numbers.get(stream, ())):
            if number[1] == frame_id:
                return number
        return None

    def prune(self, now: float) -> None:
        """Drop frames over the age limit."""
        while self._max_age_s is not None and self._frames:
            (stream, number), (came, _, _) = next(iter(self._frames.items()))
            if now - came <= self._max_age_s:
                return
            self._drop(stream, number)

    def _drop(self, stream: str, number: Number) -> None:
        _, _, size_bytes = self._frames.pop((stream, number))
        self.bytes -= size_bytes
        self._of_stream[stream] -= size_bytes
        del self._numbers[stream][number]
        if not self._numbers[stream]:
            del self._numbers[stream], self._of_stream[stream]
