"""The one reader of JSON that comes from outside: it takes what `JSON.parse` of browsers takes. Pure.

That is RFC 8259 with lone surrogate escapes; without NaN, comments, trailing commas or a byte order mark. Of a repeated
key the last value counts. What is nested too deeply is refused.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import msgspec

#: Longest whole number that is read exactly; a longer one is read as a number with a fraction is.
MAX_DIGITS: Final = 400

_fast: Final = msgspec.json.Decoder()


class JsonFault(ValueError):
    """Text that is no JSON; says why."""


def read_json(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text. Raises `UnicodeDecodeError` for bytes that are not UTF-8, `JsonFault` for the rest."""
    text = data if isinstance(data, str) else bytes(data)
    if isinstance(text, bytes) and not text.isascii():
        text.decode("utf-8")
    try:
        return _fast.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return _decode(text if isinstance(text, str) else text.decode("utf-8"))


def _decode(text: str) -> Any:
    """What `read_json` does, of all that `JSON.parse` takes."""
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
