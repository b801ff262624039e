"""What the server says: headers of WebSocket frames, JSON messages, frames in both formats, from C and from Python."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from tests.kit.playbook import read, unwrap
from watchout.common.errors import ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame, FrameFault
from watchout.gateway import fastpath, wire
from watchout.gateway.wire import (
    Subject,
    frame_header,
    frame_message,
)

JPEG = b"\xff\xd8\xff\xe0picture"


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_the_header_is_that_of_websockets(opcode: Opcode, length: int) -> None:
    payload = b"x" * length
    assert frame_header(int(opcode), length) + payload == WebSocketFrame(opcode, payload).serialize(mask=False)


@given(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.integers(0, 70_000))
@settings(max_examples=50)
def test_the_header_is_that_of_websockets_at_every_length(opcode: Opcode, length: int) -> None:
    payload = bytes(length)
    assert frame_header(int(opcode), length) + payload == WebSocketFrame(opcode, payload).serialize(mask=False)


def test_the_longest_lengths_fit_the_header() -> None:
    assert frame_header(2, 2**40) == b"\x82\x7f" + (2**40).to_bytes(8, "big")


def test_server_messages_are_json_with_type_and_timestamp() -> None:
    assert read(wire.success("done", "authenticated", 5)) == {
        "type": "success", "message": "done", "event": "authenticated", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.success("done", "subscribed", 5, Subject(stream_id="s"))) == {
        "type": "success", "message": "done", "event": "subscribed", "streamId": "s", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.error(ErrorCode.ROUTING_ERROR, "later", 5)) == {
        "type": "error", "code": "ROUTING_ERROR", "message": "later", "timestamp": 5,
    }  # fmt: skip
    assert read(wire.status("s", "online", 5)) == {
        "type": "status", "streamId": "s", "status": "online", "timestamp": 5,
    }  # fmt: skip


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=50)
def test_any_text_can_be_said(text: str) -> None:
    assert read(wire.error(ErrorCode.INVALID_MESSAGE, text, 1))["message"] == text


def test_a_json_frame_keeps_stream_data_and_time_and_gets_a_number() -> None:
    frame = Frame("door", 7, 1234, text=b'"data:image\\/jpeg;base64,AAAA"')
    opcode, payload = unwrap(frame_message(frame, "json"))
    assert opcode is Opcode.TEXT
    assert json.loads(payload) == {
        "type": "video-frame", "streamId": "door", "frameId": 7, "timestamp": 1234,
        "data": "data:image/jpeg;base64,AAAA",
    }  # fmt: skip
    assert b'"data:image\\/jpeg;base64,AAAA"' in payload


def test_a_binary_frame_has_the_header_of_the_protocol() -> None:
    opcode, payload = unwrap(frame_message(Frame("door", 7, 1234, picture=JPEG, codec=Codec.JPEG), "binary"))
    assert opcode is Opcode.BINARY
    head = b"\x57\x01\x01\x00" + (7).to_bytes(4, "big") + (1234).to_bytes(8, "big") + b"\x01\x04door"
    assert payload == head + JPEG


def test_a_frame_is_made_once_for_each_format() -> None:
    frame = Frame("door", 1, 0, picture=JPEG)
    as_json, as_binary = frame_message(frame, "json"), frame_message(frame, "binary")
    assert frame_message(frame, "json") is as_json
    assert frame_message(frame, "binary") is as_binary
    other = Frame("door", 2, 0, picture=JPEG)
    assert frame_message(other, "json") != as_json


def test_a_frame_that_is_no_picture_still_goes_to_json_viewers() -> None:
    frame = Frame("door", 1, 0, text=b'"no picture!"')
    for _ in range(2):
        with pytest.raises(FrameFault):
            frame_message(frame, "binary")
    assert json.loads(unwrap(frame_message(frame, "json"))[1])["data"] == "no picture!"
    assert frame.binary_wire is None


def test_the_text_of_a_frame_is_held_once_when_its_message_is_made(built: bool) -> None:
    frame = Frame("cam-1", 7, 5, text=b'"/9j/"')
    assert frame.size_bytes == 6
    wire = frame_message(frame, "json")
    assert json.loads(unwrap(wire)[1])["data"] == "/9j/"
    assert bytes(frame.text) == b'"/9j/"'
    assert frame.text.obj is wire
    assert frame.size_bytes == len(wire)
    assert frame_message(frame, "json") is wire
    assert frame.picture == b"\xff\xd8\xff"


@pytest.fixture(params=[False, True], ids=["in Python", "in C"])
def built(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the C module and without it."""
    if not request.param:
        monkeypatch.setattr(fastpath, "take", None)
        monkeypatch.setattr(wire, "json_message", wire._message_of_text)
    elif fastpath.message is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    return bool(request.param)


@pytest.mark.parametrize("size", [0, 1, 20, 40, 60, 61, 100, 65_000, 65_450, 65_460, 65_470, 70_000, 1_000_000])
@pytest.mark.parametrize("frame_id", [1, 9, 10, 2**32 - 1])
def test_a_text_message_is_the_same_from_c_and_from_python(size: int, frame_id: int, built: bool) -> None:
    text = b'"' + b"A" * size + b'"'
    frame = Frame("cam-1", frame_id, frame_id * 1000, text=text)
    expected = frame.to_json()
    assert frame_message(frame, "json") == frame_header(0x1, len(expected)) + expected


@pytest.mark.parametrize("length", [0, 60, 70, 120, 200, 70_000])
def test_an_error_is_known_by_its_bytes_whatever_its_length(length: int) -> None:
    assert wire.is_error(wire.error(ErrorCode.INVALID_MESSAGE, "x" * length, 1))
    assert not wire.is_error(wire.success("x" * length, "registered", 1))
    assert not wire.is_error(wire.text_message(b""))
