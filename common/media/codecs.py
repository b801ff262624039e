"""The registry of codecs: how encoded pictures are recognized, named, numbered and dropped. Pure; no codec is run.

Everything that differs between codecs is a field of `Codec`. To add one, register it at the end of this file; the
gateway, the bus, the ML targets and the operator's tool look it up here.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

import pybase64

from watchout.common.media import picture_size
from watchout.common.media.drop_policy import NEWEST_WINS, STANDALONE, DropPolicy, FrameKind
from watchout.common.media.picture_size import MAX_PIXELS, Size

#: Number of bytes at the beginning of a picture that identify its codec.
SNIFF_BYTES: Final = 48
#: The same in characters of base64.
SNIFF_CHARS: Final = SNIFF_BYTES // 3 * 4


def _never(first: bytes) -> bool:  # noqa: ARG001 - the signature of `Codec.matches`
    return False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Codec:
    """A way to encode pictures, and everything that watchout does differently for it. Compared by identity.

    Attributes:
        name: Name in logs and messages to clients, in capitals.
        label: Name in messages to people.
        value: Number on the bus, below 256.
        number: Number in the header of a binary frame (docs/protocol.md, "Binary frames"): `value`, or 0 when binary
            frames cannot state this codec. A codec with delta frames needs one.
        content_type: Media type, for HTTP.
        content_type_aliases: Other media types that readers ask for it by.
        extension: Ending of a file name, without a dot.
        matches: Returns a true value when the first `SNIFF_BYTES` bytes of a payload are of this codec.
        size_of: Reads width and height from a whole picture (`common.media.picture_size`), None when it cannot be read.
        in_every_browser: Whether ``Accept: image/*`` stands for it.
        drop_policy: Which frames a queue may drop.
        is_key_frame: Returns whether a payload can be decoded by itself. Called only when `drop_policy` needs key
            frames.
    """

    OPAQUE: ClassVar[Codec]
    JPEG: ClassVar[Codec]
    PNG: ClassVar[Codec]
    WEBP: ClassVar[Codec]
    GIF: ClassVar[Codec]
    AVIF: ClassVar[Codec]
    HEIC: ClassVar[Codec]

    name: str
    label: str
    value: int
    number: int = 0
    content_type: str
    content_type_aliases: tuple[str, ...] = ()
    extension: str
    matches: Callable[[bytes], object] = _never
    size_of: Callable[[bytes], Size | None] | None = None
    in_every_browser: bool = False
    drop_policy: DropPolicy = NEWEST_WINS
    is_key_frame: Callable[[bytes | memoryview], bool] | None = None

    def __repr__(self) -> str:
        return f"Codec.{self.name}"

    @property
    def is_picture(self) -> bool:
        """Whether a payload of this codec is a picture, which can be shown and be analysed by the ML service."""
        return self is not Codec.OPAQUE

    def kind_of(self, payload: bytes | memoryview) -> FrameKind:
        """Return what queues have to know about a frame with this payload."""
        if self.drop_policy is NEWEST_WINS or self.is_key_frame is None:
            return STANDALONE
        return FrameKind(self.drop_policy, self.is_key_frame(payload))

    def picture_size(self, picture: bytes) -> Size | None:
        """Return width and height in pixels; None when the header states no size, or one that no browser shows."""
        if self.size_of is None:
            return None
        try:
            size = self.size_of(picture)
        except (struct.error, IndexError):  # the picture ends within its header
            return None
        return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


#: Codecs by their number on the bus, in the order in which payloads are compared with them.
BY_VALUE: Final[dict[int, Codec]] = {}
#: The same with their matchers, without `Codec.OPAQUE`, which nothing matches.
_MATCHERS: Final[list[tuple[Callable[[bytes], object], Codec]]] = []
#: Codecs by their number in binary frames.
BY_NUMBER: Final[dict[int, Codec]] = {}


def register(codec: Codec) -> Codec:
    """Add a codec to the registry and return it. Raises `ValueError` when one of its numbers is taken or invalid."""
    if not 0 <= codec.value < 256 or codec.value in BY_VALUE or codec.number not in (0, codec.value):
        raise ValueError(f"{codec.name} has the numbers {codec.value} and {codec.number}, expected free ones")
    BY_VALUE[codec.value] = codec
    if codec.matches is not _never:
        _MATCHERS.append((codec.matches, codec))
    if codec.number == codec.value:
        BY_NUMBER[codec.number] = codec
    known_pictures.cache_clear()
    return codec


def unregister(codec: Codec) -> None:
    """Remove a codec. For tests that registered one of their own."""
    del BY_VALUE[codec.value]
    if codec.matches is not _never:
        _MATCHERS.remove((codec.matches, codec))
    BY_NUMBER.pop(codec.value, None)
    known_pictures.cache_clear()


def pictures() -> list[Codec]:
    """Return the codecs of pictures: all but `Codec.OPAQUE`."""
    return [codec for codec in BY_VALUE.values() if codec.is_picture]


@functools.cache
def known_pictures() -> str:
    """Return the names of the codecs of pictures, for messages to people: ``JPEG, PNG or WebP``."""
    *others, last = (codec.label for codec in pictures())
    return f"{', '.join(others)} or {last}"


def numbers_in_words(table: Iterable[int]) -> str:
    """Return the numbers of a table of codecs for an error text: ``0 to 3``, or each one where there are gaps."""
    numbers = sorted(table)
    if numbers == list(range(len(numbers))):
        return f"0 to {numbers[-1]}"
    return "one of " + ", ".join(map(str, numbers))


def sniff(picture: bytes | memoryview) -> Codec:
    """Return the codec that the first bytes of a payload identify, `Codec.OPAQUE` when they are of none."""
    first = bytes(picture[:SNIFF_BYTES])
    for matches, codec in _MATCHERS:
        if matches(first):
            return codec
    return Codec.OPAQUE


def sniff_base64(text: bytes, begin: int, end: int) -> Codec:
    r"""Return the codec that the base64 in ``text[begin:end]`` identifies, `Codec.OPAQUE` for what is not base64.

    It may have the escapes of a JSON string, as in ``\/9j\/``.
    """
    if text.startswith(JPEG_TEXTS, begin, end):
        return Codec.JPEG
    first = text[begin : min(end, begin + SNIFF_CHARS)]
    if b"\\" in first:
        first = _first_characters(text, begin, end)
    try:
        return sniff(pybase64.b64decode(first + b"=" * (-len(first) % 4), validate=True))
    except ValueError:
        return Codec.OPAQUE


def _first_characters(text: bytes, begin: int, end: int) -> bytes:
    """Return the first `SNIFF_CHARS` characters that ``text[begin:end]`` stands for, without line breaks."""
    size = SNIFF_CHARS * _LONGEST_ESCAPE
    while True:
        stop = min(end, begin + size)
        first = _ESCAPE.sub(_unescaped, text[begin:stop])
        if stop == end or len(first) >= SNIFF_CHARS + _LONGEST_ESCAPE:  # the last escape may be cut
            return first[:SNIFF_CHARS]
        size *= 4


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code, character = escape.groups()
    return bytes.fromhex(code.decode()) if code is not None else b"" if character in b"nr" else character


#: An escape of a JSON string that a text of ASCII may have.
_ESCAPE: Final = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|([^u]))")
_LONGEST_ESCAPE: Final = 6
JPEG_BYTES: Final = b"\xff\xd8\xff"
#: The first characters of a JPEG in base64: three bytes make exactly four characters.
JPEG_BASE64: Final = pybase64.b64encode(JPEG_BYTES)
#: The same as JSON encoders write them that escape slashes, too.
JPEG_TEXTS: Final = (JPEG_BASE64, JPEG_BASE64.replace(b"/", rb"\/"))
#: ISO base media files (ISO/IEC 14496-12) begin with a box `ftyp`: its size, major brand, version, compatible brands.
_FTYP: Final = re.compile(rb"(.{4})ftyp((?:.{4})+)", re.DOTALL)
#: Major brands that state only "a HEIF picture" (or sequence); the compatible brands then name the codec.
_ANY_HEIF: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})


def _has_brand(*brands: bytes) -> Callable[[bytes], bool]:
    """Return a matcher of ISO base media files whose major brand, or a compatible one where that is general, fits."""
    wanted = frozenset(brands)

    def matches(first: bytes) -> bool:
        ftyp = _FTYP.match(first)
        if ftyp is None:
            return False
        size, listed = int.from_bytes(ftyp[1], "big"), ftyp[2]
        names = [listed[at : at + 4] for at in range(0, min(len(listed), max(4, size - 8)), 4)]
        major, compatible = names[0], names[2:]  # names[1] is the version
        return major in wanted or (major in _ANY_HEIF and not wanted.isdisjoint(compatible))

    return matches


Codec.OPAQUE = register(
    Codec(name="OPAQUE", label="opaque bytes", value=0, content_type="application/octet-stream", extension="bin")
)
Codec.JPEG = register(
    Codec(
        name="JPEG",
        label="JPEG",
        value=1,
        number=1,
        content_type="image/jpeg",
        content_type_aliases=("image/jpg",),
        extension="jpg",
        matches=re.compile(JPEG_BYTES).match,
        size_of=picture_size.jpeg,
        in_every_browser=True,
    )
)
Codec.PNG = register(
    Codec(
        name="PNG",
        label="PNG",
        value=2,
        number=2,
        content_type="image/png",
        extension="png",
        matches=re.compile(rb"\x89PNG\r\n\x1a\n").match,
        size_of=picture_size.png,
        in_every_browser=True,
    )
)
Codec.WEBP = register(
    Codec(
        name="WEBP",
        label="WebP",
        value=3,
        number=3,
        content_type="image/webp",
        extension="webp",
        matches=re.compile(rb"RIFF.{4}WEBP", re.DOTALL).match,
        size_of=picture_size.webp,
        in_every_browser=True,
    )
)
Codec.GIF = register(
    Codec(
        name="GIF",
        label="GIF",
        value=4,
        content_type="image/gif",
        extension="gif",
        matches=re.compile(rb"GIF8[79]a").match,
        size_of=picture_size.gif,
        in_every_browser=True,
    )
)
Codec.AVIF = register(
    Codec(
        name="AVIF",
        label="AVIF",
        value=5,
        content_type="image/avif",
        extension="avif",
        matches=_has_brand(b"avif", b"avis"),
        size_of=picture_size.heif,
    )
)
Codec.HEIC = register(
    Codec(
        name="HEIC",
        label="HEIC",
        value=6,
        content_type="image/heic",
        content_type_aliases=("image/heif",),
        extension="heic",
        matches=_has_brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
        size_of=picture_size.heif,
    )
)
