"""Pages of several slots in one order: nothing twice, nothing left out, and an end in every case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest

from watchout.common.bus.reply_records import StreamRow
from watchout.common.bus.stream_pages import PageMerge

IDS = ("a", "b", "c", "d")


def row(name: str, started_at: int = 0) -> StreamRow:
    return StreamRow(stream_id=name, started_at=started_at)


def merged(slots: Sequence[Sequence[str]], sizes: Sequence[int], fails: dict[int, int]) -> Iterator[StreamRow]:
    """All rows of slots with these streams and page sizes. Slot 1's rows are the later ones.

    `fails`: the slot does not answer any more after so many pages.
    """
    merge = PageMerge(range(len(slots)))
    answered = [0] * len(slots)
    while not merge.done:
        wanted = merge.wanted()
        assert wanted
        for slot, after in wanted.items():
            if answered[slot] == fails.get(slot):
                merge.end(slot)
                continue
            answered[slot] += 1
            rest = [name for name in slots[slot] if name > after]
            size = sizes[slot]
            merge.add(slot, [row(name, slot) for name in rest[:size]], more=len(rest) > size)
        yield from merge.take()
    assert merge.take() == []


@pytest.mark.parametrize("sizes", list(product([1, 2, 3], repeat=2)))
@pytest.mark.parametrize("fails", [{}, *({slot: pages} for slot in (0, 1) for pages in (0, 1, 2))])
def test_all_that_two_slots_tell_comes_once_and_in_order(sizes: tuple[int, int], fails: dict[int, int]) -> None:
    for whose in product([(0,), (1,), (0, 1), ()], repeat=len(IDS)):
        slots = [[name for name, of in zip(IDS, whose, strict=True) if slot in of] for slot in (0, 1)]
        told = [slots[slot][: fails[slot] * sizes[slot]] if slot in fails else slots[slot] for slot in (0, 1)]
        found = list(merged(slots, sizes, fails))
        assert [each.stream_id for each in found] == sorted({*told[0], *told[1]})
        assert all(each.started_at == (each.stream_id in told[1]) for each in found), "the later of two"


def test_three_slots_and_no_slot_with_streams() -> None:
    assert [each.stream_id for each in merged([["c", "f"], ["a", "b", "e"], ["d"]], [1, 1, 1], {})] == list("abcdef")
    assert list(merged([[], [], []], [1, 1, 1], {})) == []


def test_rows_are_passed_on_as_soon_as_none_can_come_before_them() -> None:
    merge = PageMerge([0, 1])
    merge.add(0, [row("a"), row("d")], more=True)
    assert merge.take() == []
    assert merge.wanted() == {1: ""}
    merge.add(1, [row("b"), row("c")], more=True)
    assert [each.stream_id for each in merge.take()] == ["a", "b", "c"]
    assert merge.wanted() == {1: "c"}
    merge.end(1)
    assert [each.stream_id for each in merge.take()] == ["d"]
    assert merge.wanted() == {0: "d"}


@pytest.mark.parametrize("again", [["b"], ["a"], ["c", "b"], []])
def test_a_router_that_tells_no_further_ends_the_walk(again: list[str]) -> None:
    merge = PageMerge([0], after="")
    merge.add(0, [row("a"), row("b")], more=True)
    assert len(merge.take()) == 2
    merge.add(0, [row(name) for name in again], more=True)
    assert [each.stream_id for each in merge.take()] == [name for name in again if name > "b"]
    assert merge.done


def test_a_walk_may_begin_in_the_middle() -> None:
    merge = PageMerge([0, 1], after="b")
    assert merge.wanted() == {0: "b", 1: "b"}
