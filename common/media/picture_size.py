"""Readers of a picture's width and height from its header, one for each file format. Pure; no codec is run.

`common.media.codecs` has one for each codec and calls it. A reader takes the whole picture and returns its size in
pixels, or None when the header states none or is damaged; it may raise `struct.error` or `IndexError` when the picture
ends early. A decoder cannot show a picture without a valid size. Chromium 156 even crashes the tab when a part of
``multipart/x-mixed-replace`` is such a picture, so browsers must not get it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

#: Largest number of pixels that a browser decodes.
MAX_PIXELS: Final = 1 << 28
#: Segments of a JPEG's header that are read before it counts as damaged. Cameras write a few dozen at most.
MAX_SEGMENTS: Final = 1000

#: Start-of-frame markers that browsers decode: baseline, extended sequential and progressive.
_FRAME_HEADERS: Final = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAME_HEADERS: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
#: Markers without a length: TEM and RST0 to RST7.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_ISPE: Final = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)

#: Width and height, in pixels.
Size = tuple[int, int]


def jpeg(picture: bytes) -> Size | None:
    """Return the size in the start-of-frame segment (ITU-T T.81, B.2.2) before the first scan."""
    size: Size | None = None
    at = 2
    for _ in range(MAX_SEGMENTS):
        if picture[at] != 0xFF:
            return None
        while picture[at] == 0xFF:  # T.81, B.1.1.2: any number of fill bytes may precede a marker
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


def png(picture: bytes) -> Size | None:
    """Return the size in the ``IHDR`` chunk, if an ``IDAT`` chunk follows."""
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


def gif(picture: bytes) -> Size | None:
    """Return the size of the logical screen, or where that is 0 the size of the first image."""
    width, height, flags = struct.unpack_from("<HHB", picture, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while picture[at] == 0x21:  # extensions, each made of sub-blocks
        at += 2
        while picture[at]:
            at += 1 + picture[at]
        at += 1
    image_width, image_height = struct.unpack_from("<HH", picture, at + 5)
    return (width or image_width, height or image_height) if picture[at] == 0x2C else None


def webp(picture: bytes) -> Size | None:
    """Return the size in the ``VP8X``, ``VP8L`` or ``VP8`` chunk of a complete file."""
    size, kind, _ = struct.unpack_from("<I4x4sI", picture, 4)
    if len(picture) < 8 + size:  # decoders show nothing of an incomplete file
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(picture[24:27], "little"), 1 + int.from_bytes(picture[27:30], "little")
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", picture, 20)
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)) if signature == 0x2F else None
    code, width, height = struct.unpack_from("<3sHH", picture, 23)
    return (width & 0x3FFF, height & 0x3FFF) if kind == b"VP8 " and code == b"\x9d\x01\x2a" else None


def heif(picture: bytes) -> Size | None:
    """Return the size in the first ``ispe`` property (ISO/IEC 23008-12) of a complete AVIF or HEIC file."""
    at, kinds = 0, set()
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        if length == 1:
            (length,) = struct.unpack_from(">Q", picture, at + 8)
        elif length == 0:  # the box extends to the end of the file
            length = len(picture) - at
        if length < 8 or at + length > len(picture):
            return None
        kinds.add(kind)
        at += length
    found = _ISPE.search(picture) if {b"ftyp", b"meta"} <= kinds else None
    return None if found is None else (int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big"))
