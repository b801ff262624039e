"""The parts of a ``multipart/x-mixed-replace`` answer: how they are written, which a reader takes, and when. Pure.

`now` in seconds. What is known of readers was seen with them, and `tests/e2e/test_mjpeg_readers.py` sees to it:

- ffmpeg and what is built on its libavformat (OpenCV, PyAV, mpv) end at the first part that is no JPEG, and say that
  they accept everything.
- Chromium shows a part when the head of the next one has come; its tab crashes on a part whose size it cannot find.
- Firefox shows a part when the boundary after it has come, and passes over what it cannot decode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from watchout.common.media.codecs import Codec, pictures
from watchout.common.media.frames import Frame

BOUNDARY: Final = "watchout-frame"
FIRST_BOUNDARY: Final = f"--{BOUNDARY}\r\n".encode()
#: After a part the boundary of the next one follows at once: readers show a part when they have seen its end.
PART_END: Final = b"\r\n" + FIRST_BOUNDARY
#: A line of the head of the first part, for as long as there is no picture: readers pass over it, proxies go on.
WAITING_LINE: Final = b"X-Waiting: yes\r\n"
#: So many at most: heads of parts are bounded in readers too.
MAX_WAITING_LINES: Final = 1000
#: The newest part comes again after so long a silence, in seconds, and then every so often.
FIRST_AGAIN_S: Final = 1.0
AGAIN_EVERY_S: Final = 10.0

_ONLY_JPEG: Final = re.compile(r"Lavf/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Taste:
    """The pictures that a reader accepts: of these codecs (None: of all).

    `sized`: only those whose header states their size.
    """

    codecs: frozenset[Codec] | None = None
    sized: bool = False

    @classmethod
    def of(cls, accept: Iterable[str], user_agent: str) -> Taste:
        """By the values of the headers `Accept` and `User-Agent`.

        Who names types of images gets those; ``image/*`` stands for what every browser shows. Who names none gets
        all that is a picture, but for libavformat.
        """
        if _ONLY_JPEG.match(user_agent):
            return cls(frozenset({Codec.JPEG}), sized=True)
        named = {each.partition(";")[0].strip().lower() for value in accept for each in value.split(",")}
        codecs = {
            codec for codec in pictures() if not named.isdisjoint((codec.content_type, *codec.content_type_aliases))
        }
        if "image/*" in named:
            codecs |= {codec for codec in pictures() if codec.in_every_browser}
        return cls(frozenset(codecs), sized=True) if codecs else cls()

    def takes(self, codec: Codec) -> bool:
        """Whether the reader takes pictures of this codec."""
        return self.codecs is None or codec in self.codecs

    def can_show(self, frame: Frame) -> bool:
        """Whether this reader can show the picture of a frame of a codec that it takes."""
        return not self.sized or frame.codec.picture_size(frame.picture) is not None


def part_head(frame: Frame) -> bytes:
    """What stands before the picture of a frame; after it comes `PART_END`."""
    return (
        f"Content-Type: {frame.codec.content_type}\r\nContent-Length: {len(frame.picture)}\r\n"
        f"X-Frame-Id: {frame.frame_id}\r\nX-Frame-Time: {frame.timestamp}\r\n\r\n"
    ).encode("ascii")


class Silence:
    """When something has to be sent although no new picture came: the newest one again, or `WAITING_LINE`."""

    def __init__(self, now: float) -> None:
        self._waiting_lines = 0
        #: The time of the next one.
        self.until = now + AGAIN_EVERY_S

    def new_part(self, now: float) -> None:
        """A new picture was sent."""
        self.until = now + FIRST_AGAIN_S

    def same_part(self, now: float) -> None:
        """The newest one was sent again."""
        self.until = now + AGAIN_EVERY_S

    def waiting_line(self, now: float) -> bool:
        """A `WAITING_LINE` is to be sent; False when there were too many."""
        self._waiting_lines += 1
        self.until = now + AGAIN_EVERY_S
        return self._waiting_lines <= MAX_WAITING_LINES
