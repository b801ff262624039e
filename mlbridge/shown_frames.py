"""Keeps the frames that were sent to the ML service lately, so that the picture of an alert's frame is available. Pure.

Bounded in bytes, for each stream and in total, and in age. The frames of alerts are kept apart from all others, so that
frames without alerts do not replace them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from watchout.common.media.frames import Frame, FrameFault
from watchout.common.media.held_frames import HeldFrames

#: Share of the bytes for frames of alerts; the rest is for all frames.
KEPT_SHARE: Final = 0.5


class ShownFrames:
    """The frames that one bridge sent to the ML service lately, so that an alert about one of them has its picture.

    The dispatcher adds each frame that it sends; `AlertSender` looks up the frame of an alert by `find`, and keeps it
    longer by `keep`. Past a bound the oldest frames are dropped, and an alert about one has no picture.

    Args:
        max_bytes: most bytes of pictures (``ML_RING_BYTES``); 0: none is kept.
        max_age_s: age after which a frame without an alert is dropped, in seconds.
        clock: returns a monotonic time in seconds.
    """

    def __init__(self, *, max_bytes: int, max_age_s: float, clock: Callable[[], float]) -> None:
        kept = int(max_bytes * KEPT_SHARE)
        self._clock = clock
        self._turnover: HeldFrames[Frame] = HeldFrames(max_bytes - kept, max_age_s=max_age_s)
        self._kept: HeldFrames[Frame] = HeldFrames(kept)

    def __len__(self) -> int:
        return len(self._turnover) + len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes of the frames that are kept: at most `max_bytes`, or one frame of each kind."""
        return self._turnover.bytes + self._kept.bytes

    def add(self, frame: Frame) -> None:
        """Keep a frame that is sent to the ML service, if it holds a picture."""
        try:
            picture, codec = frame.picture, frame.codec
        except FrameFault:
            return
        # The picture alone: the camera's message around it, and other encodings, are not kept.
        lean = Frame(frame.stream_id, frame.frame_id, frame.timestamp, term=frame.term, picture=picture, codec=codec)
        self._turnover.put(frame.stream_id, (frame.term, frame.frame_id), lean, len(picture), self._clock())

    def find(self, stream: str, frame_id: int, term: int | None = None) -> Frame | None:
        """Return a frame that is still kept, None otherwise; without a `term` the newest with that id."""
        self._turnover.prune(self._clock())
        for shelf in (self._turnover, self._kept):
            number = shelf.newest(stream, frame_id) if term is None else (term, frame_id)
            found = None if number is None else shelf.find(stream, number)
            if found is not None:
                return found
        return None

    def keep(self, frame: Frame) -> None:
        """Keep a frame that `find` returned as the frame of an alert."""
        number = frame.term, frame.frame_id
        self._kept.put(frame.stream_id, number, frame, len(frame.picture), self._clock())
