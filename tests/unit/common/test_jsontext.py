"""One reader of JSON: what browsers' `JSON.parse` takes is taken, and nothing else."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.jsontext import JsonFault, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_json_is_read(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read_json(text.encode("utf-8", "surrogatepass") if ascii_only else text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'{"deviceName":"A\ud83d"}', {"deviceName": "A\ud83d"}),
        (rb'{"\udc00":["\ud83d\ude00"]}', {"\udc00": ["\U0001f600"]}),
        (rb'"\uD83Dx"', "\ud83dx"),
        (b"1e3", 1000.0),
        (b"1E+3", 1000.0),
        (b"1729943200000.123", 1729943200000.123),
        (b"1.7299432e12", 1729943200000.0),
        (b"12345678901234567890123", 12345678901234567890123),
        (b" \t\r\n{ } ", {}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (rb'{"a":"\ud83d","a":2}', {"a": 2}),
        (b"1e400", math.inf),
        (b"9" * 5000, math.inf),
    ],
    ids=lambda each: str(each)[:30],
)
def test_what_browsers_take_is_taken(text: bytes, value: object) -> None:
    assert read_json(text) == value
    assert read_json(text.decode()) == value


@pytest.mark.parametrize("text", [b"-0", b"-0.0", b'[-0,"\\ud83d"]'])
def test_minus_nothing_is_a_number(text: bytes) -> None:
    assert read_json(text) in (0, [0, "\ud83d"])


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b"{'a':1}", b"[1,]", b'{"a":1,}', b"01", b"1.", b".5",
        b"+1", b"0x10", b"tru", b"nulll", b'"\t"', b'"\x00"', rb'"\x41"', rb'"\u12"', rb'"\ud83d', b'"a', b"[1", b"1 2",
        b"\xef\xbb\xbf{}", b"// x\n1", b"1/*x*/", b"undefined", b"\xc2\xa01", b'{"a"}', b"{a:1}", b"{1:1}",
    ],
    ids=repr,
)  # fmt: skip
def test_what_browsers_refuse_is_refused(text: bytes) -> None:
    with pytest.raises(JsonFault):
        read_json(text)


@pytest.mark.parametrize("text", [b"\xff", b'"\xff"', b'"\xed\xa0\x80"', b'{"\xc0\x80":1}'])
def test_what_is_not_utf8_says_so(text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        read_json(text)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
)
def test_what_is_too_deep_is_refused(text: bytes) -> None:
    with pytest.raises(JsonFault):
        read_json(text)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_a_fault(text: bytes) -> None:
    with contextlib.suppress(JsonFault, UnicodeDecodeError):
        read_json(text)
