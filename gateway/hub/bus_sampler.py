"""Selects the frames that one receiver on the bus gets, at the rate that it wants. Pure; `now` in seconds."""

from __future__ import annotations

from typing import Final

from watchout.common.media.frames import Frame
from watchout.common.media.rate import Sampler

#: A frame that is no picture is sent this part of an interval of the rate after a picture, or later: longer than a
#: picture is delayed to be sent with others (`gateway.router_client.COALESCING_SHARE`).
APART: Final = 0.25


class BusSampler:
    """Selects the frames of a publication for one member, or for the router, evenly and at most `max_fps` per second.

    The newest frame over the rate waits until the rate permits it, so that a burst arrives up to its last frame.

    A frame that is no picture is of use to JSON viewers alone, and whether the member has any is not known here. So
    these frames use up nothing of the rate of pictures, but have the same rate once more. They are sent after a picture
    that waits, and a later picture replaces them: the ids of the frames that are sent rise. They keep some distance to
    a picture before them, which may wait for a moment in front of the connection, where a newer frame replaces it.

    Of a codec with delta frames only key frames wait, and a delta frame without its predecessor is not sent.

    Args:
        max_fps: frames per second; None: all frames are selected.

    Attributes:
        picture: The picture that waits.
        other: The frame that waits and is no picture.
    """

    __slots__ = ("_max_fps", "_others", "_others_from", "_pictures", "_sent_id", "other", "picture")

    def __init__(self, max_fps: float | None) -> None:
        self._max_fps = max_fps
        self._pictures = Sampler(max_fps)
        #: Made when first needed: most cameras send pictures only.
        self._others: Sampler | None = None
        #: No such frame is sent before.
        self._others_from = float("-inf")
        self._sent_id = -1
        self.picture: Frame | None = None
        self.other: Frame | None = None

    def set_rate(self, max_fps: float | None) -> None:
        """Change the rate. Frames that were selected before still count."""
        self._max_fps = max_fps
        self._pictures.set_rate(max_fps)
        if self._others is not None:
            self._others.set_rate(max_fps)

    def offer(self, frame: Frame, now: float) -> bool:
        """Return whether `frame`, the newest one, is sent now. If not, it waits, or is of no use to the receiver."""
        if self._max_fps is None:
            selected = True
        elif frame.is_key_picture:
            selected = self._take_picture(now)
            if not selected:
                self._pictures.hold(now)
                self.picture, self.other = frame, None
        elif frame.is_picture:  # a delta frame
            selected = frame.frame_id == self._sent_id + 1 and self._take_picture(now)
        else:
            if self._others is None:
                self._others = Sampler(self._max_fps)
            selected = self.picture is None and now >= self._others_from and self._others.take(now)
            if not selected:
                self._others.hold(now)
                self.other = frame
        if selected:
            self._sent_id = frame.frame_id
            self.picture = self.other = None
        return selected

    def release(self, now: float) -> Frame | None:
        """Remove and return the frame that waited and is sent now, if there is one."""
        release_at = self.release_at()
        if release_at is None or (release_at > now and self._max_fps is not None):
            return None
        released = self.picture or self.other
        if self.picture is not None:
            self.picture = None
            self._take_picture(now)
        else:
            self.other = None
            if self._others is not None:
                self._others.take(now)
        if released is not None:
            self._sent_id = released.frame_id
        return released

    def release_at(self) -> float | None:
        """Return when to call `release`, in seconds; None: nothing waits."""
        if self.picture is not None:
            return self._pictures.release_at()
        if self.other is None or self._others is None:
            return None
        return max(self._others.release_at(), self._others_from)

    def drop_waiting(self) -> None:
        """Drop the frames that wait."""
        self.picture = self.other = None

    def _take_picture(self, now: float) -> bool:
        if not self._pictures.take(now):
            return False
        if self._max_fps is not None:
            self._others_from = now + APART / self._max_fps
        return True
