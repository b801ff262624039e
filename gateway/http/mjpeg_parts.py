"""The parts of a ``multipart/x-mixed-replace`` response: their bytes, who accepts which, and when to send. Pure.

`now` in seconds. The behaviour of readers was observed, and is checked by `tests/e2e/test_mjpeg_readers.py`:

- ffmpeg and programs on its libavformat (OpenCV, PyAV, mpv) stop at the first part that is not JPEG, although they
  send `Accept: */*`.
- Chromium shows a part when the header of the next one arrives; its tab crashes on a picture without a readable size.
- Firefox shows a part when the boundary after it arrives, and ignores what it cannot decode.
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
#: The boundary of the next part follows each part at once: readers show a part when they have seen its end.
PART_END: Final = b"\r\n" + FIRST_BOUNDARY
#: Header line of the first part, sent while there is no picture yet: readers ignore it, proxies see traffic.
WAITING_LINE: Final = b"X-Waiting: yes\r\n"
#: Most of these lines: readers limit the header of a part.
MAX_WAITING_LINES: Final = 1000
#: The newest part is repeated after this many seconds without a new one, and then at this interval.
FIRST_REPEAT_S: Final = 1.0
REPEAT_EVERY_S: Final = 10.0

_ONLY_JPEG: Final = re.compile(r"Lavf/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AcceptedPictures:
    """The pictures that the reader of an MJPEG response can show; made by `StreamPages.mjpeg` from the request.

    Attributes:
        codecs: The codecs it accepts; None: all.
        sized: It accepts only pictures whose header contains their size.
    """

    codecs: frozenset[Codec] | None = None
    sized: bool = False

    @classmethod
    def of(cls, accept: Iterable[str], user_agent: str) -> AcceptedPictures:
        """Return what a reader with these values of the headers `Accept` and `User-Agent` accepts.

        Image types that it names, of which ``image/*`` stands for what every browser shows. Without any, all pictures;
        libavformat accepts JPEG only.
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

    def accepts(self, codec: Codec) -> bool:
        """Return whether the reader accepts pictures of this codec."""
        return self.codecs is None or codec in self.codecs

    def can_show(self, frame: Frame) -> bool:
        """Return whether the reader can show the picture of a frame whose codec it accepts."""
        return not self.sized or frame.codec.picture_size(frame.picture) is not None


def part_head(frame: Frame) -> bytes:
    """Return the header of a part; the picture follows, then `PART_END`."""
    return (
        f"Content-Type: {frame.codec.content_type}\r\nContent-Length: {len(frame.picture)}\r\n"
        f"X-Frame-Id: {frame.frame_id}\r\nX-Frame-Time: {frame.timestamp}\r\n\r\n"
    ).encode("ascii")


class RepeatTimer:
    """Decides when an MJPEG response repeats the newest picture, or sends `WAITING_LINE`, because none arrived. Made by
    `Mjpeg`.

    Attributes:
        due: Time of the next repetition, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._waiting_lines = 0
        self.due = now + REPEAT_EVERY_S

    def on_new_part(self, now: float) -> None:
        """Record that a new picture was sent."""
        self.due = now + FIRST_REPEAT_S

    def on_repeated_part(self, now: float) -> None:
        """Record that the newest picture was repeated."""
        self.due = now + REPEAT_EVERY_S

    def take_waiting_line(self, now: float) -> bool:
        """Return whether a `WAITING_LINE` may be sent; False after too many: the caller ends the response."""
        self._waiting_lines += 1
        self.due = now + REPEAT_EVERY_S
        return self._waiting_lines <= MAX_WAITING_LINES
