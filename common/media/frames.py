"""One video frame and its two encodings, JSON and binary (docs/protocol.md, "Frames"). Pure.

A `Frame` keeps the encoding that the publisher sent, and makes the other one at most once, on first use. No codec is
run: only the first bytes of a picture are read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

import pybase64

from watchout.common.alerts.model import STREAM_ID
from watchout.common.bus.frames import (
    EVERYBODY,
    FORM_BINARY_MESSAGE,
    FORM_JSON_FIELDS,
    FORM_JSON_MESSAGE,
    FORM_JSON_TEXT,
    FORM_PICTURE,
    BusFrame,
    codec_on_bus,
    decode_frame,
    message_head,
)
from watchout.common.errors import BusError
from watchout.common.latency.stamps import FrameStamps
from watchout.common.media.codecs import (
    BY_NUMBER,
    BY_VALUE,
    JPEG_BYTES,
    JPEG_TEXTS,
    Codec,
    known_pictures,
    numbers_in_words,
    sniff,
    sniff_base64,
)
from watchout.common.media.drop_policy import NEWEST_WINS, STANDALONE, FrameKind
from watchout.common.toolbox.jsontext import JsonFault, read_json

#: magic, version, kind, flags, frame id, timestamp, codec, length of the stream id
_BINARY: Final = struct.Struct(">BBBBIQBB")
BINARY_MAGIC: Final = 0x57
BINARY_VERSION: Final = 1
KIND_VIDEO_FRAME: Final = 1
MAX_TIMESTAMP: Final = 2**53 - 1
#: A ``data:`` URL (RFC 2397) with parameters in any form and white space around them, as some publishers write it.
_DATA_URL: Final = re.compile(rb"\s*data:[^,]{0,200};\s*base64\s*,", re.IGNORECASE)
#: The same in a JSON string without escapes but those of slashes.
_PLAIN_DATA_URL: Final = re.compile(rb'data:(?:[^,"\\\x00-\x1f\x7f-\xff]|\\/){0,200}; *base64 *,', re.IGNORECASE)
_PREFIX_BYTES: Final = 256
#: Length of ``,"data":``.
_DATA_KEY_BYTES: Final = 8
_WHITE_SPACE: Final = b" \t\r\n\f"
#: The alphabet of RFC 4648 section 5 in that of section 4.
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")
_NAMED: Final = re.compile(r"frame (\d{1,10}): ")
#: See `Frame.json_message`.
MakeMessage = Callable[[bytes, int, int, bytes, int, int, bytes], bytes]


class FrameFault(ValueError):
    """Bytes that are no frame, or a payload that is no picture; raised by `parse_binary` and by methods of `Frame`.

    The text says what was received and what is expected. The gateway rejects a message that is no frame, and reports a
    frame without a picture to the publisher, once per term.
    """


def decode_text(token: bytes | memoryview) -> bytes:
    """Decode base64 in a JSON string token (quotes included), with or without a ``data:`` prefix.

    Accepts base64 with or without padding, in either alphabet of RFC 4648, with white space (MIME), and percent-encoded
    after a ``data:`` prefix. Raises `FrameFault` for anything else, and when there are no bytes.
    """
    text: bytes | memoryview = memoryview(token)[1:-1]
    try:
        picture = pybase64.b64decode(text, validate=True)  # without a copy of the text: what cameras send
    except ValueError:
        picture = _decode_unusual(bytes(token))
    if not picture:
        raise FrameFault("data is empty, expected an encoded picture")
    return picture


def _decode_unusual(token: bytes) -> bytes:
    """Decode base64 in a JSON string token in any form that is accepted. Raises `FrameFault`."""
    text = token[1:-1]
    if b"\\" in text:
        try:
            text = str(read_json(token)).encode()
        except (JsonFault, UnicodeError):
            raise FrameFault("data is not base64: it holds what no text in UTF-8 does") from None
    text = _without_prefix(text)
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        return _decode_loosely(text)


def _without_prefix(text: bytes) -> bytes:
    start = text[:_PREFIX_BYTES].lstrip(_WHITE_SPACE)
    if start[:5].lower() != b"data:":
        return text
    prefix = _DATA_URL.match(text[:_PREFIX_BYTES])
    if prefix is None:
        raise FrameFault(f"data begins with data: but has no ;base64, in its first {_PREFIX_BYTES} characters")
    text = text[prefix.end() :]
    return unquote_to_bytes(text) if b"%" in text else text


def _decode_loosely(text: bytes) -> bytes:
    """Decode base64 in an unusual form. Raises `FrameFault`."""
    text = text.translate(_URL_SAFE, _WHITE_SPACE)
    if b"=" not in text:
        text += b"=" * (-len(text) % 4)
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise FrameFault(f"data is not base64: {_base64_fault(text)}") from None


def _base64_fault(text: bytes) -> str:
    """Return why a text without white space is not base64: what came, and what was expected."""
    characters = text.rstrip(b"=")
    if odd := _NOT_BASE64.search(characters):
        byte = odd[0][0]
        came = repr(chr(byte)) if 0x20 <= byte < 0x7F else f"the byte {byte:#04x}"
        return f"it holds {came}, expected A-Z a-z 0-9 + / (or - _), and = at its end only"
    if len(characters) % 4 == 1:
        return f"it has {len(characters)} characters without its padding, expected one more or one less"
    return f"it ends with {len(text) - len(characters)} of =, expected {-len(characters) % 4 or 'none'}"


@lru_cache(maxsize=4096)
def json_head(stream_id: str) -> bytes:
    """Return the beginning of each frame of a stream as a JSON message, up to its frame id."""
    return b'{"type":"video-frame","streamId":"%b","frameId":' % stream_id.encode("ascii")


def payload_at(message: bytes, begin: int) -> int:
    """Return the index of the base64 in a text that begins at `begin`: after its ``data:`` prefix, if it has one."""
    if message[begin] | 0x20 != 0x64:  # "d" or "D"; such base64 is rare but may be
        return begin
    prefix = _PLAIN_DATA_URL.match(message, begin, begin + _PREFIX_BYTES)
    return begin if prefix is None else prefix.end()


class Frame:
    """One frame of one stream. Created by the gateway for each message of a publisher, and by `from_bus` elsewhere.

    It holds what the publisher sent: a JSON message or a picture. The other form is made on first use and kept. The
    first bytes of the payload decide whether it is a picture, whatever codec the publisher stated.

    Attributes:
        stream_id: the stream.
        frame_id: number of the frame within the stream.
        timestamp: time of the publisher, in ms since the epoch.
        term: term of the claim under which it was published.
        more: fields of the JSON message that are passed on, as JSON members with a comma before each.
        json_wire: the finished WebSocket message for JSON viewers, shared by all; None: not made yet.
        binary_wire: the same for binary viewers.
        stamps: when it passed the points of its way, of a frame that was sampled for the latency ledger; else None.
    """

    __slots__ = (
        "_begin", "_claimed", "_codec", "_end", "_fault", "_holder", "_is_base64", "_picture", "_picture_at",
        "_sent_as_text", "binary_wire", "frame_id", "json_wire", "more", "stamps", "stream_id", "term", "timestamp",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: str,
        frame_id: int,
        timestamp: int,
        *,
        term: int = 0,
        text: bytes | None = None,
        picture: bytes | None = None,
        codec: Codec | None = None,
        is_base64: bool = False,
        more: bytes = b"",
    ) -> None:
        """Create a frame from exactly one of `text` and `picture`.

        Args:
            stream_id: the stream.
            frame_id: number of the frame.
            timestamp: time of the publisher, in ms since the epoch.
            term: term of the claim.
            text: the JSON string token of ``data``.
            picture: the payload of a binary frame.
            codec: the codec that the publisher stated for `picture`; None: none.
            is_base64: `text` is known to be base64, with or without a ``data:`` prefix and the escapes of JSON, so that
                its first characters identify the codec.
            more: other fields of the JSON message.
        """
        if (text is None) is (picture is None):
            raise ValueError("a frame is made of either text or picture")
        self.stream_id = stream_id
        self.frame_id = frame_id
        self.timestamp = timestamp
        self.term = term
        self.more = more
        self.json_wire: bytes | None = None
        self.binary_wire: bytes | None = None
        self.stamps: FrameStamps | None = None
        self._sent_as_text = text is not None
        self._is_base64 = is_base64
        self._holder = text
        self._begin, self._end = 0, 0 if text is None else len(text)
        self._picture = picture
        self._picture_at = 0
        self._claimed = codec
        #: The codec that the first bytes identify; None: not determined yet.
        self._codec: Codec | None = None
        self._fault: str | None = None

    @classmethod
    def of_message(
        cls,
        stream_id: str,
        frame_id: int,
        timestamp: int,
        term: int,
        message: bytes,
        begin: int,
        end: int,
        codec: int,
        more: bytes = b"",
        known: int = -1,
    ) -> Frame:
        """Create a frame from a WebSocket message with base64 (`codec` -1) or a picture in ``message[begin:end]``.

        `known`: the value of the codec that the first bytes identify; -1: not determined.
        """
        frame = cls.__new__(cls)
        frame.stream_id = stream_id
        frame.frame_id = frame_id
        frame.timestamp = timestamp
        frame.term = term
        frame.more = more
        frame._picture = frame._fault = frame.stamps = None
        if known >= 0:
            frame._codec = BY_VALUE[known]
        else:  # nearly all are JPEGs
            first = JPEG_TEXTS if codec < 0 else JPEG_BYTES
            frame._codec = Codec.JPEG if message.startswith(first, begin, end) else None
        frame._picture_at = begin
        if codec < 0:
            frame.json_wire = frame._holder = message
            frame.binary_wire = frame._claimed = None
            frame._sent_as_text = frame._is_base64 = True
            frame._begin, frame._end = begin - 1, end + 1
            return frame
        frame.binary_wire = message
        frame.json_wire = frame._holder = None
        frame._claimed = BY_NUMBER[codec]
        frame._sent_as_text = frame._is_base64 = False
        frame._begin = frame._end = 0
        if codec and (frame._codec or frame.codec).number != codec:  # the header is wrong
            frame._picture, frame.binary_wire = message[begin:], None
        return frame

    @property
    def codec(self) -> Codec:
        """The codec that the first bytes identify; `Codec.OPAQUE` for what is no picture or cannot be decoded."""
        if self._codec is None:
            self._codec = self._sniff()
        return self._codec

    @property
    def is_picture(self) -> bool:
        """Whether the payload is a picture of a known codec, for HTTP and for the ML service."""
        return (self._codec or self.codec) is not Codec.OPAQUE

    @property
    def kind(self) -> FrameKind:
        """What queues have to know about this frame: the drop policy of its codec, and whether it is a key frame."""
        codec = self._codec or self.codec
        return STANDALONE if codec.drop_policy is NEWEST_WINS else codec.kind_of(self._payload())

    @property
    def is_key(self) -> bool:
        """Whether a receiver can decode it without the frame before it, as far as its codec shows that."""
        codec = self._codec or self.codec
        return codec.drop_policy is NEWEST_WINS or self.kind.is_key

    @property
    def is_key_picture(self) -> bool:
        """Whether it is a picture that a receiver can decode without the frame before it."""
        codec = self._codec or self.codec
        return codec is not Codec.OPAQUE and (codec.drop_policy is NEWEST_WINS or self.kind.is_key)

    @property
    def declared_opaque(self) -> bool:
        """Whether the publisher stated codec 0: bytes for viewers that understand them, passed on as they are."""
        return self._claimed is Codec.OPAQUE

    @property
    def has_binary(self) -> bool:
        """Whether it can be sent as a binary message: a picture, or what the publisher declared as opaque."""
        return self._claimed is Codec.OPAQUE or (self._codec or self.codec) is not Codec.OPAQUE

    @property
    def picture(self) -> bytes:
        """The encoded picture. Raises `FrameFault` when the payload is none."""
        if self.codec is Codec.OPAQUE:
            raise FrameFault(self.fault)
        return self._payload()

    @property
    def fault(self) -> str:
        """Why the payload is no picture: what came and what was expected. Empty when it is one."""
        if self.codec is not Codec.OPAQUE:
            return ""
        if self._fault is None:
            try:
                came = self._payload()[:12].hex(" ")
                self._fault = f"data begins with {came}, expected the first bytes of {known_pictures()}"
            except FrameFault as fault:
                self._fault = str(fault)
        return self._fault

    @property
    def base64(self) -> bytes | memoryview:
        """The picture in base64: the publisher's own text if it is exactly that. Not kept.

        Raises `FrameFault` as `picture` does.
        """
        picture = self.picture
        if self._sent_as_text:
            holder, begin, end = self.held_text()
            begin, end = begin + 1, end - 1
            # A prefix, an escape or white space would make it longer, no padding shorter; it was decoded, so it is
            # base64, of one alphabet or the other.
            is_as_long = end - begin == (len(picture) + 2) // 3 * 4
            if is_as_long and holder.find(b"-", begin, end) < 0 and holder.find(b"_", begin, end) < 0:
                return memoryview(holder)[begin:end]
        return pybase64.b64encode(picture)

    @property
    def text(self) -> memoryview:
        """The JSON string token of `data`, quotes included: unchanged when the publisher sent JSON."""
        holder, begin, end = self.held_text()
        return memoryview(holder)[begin:end]

    def json_message(self, make: MakeMessage) -> bytes:
        """Return the finished JSON message, and keep it.

        `make(head, frame_id, timestamp, text, begin, end, more)` builds it from ``text[begin:end]``. The frame then
        holds its text as a part of the message, not a second time.
        """
        holder, begin, end = self._holder, self._begin, self._end
        if holder is None:
            holder, begin, end = self.held_text()
        head = json_head(self.stream_id)
        self.json_wire = wire = make(head, self.frame_id, self.timestamp, holder, begin + 1, end - 1, self.more)
        self._holder = wire
        self._end = last = len(wire) - 1
        self._begin = last - (end - begin)
        return wire

    def held_text(self) -> tuple[bytes, int, int]:
        """Return bytes that hold `text`, with begin and end."""
        if self._holder is None:
            text = b'"' + pybase64.b64encode(self._sent_picture()) + b'"'
            self._holder, self._end = text, len(text)
        return self._holder, self._begin, self._end

    @property
    def size_bytes(self) -> int:
        """Bytes that this frame holds in memory, with finished messages."""
        text, picture, binary = self._holder, self._picture, self.binary_wire  # the JSON message is the text's holder
        size = len(self.more) + (0 if text is None else len(text))
        if picture is not None:
            size += len(picture)
        return size if binary is None else size + len(binary)

    def compact(self) -> None:
        """Drop every form but the one that the publisher sent. The others are made again on use."""
        if self._sent_as_text:
            self._picture = self.binary_wire = None
            return
        self._holder = self.json_wire = None
        self._begin = self._end = 0
        if self._picture is not None:
            self.binary_wire = None

    def to_json(self) -> bytes:
        """Return the frame as a JSON message of the edge protocol."""
        head = b'%b%d,"timestamp":%d%b,"data":' % (
            json_head(self.stream_id), self.frame_id, self.timestamp, self.more,
        )  # fmt: skip
        return b"".join((head, self.text, b"}"))

    def binary_parts(self) -> tuple[bytes, bytes]:
        """Return the frame as a binary message of the edge protocol, in two parts: header and payload.

        Raises `FrameFault` as `picture` does, unless the publisher declared the payload as opaque.
        """
        if self.declared_opaque:
            payload, number = self._payload(), Codec.OPAQUE.number
        else:
            payload, number = self.picture, self.codec.number
        name = self.stream_id.encode("ascii")
        head = _BINARY.pack(
            BINARY_MAGIC, BINARY_VERSION, KIND_VIDEO_FRAME, 0, self.frame_id, self.timestamp, number, len(name)
        )
        return head + name, payload

    def to_binary(self) -> bytes:
        """Return the frame as a binary message of the edge protocol. Raises `FrameFault` as `binary_parts` does."""
        return b"".join(self.binary_parts())

    def to_bus(self, to: bytes = EVERYBODY) -> bytes:
        """Return the frame as it crosses the bus."""
        return b"".join(self.bus_parts(to))

    def bus_parts(self, to: bytes = EVERYBODY, stamp: bytes = b"") -> tuple[bytes, bytes | memoryview]:
        """Return the frame as it crosses the bus, in two parts: header and payload as the publisher sent it.

        The header of a text states the codec of the picture in it, that of a picture the codec that the publisher
        stated. `stamp`: the stamps of a frame to everybody, else nothing.
        """
        payload: bytes | memoryview
        if self._sent_as_text:
            form = FORM_JSON_FIELDS if self.more else FORM_JSON_TEXT
            codec, payload = self.codec.value, self.text
        else:
            said = self._claimed or BY_NUMBER[self.codec.number]
            form, codec, payload = FORM_PICTURE, said.number, self._sent_picture()
        return BusFrame(
            self.stream_id, self.term, self.frame_id, self.timestamp, form, codec, payload, to, self.more,
            stamp=stamp,
        ).parts()  # fmt: skip

    def mesh_parts(self, stamp: bytes = b"") -> tuple[bytes, bytes | memoryview]:
        """Return the frame as it goes straight to another member, in two parts.

        The finished message for viewers, when the publisher sent that form and it exists: the other gateway passes it
        on as it is. Else the same as `bus_parts`, also for `stamp`.
        """
        if self._sent_as_text and self._is_base64 and self.json_wire is not None:
            form, codec, payload = FORM_JSON_MESSAGE, (self._codec or self.codec).value, self.json_wire
            at, more = self._begin, len(self.more)
        elif not self._sent_as_text and self.binary_wire is not None:
            form, codec, payload = FORM_BINARY_MESSAGE, (self._claimed or self.codec).number, self.binary_wire
            at, more = len(payload) - len(self._sent_picture()), 0
        else:
            return self.bus_parts(stamp=stamp)
        head = message_head(
            self.stream_id, self.term, self.frame_id, self.timestamp, form, codec, at, more, stamp or EVERYBODY
        )
        return head, payload

    def _sniff(self) -> Codec:
        """Return the codec that the first bytes of the payload identify."""
        if self._picture is not None:
            return sniff(self._picture)
        if not self._sent_as_text:
            return sniff(self._sent_picture())
        if self._is_base64:
            holder, begin, end = self.held_text()
            return sniff_base64(holder, payload_at(holder, begin + 1), end - 1)
        try:
            return sniff(decode_text(self.text))  # not kept: few receivers ask for it
        except FrameFault as fault:
            self._fault = str(fault)
            return Codec.OPAQUE

    def _payload(self) -> bytes:
        """Return the decoded payload, picture or not. Raises `FrameFault` for a text that cannot be decoded."""
        if self._picture is None:
            self._picture = decode_text(self.text) if self._sent_as_text else bytes(self._sent_picture())
        return self._picture

    def _sent_picture(self) -> bytes | memoryview:
        """Return the payload of a binary frame: held by itself, or as the end of its message."""
        if self._picture is not None:
            return self._picture
        assert self.binary_wire is not None
        return memoryview(self.binary_wire)[self._picture_at :]

    @classmethod
    def from_bus(cls, frame: BusFrame, *, for_viewers: bool = True) -> Frame:
        """Return the frame that another process sent.

        Args:
            frame: what came.
            for_viewers: keep a finished message for viewers; False: keep its data alone, once.
        """
        name, number, at, term = frame.stream, frame.frame_id, frame.timestamp, frame.term
        begin, payload = frame.data_at, frame.payload
        if frame.form == FORM_JSON_MESSAGE:
            more_end = begin - _DATA_KEY_BYTES
            more = bytes(payload[more_end - frame.more_bytes : more_end])
            if for_viewers:
                message = bytes(payload)
                return cls.of_message(
                    name, number, at, term, message, begin + 1, len(message) - 2, -1, more, frame.codec
                )
            made = cls(name, number, at, term=term, text=bytes(payload[begin:-1]), is_base64=True, more=more)
            made._codec = BY_VALUE[frame.codec]
            return made
        if frame.form == FORM_BINARY_MESSAGE:
            if for_viewers:
                return cls.of_message(name, number, at, term, bytes(payload), begin, len(payload), frame.codec)
            return cls(name, number, at, term=term, picture=bytes(payload[begin:]), codec=BY_NUMBER[frame.codec])
        if frame.form != FORM_PICTURE:
            made = cls(name, number, at, term=term, text=bytes(frame.payload), more=frame.more)  # no copy
            made._codec = BY_VALUE[frame.codec]
            return made
        return cls(name, number, at, term=term, picture=bytes(frame.payload), codec=BY_VALUE[frame.codec])  # no copy


def kind_on_bus(parts: Sequence[bytes | memoryview]) -> FrameKind:
    """Return the kind of a frame as it crosses the bus, given in parts. A damaged frame counts as standing alone."""
    codec = codec_on_bus(parts[0])
    if codec is None or codec.drop_policy is NEWEST_WINS:
        return STANDALONE
    try:
        return Frame.from_bus(decode_frame(b"".join(parts))).kind
    except BusError:
        return STANDALONE


@dataclass(frozen=True, slots=True)
class BinaryFrame:
    """A binary message of the edge protocol, as `parse_binary` read it.

    Attributes:
        stream_id: the stream; None: that of the publisher.
        frame_id: number of the frame; ignored from publishers.
        timestamp: time in ms since the epoch; None: the time of the server.
        codec: the codec that the header states.
        picture: the payload.
    """

    stream_id: str | None
    frame_id: int
    timestamp: int | None
    codec: Codec
    picture: bytes


def parse_binary(data: bytes) -> BinaryFrame:
    """Parse a binary message of the edge protocol. Raises `FrameFault`."""
    if len(data) < _BINARY.size:
        raise FrameFault(f"binary message of {len(data)} bytes, expected a header of {_BINARY.size} bytes")
    magic, version, kind, flags, frame_id, timestamp, codec, length = _BINARY.unpack_from(data)
    for name, came, expected in (("magic", magic, BINARY_MAGIC), ("version", version, BINARY_VERSION),
                                 ("kind", kind, KIND_VIDEO_FRAME), ("flags", flags, 0)):  # fmt: skip
        if came != expected:
            raise FrameFault(f"binary header has {name} {came:#x}, expected {expected:#x}")
    if codec not in BY_NUMBER:
        raise FrameFault(f"binary header has codec {codec}, expected {numbers_in_words(BY_NUMBER)}")
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
    return BinaryFrame(stream_id, frame_id, timestamp or None, BY_NUMBER[codec], data[at:])


def name_fault(frame_id: int, fault: str) -> str:
    """Return what is wrong with a frame in a text that names it."""
    return f"frame {frame_id}: {fault}"


def named_frame(text: str) -> int | None:
    """Return the id of the frame that a text of `name_fault` names; None: it names none."""
    found = _NAMED.match(text)
    return None if found is None else int(found[1])


def timestamp_of_binary(data: bytes) -> int | None:
    """Return the time in ms of a binary message that is refused; None: it has none, or is not of this version."""
    if len(data) < _BINARY.size:
        return None
    magic, version, kind, _, _, timestamp, _, _ = _BINARY.unpack_from(data)
    if (magic, version, kind) != (BINARY_MAGIC, BINARY_VERSION, KIND_VIDEO_FRAME):
        return None
    return timestamp if 0 < timestamp <= MAX_TIMESTAMP else None
