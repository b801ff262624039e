"""The C module says of what it takes what the full parser says, takes the frames of clients, and nothing else."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchout.common.bus.frames import (
    EVERYBODY,
    FORM_BINARY_MESSAGE,
    FORM_JSON_MESSAGE,
    decode_frame,
    read_frame_head,
)
from watchout.common.bus.messages.fields import MAX_TERM
from watchout.common.errors import BusError, ClientError
from watchout.common.media.codecs import BY_NUMBER, BY_VALUE, Codec
from watchout.common.media.frames import Frame, FrameFault, decode_text, json_head, parse_binary, timestamp_of_binary
from watchout.common.toolbox.jsontext import read_members
from watchout.gateway import fastpath
from watchout.gateway.client.refused_message import RefusedMessage, read_refused
from watchout.gateway.client.unread_text import find_members
from watchout.gateway.wire import Subject, VideoFrame, frame_header, frame_message, parse_text

if None in (fastpath.take, fastpath.take_payload, fastpath.message, fastpath.remote):
    assert "CI" not in os.environ, "gateway._fastpath was not built"
    pytest.skip("gateway._fastpath was not built: there was no compiler at installation", allow_module_level=True)

take, take_payload = fastpath.take, fastpath.take_payload
message, remote = fastpath.message, fastpath.remote
assert take is not None
assert take_payload is not None
assert message is not None
assert remote is not None
HEAD = b'{"type":"video-frame","streamId":"cam-1","data":"'
KEY = b"\x00\x80\xff\x37"
MAX = 100_000


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    return bytes(byte ^ key[at & 3] for at, byte in enumerate(payload))


def frame(payload: bytes, first: int = 0x81, *, key: bytes = KEY, stretch: int = 0, bit: int = 0x80) -> bytes:
    size = len(payload)
    if size < 126 and not stretch:
        return bytes((first, bit | size)) + key + masked(payload, key)
    if size < 65536 and stretch < 2:
        return struct.pack("!BBH", first, bit | 126, size) + key + masked(payload, key)
    return struct.pack("!BBQ", first, bit | 127, size) + key + masked(payload, key)


KNOWN = (b'{"as viewers get it ":', b"cam-1", 2**32 - 2, 1_700_000_000_000)


def taken(data: bytes, *, max_bytes: int = MAX, count: int | None = None, known=KNOWN):
    # Exactly as long as the data, so that AddressSanitizer finds what reads beyond it (`make sanitize`).
    return take(memoryview(bytearray(data)), len(data) if count is None else count, max_bytes, *known)


#: The text between two words of JSON is one of `WHITE`; `GAPS` of them follow each other again and again. All are one
#: number, which is drawn once: Hypothesis draws a list of words ten times slower.
WHITE, GAPS = ("", "", "", " ", "\n", "\t \r\n"), 12
KEYS = (KEY, b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x04\x08", b'"\\{}')
ODD = [
    "NaN",
    "01",
    "1.",
    ".5",
    "-",
    "+1",
    "1e",
    "tru",
    "nulll",
    "'a'",
    '"\\x"',
    '"\\u12"',
    '"\t"',
    '"a',
    "[1,]",
    "[,]",
    "{}}",
    '{"a"}',
    '{"a":1,}',
    "[[[[",
    "[" * 17 + "]" * 17,
    "",
    "\x7f",
    "{1:2}",
    "[1 2]",
    '"\x00"',
]
GOOD_VALUES = [
    "0",
    "-0",
    "1.50",
    "1e3",
    "-2E-7",
    "1" * 40,
    "1e999",
    "true",
    "false",
    "null",
    '""',
    '"a b"',
    '"\\ud83d"',
    '"\\\\\\""',
    '"\\u00e9"',
    '"h\u00e9\U0001f600"',
    "[]",
    "{}",
    '[ 1 , [2.50,{"a\\n":"}"}] ]',
    '{"x":{"y":[0.5,null]},"x":1}',
    '"' + "x" * 300 + '"',
    '"\x7f"',
]


def escaped(picture: bytes, ways: int) -> str:
    """Base64 with escapes as encoders write them; `ways` decides for each character that may have one."""
    out = []
    for at, character in enumerate(base64.b64encode(picture).decode()):
        way = ways >> at % 61 & 3
        if way == 1 and character in "/+=Aa7":
            character = f"\\u{ord(character):04{'x' if ways & 1 else 'X'}}"
        elif way > 1 and character == "/":
            character = "\\/"
        out.append(character + "\\r\\n" * (at % 76 == 75 and ways & 2 > 0))
    return "".join(out) + "\\n" * (ways & 4 > 0)


PICTURES = st.binary(max_size=200)
TEXTS = st.one_of(
    PICTURES.map(lambda data: base64.b64encode(data).decode()),
    st.builds(escaped, PICTURES, st.integers(0, 2**64 - 1)),
    PICTURES.map(lambda data: base64.b64encode(data).decode().rstrip("=")),
    st.text(max_size=20),
    st.sampled_from(
        [
            "/9j/",
            "/9j/AA==",
            "/9j/AA",
            "/9j/A",
            "data:image/jpeg;base64,/9j/",
            "DATA:;BASE64,/9j/",
            "data:image/jpeg; base64,/9j/",
            "data:,/9j/",
            "data/9j/",
            "data:x;base64,",
            "data:" + "x" * 250 + ";base64,/9j/",
            "=",
            "====",
            "A===",
            "AA=A",
            "\\/9j\\/",
            "data:image\\/jpeg;base64,\\/9j\\/",
            "data:image\\/jpeg;base64\\,\\/9j\\/",
            "data:image\\jpeg;base64,\\/9j\\/",
            "\\\\/9j\\/A",
            "/9j\\\\/",
            "/9j/\\",
            "/9j/\\\\",
            "/9j/\\n\\n",
            "/9j/AA\\u003d\\u003D",
            "/9j/AA\\u003d=\\n",
            "/9j/AA==\\u003d",
            "/9j/AA\\u003d",
            "/9j\\u002",
            "/9j\\u022f",
            "/9j\\u002g",
            "/9j\\u005c/AA",
            "/9j\\u0022A",
            "/9j\\tA",
            "/9j\\bA",
            "\\u002f9j\\u002F",
            "\\u003d\\u003d",
            "\\n",
            "\\n\\/",
            "/9j/A=\\nA=",
            "/9j/AA=A",
            '/9j/","x":"/9j/',
            "_9j_",
            "/9j/\n",
        ]
    ),
)
TIMES = st.one_of(
    st.integers(0, 10**16).map(str),
    st.sampled_from(
        [
            "0",
            "00",
            "-1",
            "-0",
            "1e3",
            "1E+3",
            "1.0",
            "1729943200000.123",
            "1729943200000.9999",
            "9" * 13 + ".998",
            "9" * 15,
            "1.",
            "null",
            '"1"',
            "true",
            " 7 ",
            "1.5e3",
            "1.729943200123e12",
            "1.729943200123E+12",
            "1.729943200123e11",
            "1.729943200123e-1",
            "0.5e1",
            "0e99",
            "1e15",
            "1e14",
            "1e+",
            "1e100",
            "12.3e+2",
            "00.5e1",
            "9" * 16,
            "0.5",
        ]
    ),
)
MEMBERS = st.lists(
    st.one_of(
        st.tuples(st.just('"timestamp"'), TIMES),
        st.tuples(
            st.just('"streamId"'), st.sampled_from(['"cam-1"', '"cam-2"', '"cam\\u002d1"', "null", "5", '"cam-1'])
        ),
        st.tuples(
            st.just('"type"'),
            st.sampled_from(['"video-frame"', '"video-frame"', '"alert"', "1", '"video\\u002dframe"']),
        ),
        st.tuples(st.just('"frameId"'), st.sampled_from(["7", '"x"'])),
        st.tuples(
            st.sampled_from(
                [
                    '"width"',
                    '"w h"',
                    '"\u00fc"',
                    '""',
                    '"fram\\u0065Id"',
                    '"da\\u0074a"',
                    '"a\\n"',
                    '"Type"',
                    '"id"',
                    '"requestId"',
                    "x",
                    '"x',
                ]
            ),
            st.sampled_from(GOOD_VALUES + ODD),
        ),
        st.tuples(st.sampled_from(['"a"', '"b"', '"c"']), st.sampled_from(GOOD_VALUES)),
    ),
    max_size=5,
)


def judged(data: bytes) -> VideoFrame | None:
    """The frame that the full parser reads, which is the one to agree with."""
    try:
        parsed = parse_text(data)
    except (ClientError, UnicodeDecodeError):
        return None
    return parsed if isinstance(parsed, VideoFrame) and parsed.stream_id in (None, "cam-1") else None


@settings(max_examples=1000)
@given(
    MEMBERS,
    TEXTS,
    MEMBERS,
    st.integers(0, len(WHITE) ** GAPS - 1),
    st.booleans(),
    st.sampled_from(["", "", "", ",", "}", "x"]),
    st.integers(0, 2),
    st.sampled_from(KEYS),
)
@example([], "AA==", [('"type"', '"video-frame"'), ('"ü"', "0")], 0, False, "", 0, KEY)
def test_what_it_takes_is_what_the_full_parser_says_it_is(
    before: list[tuple[str, str]],
    text: str,
    after: list[tuple[str, str]],
    white: int,
    typed: bool,
    end: str,
    stretch: int,
    key: bytes,
) -> None:
    first = [('"type"', '"video-frame"')] if typed else []
    members = [*first, *before, ('"data"', f'"{text}"'), *after]
    gaps = itertools.cycle(WHITE[white // len(WHITE) ** at % len(WHITE)] for at in range(GAPS))
    inner = ",".join(f"{next(gaps)}{name}{next(gaps)}:{next(gaps)}{value}{next(gaps)}" for name, value in members)
    data = f"{next(gaps)}{{{inner}}}{end}{next(gaps)}".encode("utf-8", "surrogatepass")
    found, parsed = taken(frame(data, stretch=stretch, key=key)), judged(data)
    assert take_payload(bytes(data), *KNOWN) == found
    if found is None:
        return
    assert parsed is not None
    wire, begin, end_at, timestamp, codec, size_bytes, more = found
    assert (codec, size_bytes, more) == (fastpath.TEXT, len(data), parsed.more)
    json_head, _, frame_id, now_ms = KNOWN
    assert timestamp == (now_ms if parsed.timestamp is None else parsed.timestamp)
    assert find_members(data) == (read_members(data), True)
    assert read_refused(data, "cam-1") == RefusedMessage(Subject(None, "cam-1"), True, parsed.timestamp)
    assert wire[begin - 1 : end_at + 1] == parsed.data
    assert decode_text(parsed.data)
    made = Frame.of_message("cam-1", frame_id, timestamp, 0, wire, begin, end_at, codec, more)
    assert made.codec is Frame("cam-1", frame_id, timestamp, text=parsed.data).codec
    body = b'%b%d,"timestamp":%d%b,"data":%b}' % (json_head, frame_id, timestamp, parsed.more, parsed.data)
    assert wire == frame_header(0x1, len(body)) + body


@settings(max_examples=300)
@given(
    st.binary(min_size=1, max_size=9000),
    st.integers(0, 10**15 - 1),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 2),
    st.permutations(["type", "streamId", "data", "timestamp", "width", "label", "bbox", "frameId"]),
    st.booleans(),
    st.sampled_from(["", "data:image/jpeg;base64,"]),
)
def test_it_takes_the_frames_that_clients_send(
    picture: bytes, timestamp: int, key: bytes, stretch: int, order: list[str], spaced: bool, prefix: str
) -> None:
    text = base64.b64encode(picture).decode()
    fields: dict[str, object] = {
        "type": "video-frame",
        "streamId": "cam-1",
        "data": prefix + text,
        "timestamp": timestamp,
        "width": 640,
        "label": "K\u00fcche \ud83d",
        "bbox": [1, 2.5, {"a": None}],
        "frameId": 99,
    }
    separators = None if spaced else (",", ":")
    sent = json.dumps({name: fields[name] for name in order}, separators=separators).encode()
    found = taken(frame(sent, key=key, stretch=stretch))
    assert found is not None
    wire, begin, end, at, *_ = found
    assert (wire[begin:end].decode(), at) == (prefix + text, timestamp)
    got = json.loads(b'{"as viewers get it":0' + found[6] + b"}")
    assert {name: got[name] for name in ("width", "label", "bbox")} == {
        name: fields[name] for name in ("width", "label", "bbox")
    }
    assert "frameId" not in got


BASE64 = base64.b64encode(bytes(range(256)) * 8).decode()
WITH_PADDING = base64.b64encode(b"\xff\xd8\xff" + bytes(range(256)) * 8).decode()
SENT = {"type": "video-frame", "streamId": "cam-1", "data": BASE64, "timestamp": 1729943200123}


def lines(text: str, end: str) -> str:
    """Base64 in lines (RFC 2045 section 6.8)."""
    return "".join(text[at : at + 76] + end for at in range(0, len(text), 76))


@pytest.mark.parametrize(
    ("sent", "at"),
    [
        (json.dumps(SENT, separators=(",", ":")), 1729943200123),
        (json.dumps(SENT), 1729943200123),
        (json.dumps(SENT, indent=2).replace('": ', '" : '), 1729943200123),
        (json.dumps(dict(reversed(SENT.items()))), 1729943200123),
        (json.dumps({**SENT, "timestamp": 1729943200123.4567}), 1729943200123),
        (json.dumps({**SENT, "width": 640, "height": 480, "rotation": 90}), 1729943200123),
        (json.dumps({**SENT, "requestId": None, "streamId": None}), 1729943200123),
        (json.dumps({**SENT, "timestamp": None}), KNOWN[3]),
        (json.dumps(SENT).replace("1729943200123", "1.729943200123e12"), 1729943200123),
        (json.dumps(SENT).replace("/", "\\/"), 1729943200123),
        (json.dumps({**SENT, "data": f"data:image/jpeg;base64,{BASE64}"}).replace("/", "\\/"), 1729943200123),
        (json.dumps({**SENT, "data": WITH_PADDING}).replace("=", "\\u003d"), 1729943200123),
        (json.dumps(SENT).replace("+", "\\u002B"), 1729943200123),
        (json.dumps({**SENT, "data": lines(BASE64, "\n")}), 1729943200123),
        (json.dumps({**SENT, "data": lines(BASE64, "\r\n")}).replace("/", "\\/"), 1729943200123),
        (json.dumps({**SENT, "data": WITH_PADDING.rstrip("=")}), 1729943200123),
    ],
    ids=[
        "JSON.stringify, Go, kotlinx, ArduinoJson", "json.dumps", "pretty, as JSONSerialization", "another order",
        "time.time() * 1000", "three more fields", "null for what is not there", "null for the time",
        "a time with an exponent, as ArduinoJson and Lua", "JSONEncoder of Swift, org.json, PHP",
        "the same with a prefix", "Gson", "System.Text.Json", "base64 in lines, as Base64.DEFAULT of Android",
        "base64 in lines with CRLF and escaped slashes", "base64 without padding",
    ],
)  # fmt: skip
def test_it_takes_what_the_encoders_of_many_languages_write(sent: str, at: int) -> None:
    assert '"data"' in sent
    found, parsed = taken(frame(sent.encode())), judged(sent.encode())
    assert parsed is not None
    assert found is not None
    wire, begin, end, timestamp, *_ = found
    assert timestamp == at
    assert wire[begin - 1 : end + 1] == parsed.data
    assert json.loads(wire[wire.index(b"{", 1) :].replace(b'{"as viewers get it ":', b'{"frameId":'))["data"]


@pytest.mark.parametrize(
    "before", [b"iVBORw0KGgo", b"UklGRgAAAABXRUJQ", rb"iVBO\u0052w0KGgo", rb"\n\niVBORw0KGgo", rb"\/9j\n\/"]
)
@pytest.mark.parametrize("rest", [b"AA/A" * 30, rb"A\/AA" * 30, rb"\u0041AAA" * 100, rb"\n" * 400, b""])
@pytest.mark.parametrize("prefix", [b"", b"data:image/x;base64,", rb"data:image\/x;base64,"])
def test_the_codec_is_found_behind_escapes(prefix: bytes, before: bytes, rest: bytes) -> None:
    length = len(decode_text(b'"%b"' % (before + rest).replace(b"=", b""))) if before + rest else 0
    sent = b'{"type":"video-frame","data":"%b"}' % (prefix + before + rest)
    found = taken(frame(sent))
    assert found is not None
    assert length
    made = Frame.of_message("cam-1", 1, 1, 0, *found[:3], found[4])
    same = Frame("cam-1", 1, 1, text=b'"%b"' % (prefix + before + rest))
    assert made.codec is same.codec
    assert made.codec is not Codec.OPAQUE
    assert made.picture == same.picture


@pytest.mark.parametrize("size", [0, 100, 3900, 4095, 4096, 4097, 5000, 20_000])
@pytest.mark.parametrize("before", [True, False])
def test_a_long_envelope_is_taken_or_left_to_the_parser(size: int, before: bool) -> None:
    note, data = ('"note":"%s"' % ("x" * size)), '"data":"%s"' % ("/9j/" * 500)
    sent = f'{{"type":"video-frame",{note},{data}}}' if before else f'{{"type":"video-frame",{data},{note}}}'
    found = taken(frame(sent.encode()))
    assert (found is not None) is (size < 4000)
    parsed = judged(sent.encode())
    assert parsed is not None
    assert found is None or found[6] == parsed.more
    assert find_members(sent.encode())[1]


@pytest.mark.parametrize("many", [1, 31, 32, 33, 200])
def test_many_fields_are_taken_or_left_to_the_parser(many: int) -> None:
    fields = ",".join(f'"f{number}":{number}' for number in range(many))
    sent = b'{"type":"video-frame",%b,"data":"/9j/"}' % fields.encode()
    assert (taken(frame(sent)) is not None) is (many <= 32)
    parsed = judged(sent)
    assert parsed is not None
    assert parsed.more == b"," + fields.encode()


GOOD = frame(HEAD + b"/9j/" * 5 + b'","timestamp":1729943200000}')


@pytest.mark.parametrize("count", range(len(GOOD)))
def test_it_takes_no_part_of_a_frame(count: int) -> None:
    assert taken(GOOD[:count]) is None
    assert taken(GOOD, count=count) is None


@pytest.mark.parametrize(
    "data",
    [
        GOOD + b"\x89",
        frame(HEAD + b'/9j/","timestamp":1}', 0x82),
        frame(HEAD + b'/9j/","timestamp":1}', 0x01),
        frame(HEAD + b'/9j/","timestamp":1}', 0xC1),
        frame(HEAD + b'/9j/","timestamp":1}', bit=0),
        struct.pack("!BBQ", 0x81, 0xFF, 2**64 - 1) + GOOD[4:],
        struct.pack("!BBQ", 0x81, 0xFF, 2**63) + GOOD[4:],
        struct.pack("!BBQ", 0x81, 0xFF, 0) + bytes(4),
        b"\x81\xfe\x00\x00" + bytes(10),
        b"\x81\x80" + bytes(12),
        bytes(14),
    ],
)
def test_it_takes_no_other_frames(data: bytes) -> None:
    assert taken(data) is None


def test_it_takes_nothing_over_the_limit() -> None:
    data = HEAD + b'/9j/","timestamp":1}'
    assert taken(frame(data), max_bytes=len(data)) is not None
    assert taken(frame(data), max_bytes=len(data) - 1) is None


@given(st.binary(max_size=60), st.integers(-5, 70))
def test_whatever_it_is_given_it_answers(data: bytes, count: int) -> None:
    assert taken(data, count=count) is None or count <= len(data)


@settings(max_examples=800)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_a_message_that_is_spoilt_is_taken_as_the_parser_takes_it(rest: bytes, at: int, byte: int) -> None:
    sent = bytearray(
        b'{"type":"video-frame","a":"\\ud83d\xc3\xbc","b":[1.5e3,{"c":null}],"data":"/9j/","timestamp":1.5,"d":false}'
        + rest
    )
    sent[at % len(sent)] = byte
    found = taken(frame(bytes(sent)))
    parsed = judged(bytes(sent))
    assert take_payload(bytes(sent), *KNOWN) == found
    assert found is None or (parsed is not None and found[6] == parsed.more)


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"", 0, 0, b""), (b"", 0, 0, "x", b"", 1, 1), (b"", 0, 0, b"", "x", 1, 1), (b"", "0", 0, b"", b"", 1, 1),
        (3, 0, 0, b"", b"", 1, 1), (b"", 2**80, 0, b"", b"", 1, 1), (b"", 0, 0, b"", b"", -1, 1),
        (b"", 0, 0, b"", b"", 1, 2**64), (b"", 0, 0, b"", b"x" * 129, 1, 1),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_an_error(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, OverflowError, ValueError)):
        take(*arguments)  # type: ignore[arg-type]


@given(st.binary(max_size=60))
def test_whatever_payload_it_is_given_it_answers(data: bytes) -> None:
    assert take_payload(data, *KNOWN) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"", b"", b"", 1), ("", b"", b"", 1, 1), (b"", "", b"", 1, 1), (b"", b"", 5, 1, 1), (b"", b"", b"", -1, 1),
        (b"", b"", b"", 1, 2**64), (b"", b"", b"x" * 129, 1, 1),
    ],
)  # fmt: skip
def test_a_payload_with_arguments_that_do_not_fit_is_an_error(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, OverflowError, ValueError)):
        take_payload(*arguments)  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"", 1, 1, b"ab", 0, 1), ("", 1, 1, b"ab", 0, 1, b""), (b"", -1, 1, b"ab", 0, 1, b""),
        (b"", 1, 1, b"ab", 0, 1, ""),
        (b"", 1, 2**64, b"ab", 0, 1, b""), (b"", 1, 1, b"ab", -1, 1, b""), (b"", 1, 1, b"ab", 0, 3, b""),
        (b"", 1, 1, b"ab", 2, 1, b""), (b"", 1, 1, b"ab", 0, 2**80, b""),
    ],
)  # fmt: skip
def test_a_message_of_what_is_not_there_is_an_error(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        message(*arguments)  # type: ignore[arg-type]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=200), st.binary(max_size=100))
def test_a_message_holds_its_numbers_and_text(frame_id: int, timestamp: int, text: bytes, more: bytes) -> None:
    made = message(b"head", frame_id, timestamp, b"<" + text + b">", 1, 1 + len(text), more)
    body = b'head%d,"timestamp":%d%b,"data":"%b"}' % (frame_id, timestamp, more, text)
    assert made == (bytes((0x81, len(body))) if len(body) < 126 else struct.pack("!BBH", 0x81, 126, len(body))) + body


@settings(max_examples=800)
@given(
    st.binary(max_size=40),
    st.sampled_from(["cam-1", "", "cam-2", "cam-10", "x" * 128, "x y"]),
    st.integers(0, 4),
    st.one_of(st.integers(0, 2**53), st.just(0)),
    st.tuples(st.sampled_from([0x57, 0x56]), st.sampled_from([1, 1, 1, 2]), st.just(1), st.sampled_from([0, 0, 0, 1])),
    st.integers(0, 2),
    st.binary(min_size=4, max_size=4),
)
@example(b"\xff\xd8\xff", "cam-1", 1, 5, (0x57, 1, 1, 0), 0, KEY)
@example(b"\xff\xd8\xff", "", 0, 0, (0x57, 1, 1, 0), 1, KEY)
def test_a_picture_is_taken_as_the_parser_takes_it_and_numbered_for_its_viewers(
    picture: bytes, name: str, codec: int, timestamp: int, start: tuple[int, ...], stretch: int, key: bytes
) -> None:
    data = struct.pack(">BBBBIQBB", *start, 77, timestamp, codec, len(name)) + name.encode() + picture
    found = taken(frame(data, 0x82, stretch=stretch, key=key))
    try:
        parsed = parse_binary(data)
    except FrameFault:
        assert found is None
        return
    if parsed.stream_id not in (None, "cam-1"):
        assert found is None
        return
    assert found is not None
    wire, begin, end, at, as_codec, size_bytes, _ = found
    now_ms = KNOWN[3]
    assert (at, as_codec, size_bytes) == (parsed.timestamp or now_ms, parsed.codec.value, len(data))
    assert timestamp_of_binary(data) == parsed.timestamp
    assert wire[begin:] == wire[begin:end] == picture
    same = Frame("cam-1", KNOWN[2], at, picture=picture, codec=parsed.codec)
    made = Frame.of_message("cam-1", KNOWN[2], at, 0, wire, begin, end, as_codec)
    assert (made.codec, made.has_binary, made.text) == (same.codec, same.has_binary, same.text)
    if same.has_binary:
        assert frame_message(made, "binary") == frame_message(same, "binary")


def test_a_header_that_says_another_codec_than_the_bytes_is_set_right() -> None:
    data = struct.pack(">BBBBIQBB", 0x57, 1, 1, 0, 0, 5, 2, 0) + b"\xff\xd8\xff"
    found = taken(frame(data, 0x82))
    assert found is not None
    wire, begin, end, at, said, *_ = found
    made = Frame.of_message("cam-1", 7, at, 0, wire, begin, end, said)
    assert parse_binary(made.to_binary()).codec is Codec.JPEG
    assert frame_message(made, "binary") != wire


@pytest.mark.parametrize("count", range(30))
def test_it_takes_no_part_of_a_picture(count: int) -> None:
    data = Frame("cam-1", 1, 1, picture=b"\xff\xd8\xffabcd", codec=Codec.JPEG).to_binary()
    assert len(data) == 30
    assert taken(frame(data, 0x82)[: count + 6]) is None
    assert (taken(frame(data[:count], 0x82)) is not None) is (count > 23), "a header alone is no picture"


def test_a_frame_whose_number_has_run_over_is_not_taken() -> None:
    assert taken(GOOD) is not None
    assert taken(GOOD, known=(*KNOWN[:2], 2**32 - 1, 1)) is not None
    assert taken(GOOD, known=(*KNOWN[:2], 2**32, 1)) is None
    text = HEAD + b'/9j/"}'
    assert take_payload(text, *KNOWN[:2], 2**32 - 1, 1) is not None
    assert take_payload(text, *KNOWN[:2], 2**32, 1) is None


@pytest.mark.parametrize("stream", ["s", "x" * 128])
@pytest.mark.parametrize("form", ["text", "picture"])
def test_what_was_taken_is_its_viewers_message_and_holds_nothing_twice(stream: str, form: str) -> None:
    picture, timestamp, codec = b"\xff\xd8\xff" * 10, 10**15 - 1, Codec.JPEG
    known = (json_head(stream), stream.encode(), 2**32 - 1, 1)
    head = b'{"type":"video-frame","streamId":"%b","data":"' % stream.encode()
    if form == "text":
        same = Frame(stream, 2**32 - 1, timestamp, term=3, text=b'"' + base64.b64encode(picture) + b'"')
        sent = frame(head + base64.b64encode(picture) + b'","timestamp":%d}' % timestamp)
    else:
        same = Frame(stream, 2**32 - 1, timestamp, term=3, picture=picture, codec=codec)
        sent = frame(same.to_binary(), 0x82)
    found = taken(sent, known=known)
    assert found is not None
    wire, begin, end, at, number, _, more = found
    made = Frame.of_message(stream, 2**32 - 1, at, 3, wire, begin, end, number, more)
    assert made.size_bytes == len(wire)
    assert frame_message(made, "json" if form == "text" else "binary") is wire
    assert made.to_bus() == same.to_bus()
    assert made.codec is codec
    for message_format in ("json", "binary"):
        assert frame_message(made, message_format) == frame_message(same, message_format)
    assert made.picture == picture
    assert made.text == same.text
    assert made.to_json() == same.to_json()
    assert made.to_binary() == same.to_binary()


def test_the_c_module_takes_each_codec_of_the_registry_and_no_other() -> None:
    """`LAST_CODEC` in its source stands for the numbers that binary frames may have."""
    source = (Path(__file__).parents[3] / "gateway/_fastpath.c").read_text()
    (last,) = re.findall(r"LAST_CODEC = (\d+)", source)
    assert sorted(BY_NUMBER) == list(range(int(last) + 1))
    for number in (*BY_NUMBER, int(last) + 1):
        head = struct.pack(">BBBBIQBB", 0x57, 1, 1, 0, 77, 1, number, 5) + b"cam-1"
        assert (taken(frame(head + b"picture" * 20, 0x82)) is not None) == (number in BY_NUMBER), number


# ── frames of other gateways ─────────────────────────────────────────────────────────────────────────────────────


#: Of a long payload: Hypothesis draws each of its bytes otherwise, which takes a hundred times longer than the rest.
PATTERN = bytes(range(256))


def crossing(payload: bytes, *, text: bool, more: bytes = b"", stream: str = "cam-1") -> bytes:
    """A frame with a finished message as it comes from another gateway."""
    if text:
        made = Frame(stream, 7, 11, term=2**40, text=b'"%b"' % base64.b64encode(payload), is_base64=True, more=more)
    else:
        made = Frame(stream, 7, 11, term=2**40, picture=b"\xff\xd8\xff" + payload)
    frame_message(made, "json" if text else "binary")
    return b"".join(made.mesh_parts())


def looks_of(frame: Frame) -> tuple[object, ...]:
    """All that a gateway uses of a frame."""
    return (
        frame.stream_id, frame.frame_id, frame.timestamp, frame.term, frame.more, frame.json_wire, frame.binary_wire,
        frame.codec, frame.is_picture, bytes(frame.text), frame.size_bytes,
    )  # fmt: skip


def as_python_reads(data: bytes) -> tuple[object, ...] | None:
    """What the same bytes are in Python; None: malformed, of another form, or for one receiver."""
    try:
        received = decode_frame(data)
    except BusError:
        return None
    if received.form not in (FORM_JSON_MESSAGE, FORM_BINARY_MESSAGE) or received.to != EVERYBODY:
        return None
    return looks_of(Frame.from_bus(received))


@given(
    st.binary(min_size=1, max_size=200) | st.integers(65_530, 65_540).map(lambda size: (PATTERN * 257)[:size]),
    st.booleans(),
    st.sampled_from([b"", b',"a":1', b',"b":[",\\"data\\":\\""]']),
    st.sampled_from(["s", "x" * 128]),
    st.booleans(),
)
def test_a_frame_of_another_gateway_is_read_as_python_reads_it(
    payload: bytes, text: bool, more: bytes, stream: str, view: bool
) -> None:
    data = crossing(payload, text=text, more=more, stream=stream)
    found = remote(memoryview(bytearray(data)) if view else data)
    assert found is not None
    assert looks_of(Frame.of_message(*found)) == as_python_reads(data)


@pytest.mark.parametrize("text", [False, True])
def test_a_frame_of_another_gateway_has_a_term_that_a_router_can_grant(text: bool) -> None:
    data = bytearray(crossing(b"picture", text=text))
    for term in (MAX_TERM - 1, MAX_TERM, 2**64 - 1):
        struct.pack_into(">Q", data, 16, term)
        assert (remote(bytes(data)) is not None) == (as_python_reads(bytes(data)) is not None) == (term < MAX_TERM)


@settings(max_examples=800)
@given(st.booleans(), st.integers(0, 140), st.integers(0, 255), st.integers(-3, 3))
def test_a_frame_of_another_gateway_that_is_spoilt_is_read_as_python_reads_it(
    text: bool, at: int, byte: int, longer: int
) -> None:
    data = bytearray(crossing(b"\xff\xd8\xff" + bytes(60), text=text, more=b',"a":1' if text else b""))
    data[at % len(data)] = byte
    data = data[:longer] if longer < 0 else data + bytes(longer)
    found, expected = remote(memoryview(data)), as_python_reads(bytes(data))
    assert (None if found is None else looks_of(Frame.of_message(*found))) == expected


@given(st.binary(max_size=80))
def test_whatever_comes_from_another_gateway_it_answers(data: bytes) -> None:
    for form in (3, 4):
        remote(memoryview(bytearray(bytes((0x46, 1, form, 0)) + data)))
    assert remote(data) is None or as_python_reads(data) is not None


@pytest.mark.parametrize("count", range(len(crossing(b"picture", text=False))))
def test_it_takes_no_part_of_a_frame_of_another_gateway(count: int) -> None:
    assert remote(memoryview(bytearray(crossing(b"picture", text=False)[:count]))) is None


def test_the_c_module_takes_each_codec_of_the_bus_and_no_other() -> None:
    """`LAST_VALUE` in its source stands for the codecs that frames on the bus may have."""
    data = bytearray(crossing(b"\xff\xd8\xff" + bytes(60), text=True))
    for value in (*BY_VALUE, max(BY_VALUE) + 1):
        data[3] = value
        assert (remote(data) is not None) == (value in BY_VALUE), value


def test_a_frame_for_one_receiver_is_left_to_python() -> None:
    data = bytearray(crossing(b"picture", text=False))
    data[31] = 1
    assert remote(data) is None
    with pytest.raises(TypeError):
        remote(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [True, False])
def test_a_message_that_says_it_is_masked_goes_to_no_viewer(text: bool) -> None:
    """Its viewers would lose their connections: a server masks nothing (RFC 6455 section 5.1)."""
    data = crossing(b"\x00" * 60, text=text)
    head = read_frame_head(data)
    at = head.payload_at + 8
    short = data[:at] + bytes((data[at], 0x80 | 0x15)) + bytes(0x80 | 0x15)
    for damaged in (short, data[: at + 1] + bytes((data[at + 1] | 0x80,)) + data[at + 2 :]):
        assert remote(damaged) is None
        with pytest.raises(BusError, match="expected a whole message"):
            decode_frame(damaged)
