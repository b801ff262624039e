"""Reads the responses of an ML service over HTTP/1.1 (RFC 9112), bounded in bytes. Pure.

Own code and not a library's: a response costs a bridge more than its frame does, and most are one read of 150 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from watchout.common.toolbox.http_bounds import BodyTooLarge

#: Most bytes of a response before its body, and most of the trailers after it.
MAX_HEAD_BYTES: Final = 32 << 10
#: Most digits of a ``Content-Length``.
MAX_LENGTH_DIGITS: Final = 15
#: Longest head that is remembered, in bytes, and how many are: a service answers with the same one again and again.
MAX_REMEMBERED_BYTES: Final = 1 << 10
REMEMBERED: Final = 64
#: Characters of an unusable line that error texts show.
MAX_SHOWN: Final = 60
#: Statuses whose response never has a body (RFC 9110 sections 15.3.5 and 15.4.5).
_WITHOUT_BODY: Final = (204, 304)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r?")
#: A header line, without the white space before its value.
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n]*)(?:\r?\n|\Z)")
_HEADERS: Final = re.compile(b"(?:" + _HEADER.pattern + b")*")
#: Line ends may be without CR (RFC 9112 section 2.2).
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
#: Length of a chunk in hexadecimal, with extensions after it that are not read.
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?")


class BadResponse(Exception):
    """What a service sent is no HTTP response, or ended too early; `ResponseReader` raises it.

    The text says what came and what was expected. The connection cannot be used again.
    """


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response, or the head of one with another status than 2xx.

    Attributes:
        status: the status code.
        headers: by name in lower case; values of one name are joined by a comma.
        body: the body as it came over the network.
        is_last: the connection takes no further request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_last: bool


class ResponseReader:
    """Reads one response after the other from the bytes of one connection.

    Args:
        max_body_bytes: most bytes of a body.
    """

    __slots__ = ("_body", "_came", "_chunk", "_chunked", "_head", "_max_bytes", "_missing")

    def __init__(self, max_body_bytes: int) -> None:
        self._max_bytes = max_body_bytes
        self._came = bytearray()
        #: Status, headers, and whether the connection ends with this response; None: not read yet.
        self._head: tuple[int, Mapping[str, str], bool] | None = None
        self._body = bytearray()
        self._chunked = False
        #: Bytes of the body that are to come; None: until the connection ends.
        self._missing: int | None = 0
        #: Bytes of the present chunk that are to come, with the line end after it; None: its size comes next; -1: the
        #: trailers come.
        self._chunk: int | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of a response is there."""
        return self._head is not None or bool(self._came)

    def feed(self, data: bytes) -> HttpResponse | None:
        """Take bytes, and return the response that they end; None: it goes on.

        A response with another status than 2xx is returned without the rest of its body; it is then the last one.

        Raises:
            BadResponse: this is no response.
            BodyTooLarge: its body is over the limit.
        """
        self._came += data
        while self._head is None:
            if not self._read_head():
                return None
        status, headers, is_last = self._head
        is_whole = self._read_chunks() if self._chunked else self._read_sized()
        if not is_whole and 200 <= status < 300:
            return None
        body = bytes(self._body)
        response = HttpResponse(status, headers, body, is_last or not is_whole or bool(self._came))
        self._begin()
        return response

    def end(self) -> HttpResponse:
        """Return the response that the end of the connection ends.

        Raises:
            BadResponse: it is not whole, or, with an empty text, none had begun.
        """
        if self._head is None:
            raise BadResponse("it closed the connection within the head of its answer" if self._came else "")
        status, headers, _ = self._head
        if self._chunked or self._missing is not None:
            raise BadResponse(f"it closed the connection after {len(self._body)} bytes of its answer")
        return HttpResponse(status, headers, bytes(self._body), is_last=True)

    def _begin(self) -> None:
        """Begin the next response."""
        self._head = None
        self._body = bytearray()
        self._chunked = False
        self._missing = 0
        self._chunk = None

    def _read_head(self) -> bool:
        """Read the head of a response; a provisional one (1xx) is skipped. Returns False when it is not whole yet."""
        came = self._came
        end = _HEAD_END.search(came)
        if (len(came) if end is None else end.start()) > MAX_HEAD_BYTES:
            raise BadResponse(f"its answer has over {MAX_HEAD_BYTES} bytes before the body")
        if end is None:
            return False
        head = bytes(came[: end.start()])
        status, headers, is_last = _remembered(head) if len(head) <= MAX_REMEMBERED_BYTES else _decode_head(head)
        del came[: end.end()]
        if status < 200:
            return True
        self._head = status, headers, is_last
        self._frame_body(status, headers)
        return True

    def _frame_body(self, status: int, headers: Mapping[str, str]) -> None:
        """Find out where the body ends (RFC 9112 section 6.3)."""
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if status in _WITHOUT_BODY:
            return
        if coding is not None:
            if coding.lower().strip() != "chunked" or length is not None:
                raise BadResponse(f"its answer has Transfer-Encoding {coding[:MAX_SHOWN]!a}, expected chunked alone")
            self._chunked = True
        elif length is None:
            self._missing = None
        else:
            text = length if length.isdigit() else _one_of(length)
            if not text.isascii() or not text.isdigit() or len(text) > MAX_LENGTH_DIGITS:
                raise BadResponse(f"its answer has Content-Length {length[:MAX_SHOWN]!a}, expected a number of bytes")
            self._missing = int(text)
            if self._missing > self._max_bytes and 200 <= status < 300:
                raise BodyTooLarge(self._max_bytes, self._missing)

    def _read_sized(self) -> bool:
        """Move bytes of a body of known length, or of one that the connection ends. Returns whether it is whole."""
        came = self._came
        if self._missing is None:
            self._take(len(came))
            return False
        taken = min(self._missing, len(came))
        self._missing -= taken
        self._take(taken)
        return not self._missing

    def _take(self, size: int) -> None:
        """Move so many bytes to the body. Raises `BodyTooLarge`."""
        self._body += self._came[:size]
        del self._came[:size]
        if len(self._body) > self._max_bytes:
            raise BodyTooLarge(self._max_bytes, None)

    def _read_chunks(self) -> bool:
        """Move the bytes of chunks (RFC 9112 section 7.1). Returns whether the last one and its trailers were there."""
        came = self._came
        while True:
            if self._chunk is not None and self._chunk > 2:
                taken = min(self._chunk - 2, len(came))
                self._chunk -= taken
                self._take(taken)
                if self._chunk > 2:
                    return False
            end = came.find(b"\n")
            if end < 0:
                if len(came) > MAX_HEAD_BYTES:
                    raise BadResponse(f"its answer has a line of over {MAX_HEAD_BYTES} bytes between chunks")
                return False
            line = bytes(came[:end])
            del came[: end + 1]
            if self._chunk == -1:
                if not line.rstrip(b"\r"):
                    return True
                if end > MAX_HEAD_BYTES:
                    raise BadResponse(f"its answer has trailers of over {MAX_HEAD_BYTES} bytes")
            elif self._chunk is not None:
                if line.rstrip(b"\r"):
                    raise BadResponse(f"its answer has {_shown(line)} after a chunk, expected the end of a line")
                self._chunk = None
            else:
                size = _CHUNK_SIZE.fullmatch(line)
                if size is None:
                    raise BadResponse(f"its answer has a chunk of {_shown(line)}, expected a length in hexadecimal")
                self._chunk = int(size[1], 16) + 2 if int(size[1], 16) else -1


def _decode_head(head: bytes) -> tuple[int, Mapping[str, str], bool]:
    """Return status, headers, and whether the connection ends with this response. Raises `BadResponse`."""
    first, _, lines = head.partition(b"\n")
    line = _STATUS_LINE.fullmatch(first)
    if line is None:
        raise BadResponse(f"its answer begins with {_shown(first)}, expected HTTP/1.1 and a status")
    version, status = line[1], int(line[2])
    if status == 101:
        raise BadResponse("it answered with status 101 and another protocol, expected HTTP/1.1")
    headers = _headers(lines)
    last = "close" if version == b"1" else "keep-alive"
    has_word = last in headers.get("connection", "").lower().replace(" ", "").split(",")
    return status, MappingProxyType(headers), has_word is (version == b"1")


#: `_decode_head` of the heads that came lately. What it returns is shared and cannot be changed.
_remembered: Final = lru_cache(maxsize=REMEMBERED)(_decode_head)


def _headers(lines: bytes) -> dict[str, str]:
    """Return header lines as a dictionary. Raises `BadResponse` for a line that is none."""
    if _HEADERS.fullmatch(lines) is None:
        wrong = next(line for line in lines.split(b"\n") if _HEADER.fullmatch(line.removesuffix(b"\r")) is None)
        raise BadResponse(f"its answer has a header line {_shown(wrong)}, expected a name and a value")
    found: dict[str, str] = {}
    for name, value in _HEADER.findall(lines):
        key, text = name.decode("ascii").lower(), value.decode("latin-1").rstrip(" \t")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _one_of(length: str) -> str:
    """Return the value of several ``Content-Length`` that are the same (RFC 9110 section 8.6); empty: they differ."""
    lengths = {each.strip() for each in length.split(",")}
    return lengths.pop() if len(lengths) == 1 else ""


def _shown(data: bytes) -> str:
    """Return the beginning of bytes that were not expected, for an error text."""
    return ascii(data[:MAX_SHOWN].decode("latin-1"))
