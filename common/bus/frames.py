"""Bytes of a frame between processes: a fixed binary header, the stream id, and the payload (docs/bus.md). Pure.

Frames are many and large, so they are not msgpack: the router reads a header of 37 bytes and passes the rest on.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from watchout.common.bus.messages.fields import MAX_TERM, MEMBER_ID_BYTES, VERSION
from watchout.common.errors import BusError
from watchout.common.media.codecs import BY_NUMBER, BY_VALUE, Codec

#: magic, version, form, codec, frame id, timestamp, term, receiver, length of the stream id
_FRAME: Final = struct.Struct(">BBBBIQQ8sB")
_FIELDS_SIZE: Final = struct.Struct(">I")
#: Length of the header with the longest stream id, in bytes.
MAX_FRAME_HEAD_BYTES: Final = _FRAME.size + 255
FRAME_MAGIC: Final = 0x46
#: First bytes of whole WebSocket messages, and what stands in place of sizes over 125 (RFC 6455, section 5.2).
_TEXT: Final = b"\x81"
_BINARY: Final = b"\x82"
_SIZE_16: Final = 126
_SIZE_64: Final = 127
_PLACES: Final = struct.Struct(">II")
#: `BusFrame.form`: a JSON string token, an encoded picture, a JSON string token and other JSON members.
FORM_JSON_TEXT: Final = 0
FORM_PICTURE: Final = 1
FORM_JSON_FIELDS: Final = 2
#: `BusFrame.form` in the frame mesh: a WebSocket message of the edge protocol, JSON with base64, or binary.
FORM_JSON_MESSAGE: Final = 3
FORM_BINARY_MESSAGE: Final = 4
#: The forms whose codec is the one that the publisher named.
_NAMED_CODEC: Final = (FORM_PICTURE, FORM_BINARY_MESSAGE)
#: `BusFrame.to`: every member with interest in the stream.
EVERYBODY: Final = bytes(MEMBER_ID_BYTES)
#: `BusFrame.to`: the picture of an alert, which is never a viewer's newest frame. A bridge sends it to the router,
#: which keeps it, and the router to a gateway that fetches it. No member has this id: no id begins with a zero.
FOR_ALERT: Final = bytes(MEMBER_ID_BYTES - 1) + b"\x01"
#: First bytes in the place of `BusFrame.to` of a frame for everybody that carries stamps. No id begins with a zero.
STAMP_TAG: Final = b"\x00\x02"


def is_stamp(to: bytes) -> bool:
    """Whether the bytes that name the receiver of a frame hold its stamps (`common.latency.stamps`) instead."""
    return to[:2] == STAMP_TAG


class BusFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame as it is sent between processes, in the form in which the publisher sent it.

    Encoded by `Frame.bus_parts`, decoded by `decode_frame`, which raises `BusError`. `form` says what `payload` is:
    `FORM_JSON_TEXT`: a JSON string token with its quotes; `codec` is that of the picture in it, 0 when it holds none.
    `FORM_PICTURE`: the encoded picture; `codec` is the one that the publisher named. `FORM_JSON_FIELDS`: as
    `FORM_JSON_TEXT`, and `more` holds the other members of the publisher's JSON object, each with a comma before it.
    `FORM_JSON_MESSAGE`: the WebSocket message that viewers get, with its header; the string token begins at `data_at`
    and ends before the last byte, and the other members, of `more_bytes` bytes, are right before ``,"data":``.
    `FORM_BINARY_MESSAGE`: the same for binary viewers; the picture begins at `data_at`.
    `to` is `EVERYBODY`, `FOR_ALERT` or the id of the one member that receives the frame. `timestamp` is in ms since
    1970. `stamp`: the stamps of a frame for everybody, in the place of `to`; empty: none. A member of the former
    release takes no notice of them.
    """

    stream: str
    term: int
    frame_id: int
    timestamp: int
    form: int
    codec: int
    payload: bytes | memoryview
    to: bytes = EVERYBODY
    more: bytes = b""
    data_at: int = 0
    more_bytes: int = 0
    stamp: bytes = b""

    def parts(self) -> tuple[bytes, bytes | memoryview]:
        """Return (header, payload), which in sequence are the encoded frame; the payload is not copied."""
        name = self.stream.encode("ascii")
        head = _FRAME.pack(
            FRAME_MAGIC, VERSION, self.form, self.codec, self.frame_id, self.timestamp, self.term,
            self.stamp or self.to, len(name),
        )  # fmt: skip
        if self.form == FORM_JSON_FIELDS:
            name += _FIELDS_SIZE.pack(len(self.more)) + self.more
        elif self.form > FORM_JSON_FIELDS:
            name += _PLACES.pack(self.data_at, self.more_bytes)
        return head + name, self.payload

    def encode(self) -> bytes:
        """Return the encoded frame as one bytes object."""
        return b"".join(self.parts())


def message_head(
    stream: str, term: int, frame_id: int, timestamp: int, form: int, codec: int, data_at: int, more_bytes: int,
    stamp: bytes = EVERYBODY,
) -> bytes:  # fmt: skip
    """Return the header of a frame with a finished message, for everybody: that of `BusFrame.parts`.

    Args:
        stream: As in `BusFrame`, like all that follow.
        term: The term.
        frame_id: Number of the frame.
        timestamp: In ms since 1970.
        form: `FORM_JSON_MESSAGE` or `FORM_BINARY_MESSAGE`.
        codec: The codec.
        data_at: Where the text or the picture begins in the message.
        more_bytes: Size of the other members.
        stamp: The stamps of the frame.

    Returns:
        The header; the message follows it.

    """
    name = stream.encode("ascii")
    head = _FRAME.pack(FRAME_MAGIC, VERSION, form, codec, frame_id, timestamp, term, stamp, len(name))
    return head + name + _PLACES.pack(data_at, more_bytes)


class FrameHead(msgspec.Struct, frozen=True, gc=False):
    """The header of a frame, which is all that the router reads of it; returned by `read_frame_head`.

    Fields as in `BusFrame`. `payload_at` is the offset in bytes at which the stream id ends.
    """

    stream: str
    term: int
    frame_id: int
    timestamp: int
    form: int
    codec: int
    to: bytes
    payload_at: int
    stamp: bytes = b""


def read_frame_head(data: bytes | memoryview) -> FrameHead:
    """Decode the header of a frame.

    Args:
        data: The frame, or its first `MAX_FRAME_HEAD_BYTES`.

    Returns:
        The header.

    Raises:
        BusError: The bytes do not begin with a valid header; the receiver counts and drops the frame.

    """
    at = _FRAME.size
    if len(data) < at:
        raise BusError(f"frame of {len(data)} bytes, expected at least {at}")
    magic, version, form, codec, frame_id, timestamp, term, to, length = _FRAME.unpack_from(data)
    if magic != FRAME_MAGIC or version != VERSION:
        raise BusError(f"frame with magic {magic:#x} and version {version}, expected {FRAME_MAGIC:#x} and {VERSION}")
    known = BY_NUMBER if form in _NAMED_CODEC else BY_VALUE
    if form > FORM_BINARY_MESSAGE or codec not in known:
        raise BusError(f"frame with form {form} and codec {codec}, expected 0–{FORM_BINARY_MESSAGE} and 0–{max(known)}")
    if term >= MAX_TERM:
        raise BusError(f"frame with term {term}, expected below {MAX_TERM}")
    name = bytes(data[at : at + length])
    if not length or len(name) < length or not name.isascii():
        raise BusError(f"frame with a stream id of {len(name)} bytes, expected {length or 'some'} in ASCII")
    to, stamp = (EVERYBODY, to) if is_stamp(to) else (to, b"")
    return FrameHead(name.decode("ascii"), term, frame_id, timestamp, form, codec, to, at + length, stamp)


def codec_on_bus(head: bytes | memoryview) -> Codec | None:
    """Return the codec that the header of a frame states, None for a header that is damaged."""
    return BY_VALUE.get(head[3]) if len(head) >= _FRAME.size and head[0] == FRAME_MAGIC else None


def decode_frame(data: bytes | memoryview) -> BusFrame:
    """Decode a frame.

    Args:
        data: The frame.

    Returns:
        The frame; its payload is a view of `data`, not a copy.

    Raises:
        BusError: The bytes are no valid frame; the receiver counts and drops it.

    """
    head = read_frame_head(data)
    at, more = head.payload_at, b""
    if head.form == FORM_JSON_FIELDS:
        begin = at + _FIELDS_SIZE.size
        if len(data) < begin or len(data) < (at := begin + _FIELDS_SIZE.unpack_from(data, at)[0]):
            raise BusError(f"frame of {len(data)} bytes ends within the publisher's other fields")
        more = bytes(data[begin:at])
    data_at = more_bytes = 0
    if head.form > FORM_JSON_FIELDS:
        at += _PLACES.size
        if len(data) < at:
            raise BusError(f"frame of {len(data)} bytes ends before its message")
        data_at, more_bytes = _PLACES.unpack_from(data, head.payload_at)
        _check_message(data, at, head.form, data_at, more_bytes)
    payload = memoryview(data)[at:]
    return BusFrame(
        head.stream, head.term, head.frame_id, head.timestamp, head.form, head.codec, payload, head.to, more, data_at,
        more_bytes, head.stamp,
    )  # fmt: skip


def _check_message(data: bytes | memoryview, at: int, form: int, data_at: int, more_bytes: int) -> None:
    """Check that `data` is one whole WebSocket message from `at` on, with its parts where the frame says.

    A viewer gets it as it is: one byte more or less, and the viewer would lose its connection. Raises `BusError`.
    """
    opcode = _TEXT if form == FORM_JSON_MESSAGE else _BINARY
    size = len(data) - at
    head = data[at : at + 10]
    short = head[1] if len(head) > 1 else 0
    begin = 10 if short == _SIZE_64 else 4 if short == _SIZE_16 else 2
    stated = int.from_bytes(head[2:begin], "big") if begin > 2 else short
    if head[:1] != opcode or short > _SIZE_64 or begin + stated != size:
        raise BusError(f"frame whose message of {size} bytes begins with {head.hex(' ')}, expected a whole message")
    if form == FORM_JSON_MESSAGE:
        in_place = data[at + data_at - 8 : at + data_at + 1] == b',"data":"' and data[-2:] == b'"}'
        if not in_place or not begin <= data_at - 8 - more_bytes or data_at > size - 3:
            raise BusError(f"frame whose message has no data at {data_at}")
    elif not begin < data_at < size:
        raise BusError(f"frame of {size} bytes with a picture at {data_at}")
