"""Finds members of a text that is not JSON, or too long to be read as a whole. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Most bytes of a key, and of a value that is not a string; and how much of either end of a text is searched.
WINDOW_BYTES: Final = 4096
#: Most members that are read.
MAX_MEMBERS: Final = 64

_BEGIN: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]{0,4096}\{[ \t\n\r]{0,4096}")
_COLON: Final = re.compile(rb"[ \t\n\r]{0,4096}:[ \t\n\r]{0,4096}")
_COMMA: Final = re.compile(rb"[ \t\n\r]{0,4096},[ \t\n\r]{0,4096}")
_END: Final = re.compile(rb"[ \t\n\r]{0,4096}(?:\}[ \t\n\r]{0,4096})?\Z")
#: A type or a time, in whatever quotes, and with those of a text in a text.
_TYPE: Final = re.compile(rb"""\btype[\\"']{0,9}\s{0,9}:\s{0,9}[\\"']{0,9}([a-z][a-z-]{0,40})""")
_TIMESTAMP: Final = re.compile(rb"""\btimestamp[\\"']{0,9}\s{0,9}:\s{0,9}(\d{1,16})(?![\deE])""")
#: Takes NaN, Infinity, and line breaks in strings as well.
_decoder: Final = json.JSONDecoder(strict=False)


def find_members(data: bytes) -> tuple[dict[str, memoryview], bool]:
    """Return the members of an object from its beginning on, each value as the text that it is.

    They are read as far as they are JSON, or nearly. A string may have any length, such as that of a picture.

    Args:
        data: A text, JSON or not.

    Returns:
        The members, of a repeated key the last one; and whether they are all that the text has.
    """
    found: dict[str, memoryview] = {}
    step = _BEGIN.match(data)
    while step is not None and len(found) < MAX_MEMBERS:
        key, at = _scan(data, step.end())
        colon = _COLON.match(data, at)
        if not isinstance(key, str) or colon is None:
            break
        if not key.isascii():  # its bytes were read as characters
            key = _decoder.decode(data[step.end() : at].decode("utf-8", "replace"))
        begin = colon.end()
        _, at = _scan(data, begin)
        if at == begin:
            at = _end_of_string(data, begin)
        if at == begin:
            return found, begin == len(data)
        found[key] = memoryview(data)[begin:at]
        if _END.match(data, at):
            return found, True
        step = _COMMA.match(data, at)
    return found, False


def type_in(data: bytes) -> str | None:
    """Return the type that a text names near its beginning, or near its end; None: none."""
    for end in _ends(data):
        if found := _TYPE.search(end):
            return found[1].decode("ascii")
    return None


def timestamp_in(data: bytes) -> int | None:
    """Return the time in ms that a text names near its ends; None: none, or several."""
    times = {int(found) for end in _ends(data) for found in _TIMESTAMP.findall(end)}
    return times.pop() if len(times) == 1 else None


def _ends(data: bytes) -> tuple[bytes, bytes]:
    return data[:WINDOW_BYTES], data[max(WINDOW_BYTES, len(data) - WINDOW_BYTES) :]


def _scan(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value at a position and where it ends; None and the position itself where none can be read."""
    window = data[at : at + WINDOW_BYTES].decode("latin-1")  # a character for each byte
    try:
        value, size = _decoder.raw_decode(window)
    except (ValueError, RecursionError):
        return None, at
    return value, at + size


def _end_of_string(data: bytes, begin: int) -> int:
    """Return where the string at a position ends, or the text in it; the position itself where there is no string."""
    if data[begin : begin + 1] != b'"':
        return begin
    quote = data.find(b'"', begin + 1)
    if quote < 0:
        return len(data)
    return begin if data[quote - 1] == ord("\\") else quote + 1
