"""The C module says of what it takes what the full parser says, takes the frames of clients, and nothing else."""

from __future__ import annotations

import base64
import os
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.codecs import Codec
from common.frames import Frame, FrameFault, json_head, parse_binary
from gateway import plain
from gateway.wire import VideoFrame, frame_header, frame_message, parse_text

if plain.take is None or plain.message is None:
    assert "CI" not in os.environ, "gateway._plain was not built"
    pytest.skip("gateway._plain was not built: there was no compiler at installation", allow_module_level=True)

take, message = plain.take, plain.message
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


def taken(data: bytes, *, head: bytes = HEAD, max_bytes: int = MAX, count: int | None = None, known=KNOWN):
    # Exactly as long as the data, so that AddressSanitizer finds what reads beyond it (`make sanitize`).
    return take(memoryview(bytearray(data)), len(data) if count is None else count, max_bytes, head, *known)


TEXTS = st.one_of(
    st.binary(max_size=200).map(base64.b64encode),
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b'","timestamp":7', b'AA","data":"AA', b"A\\nA", b"A\x7fA", b"A\x1fA", b"A\x80A", b'A"A', b"data:,x y"]
    ),
)
TAILS = st.one_of(
    st.integers(0, 10**16).map(lambda number: b'","timestamp":%d}' % number),
    st.sampled_from(
        [
            b'","timestamp":%b}' % number
            for number in (b"", b"00", b"01", b"-1", b"1.0", b"1e3", b"9" * 15, b"9" * 16, b" 1")
        ]
        + [b'"}', b'","timestamp":1} ', b'","timestamp":1', b'","timestamp": 1}', b'" ,"timestamp":1}', b"}", b""]
    ),
)


@settings(max_examples=3000)
@given(st.sampled_from([HEAD, HEAD, HEAD, HEAD[:-1], HEAD[1:], b"", b"}"]), TEXTS, TAILS, st.integers(0, 2))
@example(HEAD, b"/9j/", b'","timestamp":0}', 0)
def test_what_it_takes_is_what_the_full_parser_says_it_is(head: bytes, text: bytes, tail: bytes, stretch: int) -> None:
    data = head + text + tail
    found = taken(frame(data, stretch=stretch))
    if found is None:
        return
    wire, begin, end, timestamp, codec, size_bytes = found
    assert (codec, size_bytes) == (plain.TEXT, len(data))
    parsed = parse_text(data)
    assert isinstance(parsed, VideoFrame)
    assert (parsed.stream_id, parsed.timestamp) == ("cam-1", timestamp)
    token = bytes(parsed.data)
    assert wire[begin - 1 : end + 1] == token
    json_head, _, frame_id, _ = KNOWN
    body = b'%b%d,"timestamp":%d,"data":%b}' % (json_head, frame_id, timestamp, token)
    assert wire == frame_header(0x1, len(body)) + body


@given(st.binary(max_size=3000), st.integers(0, 10**15 - 1), st.binary(min_size=4, max_size=4), st.integers(0, 2))
def test_it_takes_the_frames_that_clients_send(picture: bytes, timestamp: int, key: bytes, stretch: int) -> None:
    text = base64.b64encode(picture)
    found = taken(frame(HEAD + text + b'","timestamp":%d}' % timestamp, key=key, stretch=stretch))
    assert found is not None
    wire, begin, end, at, _, _ = found
    assert (wire[begin:end], at) == (text, timestamp)


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


@given(st.binary(max_size=60), st.integers(-5, 70), st.binary(max_size=60))
def test_whatever_it_is_given_it_answers(data: bytes, count: int, head: bytes) -> None:
    assert taken(data, count=count, head=head) is None or count <= len(data)


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"", 0, 0, b""), (b"", 0, 0, "x", b"", b"", 1, 1), (b"", 0, 0, b"", "x", b"", 1, 1),
        (b"", 0, 0, b"", b"", "x", 1, 1), (b"", "0", 0, b"", b"", b"", 1, 1), (3, 0, 0, b"", b"", b"", 1, 1),
        (b"", 2**80, 0, b"", b"", b"", 1, 1), (b"", 0, 0, b"", b"", b"", -1, 1), (b"", 0, 0, b"", b"", b"", 1, 2**64),
        (b"", 0, 0, b"", b"", b"x" * 129, 1, 1),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_an_error(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, OverflowError, ValueError)):
        take(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        (), (b"", 1, 1, b"ab", 0), ("", 1, 1, b"ab", 0, 1), (b"", -1, 1, b"ab", 0, 1), (b"", 1, 2**64, b"ab", 0, 1),
        (b"", 1, 1, b"ab", -1, 1), (b"", 1, 1, b"ab", 0, 3), (b"", 1, 1, b"ab", 2, 1), (b"", 1, 1, b"ab", 0, 2**80),
    ],
)  # fmt: skip
def test_a_message_of_what_is_not_there_is_an_error(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        message(*arguments)  # type: ignore[arg-type]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=200))
def test_a_message_holds_its_numbers_and_text(frame_id: int, timestamp: int, text: bytes) -> None:
    made = message(b"head", frame_id, timestamp, b"<" + text + b">", 1, 1 + len(text))
    body = b'head%d,"timestamp":%d,"data":"%b"}' % (frame_id, timestamp, text)
    assert made == (bytes((0x81, len(body))) if len(body) < 126 else struct.pack("!BBH", 0x81, 126, len(body))) + body


@settings(max_examples=3000)
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
    wire, begin, end, at, as_codec, size_bytes = found
    now_ms = KNOWN[3]
    assert (at, as_codec, size_bytes) == (parsed.timestamp or now_ms, parsed.codec.value, len(data))
    assert wire[begin:] == wire[begin:end] == picture
    same = Frame("cam-1", KNOWN[2], at, picture=picture, codec=parsed.codec)
    made = Frame.of_message("cam-1", KNOWN[2], at, 0, wire, begin, end, as_codec)
    assert (made.codec, made.has_binary, made.text) == (same.codec, same.has_binary, same.text)
    if same.has_binary:
        assert frame_message(made, "binary") == frame_message(same, "binary")


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
    found = taken(sent, head=head, known=known)
    assert found is not None
    wire, begin, end, at, number, _ = found
    made = Frame.of_message(stream, 2**32 - 1, at, 3, wire, begin, end, number)
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
