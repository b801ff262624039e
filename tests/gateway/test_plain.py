"""The C module says of what it takes what the full parser says, takes the frames of clients, and nothing else."""

from __future__ import annotations

import base64
import os
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.frames import Frame
from common.messages import decode_frame
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


def taken(data: bytes, *, head: bytes = HEAD, max_bytes: int = MAX, count: int | None = None, room: int = 100):
    # Exactly as long as the data, so that AddressSanitizer finds what reads beyond it (`make sanitize`).
    found = take(memoryview(bytearray(data)), len(data) if count is None else count, max_bytes, head, room)
    if found is None:
        return None
    held, begin, end, timestamp = found
    assert held[:room] == bytes(room)
    return bytes(held[room:]), begin - room, end - room, timestamp


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
    came, begin, end, timestamp = found
    assert came == data
    parsed = parse_text(data)
    assert isinstance(parsed, VideoFrame)
    assert (parsed.stream_id, parsed.timestamp) == ("cam-1", timestamp)
    assert came[begin - 1 : end + 1] == bytes(parsed.data)


@given(st.binary(max_size=3000), st.integers(0, 10**15 - 1), st.binary(min_size=4, max_size=4), st.integers(0, 2))
def test_it_takes_the_frames_that_clients_send(picture: bytes, timestamp: int, key: bytes, stretch: int) -> None:
    text = base64.b64encode(picture)
    found = taken(frame(HEAD + text + b'","timestamp":%d}' % timestamp, key=key, stretch=stretch))
    assert found is not None
    came, begin, end, at = found
    assert (came[begin:end], at) == (text, timestamp)


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
    assert take(memoryview(data), count, MAX, head, 0) is None or count <= len(data)


@pytest.mark.parametrize(
    "arguments", [(), (b"", 0, 0), (b"", 0, 0, "x"), (b"", "0", 0, b""), (3, 0, 0, b""), (b"", 2**80, 0, b"")]
)
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


@given(
    st.integers(0, 300), st.binary(max_size=300), st.integers(0, 5), st.integers(0, 2**64 - 1), st.binary(max_size=9)
)
@example(40, b"x" * 100, 2, 1, b"head")
def test_a_message_is_made_in_place_where_there_is_room_and_is_the_same(
    room: int, text: bytes, after: int, number: int, head: bytes
) -> None:
    held = bytearray(b"\xaa" * room + text + b"\xbb" * after)
    expected = message(head, number, number, bytes(held), room, room + len(text))
    made = message(head, number, number, held, room, room + len(text))
    assert bytes(made) == expected
    in_place = len(expected) - len(text) - 2 <= room and after >= 2
    assert (type(made) is memoryview) is in_place
    if in_place:
        assert made.obj is held
        assert held[: room - (len(expected) - len(text) - 2)] == b"\xaa" * (room - (len(expected) - len(text) - 2))
        assert held[room + len(text) + 2 :] == b"\xbb" * (after - 2)
    else:
        assert held == b"\xaa" * room + text + b"\xbb" * after
    assert held[room : room + len(text)] == text


@pytest.mark.parametrize("stream", ["s", "x" * 128])
def test_what_was_taken_becomes_the_message_of_its_viewers_without_a_copy(stream: str) -> None:
    head = b'{"type":"video-frame","streamId":"%b","data":"' % stream.encode()
    sent = frame(head + b"/9j/" * 10 + b'","timestamp":%d}' % (10**15 - 1))
    found = take(memoryview(sent), len(sent), MAX, head, plain.ROOM)
    assert found is not None
    held, begin, end, timestamp = found
    made = Frame(stream, 2**32 - 1, timestamp, text=held, span=(begin - 1, end + 1))
    whole = made.to_json()
    before = made.text
    wire = frame_message(made, "json")
    assert isinstance(wire, memoryview)
    assert wire.obj is held
    assert bytes(wire) == frame_header(0x1, len(whole)) + whole
    assert bytes(made.text) == bytes(before) == b'"' + b"/9j/" * 10 + b'"'
    assert made.to_json() == whole
    assert made.size_bytes == len(held)
    assert made.picture == b"\xff\xd8\xff" * 10
    assert decode_frame(made.to_bus()).payload == before
