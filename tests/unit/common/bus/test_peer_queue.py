from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.peer_queue import PeerQueue


def test_the_newest_of_a_stream_waits_and_keeps_the_turn_of_the_older() -> None:
    backlog = PeerQueue[str]()
    for stream, frame in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        backlog.put(stream, frame, 10)
    assert (len(backlog), backlog.bytes, backlog.replaced) == (2, 20, 1)
    assert [backlog.take(), backlog.take()] == ["a2", "b1"]
    assert backlog.bytes == 0


def test_turns_are_fair_for_a_stream_that_never_pauses() -> None:
    backlog = PeerQueue[str]()
    for stream in "abc":
        backlog.put(stream, stream, 1)
    turns = []
    for _ in range(9):
        turns.append(backlog.take())
        backlog.put(turns[-1], turns[-1], 1)
        backlog.put("a", "a", 1)
    assert turns == list("abcabcabc")


def test_past_its_bytes_the_frame_whose_turn_is_next_gives_way() -> None:
    backlog = PeerQueue[str](max_bytes=30)
    for stream in "abcd":
        backlog.put(stream, stream, 10)
    assert (len(backlog), backlog.dropped) == (3, 1)
    assert [backlog.take() for _ in range(3)] == ["b", "c", "d"]


def test_the_newest_has_room_even_where_its_turn_is_next_and_where_it_is_too_large() -> None:
    backlog = PeerQueue[str](max_bytes=30)
    backlog.put("a", "a1", 10)
    backlog.put("b", "b1", 10)
    backlog.put("a", "a2", 25)
    assert (len(backlog), backlog.take()) == (1, "a2")
    backlog.put("b", "b2", 10)
    backlog.put("c", "c1", 100)
    assert (len(backlog), backlog.bytes, backlog.take()) == (1, 100, "c1")


def test_nothing_is_taken_where_nothing_waits() -> None:
    with pytest.raises(KeyError):
        PeerQueue[str]().take()


PUTS = st.tuples(st.integers(0, 9), st.integers(1, 40))


@given(st.lists(PUTS | st.just("take") | st.just("clear"), max_size=200))
def test_whatever_comes_and_goes_bytes_are_bounded_and_every_frame_is_counted_once(
    steps: list[tuple[int, int] | str],
) -> None:
    backlog = PeerQueue[tuple[int, int]](max_bytes=100)
    newest: dict[int, int] = {}
    put = taken = 0
    for number, step in enumerate(steps):
        if step == "take":
            if backlog:
                stream, frame = backlog.take()
                taken += 1
                assert frame == newest[stream]  # never an older one than the newest that was offered
        elif step == "clear":
            backlog.clear()
        else:
            assert not isinstance(step, str)
            stream, size = step
            backlog.put(stream, (stream, number), size)
            newest[stream] = number
            put += 1
            assert backlog.bytes <= 100
        assert put == taken + backlog.replaced + backlog.dropped + len(backlog)
        assert (backlog.bytes == 0) == (len(backlog) == 0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 5))
def test_the_newest_of_each_stream_always_gets_through(streams: list[int], every: int) -> None:
    backlog = PeerQueue[tuple[int, int]]()
    arrived: dict[int, int] = {}
    for number, stream in enumerate(streams):
        backlog.put(stream, (stream, number), 1)
        if number % every == 0:
            arrived.update([backlog.take()])
    while backlog:
        arrived.update([backlog.take()])
    assert arrived == {stream: number for number, stream in enumerate(streams)}


def test_frames_without_a_stream_have_a_slot_too() -> None:
    backlog = PeerQueue[str]()
    backlog.put(None, "what is this", 12)
    assert backlog.take() == "what is this"
    assert not backlog
