"""Says in the words of JSON what is wrong with a value: what came, and what was expected. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

_WORDS: Final = {"str": "string", "int": "whole number", "float": "number", "bool": "boolean"}
_KINDS: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
_BEGINNINGS: Final = {b"{": "object", b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}
_AT_FIELD: Final = re.compile(r"(?P<fault>.*)(?P<at> - at `\$\.(?P<name>\w+)`)", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `([a-z |]+)`")
_GOT: Final = re.compile(r"got `([a-z]+)`")
_MOST_CHARS: Final = 40


def kind_of(value: object) -> str:
    """Return the kind of a decoded value: null, object, array, string, number or boolean."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def kind_of_text(text: bytes | memoryview) -> str:
    """Return the kind of the value that a JSON text without white space before it is."""
    return _BEGINNINGS.get(bytes(text[:1]), "number")


def one_of(choices: tuple[object, ...]) -> str:
    """Return choices as a list in words."""
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}" if most else last


def fault_in_words(fault: str, struct: type[msgspec.Struct], value: Mapping[str, Any] | None = None) -> str:
    """Return what msgspec says of a value that does not fit, with the choices of the field and what came instead.

    Args:
        fault: The text of the `msgspec.ValidationError`.
        struct: What the value was converted to.
        value: The value; None: it is not at hand.
    """
    found = _AT_FIELD.fullmatch(fault)
    if found is None:
        return _in_words(fault)
    name, text = found["name"], _in_words(found["fault"])
    given = value is not None and name in value
    if choices := _choices(struct).get(name):
        got = _shown(value[name]) if value is not None and given else re.split("got |enum value ", text)[-1]
        text = f"Expected {one_of(choices)}, got {got}"
    elif value is not None and given and type(value[name]) is float:
        text = f"{text.partition(', got ')[0]}, got {_shown(value[name])}"
    elif value is not None and given and ", got " not in text:
        text = f"{text}, got {len(value[name]) if ' of length ' in text else _shown(value[name])}"
    return text + found["at"]


def _in_words(fault: str) -> str:
    def expected(found: re.Match[str]) -> str:
        words = [_WORDS.get(word, word) for word in found[1].split(" | ")]
        if "number" in words and "whole number" in words:
            words.remove("whole number")
        return f"Expected `{' | '.join(words)}`"

    fault = _EXPECTED.sub(expected, fault)
    return _GOT.sub(lambda found: f"got `{'number' if found[1] == 'int' else _WORDS.get(found[1], found[1])}`", fault)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return ascii(value[:_MOST_CHARS])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)[:_MOST_CHARS]
    return kind_of(value)


@lru_cache(maxsize=64)
def _choices(struct: type[msgspec.Struct]) -> dict[str, tuple[object, ...]]:
    """Return the fields that take a few texts only, with these."""
    hints = get_type_hints(struct)
    found: dict[str, tuple[object, ...]] = {}
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        for each in (hint, *get_args(hint)):
            if get_origin(each) is Literal:
                found[field.encode_name] = get_args(each)
    return found
