"""A queue that is bounded in entries and bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.bounded_queue import BoundedQueue


def filled(sizes: list[int], *, max_entries: int = 3, max_bytes: int = 100) -> tuple[BoundedQueue[int, str], list[str]]:
    """A queue to which values named by their number were added, and those that gave way."""
    queue: BoundedQueue[int, str] = BoundedQueue(max_entries=max_entries, max_bytes=max_bytes)
    dropped: list[str] = []
    for number, size in enumerate(sizes):
        queue.add(number, str(number), size)
        while (value := queue.pop_excess()) is not None:
            dropped.append(value)
    return queue, dropped


def test_past_the_most_entries_the_oldest_gives_way() -> None:
    queue, dropped = filled([1] * 5)
    assert (list(queue), dropped, queue.bytes) == (["2", "3", "4"], ["0", "1"], 3)


def test_past_the_most_bytes_the_oldest_give_way() -> None:
    queue, dropped = filled([60, 30, 20])
    assert (list(queue), dropped, queue.bytes) == (["1", "2"], ["0"], 50)


def test_a_value_over_the_bound_stays_alone() -> None:
    queue, dropped = filled([10, 500])
    assert (list(queue), dropped) == (["1"], ["0"])


def test_the_newest_come_first_where_they_are_asked_for_so() -> None:
    queue, _ = filled([1] * 5)
    assert list(queue.newest_first()) == ["4", "3", "2"]


def test_a_value_can_be_removed_by_its_key() -> None:
    queue, _ = filled([10, 20, 30])
    assert (queue.pop(1), list(queue), queue.bytes) == ("1", ["0", "2"], 40)
    with pytest.raises(KeyError):
        queue.pop(1)


def test_a_key_stands_for_one_value() -> None:
    queue, _ = filled([10])
    with pytest.raises(KeyError):
        queue.add(0, "again", 1)
    assert (list(queue), queue.bytes) == (["0"], 10)


def test_the_oldest_can_be_seen_and_removed() -> None:
    queue, _ = filled([10, 20])
    assert [queue.oldest(), queue.pop_oldest(), queue.pop_oldest(), queue.oldest()] == ["0", "0", "1", None]
    with pytest.raises(KeyError):
        queue.pop_oldest()


@given(st.lists(st.integers(0, 200), max_size=40))
def test_it_is_within_its_bounds_and_loses_nothing_unseen(sizes: list[int]) -> None:
    queue, dropped = filled(sizes, max_entries=5, max_bytes=300)
    assert len(queue) <= 5
    assert queue.bytes <= 300 or len(queue) == 1
    assert [*dropped, *queue] == [str(number) for number in range(len(sizes))]
    assert queue.bytes == sum(sizes[number] for number, _ in queue.items())
