"""A walk over the streams of all slots: bounded pages, slots that fall silent, routers that know no pages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import StreamPage, StreamRow
from watchout.common.bus.router_links import SlotReplies
from watchout.common.bus.stream_walk import PAGE_ROWS, StreamWalk
from watchout.common.errors import BusError, RouterUnavailable

MANY = 2 * PAGE_ROWS + 1


class Routers:
    """A `RouterLinks` for routers with these streams. `silent_after`: pages after which the router of a slot is silent.

    Routers of `former` slots do not know of pages; those of `other` slots reply something else.
    """

    def __init__(
        self, *streams: list[str], silent_after: dict[int, int] | None = None, former: tuple[int, ...] = (),
        other: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.slots = len(streams)
        self.asked: list[Query] = []
        self._streams = streams
        self._left = dict(silent_after or {})
        self._former, self._other = former, other

    def at(self, slot: int) -> Any:
        return SimpleNamespace(slot=slot)

    async def ask_all(self, make: Any, _kind: Any, *, slots: list[int]) -> SlotReplies[object]:
        replies: dict[int, object] = {}
        for slot in slots:
            query = make(self.at(slot), 1)
            self.asked.append(query)
            if self._left.get(slot) == 0:
                continue
            self._left = {key: left - (key == slot) for key, left in self._left.items()}
            rows = [StreamRow(stream_id=name) for name in self._streams[slot]]
            if slot in self._other:
                replies[slot] = "?"
            elif slot in self._former:
                replies[slot] = msgspec.to_builtins(rows)
            else:
                rest = [row for row in rows if row.stream_id > query.after]
                page = StreamPage(rows=rest[: query.rows], more=len(rest) > query.rows)
                replies[slot] = msgspec.to_builtins(page)
        if not replies:
            raise RouterUnavailable("no router answered in time")
        return SlotReplies(replies, tuple(slot for slot in slots if slot not in replies))


async def walked(routers: Any, **options: Any) -> tuple[list[str], tuple[int, ...]]:
    walk = StreamWalk(routers, **options)
    found = [row.stream_id async for rows in walk.pages() for row in rows]
    return found, walk.missing


def names(slot: int, count: int = MANY) -> list[str]:
    return [f"{number:06}-{slot}" for number in range(count)]


async def test_no_question_wants_more_than_a_page() -> None:
    routers = Routers(names(0), names(1), names(2, 3))
    found, missing = await walked(routers)
    assert (found, missing) == (sorted([*names(0), *names(1), *names(2, 3)]), ())
    assert {query.rows for query in routers.asked} == {PAGE_ROWS}
    assert len(routers.asked) == 3 + 3 + 1
    assert not any(query.coverage for query in routers.asked)


async def test_the_coverage_is_asked_for_and_rows_are_converted_by_slot() -> None:
    routers = Routers(["a"], ["b"])
    stamped: list[tuple[str, int]] = []

    def here(rows: list[StreamRow], link: Any) -> list[StreamRow]:
        stamped.extend((row.stream_id, link.slot) for row in rows)
        return rows

    assert (await walked(routers, coverage=True, here=here))[0] == ["a", "b"]
    assert stamped == [("a", 0), ("b", 1)]
    assert all(query.coverage for query in routers.asked)


@pytest.mark.parametrize("pages", [0, 1])
async def test_a_slot_that_falls_silent_is_named_and_the_others_are_complete(pages: int) -> None:
    found, missing = await walked(Routers(names(0), names(1), silent_after={1: pages}))
    assert missing == (1,)
    assert found == sorted([*names(0), *names(1)[: pages * PAGE_ROWS]])


async def test_without_any_router_there_is_no_list() -> None:
    with pytest.raises(RouterUnavailable):
        await walked(Routers(names(0), names(1), silent_after={0: 0, 1: 0}))
    with pytest.raises(RouterUnavailable):
        await walked(Routers(names(0), silent_after={0: 1}))


async def test_routers_that_know_no_pages_are_asked_once() -> None:
    routers = Routers(names(0), names(1), former=(1,))
    assert await walked(routers) == (sorted([*names(0), *names(1)]), ())
    assert sum(query.after == "" for query in routers.asked) == 2


async def test_a_reply_of_another_form_makes_a_slot_missing_and_one_machine_fail() -> None:
    assert await walked(Routers(["a"], ["b"], other=(1,))) == (["a"], (1,))
    with pytest.raises(BusError):
        await walked(Routers(["a"], other=(0,)))
