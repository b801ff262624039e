"""Frames: JSON and binary forms of one picture, each made at most once, and the binary header field by field."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchout.common.bus.frames import (
    EVERYBODY,
    FORM_BINARY_MESSAGE,
    FORM_JSON_FIELDS,
    FORM_JSON_MESSAGE,
    FORM_JSON_TEXT,
    FORM_PICTURE,
    BusFrame,
    decode_frame,
)
from watchout.common.errors import BusError
from watchout.common.media import frames
from watchout.common.media.codecs import BY_NUMBER, Codec, sniff
from watchout.common.media.frames import BinaryFrame, Frame, FrameFault, decode_text, parse_binary

JPEG = b"\xff\xd8\xff\xe0 not much of a picture"
PNG = b"\x89PNG\r\n\x1a\n and so on"
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
GIF = b"GIF89a and its frames"
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
PICTURES = st.one_of(
    st.binary(max_size=100).map(lambda rest: b"\xff\xd8\xff" + rest), st.sampled_from([JPEG, PNG, WEBP, GIF, HEIC])
)
FRAME_IDS = st.integers(0, 2**32 - 1)
TIMES = st.integers(0, 2**53 - 1)


def token(text: str | bytes) -> bytes:
    return b'"' + (text.encode() if isinstance(text, str) else text) + b'"'


def encoded(picture: bytes) -> bytes:
    return base64.b64encode(picture)


def header(**changes: int) -> bytes:
    fields = {
        "magic": 0x57, "version": 1, "kind": 1, "flags": 0, "frame_id": 0, "timestamp": 5, "codec": 1, "length": 0,
    }  # fmt: skip
    return struct.pack(">BBBBIQBB", *(fields | changes).values())


# ── the two forms ────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=150)
@given(PICTURES, IDS, FRAME_IDS, TIMES)
def test_a_picture_goes_through_json_and_comes_back(picture: bytes, stream: str, frame_id: int, at: int) -> None:
    message = json.loads(Frame(stream, frame_id, at, picture=picture).to_json())
    assert message == {
        "type": "video-frame", "streamId": stream, "frameId": frame_id, "timestamp": at,
        "data": encoded(picture).decode(),
    }  # fmt: skip
    back = Frame(stream, frame_id, at, text=token(message["data"]))
    assert back.picture == picture


@settings(max_examples=150)
@given(PICTURES, IDS, FRAME_IDS, TIMES)
def test_text_goes_through_binary_and_comes_back(picture: bytes, stream: str, frame_id: int, at: int) -> None:
    frame = Frame(stream, frame_id, at, text=token(encoded(picture)))
    got = parse_binary(frame.to_binary())
    assert got == BinaryFrame(stream, frame_id, at or None, BY_NUMBER[sniff(picture).number], picture)
    assert Frame(stream, frame_id, at, picture=got.picture).text == frame.text


def test_a_binary_frame_has_the_bytes_that_the_protocol_draws() -> None:
    frame = Frame("cam-1", 7, 1_700_000_000_000, picture=JPEG)
    assert frame.to_binary() == bytes.fromhex("57 01 01 00 00000007 0000018bcfe56800 01 05") + b"cam-1" + JPEG


def test_a_json_frame_has_the_bytes_that_its_readers_cut_it_by() -> None:
    frame = Frame("cam-1", 7, 8, picture=b"abc", codec=Codec.OPAQUE)
    assert frame.to_json() == b'{"type":"video-frame","streamId":"cam-1","frameId":7,"timestamp":8,"data":"YWJj"}'


@settings(max_examples=150)
@given(st.text(max_size=60), st.booleans())
def test_data_reaches_json_viewers_unchanged_whatever_it_holds(data: str, ascii_only: bool) -> None:
    try:
        text = json.dumps(data, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    made = Frame("cam-1", 1, 2, text=text).to_json()
    assert json.loads(made)["data"] == data
    assert made.endswith(b'"data":' + text + b"}")


def test_escapes_in_data_stay_as_the_camera_wrote_them() -> None:
    text = rb'"data:image\/jpeg;base64,YWJj\u0041"'
    frame = Frame("cam-1", 1, 2, text=text)
    assert text in frame.to_json()
    assert frame.text.obj is text


@pytest.mark.parametrize("forms", [{}, {"text": b'""', "picture": b"x"}])
def test_a_frame_is_made_of_one_form(forms: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="either text or picture"):
        Frame("cam-1", 1, 2, **forms)


# ── what a JSON string may hold ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "prefix",
    [
        "data:image/jpeg;base64,", "data:image/png;base64,", "data:;base64,", "DATA:Image/JPEG;BASE64,",
        "data:image/svg+xml;charset=utf-8;base64,", "data:application/octet-stream;base64,",
    ],
)  # fmt: skip
def test_a_data_prefix_is_tolerated(prefix: str) -> None:
    assert decode_text(token(prefix)[:-1] + encoded(JPEG) + b'"') == JPEG


@pytest.mark.parametrize(
    "text", ["data:", "data:image/jpeg,abcd", "data:image/jpeg;base64", "data:" + "x" * 300 + ";base64,YWJj"]
)
def test_a_data_prefix_without_base64_is_a_fault(text: str) -> None:
    with pytest.raises(FrameFault, match="begins with data: but"):
        decode_text(token(text))


@settings(max_examples=100)
@given(
    PICTURES,
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([r"\r\n", r"\n", r"\t", " ", r"\u0020"])), max_size=5),
)
def test_white_space_in_base64_is_passed_over(picture: bytes, places: list[tuple[int, str]]) -> None:
    text = list(encoded(picture).decode())
    for at, space in places:
        text.insert(at % (len(text) + 1), space)
    assert decode_text(token("".join(text))) == picture


@pytest.mark.parametrize(
    ("text", "picture"),
    [
        (b"/9j/AA", b"\xff\xd8\xff\x00"),
        (b"/9j/AAA", b"\xff\xd8\xff\x00\x00"),
        (b"_9j_-A", b"\xff\xd8\xff\xf8"),
        (rb"\/9j\/\u002b\u002F8\u003d", b"\xff\xd8\xff\xfb\xff"),
        (rb"/9j/\r\nAAAA\r\n", b"\xff\xd8\xff\x00\x00\x00"),
        (b" data:image/jpeg; base64,/9j/", b"\xff\xd8\xff"),
        (b"data:image/jpeg;charset=utf-8;base64,/9j/", b"\xff\xd8\xff"),
        (rb"DATA:image/jpeg;charset=\"utf-8\";BASE64 , /9j/", b"\xff\xd8\xff"),
        (b"data:image/jpeg;base64,%2F9j%2FAA%3D%3D", b"\xff\xd8\xff\x00"),
    ],
)
def test_base64_is_decoded_as_encoders_write_it(text: bytes, picture: bytes) -> None:
    assert decode_text(token(text)) == picture


def test_escaped_slashes_are_slashes() -> None:
    assert decode_text(rb'"\/\/\/\/"') == b"\xff\xff\xff"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "data is empty"),
        (b"data:image/jpeg;base64,", "data is empty"),
        (rb"\n", "data is empty"),
        (b"abcde", "5 characters without its padding"),
        (b"abcd=", "it ends with 1 of =, expected none"),
        (b"ab=", "it ends with 1 of =, expected 2"),
        (b"!!!!", "it holds '!', expected A-Z"),
        ("ünïc".encode(), "the byte 0xc3"),
        (b"\xff\xfe\xfd\xfc", "not base64"),
        (rb"\u00ff\u00ff\u00ff\u00ff", "not base64"),
        (rb"\ud800", "no text in UTF-8"),
        (rb"\x41", "no text in UTF-8"),
        (b"\\", "no text in UTF-8"),
    ],
    ids=repr,
)
def test_text_that_is_no_picture_is_a_fault_with_a_reason(text: bytes, says: str) -> None:
    with pytest.raises(FrameFault, match=says):
        decode_text(token(text))


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: json.dumps(t)[1:-1].encode())))
def test_any_text_is_a_picture_or_a_fault(text: bytes) -> None:
    with contextlib.suppress(FrameFault):
        assert decode_text(token(text))


# ── codecs ───────────────────────────────────────────────────────────────────────────────────────────────────────


BINARY_NUMBERS = {Codec.OPAQUE: 0, Codec.JPEG: 1, Codec.PNG: 2, Codec.WEBP: 3, Codec.GIF: 0, Codec.HEIC: 0}


@pytest.mark.parametrize("picture", [JPEG, PNG, WEBP, GIF, HEIC, b"null", b"\xff\xd8"], ids=repr)
@pytest.mark.parametrize("said", [None, *BY_NUMBER.values()])
@pytest.mark.parametrize("over_bus", [False, True])
def test_the_bytes_decide_what_a_picture_is_whatever_the_camera_said(
    picture: bytes, said: Codec | None, over_bus: bool
) -> None:
    frame = Frame("c", 1, 2, picture=picture, codec=said)
    if over_bus:
        frame = Frame.from_bus(decode_frame(frame.to_bus()))
    codec = sniff(picture)
    assert (frame.codec, frame.is_picture) == (codec, codec is not Codec.OPAQUE)
    assert frame.text == token(encoded(picture))
    if frame.is_picture:
        assert frame.picture == picture
        assert frame.fault == ""
    else:
        with pytest.raises(FrameFault, match=f"begins with {picture.hex(' ')}, expected the first bytes of JPEG, PNG"):
            _ = frame.picture
    said = BY_NUMBER[codec.number] if over_bus and said is None else said  # the bus always says one
    assert frame.has_binary is (frame.is_picture or said is Codec.OPAQUE)
    if not frame.has_binary:
        with pytest.raises(FrameFault):
            frame.to_binary()
        return
    back = parse_binary(frame.to_binary())
    assert (back.codec.value, back.picture) == (0 if said is Codec.OPAQUE else BINARY_NUMBERS[codec], picture)


@pytest.mark.parametrize("picture", [JPEG, PNG, WEBP, GIF, HEIC, b"null", b"\xff\xd8"], ids=repr)
@pytest.mark.parametrize("over_bus", [False, True])
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "DATA:image/jpeg; charset=x ;base64,"])
def test_the_codec_of_a_text_is_seen_in_its_first_characters(
    picture: bytes, over_bus: bool, checked: bool, prefix: str
) -> None:
    frame = Frame("c", 1, 2, text=token(prefix.encode() + encoded(picture)), is_base64=checked)
    if over_bus:
        frame = Frame.from_bus(decode_frame(frame.to_bus()))
    assert (frame.codec, frame.declared_opaque) == (sniff(picture), False)
    assert frame.has_binary is frame.is_picture
    if frame.is_picture:
        back = parse_binary(frame.to_binary())
        assert (back.codec.value, back.picture) == (BINARY_NUMBERS[frame.codec], picture)
    else:
        assert frame.fault.startswith(f"data begins with {picture.hex(' ')}, expected")
        with pytest.raises(FrameFault):
            frame.to_binary()


@pytest.mark.parametrize("text", [b"null", b"", b"/9j/!!!!", b"/9j/A", b"data:image/jpeg,/9j/", b"\xc3\xbc"], ids=repr)
def test_text_that_cannot_be_decoded_is_no_picture_and_says_why(text: bytes) -> None:
    frame = Frame("c", 1, 2, text=token(text))
    assert not frame.is_picture
    assert frame.fault
    assert not Frame.from_bus(decode_frame(frame.to_bus())).is_picture


# ── made at most once ────────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """A function of another module that counts its calls."""

    def __init__(self, function: Any) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._function(*args, **kwargs)


def test_a_picture_is_decoded_once_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(frames.decode_text)
    monkeypatch.setattr(frames, "decode_text", counted)
    frame = Frame("c", 1, 2, text=token(encoded(JPEG)), is_base64=True)
    assert frame.to_json()
    assert frame.to_bus()
    assert frame.is_picture
    assert counted.calls == 0
    assert {id(frame.picture) for _ in range(3)} == {id(frame.picture)}
    assert frame.to_binary() == frame.to_binary()
    assert frame.codec is Codec.JPEG
    assert counted.calls == 1


def test_a_picture_that_cannot_be_decoded_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(frames.decode_text)
    monkeypatch.setattr(frames, "decode_text", counted)
    frame = Frame("c", 1, 2, text=b'"!"')
    for _ in range(3):
        with pytest.raises(FrameFault, match="not base64"):
            _ = frame.picture
        with pytest.raises(FrameFault, match="not base64"):
            frame.to_binary()
        assert frame.codec is Codec.OPAQUE
    assert counted.calls == 1
    assert b'"data":"!"' in frame.to_json()


def test_text_is_encoded_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(frames.pybase64.b64encode)
    monkeypatch.setattr(frames.pybase64, "b64encode", counted)
    frame = Frame("c", 1, 2, picture=JPEG)
    assert frame.to_binary()
    assert frame.to_bus()
    assert counted.calls == 0
    assert frame.to_json() == frame.to_json()
    assert frame.text.obj is frame.text.obj
    assert counted.calls == 1


def test_a_frame_knows_how_many_bytes_it_holds() -> None:
    frame = Frame("c", 1, 2, picture=b"abc")
    assert frame.size_bytes == 3
    assert frame.text == b'"YWJj"'
    assert frame.size_bytes == 3 + 6
    frame.binary_wire = bytes(100)
    assert frame.size_bytes == 3 + 6 + 100


# ── over the bus ─────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=100)
@given(PICTURES, IDS, FRAME_IDS, TIMES, st.integers(0, 2**63), st.booleans())
def test_a_frame_crosses_the_bus_in_the_form_that_the_camera_sent(
    picture: bytes, stream: str, frame_id: int, at: int, term: int, as_text: bool
) -> None:
    if as_text:
        frame = Frame(stream, frame_id, at, term=term, text=token(encoded(picture)))
    else:
        frame = Frame(stream, frame_id, at, term=term, picture=picture, codec=Codec.WEBP)
    told = decode_frame(frame.to_bus())
    assert told.form == (FORM_JSON_TEXT if as_text else FORM_PICTURE)
    assert told.to == EVERYBODY
    got = Frame.from_bus(told)
    assert (got.stream_id, got.frame_id, got.timestamp, got.term) == (stream, frame_id, at, term)
    assert (got.picture, got.text) == (picture, token(encoded(picture)))
    assert got.codec is sniff(picture)
    assert (got.to_json(), got.to_binary()) == (frame.to_json(), frame.to_binary())


def test_a_frame_that_was_decoded_here_still_crosses_as_it_came() -> None:
    frame = Frame("c", 1, 2, text=token(encoded(JPEG)))
    assert frame.picture == JPEG
    assert decode_frame(frame.to_bus()).form == FORM_JSON_TEXT


def test_a_frame_for_one_member_says_so() -> None:
    assert decode_frame(Frame("c", 1, 2, picture=JPEG).to_bus(b"12345678")).to == b"12345678"


def test_text_that_is_no_picture_crosses_too_and_is_a_fault_where_it_is_decoded() -> None:
    frame = Frame.from_bus(BusFrame("c", 1, 1, 2, FORM_JSON_TEXT, 0, b'"?"'))
    assert json.loads(frame.to_json())["data"] == "?"
    with pytest.raises(FrameFault):
        _ = frame.picture


# ── the binary header, field by field ────────────────────────────────────────────────────────────────────────────


def test_a_camera_may_leave_out_everything_but_the_picture() -> None:
    assert parse_binary(header(timestamp=0, codec=0) + b"x") == BinaryFrame(None, 0, None, Codec.OPAQUE, b"x")


def test_a_camera_may_name_its_stream() -> None:
    assert parse_binary(header(length=5) + b"cam-1" + JPEG) == BinaryFrame("cam-1", 0, 5, Codec.JPEG, JPEG)


def test_the_largest_values_of_a_header_are_taken() -> None:
    data = header(frame_id=2**32 - 1, timestamp=2**53 - 1, codec=3, length=128) + b"c" * 128 + b"x"
    assert parse_binary(data) == BinaryFrame("c" * 128, 2**32 - 1, 2**53 - 1, Codec.WEBP, b"x")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"magic": 0x46}, "magic 0x46, expected 0x57"),
        ({"version": 2}, "version 0x2, expected 0x1"),
        ({"version": 0}, "version 0x0, expected 0x1"),
        ({"kind": 2}, "kind 0x2, expected 0x1"),
        ({"flags": 0x80}, "flags 0x80, expected 0x0"),
        ({"codec": 4}, "codec 4, expected 0 to 3"),
        ({"timestamp": 2**53}, "timestamp 9007199254740992, expected at most 9007199254740991"),
        ({"timestamp": 2**64 - 1}, "timestamp 18446744073709551615"),
    ],
)
def test_a_wrong_field_of_the_header_is_named_with_what_was_expected(changes: dict[str, int], says: str) -> None:
    with pytest.raises(FrameFault, match=says):
        parse_binary(header(**changes) + JPEG)


@pytest.mark.parametrize("length", [0, 1, 17])
def test_a_message_shorter_than_the_header_is_a_fault(length: int) -> None:
    with pytest.raises(FrameFault, match=f"binary message of {length} bytes, expected a header of 18 bytes"):
        parse_binary(header()[:length])


@pytest.mark.parametrize("data", [header(), header(length=5), header(length=5) + b"cam", header(length=5) + b"cam-1"])
def test_a_message_without_a_picture_is_a_fault(data: bytes) -> None:
    with pytest.raises(FrameFault, match="ends before its picture"):
        parse_binary(data)


@pytest.mark.parametrize("name", [b"a b", b"a/b", b"\xfc", b"a\n", b"a\x00", b"c" * 129, b'a"b'])
def test_a_stream_id_that_is_none_is_a_fault(name: bytes) -> None:
    with pytest.raises(FrameFault, match=r"stream id .*expected 1 to 128 of"):
        parse_binary(header(length=len(name)) + name + JPEG)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda rest: b"\x57\x01\x01\x00" + rest)))
@example(header() + b"x")
def test_any_bytes_are_a_binary_frame_or_a_fault(data: bytes) -> None:
    try:
        got = parse_binary(data)
    except FrameFault:
        return
    assert data.endswith(got.picture)
    if got.codec is not Codec.OPAQUE and not sniff(got.picture).is_picture:
        return
    made = Frame(got.stream_id or "own", got.frame_id, got.timestamp or 0, picture=got.picture, codec=got.codec)
    again = parse_binary(made.to_binary())
    assert (again.frame_id, again.timestamp, again.codec, again.picture) == (
        got.frame_id, got.timestamp, got.codec, got.picture,
    )  # fmt: skip


@settings(max_examples=200)
@given(PICTURES, IDS, FRAME_IDS, TIMES, st.integers(0, 500), st.integers(0, 255), st.integers(0, 300))
def test_a_binary_frame_changed_and_cut_is_a_frame_or_a_fault(
    picture: bytes, stream: str, frame_id: int, timestamp: int, at: int, byte: int, cut: int
) -> None:
    data = bytearray(Frame(stream, frame_id, timestamp, picture=picture).to_binary())
    data[at % len(data)] = byte
    try:
        got = parse_binary(bytes(data[: max(0, len(data) - cut)]))
    except FrameFault:
        return
    assert got.picture


def _bus_forms() -> list[bytes]:
    """One encoded frame in each form that crosses the bus."""
    picture = b"\xff\xd8\xff" + bytes(300)
    text = b'"' + base64.b64encode(picture) + b'"'
    body = b'{"type":"video-frame","streamId":"c","frameId":1,"timestamp":2,"width":9,"data":' + text + b"}"
    message = b"\x81\x7e" + len(body).to_bytes(2, "big") + body
    binary = b"\x82\x7e" + (len(picture) + 20).to_bytes(2, "big") + bytes(20) + picture
    jpeg, at = Codec.JPEG.value, len(message) - 1 - len(text)
    return [
        BusFrame("c", 1, 1, 2, FORM_JSON_TEXT, jpeg, text).encode(),
        BusFrame("c", 1, 1, 2, FORM_PICTURE, Codec.JPEG.number, picture).encode(),
        BusFrame("c", 1, 1, 2, FORM_JSON_FIELDS, jpeg, text, more=b',"width":9').encode(),
        BusFrame("c", 1, 1, 2, FORM_JSON_MESSAGE, jpeg, message, data_at=at, more_bytes=10).encode(),
        BusFrame("c", 1, 1, 2, FORM_BINARY_MESSAGE, Codec.JPEG.number, binary, data_at=24).encode(),
    ]


@pytest.mark.parametrize("data", _bus_forms())
def test_a_frame_that_was_read_from_a_buffer_outlives_what_the_buffer_held(data: bytes) -> None:
    expected = Frame.from_bus(decode_frame(data), for_viewers=False)
    buffer = bytearray(b"..") + data + b".."
    frame = Frame.from_bus(decode_frame(memoryview(buffer)[2:-2]), for_viewers=False)
    buffer[:] = bytes(len(buffer))
    assert frame.picture == expected.picture == b"\xff\xd8\xff" + bytes(300)
    assert bytes(frame.base64) == base64.b64encode(expected.picture)
    assert (frame.stream_id, frame.more) == (expected.stream_id, expected.more)


@pytest.mark.parametrize("data", _bus_forms())
def test_a_damaged_frame_is_refused_in_a_buffer_as_in_bytes(data: bytes) -> None:
    for cut in (*range(70), len(data) - 1):
        found: list[str] = []
        for form in (data[:cut], memoryview(bytearray(data[:cut]))):
            try:
                found.append(repr(decode_frame(form).frame_id))
            except BusError as error:
                found.append(str(error))
        assert found[0] == found[1]
