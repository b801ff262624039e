from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.frames import parse_binary
from watchout.ctl.client import encode_frame, may_reconnect


@pytest.mark.parametrize(
    ("codes", "returns"),
    [
        ([None, 1001, 1011, 1012, 1013, 4400, 4450, 4499], True),
        ([1000, 1002, 1003, 1007, 1008, 1009, 4399, 4500, 4501, 4999], False),
    ],
)
def test_the_close_code_says_whether_to_come_back(codes: list[int | None], returns: bool) -> None:
    assert [may_reconnect(code) for code in codes] == [returns] * len(codes)


@given(st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True), st.integers(1, 2**53 - 1), st.binary(min_size=1))
def test_both_encodings_of_a_cameras_frame_say_the_same(stream: str, timestamp: int, picture: bytes) -> None:
    picture = b"\xff\xd8\xff" + picture
    binary = parse_binary(encode_frame(stream, timestamp, picture, binary=True))
    text = json.loads(encode_frame(stream, timestamp, picture, binary=False))
    assert (binary.stream_id, binary.timestamp, binary.frame_id) == (stream, timestamp, 0)
    assert binary.picture == picture
    assert text.keys() == {"type", "streamId", "timestamp", "data"}
    assert (text["type"], text["streamId"], text["timestamp"]) == ("video-frame", stream, timestamp)
