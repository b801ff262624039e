"""Stamps of frames on the bus: in the place of the receiver, and ignored by the former release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.frames import EVERYBODY, FOR_ALERT, BusFrame, decode_frame, is_stamp, read_frame_head
from watchout.common.bus.zeromq.control import queue_key
from watchout.common.latency.stamps import LONGEST_MS, decode, encode
from watchout.common.media.frames import Frame
from watchout.gateway import fastpath, wire

NOW_MS = 1_790_000_000_000.0
DAY_MS = 86_400_000.0


@given(
    st.floats(NOW_MS - 2 * DAY_MS, NOW_MS + 2 * DAY_MS),
    st.one_of(st.none(), st.floats(0, 2 * LONGEST_MS)),
)
def test_a_stamp_says_when_a_frame_came_in_and_how_old_it_was_then(gateway_in: float, age: float | None) -> None:
    found = decode(encode(gateway_in, None if age is None else gateway_in - age), NOW_MS)
    assert found.gateway_in == pytest.approx(gateway_in, abs=0.1)
    if age is None or age > LONGEST_MS + 0.5:
        assert found.captured is None
    elif age < LONGEST_MS - 1:
        assert found.captured == pytest.approx(gateway_in - age, abs=0.7)


def test_a_stamp_is_no_receiver() -> None:
    stamp = encode(NOW_MS, NOW_MS - 40)
    assert is_stamp(stamp)
    assert not is_stamp(EVERYBODY)
    assert not is_stamp(FOR_ALERT)
    frame = BusFrame("cam", 1, 7, 5, 1, 1, b"\xff\xd8", stamp=stamp)
    head, found = read_frame_head(frame.encode()), decode_frame(frame.encode())
    assert (head.to, head.stamp, found.to, found.stamp) == (EVERYBODY, stamp, EVERYBODY, stamp)
    assert found.encode() == frame.encode()
    plain = BusFrame("cam", 1, 8, 5, 1, 1, b"\xff\xd8")
    assert queue_key(frame.encode()) == queue_key(plain.encode()), "a newer frame replaces one with stamps"


def test_a_stamped_frame_of_the_mesh_has_the_same_message_as_one_without() -> None:
    frame = Frame("cam", 7, 5, text=b'"/9j/"', is_base64=True)
    wire.frame_message(frame, "json")
    plain, stamped = frame.mesh_parts(), frame.mesh_parts(encode(NOW_MS, None))
    assert plain[1] == stamped[1]
    assert len(plain[0]) == len(stamped[0])
    if fastpath.remote is not None:
        assert fastpath.remote(b"".join(plain)) is not None
        assert fastpath.remote(b"".join(stamped)) is None, "the general path reads the stamps"
    again = Frame.from_bus(decode_frame(b"".join(stamped)))
    assert (again.json_wire, again.stamps) == (frame.json_wire, None)
