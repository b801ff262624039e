"""Encoded pictures, known by their first bytes: the one registry of codecs. Pure; no codec is run.

A codec has a name, the first bytes that show it, a media type, a file name extension, and the number that binary frames
have for it (docs/protocol.md, "Binary frames"), if they have one. `OPAQUE` is everything that is no known picture.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import pybase64

#: So many bytes at the beginning show any codec.
SNIFF_BYTES: Final = 48
#: The same in base64.
SNIFF_CHARS: Final = SNIFF_BYTES // 3 * 4


class Codec(enum.Enum):
    """How a picture is encoded. The value numbers codecs on the bus; `number` is the one of binary frames."""

    OPAQUE = 0
    JPEG = 1
    PNG = 2
    WEBP = 3
    GIF = 4
    AVIF = 5
    HEIC = 6

    @property
    def content_type(self) -> str:
        """The media type, for HTTP."""
        return _CONTENT_TYPES[self]

    @property
    def extension(self) -> str:
        """The ending of a file's name, without a dot."""
        return _EXTENSIONS[self]

    @property
    def number(self) -> int:
        """The number in a binary frame's header; 0, opaque, for a codec that has none there."""
        return self.value if self.value <= LAST_NUMBER else 0

    @property
    def is_picture(self) -> bool:
        """Whether it is the codec of a picture, which may be shown and looked at."""
        return self is not Codec.OPAQUE


#: The highest number of a codec in a binary frame's header, and on the bus.
LAST_NUMBER: Final = 3
LAST_VALUE: Final = max(codec.value for codec in Codec)

_CONTENT_TYPES: Final = {
    Codec.OPAQUE: "application/octet-stream",
    Codec.JPEG: "image/jpeg",
    Codec.PNG: "image/png",
    Codec.WEBP: "image/webp",
    Codec.GIF: "image/gif",
    Codec.AVIF: "image/avif",
    Codec.HEIC: "image/heic",
}
_EXTENSIONS: Final = {
    Codec.OPAQUE: "bin",
    Codec.JPEG: "jpg",
    Codec.PNG: "png",
    Codec.WEBP: "webp",
    Codec.GIF: "gif",
    Codec.AVIF: "avif",
    Codec.HEIC: "heic",
}
#: The names of what is known, for messages to people.
KNOWN: Final = "JPEG, PNG, WebP, GIF, AVIF or HEIC"

_JPEG: Final = b"\xff\xd8\xff"
_SIGNATURES: Final = (
    (Codec.JPEG, re.compile(_JPEG)),
    (Codec.PNG, re.compile(rb"\x89PNG\r\n\x1a\n")),
    (Codec.WEBP, re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    (Codec.GIF, re.compile(rb"GIF8[79]a")),
)
#: ISO base media files (ISO/IEC 14496-12) begin with a box `ftyp`: its size, the major brand, a version, more brands.
_FTYP: Final = re.compile(rb"(.{4})ftyp((?:.{4})+)", re.DOTALL)
_BRANDS: Final = (
    (Codec.AVIF, frozenset({b"avif", b"avis"})),
    (Codec.HEIC, frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})),
)
#: Major brands that say only "a HEIF picture" (or sequence) and leave the codec to the brands that follow.
_ANY_HEIF: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
#: How the base64 of a JPEG begins: its first three bytes, exactly.
JPEG_BASE64: Final = pybase64.b64encode(_JPEG)


def sniff(picture: bytes | memoryview) -> Codec:
    """The codec that the first bytes show: `Codec.OPAQUE` for what is no known picture."""
    first = bytes(picture[:SNIFF_BYTES])
    for codec, signature in _SIGNATURES:
        if signature.match(first):
            return codec
    ftyp = _FTYP.match(first)
    return Codec.OPAQUE if ftyp is None else _by_brands(ftyp)


def _by_brands(ftyp: re.Match[bytes]) -> Codec:
    size, brands = int.from_bytes(ftyp[1], "big"), ftyp[2]
    names = [brands[at : at + 4] for at in range(0, min(len(brands), max(4, size - 8)), 4)]
    major, others = names[0], names[2:]  # between them stands a version
    for codec, brands_of in _BRANDS:
        if major in brands_of or (major in _ANY_HEIF and brands_of.intersection(others)):
            return codec
    return Codec.OPAQUE


def sniff_base64(text: bytes, begin: int, end: int) -> Codec:
    """The codec that the first characters of base64 show, of ``text[begin:end]``. What is not base64 is opaque."""
    if text.startswith(JPEG_BASE64, begin, end):
        return Codec.JPEG
    first = text[begin : min(end, begin + SNIFF_CHARS)]
    try:
        return sniff(pybase64.b64decode(first + b"=" * (-len(first) % 4), validate=True))
    except ValueError:
        return Codec.OPAQUE
