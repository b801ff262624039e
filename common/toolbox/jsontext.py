"""Reads JSON from outside exactly as `JSON.parse` of browsers does, and writes it. Pure.

That is RFC 8259 with lone surrogate escapes, without NaN, comments, trailing commas or a byte order mark. Of a repeated
key the last value counts. Text that is nested too deeply is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgspec

#: Most digits of a whole number that is read exactly; a longer one becomes a float.
MAX_DIGITS: Final = 400

_WHITE_SPACE: Final = re.compile(r"[ \t\n\r]*")

_fast: Final = msgspec.json.Decoder()
_fast_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JsonFault(ValueError):
    """A text is not JSON; the message says why. Raised by `common.toolbox.jsontext`.

    The caller refuses the message, body or file that contained the text.
    """


def read_json(data: bytes | bytearray | memoryview | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        UnicodeDecodeError: The bytes are not UTF-8.
        JsonFault: The text is not JSON.
    """
    text = data if isinstance(data, str) else bytes(data)
    if isinstance(text, bytes) and not text.isascii():
        text.decode("utf-8")
    try:
        return _fast.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return _decode(text if isinstance(text, str) else text.decode("utf-8"))


def read_members(data: bytes) -> dict[str, memoryview]:
    """Return the members of a JSON object in their order, each value as the JSON text that it is.

    Of a repeated key the last value counts.

    Raises:
        UnicodeDecodeError: The bytes are not UTF-8.
        JsonFault: The text is not a JSON object.
    """
    if not data.isascii():
        data.decode("utf-8")
    try:
        return {key: memoryview(value) for key, value in _fast_members.decode(data).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return {key: memoryview(value.encode()) for key, value in _walk(data.decode("utf-8"))}


def _walk(text: str) -> Iterator[tuple[str, str]]:
    """Yield the members of an object in their order, each value as its JSON text. Raises `JsonFault`."""
    at, end = _skip(text, 0), len(text)
    if text[at : at + 1] != "{":
        raise JsonFault(f"expected an object at character {at}")
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        at, more = at + 1, False
    else:
        more = True
    while more:
        if text[at : at + 1] != '"':
            raise JsonFault(f"expected a key in double quotes at character {at}")
        key, at = _scan(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JsonFault(f"expected a colon at character {at}")
        begin = _skip(text, at + 1)
        _, at = _scan(text, begin)
        yield key, text[begin:at]
        at = _skip(text, at)
        if text[at : at + 1] not in (",", "}"):
            raise JsonFault(f"expected a comma or a closing brace at character {at}")
        more = text[at] == ","
        at = _skip(text, at + 1) if more else at + 1
    if _skip(text, at) != end:
        raise JsonFault(f"more after the end of the object at character {at}")


def _scan(text: str, at: int) -> tuple[Any, int]:
    try:
        return _decoder.raw_decode(text, at)
    except RecursionError:
        raise JsonFault("nested too deeply") from None
    except ValueError as fault:
        raise JsonFault(str(fault)) from None


def _skip(text: str, at: int) -> int:
    """Return the position of the next character that is not white space."""
    found = _WHITE_SPACE.match(text, at)
    assert found is not None
    return found.end()


def write_json(value: Any, *, in_order: bool = False) -> bytes:
    """Return a value as JSON, including lone surrogates and long whole numbers that `read_json` returned.

    Args:
        value: The value.
        in_order: Whether the keys of objects are sorted.

    Raises:
        ValueError: The value cannot be written as JSON.
    """
    try:
        return msgspec.json.encode(value, order="sorted" if in_order else None)
    except (UnicodeError, OverflowError, TypeError, ValueError, RecursionError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, sort_keys=in_order).encode("ascii")
    except (TypeError, RecursionError) as fault:
        raise ValueError(f"cannot be written as JSON: {type(fault).__name__}") from None


def is_nested_deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects of a decoded value are nested more than `most` deep; an empty list is 1 deep."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        inner = (each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer))
        level = [each for each in inner if isinstance(each, (dict, list))]
    return bool(level)


def _decode(text: str) -> Any:
    """Return the value of a JSON text, with the slower decoder that accepts all that `JSON.parse` does."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise JsonFault("nested too deeply") from None
    except ValueError as fault:
        raise JsonFault(str(fault)) from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS and digits != "-0" else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_decoder: Final = json.JSONDecoder(parse_int=_whole, parse_constant=_no_constant)
