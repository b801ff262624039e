"""The size that a picture says of itself, by its head alone. Pure; no codec is run.

A picture whose size a decoder cannot find is none that it can show. A tab of Chromium crashes when a part of
``multipart/x-mixed-replace`` is such a picture (seen with Chromium 156), so browsers must not get it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from watchout.common.media.codecs import Codec

#: More pixels than this no browser decodes.
MAX_PIXELS: Final = 1 << 28
#: Headers of a JPEG that are looked at: cameras write a few dozen at most.
MAX_SEGMENTS: Final = 1000

#: Baseline, extended and progressive: what browsers decode.
_FRAME_HEADERS: Final = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAME_HEADERS: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
#: Markers that stand alone, without a length: TEM and RST0 to RST7.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_ISPE: Final = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)

Size = tuple[int, int]


def picture_size(picture: bytes, codec: Codec) -> Size | None:
    """Width and height in pixels; None when its head does not say them, or says what cannot be shown."""
    reader = _READERS.get(codec)
    if reader is None:
        return None
    try:
        size = reader(picture)
    except (struct.error, IndexError):  # it ends before that
        return None
    return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


def _jpeg(picture: bytes) -> Size | None:
    size: Size | None = None
    at = 2
    for _ in range(MAX_SEGMENTS):
        if picture[at] != 0xFF:
            return None
        while picture[at] == 0xFF:  # any number of them may come before a marker
            at += 1
        marker = picture[at]
        at += 1
        if marker in _BARE:
            continue
        if marker == _START_OF_SCAN:
            return size
        (length,) = struct.unpack_from(">H", picture, at)
        if marker == _END or marker in _OTHER_FRAME_HEADERS or length < 2:
            return None
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", picture, at + 3)
            size = width, height
        at += length
    return None


def _png(picture: bytes) -> Size | None:
    length, kind, width, height = struct.unpack_from(">I4sII", picture, 8)
    if (length, kind) != (13, b"IHDR"):
        return None
    at = 8 + 12 + 13
    while True:
        length, kind = struct.unpack_from(">I4s", picture, at)
        if kind == b"IDAT":
            return width, height
        if kind == b"IEND":
            return None
        at += 12 + length


def _gif(picture: bytes) -> Size | None:
    width, height, flags = struct.unpack_from("<HHB", picture, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while picture[at] == 0x21:  # extensions, each of sub-blocks
        at += 2
        while picture[at]:
            at += 1 + picture[at]
        at += 1
    image_width, image_height = struct.unpack_from("<HH", picture, at + 5)
    return (width or image_width, height or image_height) if picture[at] == 0x2C else None


def _webp(picture: bytes) -> Size | None:
    size, kind, _ = struct.unpack_from("<I4x4sI", picture, 4)
    if len(picture) < 8 + size:  # of half a one nothing is shown
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(picture[24:27], "little"), 1 + int.from_bytes(picture[27:30], "little")
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", picture, 20)
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)) if signature == 0x2F else None
    code, width, height = struct.unpack_from("<3sHH", picture, 23)
    return (width & 0x3FFF, height & 0x3FFF) if kind == b"VP8 " and code == b"\x9d\x01\x2a" else None


def _heif(picture: bytes) -> Size | None:
    at, kinds = 0, set()
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        if length == 1:
            (length,) = struct.unpack_from(">Q", picture, at + 8)
        elif length == 0:  # up to the end
            length = len(picture) - at
        if length < 8 or at + length > len(picture):
            return None
        kinds.add(kind)
        at += length
    found = _ISPE.search(picture) if {b"ftyp", b"meta"} <= kinds else None
    return None if found is None else (int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big"))


_READERS: Final = {
    Codec.JPEG: _jpeg, Codec.PNG: _png, Codec.GIF: _gif, Codec.WEBP: _webp, Codec.AVIF: _heif, Codec.HEIC: _heif,
}  # fmt: skip
