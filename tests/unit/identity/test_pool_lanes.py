from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from tests.kit.examples import seeded
from watchout.identity.pool_lanes import PoolLane, PoolLanes

LOOKUP, RECHECK = PoolLane.LOOKUP, PoolLane.RECHECK


class Queries:
    """Queries on one set of turns, each under way until it is ended; remembers in which order they began."""

    def __init__(self, at_once: int) -> None:
        self.turns = PoolLanes(at_once)
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """A name that begins with ``r`` is of somebody who is looked at again."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._query(name))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks.pop(name)
        await settle()

    async def leave(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await settle()

    async def _query(self, name: str) -> None:
        async with self.turns.take(RECHECK if name.startswith("r") else LOOKUP):
            self.began.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.mark.parametrize("at_once", [2, 3, 5])
async def test_strangers_never_have_the_last_turn(at_once: int) -> None:
    queries = Queries(at_once)
    await queries.ask(*[f"l{i}" for i in range(20)])
    assert queries.began == [f"l{i}" for i in range(at_once - 1)]
    await queries.ask("r0", "r1")
    assert queries.began[at_once - 1 :] == ["r0"]
    await queries.end("r0")
    assert queries.began[at_once:] == ["r1"]


async def test_nor_do_those_who_look_again() -> None:
    queries = Queries(3)
    await queries.ask("r0", "r1", "r2", "l0")
    assert queries.began == ["r0", "r1", "l0"]


async def test_with_one_connection_a_recheck_waits_for_one_lookup_at_most() -> None:
    queries = Queries(1)
    await queries.ask("l0", "l1", "l2", "l3", "r0", "r1", "r2")
    for name in ("l0", "r0", "l1", "r1", "l2", "r2", "l3"):
        assert queries.began[-1] == name
        await queries.end(name)


async def test_whoever_leaves_gives_the_turn_or_the_place_back() -> None:
    queries = Queries(2)
    await queries.ask("l0", "l1", "l2", "l3")
    await queries.leave("l1")
    await queries.leave("l0")
    assert queries.began == ["l0", "l2"]
    await queries.end("l2")
    assert queries.began == ["l0", "l2", "l3"]


async def test_a_turn_given_to_whoever_leaves_at_that_moment_is_not_lost() -> None:
    for ticks in range(8):
        turns = PoolLanes(1)
        began: list[str] = []

        async def query(name: str, turns: PoolLanes = turns, began: list[str] = began) -> None:
            async with turns.take(LOOKUP):
                began.append(name)
                await asyncio.sleep(0)

        first, second = asyncio.create_task(query("first")), asyncio.create_task(query("second"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        second.cancel()
        third = asyncio.create_task(query("third"))
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert [name for name in began if name != "second"] == ["first", "third"]


@seeded(30)
async def test_in_any_history_no_turn_is_lost_and_none_is_taken_twice(seed: int) -> None:
    chance = random.Random(seed)
    at_once = chance.randint(1, 5)
    turns, taken, most = PoolLanes(at_once), 0, 0

    async def query(lane: PoolLane) -> None:
        nonlocal taken, most
        async with turns.take(lane):
            taken += 1
            most = max(most, taken)
            try:
                for _ in range(chance.randint(0, 4)):
                    await asyncio.sleep(0)
            finally:
                taken -= 1

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(query(chance.choice([LOOKUP, RECHECK]))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert taken == 0
    assert most <= at_once
    entered = []
    async with contextlib.AsyncExitStack() as stack:  # all of them are there again
        for turn in range(at_once):
            await asyncio.wait_for(stack.enter_async_context(turns.take(LOOKUP if turn else RECHECK)), 30)
            entered.append(turn)
    assert len(entered) == at_once
