"""Reads frames of the usual form without a JSON parser, in Python: what `gateway.fastpath` does in C. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import pybase64

from watchout.common.media.frames import payload_at


class PlainFrame(msgspec.Struct, frozen=True, gc=False):
    """A ``video-frame`` read by `PlainFrames`; `span`: start and end of the string token of `data` in the message."""

    stream_id: str | None
    timestamp: int | None
    span: tuple[int, int]


_WS: Final = rb"[ \t\r\n]*"
_FIELD: Final = rb'(?:"streamId"WS:WS"([A-Za-z0-9_.:-]{1,128})"|"timestamp"WS:WS(0|[1-9][0-9]{0,14}))'
#: All bytes before the payload of a plain frame, and all after it.
_HEAD: Final = re.compile(
    rb'WS\{WS"type"WS:WS"video-frame"WS,WS(?:FIELDWS,WS){0,2}"data"WS:WS"'.replace(b"FIELD", _FIELD).replace(b"WS", _WS)
)
_TAIL: Final = re.compile(rb'"WS(?:,WSFIELDWS){0,2}\}WS\Z'.replace(b"FIELD", _FIELD).replace(b"WS", _WS))
#: The tail of a plain frame is searched in this many bytes at the end.
_TAIL_BYTES: Final = 256
_TIMESTAMP: Final = b'","timestamp":'
_BRACE: Final = ord("}")
_ZERO: Final = ord("0")


class PlainFrames:
    """Reads plain ``video-frame`` messages of one client without a JSON parser.

    Plain means: `type` first, known fields only, plain numbers, base64 without escapes and white space, as nearly all
    clients send. Used for messages that `gateway.fastpath` does not handle: compressed ones, and all where the C module
    was not built. The payload is validated by decoding it as base64, in a third of the time of a JSON parser; the
    picture is discarded, as few receivers need it.

    Attributes:
        head: The bytes before the payload of the last frame: the next frame usually has the same.
    """

    __slots__ = ("_stream_id", "head")

    def __init__(self) -> None:
        self.head: bytes | None = None
        self._stream_id: str | None = None

    def read(self, data: bytes) -> PlainFrame | None:
        """Return a message as a frame; None: it is not plain, `parse_text` decides."""
        head = self.head
        if (
            head is not None
            and data.startswith(head)
            and (end := data.rfind(_TIMESTAMP, -_TAIL_BYTES)) > 0
            and data[-1] == _BRACE
        ):
            digits = data[end + len(_TIMESTAMP) : -1]
            if digits.isdigit() and len(digits) < 16 and (digits[0] != _ZERO or len(digits) == 1):
                span = len(head) - 1, end + 1
                return PlainFrame(self._stream_id, int(digits), span) if _is_base64(data, len(head), end) else None
        return self._read_any(data)

    def _read_any(self, data: bytes) -> PlainFrame | None:
        head = _HEAD.match(data)
        if head is None:
            return None
        begin = head.end()
        tail = _TAIL.search(data, max(begin, len(data) - _TAIL_BYTES))
        if tail is None or not _is_base64(data, begin, tail.start()):
            return None
        stream, time = (after or before for after, before in zip(tail.groups(), head.groups(), strict=True))
        stream_id = None if stream is None else stream.decode("ascii")
        if head[2] is None and tail[1] is None:  # the form that `read` compares with
            self.head, self._stream_id = head[0], stream_id
        return PlainFrame(stream_id, None if time is None else int(time), (begin - 1, tail.start() + 1))


def _is_base64(data: bytes, begin: int, end: int) -> bool:
    try:
        return len(pybase64.b64decode(memoryview(data)[payload_at(data, begin) : end], validate=True)) > 0
    except ValueError:
        return False
