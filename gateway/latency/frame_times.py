"""When the frames of a stream were captured, by those of them that were sampled: for alerts that come without their
frame, over ``POST /alerts``. Pure; times in ms since the epoch by the clock of this host.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

#: A sampled frame is kept when the one kept before it was captured at least so long before, in ms.
APART_MS: Final = 900.0
#: Most frames of a stream that are kept: those of about a minute.
MAX_KEPT: Final = 64
#: Most streams of which frames are kept; past it the one whose last sample is the oldest gives way.
MAX_STREAMS: Final = 500
#: Between two kept frames that are further apart, in ms, it is not known when the others were captured: the camera
#: paused at one end of the gap.
LONGEST_GAP_MS: Final = 2_500.0


class SampledFrame(NamedTuple):
    """A frame whose time of capture is known."""

    frame_id: int
    #: By the camera's clock.
    timestamp: int
    captured: float


class FrameTimes:
    """The sampled frames of the streams of one gateway; `LatencyRecorder` has one.

    A camera's frames follow each other steadily between two samples, so a frame between them was captured as much later
    than the first as its number is further. Where the alert says the timestamp of its frame too, and that fits within
    the time of one frame, it is exact.
    """

    def __init__(self) -> None:
        self._streams: OrderedDict[str, deque[SampledFrame]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: str, frame_id: int, timestamp: int, captured: float) -> None:
        """Take a sampled frame of which it is known when it was captured."""
        kept = self._streams.get(stream)
        if kept is None:
            if len(self._streams) >= MAX_STREAMS:
                self._streams.popitem(last=False)
            kept = self._streams[stream] = deque(maxlen=MAX_KEPT)
        else:
            self._streams.move_to_end(stream)
        if kept and frame_id <= kept[-1].frame_id:
            if frame_id == kept[-1].frame_id:
                return
            kept.clear()  # a new stream of this id, whose frames are numbered from 1
        if not kept or captured - kept[-1].captured >= APART_MS:
            kept.append(SampledFrame(frame_id, timestamp, captured))

    def find(self, stream: str, frame_id: int, timestamp: int, now: float) -> float | None:
        """Return when a frame was captured.

        Args:
            stream: id of the stream.
            frame_id: number of the frame.
            timestamp: what is said to be its timestamp; it may be any other time.
            now: the time.

        Returns:
            The time of capture; None: it is not known.
        """
        kept = self._streams.get(stream)
        if not kept:
            return None
        place = next((at for at in range(len(kept) - 1, -1, -1) if kept[at].frame_id <= frame_id), None)
        if place is None:
            return None  # of too long ago
        first = kept[place]
        if first.frame_id == frame_id:
            return first.captured
        follows = place + 1 < len(kept)
        if not follows and not place:
            return None
        one, other = (first, kept[place + 1]) if follows else (kept[place - 1], first)
        gap = other.captured - one.captured
        if not 0 < gap <= LONGEST_GAP_MS:
            return None
        step = gap / (other.frame_id - one.frame_id)
        found = first.captured + (frame_id - first.frame_id) * step
        if not follows and (found > now + step or found - first.captured > LONGEST_GAP_MS):
            return None  # there is no such frame yet, as far as is known
        exact = first.captured + (timestamp - first.timestamp)
        return min(exact if abs(exact - found) <= step else found, now)
