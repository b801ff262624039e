"""The slot of a stream: the same in every process and release, and each slot has its share of the streams."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.slots import by_slot, slot_of

STREAMS = ("cam", "cam-1", "cam-2", "door", "a", "x" * 128)


@pytest.mark.parametrize(
    ("slots", "expected"),
    [(1, [0] * 6), (2, [0, 1, 0, 1, 1, 0]), (3, [2, 2, 1, 1, 2, 2]), (4, [0, 1, 0, 1, 3, 2]),
     (16, [12, 5, 4, 1, 15, 2])],
)  # fmt: skip
def test_the_slot_of_a_stream_is_part_of_the_contract(slots: int, expected: list[int]) -> None:
    assert [slot_of(stream, slots) for stream in STREAMS] == expected


@given(st.text(min_size=1, max_size=128), st.integers(1, 64))
def test_every_stream_has_one_slot(stream: str, slots: int) -> None:
    assert 0 <= slot_of(stream, slots) < slots
    assert slot_of(stream, slots) == slot_of(stream, slots)


@pytest.mark.parametrize("name", ["cam-{}", "{}", "site-7/floor-2/{}", "camera_{:08d}"])
def test_names_that_are_counted_up_are_spread_evenly(name: str) -> None:
    counts = Counter(slot_of(name.format(number), 4) for number in range(10_000))
    assert all(2_300 < counts[slot] < 2_700 for slot in range(4)), counts


@given(st.lists(st.text(min_size=1, max_size=8)), st.integers(1, 8))
def test_items_are_divided_by_slot_in_their_order_and_none_is_lost(streams: list[str], slots: int) -> None:
    divided = by_slot(enumerate(streams), slots, lambda item: item[1])
    assert sorted(item for items in divided.values() for item in items) == list(enumerate(streams))
    for slot, items in divided.items():
        assert items == sorted(items)
        assert items
        assert {slot_of(stream, slots) for _, stream in items} == {slot}
