"""The frames of one run as bytes: what cameras write, and how viewers recognize them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import msgspec
import pybase64

from benchmarks.clientwire import BINARY, CONTINUATION, TEXT, header, masked
from benchmarks.load.model import LoadFault, Plan

DATA: Final = Path(__file__).parents[1] / "data"


class Envelope(msgspec.Struct):
    """A frame as JSON, without its picture."""

    type: str
    streamId: str  # noqa: N815 - the protocol's word
    data: str
    timestamp: int
    frameId: int = 0  # noqa: N815
    width: int = 0
    height: int = 0
    rotation: int = 0
    severity: str = ""
    message: str = ""


_envelope = msgspec.json.Decoder(Envelope)
_BINARY_HEAD: Final = struct.Struct(">BBBBIQBB")
_BEFORE_DATA: Final = b'"data":"'
#: What a camera writes before and after the picture, by `model.Envelope`.
_ALERT_TEXT: Final = "a person at the door"
#: A gateway gives an alert an id; a relay gives a frame a `frameId`, and its type is longer.
_LIKE_ALERT_TEXT: Final = "a person stands at the door of the garden!"
_HEADS: Final = {
    "spaces": b'{"type": "video-frame", "streamId": "%b", "data": "',
    "alert": b'{"type":"alert","streamId":"%b","severity":"low","message":"' + _ALERT_TEXT.encode() + b'","data":"',
    "like-alert": (
        b'{"type":"video-frame","streamId":"%b","severity":"low","message":"'
        + _LIKE_ALERT_TEXT.encode()
        + b'","data":"'
    ),
}
_HEAD: Final = b'{"type":"video-frame","streamId":"%b","data":"'
_TAILS: Final = {
    "spaces": b'", "timestamp": %d}',
    "fields": b'","timestamp":%d,"width":1280,"height":720,"rotation":90}',
}
_TAIL: Final = b'","timestamp":%d}'
#: Severity and message, where there are any.
_TEXTS: Final = {"alert": ("low", _ALERT_TEXT), "like-alert": ("low", _LIKE_ALERT_TEXT)}
#: The data of a JSON frame begins within so many bytes.
_ENVELOPE_BYTES: Final = 400


class Corrupt(Exception):
    """A received frame is not one that was sent."""


class Messages:
    """The frames of one run as bytes: what cameras write, and how viewers know them again.

    Frame n of a stream carries picture n modulo their number and the timestamp `base` + n.
    """

    def __init__(self, plan: Plan, pictures: Sequence[bytes], *, base: int, mask: bytes) -> None:
        self._json = plan.format == "json"
        self._raw = plan.dialect == "raw"
        if plan.envelope != "compact" and (self._raw or not self._json):
            raise LoadFault(f"the envelope {plan.envelope} is for JSON over WebSocket")
        self._fragments = plan.envelope == "fragments"
        self._fields = (1280, 720, 90) if plan.envelope == "fields" else (0, 0, 0)
        self._type = "alert" if plan.envelope == "alert" else "video-frame"
        self._text = _TEXTS.get(plan.envelope, ("", ""))
        self._tail_form = _TAILS.get(plan.envelope, _TAIL)
        self._base = base
        self._mask = mask
        self.ids = [f"cam-{i:05}" for i in range(max(1, plan.streams))]
        self.opcode = TEXT if self._json else BINARY
        if self._json:
            self._bodies = [pybase64.b64encode(picture) for picture in pictures]
            if plan.envelope == "slashes":
                self._bodies = [body.replace(b"/", rb"\/") for body in self._bodies]
            self._heads = [_HEADS.get(plan.envelope, _HEAD) % i.encode() for i in self.ids]
        else:
            self._bodies = list(pictures)
            self._heads = [_BINARY_HEAD.pack(0x57, 1, 1, 0, 0, base, 1, len(i.encode())) + i.encode() for i in self.ids]
        self._head_bytes = len(self._heads[0])
        # All heads are equally long, so one masked body serves every stream.
        self._masked = self._bodies if self._raw else [masked(b, mask, self._head_bytes) for b in self._bodies]
        self._tail_bytes = len(self._tail(0))
        self._starts = [[self._start(head, body) for body in self._bodies] for head in self._heads]
        self.largest_bytes = self._head_bytes + self._tail_bytes + max(len(b) for b in self._bodies)

    def _tail(self, n: int) -> bytes:
        return self._tail_form % (self._base + n) if self._json else b""

    def _start(self, head: bytes, body: bytes) -> bytes:
        length = len(head) + len(body) + self._tail_bytes
        if self._raw:
            return length.to_bytes(4, "big") + head
        if self._fragments:
            return header(self.opcode, length - self._tail_bytes, self._mask, fin=False) + masked(head, self._mask)
        return header(self.opcode, length, self._mask) + masked(head, self._mask)

    def pieces(self, stream: int, n: int) -> tuple[bytes, ...]:
        """Frame n of a stream, to be written one piece after the other."""
        k = n % len(self._bodies)
        start, body, tail = self._starts[stream][k], self._masked[k], self._tail(n)
        at = self._head_bytes + len(body)
        if self._fragments:
            return start, body, header(CONTINUATION, len(tail), self._mask) + masked(tail, self._mask)
        if self._json:
            return start, body, tail if self._raw else masked(tail, self._mask, at)
        stamp = (self._base + n).to_bytes(8, "big")
        cut = len(start) - self._head_bytes + 8
        return start[:cut] + (stamp if self._raw else masked(stamp, self._mask, 8)) + start[cut + 8 :], body

    def known(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        """(n, frameId) of the frame that stands there, wholly compared; None: it is no frame. Raises `Corrupt`.

        `guess` is the n that is likely; a wrong one costs time only.
        """
        return (self._known_json if self._json else self._known_binary)(buffer, begin, end, stream, guess)

    def _known_json(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        at = buffer.find(_BEFORE_DATA, begin, min(end, begin + _ENVELOPE_BYTES))
        if at < 0:
            return None
        at += len(_BEFORE_DATA)
        k = self._picture(buffer, at, end, guess)
        try:
            envelope = _envelope.decode(buffer[begin:at] + buffer[at + len(self._bodies[k]) : end])
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise Corrupt(f"around the data: {e}") from e
        fields = envelope.width, envelope.height, envelope.rotation
        text = envelope.severity, envelope.message
        if envelope.type != self._type or envelope.data or fields != self._fields or text != self._text:
            raise Corrupt("around the data")
        return self._number(envelope.streamId, envelope.timestamp, k, stream), envelope.frameId

    def _known_binary(self, buffer: bytearray, begin: int, end: int, stream: int, guess: int) -> tuple[int, int] | None:
        if end - begin < _BINARY_HEAD.size or buffer[begin] != 0x57:
            return None
        _, version, kind, flags, frame_id, stamp, codec, size = _BINARY_HEAD.unpack_from(buffer, begin)
        at = begin + _BINARY_HEAD.size + size
        k = self._picture(buffer, at, end, guess)
        if (version, kind, flags, codec) != (1, 1, 0, 1) or end - at != len(self._bodies[k]):
            raise Corrupt("its header or its length")
        stream_id = buffer[at - size : at].decode("ascii", "replace")
        return self._number(stream_id, stamp, k, stream), frame_id

    def _picture(self, buffer: bytearray, at: int, end: int, guess: int) -> int:
        bodies = self._bodies
        for k in islice(cycle(range(len(bodies))), guess % len(bodies), guess % len(bodies) + len(bodies)):
            if buffer.startswith(bodies[k], at, end):  # memcmp in place; memoryviews compare byte by byte
                return k
        raise Corrupt("its picture")

    def _number(self, stream_id: str, stamp: int, k: int, stream: int) -> int:
        n = stamp - self._base
        if stream_id != self.ids[stream] or n < 0 or n % len(self._bodies) != k:
            raise Corrupt(f"stream {stream_id!r}, timestamp {stamp}, picture {k}")
        return n


def pictures(size: int = 0) -> list[bytes]:
    """The JPEGs that every benchmark sends. Raises `LoadFault` when they are not there.

    `size`: bytes of each, 0: as they are. A shorter one is cut, a longer one has bytes of the others behind it: no
    system looks further than its beginning.
    """
    found = [path.read_bytes() for path in sorted(DATA.glob("*.jpg"))]
    if not found:
        raise LoadFault(f"no *.jpg in {DATA}")
    if size == 0:
        return found
    return [
        b"".join(islice(cycle(found[k:] + found[:k]), size // len(min(found, key=len)) + 1))[:size]
        for k in range(len(found))
    ]
