"""A codec with key frames and delta frames, for tests of the places that drop frames.

A payload states its number and whether it is a key frame. A delta frame needs the frame with the number before it;
`Decoder` fails where it did not get that one.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from watchout.common.media.codecs import Codec, register, unregister
from watchout.common.media.drop_policy import KEY_FRAMES
from watchout.common.media.frames import Frame

_MAGIC = b"FAKE"
_HEAD = struct.Struct(">4scI")
FAKE = Codec(
    name="FAKE",
    label="fake",
    value=7,
    number=7,
    content_type="video/x-fake",
    extension="fake",
    matches=lambda first: first.startswith(_MAGIC),
    drop_policy=KEY_FRAMES,
    is_key_frame=lambda payload: bytes(payload[4:5]) == b"K",
)


@contextlib.contextmanager
def registered() -> Iterator[Codec]:
    """Register the codec for the time of a test."""
    register(FAKE)
    try:
        yield FAKE
    finally:
        unregister(FAKE)


def payload(number: int, *, key: bool, size: int = 20) -> bytes:
    """Return the encoded frame `number` of a stream, of `size` bytes."""
    return _HEAD.pack(_MAGIC, b"K" if key else b"D", number).ljust(size, b".")


def frame(number: int, *, key: bool, stream: str = "door", term: int = 1) -> Frame:
    """Return the same as the frame of a stream with this id."""
    return Frame(stream, number, 0, term=term, picture=payload(number, key=key), codec=FAKE)


class Decoder:
    """Decodes the frames that a receiver gets. `decoded` are their numbers, `deltas` counts the delta frames.

    `after`: the number of a frame that counts as decoded before, None: there was none.
    """

    def __init__(self, after: int | None = None) -> None:
        self._last = after
        self.decoded: list[int] = []
        self.deltas = 0

    def decode(self, data: bytes) -> None:
        """Decode a message that ends with a payload. Fails on a delta frame without its predecessor."""
        at = data.index(_MAGIC)
        _, kind, number = _HEAD.unpack_from(data, at)
        if kind == b"D":
            self.deltas += 1
            assert self._last == number - 1, f"delta frame {number} came after frame {self._last}"
        self._last = number
        self.decoded.append(number)
