"""The frames that were shown to the ML service, held for the alerts that speak of them."""

from __future__ import annotations

import pybase64
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.frames import Frame
from watchout.common.media.held_frames import FRAME_COST_BYTES
from watchout.mlbridge.shown_frames import ShownFrames

PICTURE = b"\xff\xd8\xff" + bytes(997)


def frame(number: int, stream: str = "s", term: int = 1, picture: bytes = PICTURE) -> Frame:
    return Frame(stream, number, 5, term=term, picture=picture)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ring(max_bytes: int = 100_000, max_age_s: float = 30.0, clock: Clock | None = None) -> ShownFrames:
    return ShownFrames(max_bytes=max_bytes, max_age_s=max_age_s, clock=clock or Clock())


def test_a_frame_that_was_sent_is_found_by_stream_and_id_and_by_its_term_where_that_is_known() -> None:
    held = ring()
    held.add(frame(7))
    held.add(frame(7, term=2, picture=PICTURE + b"2"))
    newest, older = held.find("s", 7), held.find("s", 7, 1)
    assert newest is not None
    assert older is not None
    assert (newest.term, newest.picture) == (2, PICTURE + b"2")
    assert (older.term, older.frame_id, older.timestamp, older.picture) == (1, 7, 5, PICTURE)
    assert held.find("s", 7, 3) is held.find("s", 8) is held.find("t", 7) is None


def test_of_a_json_frame_the_picture_alone_is_held() -> None:
    held = ring()
    held.add(Frame("s", 1, 5, term=1, text=b'"' + pybase64.b64encode(PICTURE) + b'"'))
    found = held.find("s", 1)
    assert found is not None
    assert found.picture == PICTURE
    assert found.size_bytes == len(PICTURE)
    assert held.bytes == len(PICTURE) + FRAME_COST_BYTES


def test_a_frame_without_a_picture_and_a_ring_of_no_bytes_hold_nothing() -> None:
    held, off = ring(), ring(0)
    held.add(Frame("s", 1, 5, text=b'"no base64!"'))
    off.add(frame(1))
    off.keep(frame(1))
    assert len(held) == len(off) == off.bytes == 0


def test_frames_go_with_their_age_but_not_those_of_alerts() -> None:
    clock = Clock()
    held = ring(clock=clock)
    for number in (1, 2):
        held.add(frame(number))
    spoken_of = held.find("s", 1)
    assert spoken_of is not None
    held.keep(spoken_of)
    clock.now = 31
    assert held.find("s", 2) is None
    assert held.find("s", 1) is spoken_of
    assert held.find("s", 1, 1) is spoken_of


def test_the_frames_of_alerts_are_not_pushed_out_by_those_that_nobody_spoke_of() -> None:
    held = ring(40_000)
    held.add(frame(0))
    spoken_of = held.find("s", 0)
    assert spoken_of is not None
    held.keep(spoken_of)
    for number in range(1, 200):
        held.add(frame(number))
    assert held.find("s", 0) is spoken_of
    assert held.find("s", 199) is not None
    assert held.find("s", 150) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4_000), st.booleans()), max_size=60))
def test_the_ring_is_bounded_in_bytes(sent: list[tuple[str, int, bool]]) -> None:
    held = ring(20_000)
    for number, (stream, size, alert) in enumerate(sent):
        held.add(frame(number, stream, picture=PICTURE[:3] + bytes(size)))
        found = held.find(stream, number)
        assert found is not None
        if alert:
            held.keep(found)
        assert held.bytes <= 20_000
