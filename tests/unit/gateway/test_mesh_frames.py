"""A frame that goes to another gateway as a finished message is the same there as one that crosses in its own form."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common.bus.frames import (
    FORM_BINARY_MESSAGE,
    FORM_JSON_MESSAGE,
    FORM_PICTURE,
    BusFrame,
    decode_frame,
)
from watchout.common.errors import BusError
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame, FrameFault
from watchout.gateway.wire import Format, frame_message

PICTURES = st.one_of(
    st.binary(min_size=1, max_size=70_000).map(lambda rest: b"\xff\xd8\xff" + rest),
    st.sampled_from([b"\x89PNG\r\n\x1a\n and so on", b"GIF89a and so on", b"no picture", b"\x00"]),
)
MORE = st.sampled_from([b"", b',"a":1', b',"battery":0.5,"data_":"\xc3\xa9"'])
IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
CODECS = st.sampled_from([None, Codec.OPAQUE, Codec.JPEG, Codec.PNG])


def text_frame(stream: str, number: int, picture: bytes, more: bytes, *, prefix: str = "") -> Frame:
    token = b'"' + prefix.encode() + base64.b64encode(picture) + b'"'
    return Frame(stream, number, 1000 + number, term=9, text=token, is_base64=True, more=more)


def over_mesh(frame: Frame, format: Format) -> Frame:
    with contextlib.suppress(FrameFault):
        frame_message(frame, format)
    return Frame.from_bus(decode_frame(b"".join(frame.mesh_parts())))


def observed(frame: Frame) -> dict[str, Any]:
    """All that somebody who has the frame can find out."""

    def of(call: Any) -> Any:
        try:
            return call()
        except FrameFault as fault:
            return str(fault)

    return {
        "json": of(lambda: frame_message(frame, "json")),
        "binary": of(lambda: frame_message(frame, "binary")) if frame.has_binary else None,
        "picture": of(lambda: frame.picture),
        "codec": frame.codec,
        "opaque": frame.declared_opaque,
        "fault": frame.fault,
        "more": frame.more,
        "bus": frame.to_bus(),
        "key": frame.is_key,
        "ids": (frame.stream_id, frame.frame_id, frame.timestamp, frame.term),
    }


@settings(max_examples=150)
@given(IDS, st.integers(0, 2**32 - 1), PICTURES, MORE, st.sampled_from(["", "data:image/jpeg;base64,"]))
def test_a_json_frame_is_the_same_after_the_mesh(
    stream: str, number: int, picture: bytes, more: bytes, prefix: str
) -> None:
    sent = text_frame(stream, number, picture, more, prefix=prefix)
    got = over_mesh(sent, "json")
    assert decode_frame(b"".join(sent.mesh_parts())).form == FORM_JSON_MESSAGE
    assert got.json_wire == sent.json_wire
    assert observed(got) == observed(text_frame(stream, number, picture, more, prefix=prefix))


@settings(max_examples=150)
@given(IDS, st.integers(0, 2**32 - 1), PICTURES, CODECS)
def test_a_binary_frame_is_the_same_after_the_mesh(
    stream: str, number: int, picture: bytes, codec: Codec | None
) -> None:
    sent = Frame(stream, number, 7, term=9, picture=picture, codec=codec)
    own = Frame.from_bus(decode_frame(Frame(stream, number, 7, term=9, picture=picture, codec=codec).to_bus()))
    got = over_mesh(sent, "binary")
    assert decode_frame(b"".join(sent.mesh_parts())).form in (FORM_BINARY_MESSAGE, FORM_PICTURE)
    assert observed(got) == observed(own)


def test_what_has_no_finished_message_crosses_in_its_own_form() -> None:
    plain = text_frame("cam", 1, b"\xff\xd8\xff", b"")
    assert plain.mesh_parts() == plain.bus_parts()
    odd = Frame("cam", 1, 2, text=b'"a text that is no base64"')
    frame_message(odd, "json")
    assert odd.mesh_parts() == odd.bus_parts()


@pytest.mark.parametrize("form", ["json", "binary"])
@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_are_still_one_whole_message(form: Format, data: st.DataObject) -> None:
    """A viewer gets the message as it is: with a wrong length it would lose its connection."""
    frame = text_frame("cam", 1, b"\xff\xd8\xff" * data.draw(st.sampled_from([3, 50, 30_000])), b',"a":1')
    if form == "binary":
        frame = Frame("cam", 1, 1, picture=b"\xff\xd8\xff" * 50, codec=Codec.JPEG)
    frame_message(frame, form)
    whole = bytearray(b"".join(frame.mesh_parts()))
    match data.draw(st.sampled_from(["cut", "longer", "changed"])):
        case "cut":
            whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
        case "longer":
            whole += data.draw(st.binary(min_size=1, max_size=300))
        case _:
            whole[data.draw(st.integers(33, min(len(whole), 70) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = Frame.from_bus(decode_frame(bytes(whole)))
    except BusError:
        return
    message = got.json_wire or got.binary_wire or b""
    size = message[1] if message and message[1] < 126 else 0
    head = 2 if size else 4 if message and message[1] == 126 else 10
    size = size or int.from_bytes(message[2:head], "big")
    assert not message or len(message) == head + size
    observed(got)


def test_a_place_outside_of_the_message_is_refused() -> None:
    message = b"\x81\x0f" + b'{"x":1,"data":""}'[:15]
    for at in (0, 5, 14, 2**32 - 1):
        with pytest.raises(BusError):
            decode_frame(BusFrame("cam", 1, 1, 1, FORM_JSON_MESSAGE, 1, message, data_at=at).encode())


@pytest.mark.parametrize("form", ["json", "binary"])
def test_a_bridge_keeps_the_data_once_and_not_the_message(form: Format) -> None:
    picture = b"\xff\xd8\xff" * 1000
    sent = text_frame("cam", 1, picture, b',"a":1')
    if form == "binary":
        sent = Frame("cam", 1, 1001, term=9, picture=picture, codec=Codec.JPEG)
    frame_message(sent, form)
    crossed = decode_frame(b"".join(sent.mesh_parts()))
    own = Frame.from_bus(decode_frame(sent.to_bus()))
    got = Frame.from_bus(crossed, for_viewers=False)
    assert got.picture == own.picture == picture
    assert got.size_bytes == own.size_bytes
    assert observed(got) == observed(own)
