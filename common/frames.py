"""One video frame and its two encodings, JSON and binary (docs/protocol.md, "Frames"). Pure.

A `Frame` keeps what the camera sent and makes each other form at most once, however many ask for it.
No codec is run here: a picture is looked at only for its first bytes.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec
import pybase64

from common.alerts import STREAM_ID
from common.messages import EVERYBODY, FORM_JSON_TEXT, FORM_PICTURE, BusFrame

#: magic, version, kind, flags, frame id, timestamp, codec, length of the stream id
_BINARY: Final = struct.Struct(">BBBBIQBB")
BINARY_MAGIC: Final = 0x57
BINARY_VERSION: Final = 1
KIND_VIDEO_FRAME: Final = 1
MAX_TIMESTAMP: Final = 2**53 - 1
_DATA_URL: Final = re.compile(rb"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
_WHITE_SPACE: Final = b" \t\r\n"


#: See `Frame.json_message`.
MakeMessage = Callable[[bytes, int, int, bytes, int, int], bytes]


class Codec(enum.IntEnum):
    """How a picture is encoded; the number is the wire's."""

    OPAQUE = 0
    JPEG = 1
    PNG = 2
    WEBP = 3

    @property
    def content_type(self) -> str:
        """The media type, for HTTP."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES: Final = {
    Codec.OPAQUE: "application/octet-stream",
    Codec.JPEG: "image/jpeg",
    Codec.PNG: "image/png",
    Codec.WEBP: "image/webp",
}


class FrameFault(ValueError):
    """Bytes that are no frame, or `data` that is no picture; the text says what came and what was expected."""


def sniff(picture: bytes) -> Codec:
    """The codec that the first bytes show."""
    if picture.startswith(b"\xff\xd8\xff"):
        return Codec.JPEG
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return Codec.PNG
    if picture.startswith(b"RIFF") and picture[8:12] == b"WEBP":
        return Codec.WEBP
    return Codec.OPAQUE


def decode_text(token: bytes) -> bytes:
    """The picture in a JSON string token (quotes included): base64, with or without a ``data:`` prefix.

    White space in it is passed over, as MIME encoders put it there. Raises `FrameFault`.
    """
    text = token[1:-1]
    if b"\\" in text:
        try:
            text = msgspec.json.decode(token, type=str).encode()
        except (msgspec.DecodeError, UnicodeError) as exc:
            raise FrameFault(f"data is no JSON text: {exc}") from None
    if text[:5].lower() == b"data:":
        prefix = _DATA_URL.match(text[:256])
        if prefix is None:
            raise FrameFault("data begins with data: but has no ;base64, in its first 256 characters")
        text = text[prefix.end() :]
    try:
        picture = pybase64.b64decode(text, validate=True)
    except ValueError:
        try:
            picture = pybase64.b64decode(text.translate(None, _WHITE_SPACE), validate=True)
        except ValueError as exc:
            raise FrameFault(f"data is not base64: {exc}") from None
    if not picture:
        raise FrameFault("data is empty, expected an encoded picture")
    return picture


@lru_cache(maxsize=4096)
def json_head(stream_id: str) -> bytes:
    """How each frame of a stream begins as a JSON message, up to its frame id."""
    return b'{"type":"video-frame","streamId":"%b","frameId":' % stream_id.encode("ascii")


def payload_at(message: bytes, begin: int) -> int:
    """Where the base64 begins in a text that begins at `begin`: after its ``data:`` prefix, if it has one."""
    if message[begin] | 0x20 != 0x64:  # "d" or "D"; such base64 is rare but may be
        return begin
    prefix = _DATA_URL.match(message, begin, begin + 256)
    return begin if prefix is None else prefix.end()


class Frame:
    """One frame of one stream. `picture` and `text` are made when first asked for, and kept.

    It is made of what the camera sent: `text`, of which `span` is the JSON string token of `data`, or `picture`.
    `timestamp` is the camera's, in ms since the epoch; `term` the claim under which it was sent.
    `json_wire` and `binary_wire` are for the gateway: finished WebSocket messages, shared by all viewers.
    """

    __slots__ = (
        "_begin", "_codec", "_end", "_fault", "_holder", "_picture", "_picture_at", "_sent_as_text", "binary_wire",
        "frame_id", "json_wire", "stream_id", "term", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: str,
        frame_id: int,
        timestamp: int,
        *,
        term: int = 0,
        text: bytes | None = None,
        span: tuple[int, int] | None = None,
        picture: bytes | None = None,
        codec: Codec | None = None,
    ) -> None:
        if (text is None) is (picture is None):
            raise ValueError("a frame is made of either text or picture")
        self.stream_id = stream_id
        self.frame_id = frame_id
        self.timestamp = timestamp
        self.term = term
        self.json_wire: bytes | None = None
        self.binary_wire: bytes | None = None
        self._sent_as_text = text is not None
        self._holder = text
        self._begin, self._end = span or (0, 0 if text is None else len(text))
        self._picture = picture
        self._picture_at = 0
        self._codec: int | None = codec
        self._fault: str | None = None

    @classmethod
    def of_message(
        cls, stream_id: str, frame_id: int, timestamp: int, term: int, message: bytes, begin: int, end: int, codec: int
    ) -> Frame:
        """The frame in a finished message: the text between its quotes (`codec` -1), or the picture at its end."""
        frame = cls.__new__(cls)
        frame.stream_id = stream_id
        frame.frame_id = frame_id
        frame.timestamp = timestamp
        frame.term = term
        frame._picture = frame._fault = None
        if codec < 0:
            frame.json_wire = frame._holder = message
            frame.binary_wire = frame._codec = None
            frame._sent_as_text = True
            frame._begin, frame._end = begin - 1, end + 1
        else:
            frame.binary_wire = message
            frame.json_wire = frame._holder = None
            frame._codec = codec
            frame._sent_as_text = False
            frame._begin = frame._end = 0
            frame._picture_at = begin
        return frame

    @property
    def picture(self) -> bytes:
        """The encoded picture. Raises `FrameFault` when the camera's text holds none."""
        if self._picture is None:
            if not self._sent_as_text:
                self._picture = bytes(self._sent_picture())
                return self._picture
            if self._fault is not None:
                raise FrameFault(self._fault)
            try:
                self._picture = decode_text(bytes(self.text))
            except FrameFault as fault:
                self._fault = str(fault)
                raise
        return self._picture

    @property
    def base64(self) -> bytes | memoryview:
        """The picture in base64, nothing around it: the camera's own text where it is just that, and not kept.

        Raises `FrameFault` as `picture` does.
        """
        picture = self.picture
        if self._sent_as_text:
            token = self.text
            # A prefix, an escape or white space would make it longer; it was decoded, so it is base64.
            if len(token) - 2 == (len(picture) + 2) // 3 * 4:
                return token[1:-1]
        return pybase64.b64encode(picture)

    @property
    def text(self) -> memoryview:
        """The JSON string token of `data`, quotes included: unchanged when the camera sent JSON."""
        holder, begin, end = self.held_text()
        return memoryview(holder)[begin:end]

    def json_message(self, make: MakeMessage) -> bytes:
        """The frame as a finished message, by ``make(head, frame_id, timestamp, text, begin, end)``; kept from now on.

        `text` is then held as a part of it, and not a second time.
        """
        holder, begin, end = self._holder, self._begin, self._end
        if holder is None:
            holder, begin, end = self.held_text()
        head = json_head(self.stream_id)
        self.json_wire = wire = make(head, self.frame_id, self.timestamp, holder, begin + 1, end - 1)
        self._holder = wire
        self._end = last = len(wire) - 1
        self._begin = last - (end - begin)
        return wire

    def held_text(self) -> tuple[bytes, int, int]:
        """`text` as a part of longer bytes: from where to where."""
        if self._holder is None:
            text = b'"' + pybase64.b64encode(self._sent_picture()) + b'"'
            self._holder, self._end = text, len(text)
        return self._holder, self._begin, self._end

    @property
    def codec(self) -> Codec:
        """What the camera said, or what the picture's first bytes show. Raises `FrameFault` as `picture` does."""
        if self._codec is None:
            self._codec = int(sniff(self.picture))
        return Codec(self._codec)

    @property
    def size_bytes(self) -> int:
        """Bytes that this frame holds in memory, finished messages included."""
        held = (self._holder, self._picture, self.binary_wire)  # the JSON message, once made, is the holder or in it
        return sum(len(part) for part in held if part is not None)

    def to_json(self) -> bytes:
        """The frame as a JSON message of the edge protocol."""
        head = b'%b%d,"timestamp":%d,"data":' % (json_head(self.stream_id), self.frame_id, self.timestamp)
        return b"".join((head, self.text, b"}"))

    def binary_parts(self) -> tuple[bytes, bytes]:
        """The frame as a binary message of the edge protocol, in two parts. Raises `FrameFault` as `picture` does."""
        picture = self.picture
        name = self.stream_id.encode("ascii")
        head = _BINARY.pack(
            BINARY_MAGIC, BINARY_VERSION, KIND_VIDEO_FRAME, 0, self.frame_id, self.timestamp, self.codec, len(name)
        )
        return head + name, picture

    def to_binary(self) -> bytes:
        """The frame as a binary message of the edge protocol. Raises `FrameFault` as `picture` does."""
        return b"".join(self.binary_parts())

    def to_bus(self, to: bytes = EVERYBODY) -> bytes:
        """The frame as it crosses the bus, in one."""
        return b"".join(self.bus_parts(to))

    def bus_parts(self, to: bytes = EVERYBODY) -> tuple[bytes, bytes | memoryview]:
        """The frame as it crosses the bus: in the form that the camera sent, so that nothing is converted twice."""
        payload: bytes | memoryview
        if self._sent_as_text:
            form, codec, payload = FORM_JSON_TEXT, 0, self.text
        else:
            form, codec, payload = FORM_PICTURE, self._codec or 0, self._sent_picture()
        return BusFrame(self.stream_id, self.term, self.frame_id, self.timestamp, form, codec, payload, to).parts()

    def _sent_picture(self) -> bytes | memoryview:
        """The picture that the camera sent as it is: held by itself, or as the end of its message."""
        if self._picture is not None:
            return self._picture
        assert self.binary_wire is not None
        return memoryview(self.binary_wire)[self._picture_at :]

    @classmethod
    def from_bus(cls, frame: BusFrame) -> Frame:
        """The frame that another process pushed."""
        if frame.form == FORM_JSON_TEXT:
            return cls(
                frame.stream, frame.frame_id, frame.timestamp, term=frame.term, text=bytes(frame.payload)
            )  # no copy
        return cls(
            frame.stream,
            frame.frame_id,
            frame.timestamp,
            term=frame.term,
            picture=bytes(frame.payload),  # no copy
            codec=Codec(frame.codec),
        )


@dataclass(frozen=True, slots=True)
class BinaryFrame:
    """A binary message as it came: `stream_id` None means the camera's own, `timestamp` None the server's time."""

    stream_id: str | None
    frame_id: int
    timestamp: int | None
    codec: Codec
    picture: bytes


def parse_binary(data: bytes) -> BinaryFrame:
    """A binary message of the edge protocol. Raises `FrameFault`."""
    if len(data) < _BINARY.size:
        raise FrameFault(f"binary message of {len(data)} bytes, expected a header of {_BINARY.size} bytes")
    magic, version, kind, flags, frame_id, timestamp, codec, length = _BINARY.unpack_from(data)
    for name, came, expected in (("magic", magic, BINARY_MAGIC), ("version", version, BINARY_VERSION),
                                 ("kind", kind, KIND_VIDEO_FRAME), ("flags", flags, 0)):  # fmt: skip
        if came != expected:
            raise FrameFault(f"binary header has {name} {came:#x}, expected {expected:#x}")
    if codec > Codec.WEBP:
        raise FrameFault(f"binary header has codec {codec}, expected 0 to {Codec.WEBP}")
    if timestamp > MAX_TIMESTAMP:
        raise FrameFault(f"binary header has timestamp {timestamp}, expected at most {MAX_TIMESTAMP} ms")
    at = _BINARY.size + length
    if len(data) <= at:
        raise FrameFault(f"binary message of {len(data)} bytes ends before its picture, expected more than {at}")
    stream_id: str | None = None
    if length:
        stream_id = data[_BINARY.size : at].decode("latin-1")
        if not STREAM_ID.match(stream_id):
            raise FrameFault(f"stream id {stream_id[:40]!a}, expected 1 to 128 of A-Z a-z 0-9 _ . : -")
    return BinaryFrame(stream_id, frame_id, timestamp or None, Codec(codec), data[at:])
