"""Frames that are held: bounded for each stream, in all, and in age."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.held_frames import FRAME_COST_BYTES, STREAM_SHARE, HeldFrames


def test_a_frame_is_found_by_stream_term_and_id() -> None:
    shelf: HeldFrames[str] = HeldFrames(10_000)
    assert shelf.put("a", (1, 7), "x", 10, 0)
    assert shelf.put("a", (2, 7), "y", 10, 0)
    assert not shelf.put("a", (1, 7), "z", 10, 0)
    assert (shelf.find("a", (1, 7)), shelf.find("a", (2, 7))) == ("x", "y")
    assert shelf.find("b", (1, 7)) is None
    assert shelf.newest("a", 7) == (2, 7)
    assert shelf.newest("a", 8) is shelf.newest("b", 7) is None


def test_a_shelf_of_no_bytes_holds_nothing() -> None:
    shelf: HeldFrames[str] = HeldFrames(0)
    assert not shelf.put("a", (1, 1), "x", 10, 0)
    assert len(shelf) == 0


def test_a_noisy_stream_pushes_out_its_own_frames() -> None:
    shelf: HeldFrames[int] = HeldFrames(40_000)
    shelf.put("quiet", (1, 1), 0, 1_000, 0)
    for number in range(100):
        shelf.put("noisy", (1, number), number, 1_000, 0)
    assert shelf.find("quiet", (1, 1)) == 0
    assert shelf.find("noisy", (1, 99)) == 99
    assert shelf.find("noisy", (1, 90)) is None


def test_a_frame_that_is_too_old_is_let_go() -> None:
    shelf: HeldFrames[str] = HeldFrames(10_000, max_age_s=5)
    shelf.put("a", (1, 1), "x", 10, 0)
    shelf.put("a", (1, 2), "y", 10, 4)
    shelf.prune(5)
    assert len(shelf) == 2
    shelf.prune(5.1)
    assert shelf.find("a", (1, 1)) is None
    shelf.prune(100)
    assert (len(shelf), shelf.bytes) == (0, 0)


def test_one_frame_that_is_larger_than_all_has_room_alone() -> None:
    shelf: HeldFrames[str] = HeldFrames(1_000)
    shelf.put("a", (1, 1), "x", 10, 0)
    shelf.put("b", (1, 1), "huge", 9_000, 0)
    assert shelf.find("b", (1, 1)) == "huge"
    assert len(shelf) == 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 3_000)), max_size=80))
def test_the_bytes_are_bounded_in_all_and_for_each_stream(frames: list[tuple[str, int, int]]) -> None:
    shelf: HeldFrames[int] = HeldFrames(20_000)
    held: dict[tuple[str, tuple[int, int]], int] = {}
    for number, (stream, term, size) in enumerate(frames):
        shelf.put(stream, (term, number), size, size, number)
        held[stream, (term, number)] = size + FRAME_COST_BYTES
        sizes = {key: size for key, size in held.items() if shelf.find(*key) is not None}
        assert shelf.bytes == sum(sizes.values()) <= 20_000
        assert len(shelf) == len(sizes)
        assert shelf.find(stream, (term, number)) == size, "the newest has room"
        for each in "abcdef":
            assert sum(size for (name, _), size in sizes.items() if name == each) <= 20_000 * STREAM_SHARE
