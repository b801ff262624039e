"""A plain frame is found without a parse, and only what the full parser reads as the same frame is taken for one."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchout.common.media.frames import decode_text
from watchout.gateway.plain_frames import PlainFrames
from watchout.gateway.wire import VideoFrame, parse_text

WHITE = st.sampled_from(["", "", "", " ", "\n", "\t \r"])
NUMBERS = st.one_of(
    st.integers(0, 2**53 + 10).map(str),
    st.sampled_from(["00", "-0", "1.0", "1e3", "null", '"5"', "9" * 15, "9" * 16, ""]),
)
STREAM_IDS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True).map('"{}"'.format),
    st.sampled_from(['""', "null", "5", '"a b"', f'"{"x" * 128}"', f'"{"x" * 129}"', '"a\\n"', '"ä"']),
)
BASE64 = st.binary(max_size=40).map(lambda picture: base64.b64encode(picture).decode())
ODD_TEXTS = [
    "", "no picture!", "data:abcd", "data:image/jpeg,abcd", "abc", "ab=c", "abcd\\n", "ab\ncd", "abcd\x01", 'abcd",',
    "äabc",
]  # fmt: skip
TEXTS = st.one_of(
    BASE64,
    BASE64,
    BASE64.map("data:image/jpeg;base64,{}".format),
    BASE64.map("DATA:;base64,{}".format),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=10),
)
ONE_FIELD = st.one_of(
    st.just(("type", '"video-frame"')),
    st.tuples(st.just("streamId"), STREAM_IDS),
    st.tuples(st.just("timestamp"), NUMBERS),
    st.tuples(st.just("data"), TEXTS.map('"{}"'.format)),
    st.sampled_from([("type", '"alert"'), ("type", "null"), ("clientType", '"mobile"'), ("", "1"), ("data", "null")]),
)


@st.composite
def envelopes(draw: st.DrawFn) -> bytes:
    """Something like a ``video-frame``: nearly always JSON, often a frame, often plain."""
    fields = [("type", '"video-frame"')] if draw(st.integers(0, 5)) else []
    fields += draw(st.lists(ONE_FIELD, max_size=3))
    if draw(st.integers(0, 5)):
        fields.append(("data", f'"{draw(TEXTS)}"'))
    fields += draw(st.lists(ONE_FIELD, max_size=3))
    inside = ",".join(f'{draw(WHITE)}"{name}"{draw(WHITE)}:{draw(WHITE)}{value}{draw(WHITE)}' for name, value in fields)
    text = f"{draw(WHITE)}{{{inside}}}{draw(WHITE)}"
    if not draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", '"', "}", ",", "\\", "x", "\x00"])) + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=800)
@given(envelopes())
@example(b'{"type":"video-frame","streamId":"a","streamId":"b","data":"/9j/","timestamp":1,"timestamp":2}')
@example(b'{"type":"video-frame","data":"/9j/","data":"AAAA"}')
@example(b'{"type":"video-frame","timestamp":7,"data":"/9j/","streamId":"cam-1"}')
def test_what_is_taken_for_a_plain_frame_is_what_the_full_parser_says_it_is(data: bytes) -> None:
    same_as_parsed(PlainFrames(), data)


def same_as_parsed(frames: PlainFrames, data: bytes) -> None:
    read = frames.read(data)
    if read is None:
        return
    parsed = parse_text(data)
    assert isinstance(parsed, VideoFrame)
    assert (read.stream_id, read.timestamp) == (parsed.stream_id, parsed.timestamp)
    assert read.timestamp is None or type(read.timestamp) is int
    assert data[slice(*read.span)] == bytes(parsed.data)
    assert decode_text(data[slice(*read.span)])


@given(
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)),
    st.one_of(st.none(), st.integers(0, 10**15 - 1)),
    st.binary(min_size=1, max_size=3000),
    st.sampled_from(["", "data:image/jpeg;base64,", "data:image/webp;base64,"]),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_the_frames_that_clients_send_are_plain(
    stream: str | None, timestamp: int | None, picture: bytes, prefix: str, separators: tuple[str, str], late: bool
) -> None:
    text = {"data": prefix + base64.b64encode(picture).decode()}
    ids: dict[str, Any] = {} if stream is None else {"streamId": stream}
    times: dict[str, Any] = {} if timestamp is None else {"timestamp": timestamp}
    fields = {"type": "video-frame", **ids, **(text | times if late else times | text)}
    data = json.dumps(fields, separators=separators).encode()
    found = PlainFrames().read(data)
    assert found is not None
    assert (found.stream_id, found.timestamp) == (stream, timestamp)
    assert decode_text(data[slice(*found.span)]) == picture


HEADS = st.sampled_from(
    [
        b'{"type":"video-frame","streamId":"cam-1","data":"',
        b'{"type":"video-frame","streamId":"cam-2","data":"',
        b'{"type":"video-frame","timestamp":5,"data":"',
        b'{"type":"video-frame","data":"',
        b'{"type":"video-frame","data":"data:image/jpeg;base64,',
        b'{"type": "video-frame", "data": "',
        b"?",
        b"",
    ]
)
TAILS = st.sampled_from(
    [
        b'","timestamp":%b}' % number
        for number in (b"0", b"00", b"1", b"01", b"9" * 15, b"9" * 16, b"9" * 300, b"", b"-1", b"1.5")
    ]
    + [
        b'"}',
        b'","timestamp":5,"timestamp":6}',
        b'","streamId":"cam-3","timestamp":5}',
        b'","timestamp":5,"streamId":"cam-3"}',
    ]
    + [b'","timestamp":5} ', b'","timestamp":5', b'" ,"timestamp":5}', b'","timestamp": 5}', b'","timestamp":5}}', b""]
)
MIDDLES = st.one_of(
    st.binary(max_size=30).map(base64.b64encode),
    st.sampled_from(
        [
            b'AAAA","timestamp":7',
            b'AAAA","data":"AAAA',
            b"AAA\n",
            b"AA\x01A",
            b"A\\nAA",
            b"AAA",
            b'AAAA","timestamp":5}AAAA',
        ]
    ),
)


@settings(max_examples=500)
@given(st.lists(st.tuples(HEADS, MIDDLES, TAILS).map(b"".join), min_size=2, max_size=5))
def test_what_one_frame_shows_of_its_envelope_misleads_about_no_other(messages: list[bytes]) -> None:
    frames = PlainFrames()
    for data in messages:
        same_as_parsed(frames, data)
