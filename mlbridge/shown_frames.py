"""The frames that were lately shown to the ML service, so that an alert's very frame can be had.

Pure; the clock is given.
Bounded in bytes, per stream and in all, and in age. `keep` takes a frame out of the turnover: the frames of alerts are
not pushed out by those that nobody spoke of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from watchout.common.media.frames import Frame, FrameFault
from watchout.common.media.held_frames import HeldFrames

#: Frames of alerts may hold this part of the bytes, the rest is for the turnover.
KEPT_SHARE: Final = 0.5


class ShownFrames:
    """The ring of one bridge. With `max_bytes` 0 nothing is held. `clock` gives seconds, monotonic."""

    def __init__(self, *, max_bytes: int, max_age_s: float, clock: Callable[[], float]) -> None:
        kept = int(max_bytes * KEPT_SHARE)
        self._clock = clock
        self._turnover: HeldFrames[Frame] = HeldFrames(max_bytes - kept, max_age_s=max_age_s)
        self._kept: HeldFrames[Frame] = HeldFrames(kept)

    def __len__(self) -> int:
        return len(self._turnover) + len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes that are held: at most `max_bytes`, or one frame for the turnover and one for alerts."""
        return self._turnover.bytes + self._kept.bytes

    def sent(self, frame: Frame) -> None:
        """A frame goes to the ML service. One that holds no picture is passed over."""
        try:
            picture, codec = frame.picture, frame.codec
        except FrameFault:
            return
        # The picture alone: what the camera wrote around it, and other forms of it, are not held for this.
        lean = Frame(frame.stream_id, frame.frame_id, frame.timestamp, term=frame.term, picture=picture, codec=codec)
        self._turnover.put(frame.stream_id, (frame.term, frame.frame_id), lean, len(picture), self._clock())

    def find(self, stream: str, frame_id: int, term: int | None = None) -> Frame | None:
        """A frame that was sent and is still held; without a `term` the newest of that id."""
        self._turnover.prune(self._clock())
        for shelf in (self._turnover, self._kept):
            number = shelf.newest(stream, frame_id) if term is None else (term, frame_id)
            found = None if number is None else shelf.find(stream, number)
            if found is not None:
                return found
        return None

    def keep(self, frame: Frame) -> None:
        """Hold this frame, which `find` gave, as long as there is room for the frames of alerts."""
        number = frame.term, frame.frame_id
        self._kept.put(frame.stream_id, number, frame, len(frame.picture), self._clock())
