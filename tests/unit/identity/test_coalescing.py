from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from watchout.common.errors import StoreUnavailable
from watchout.identity import coalescing
from watchout.identity.coalescing import Coalescer


class DatabaseStore:
    """Knows the keys that begin with ``k``; answers when it is told to, and writes down what it was asked."""

    def __init__(self, *, answering: bool = True) -> None:
        self.asked: list[list[str]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.faults: list[Exception] = []
        self._answering = asyncio.Event()
        if answering:
            self._answering.set()

    async def fetch(self, keys: list[str]) -> Mapping[str, str]:
        self.asked.append(keys)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._answering.wait()
            await asyncio.sleep(0)
            if self.faults:
                raise self.faults.pop(0)
            return {key: f"v-{key}" for key in keys if key.startswith("k")}
        finally:
            self.under_way -= 1

    def answer(self) -> None:
        self._answering.set()


def batched(
    store: DatabaseStore, workers: int = 2, timeout_s: float = 60.0, max_waiting: int = 20_000
) -> Coalescer[str]:
    return Coalescer(store.fetch, workers=workers, timeout_s=timeout_s, max_waiting=max_waiting)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_key_has_its_value_or_none() -> None:
    lookups = batched(DatabaseStore())
    assert await lookups.get("k1") == "v-k1"
    assert await lookups.get("x1") is None


async def test_keys_that_come_at_once_go_in_one_query() -> None:
    store = DatabaseStore()
    lookups = batched(store)
    found = await asyncio.gather(*[lookups.get(f"k{i}") for i in range(100)])
    assert found == [f"v-k{i}" for i in range(100)]
    assert store.asked == [[f"k{i}" for i in range(100)]]


async def test_all_who_ask_for_a_key_are_served_by_one_query() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store)
    asked = [asyncio.create_task(lookups.get("k1")) for _ in range(50)]
    await turns()
    asked += [asyncio.create_task(lookups.get("k1")) for _ in range(50)]
    await turns()
    store.answer()
    assert await asyncio.gather(*asked) == ["v-k1"] * 100
    assert store.asked == [["k1"]]


async def test_nothing_is_remembered_past_the_query() -> None:
    store = DatabaseStore()
    lookups = batched(store)
    await lookups.get("k1")
    await lookups.get("k1")
    assert store.asked == [["k1"], ["k1"]]


async def test_a_storm_costs_few_queries_and_never_more_at_once_than_there_are_workers() -> None:
    store = DatabaseStore()
    lookups = batched(store, workers=3)

    async def client(i: int) -> str | None:
        await turns(i % 40)
        return await lookups.get(f"k{i}")

    assert await asyncio.gather(*[client(i) for i in range(2000)]) == [f"v-k{i}" for i in range(2000)]
    assert store.most_under_way <= 3
    assert max(map(len, store.asked)) <= coalescing.MAX_KEYS
    assert sorted(key for keys in store.asked for key in keys) == sorted(f"k{i}" for i in range(2000))


async def test_what_comes_while_all_workers_are_busy_goes_together_afterwards() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=2)
    asked = []
    for i in range(1202):
        asked.append(asyncio.create_task(lookups.get(f"k{i}")))
        if i < 3:
            await turns()
    await turns()
    assert [len(keys) for keys in store.asked] == [1, 1]
    store.answer()
    await asyncio.gather(*asked)
    assert [len(keys) for keys in store.asked] == [1, 1, 500, 500, 200]


async def test_past_the_bound_a_caller_is_told_so_at_once_but_known_keys_still_join() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1, max_waiting=3)
    asked = [asyncio.create_task(lookups.get("k0"))]
    await turns()
    asked += [asyncio.create_task(lookups.get(f"k{i}")) for i in range(1, 4)]
    await turns()
    with pytest.raises(StoreUnavailable, match="3 keys are waiting already"):
        await lookups.get("k4")
    asked += [asyncio.create_task(lookups.get(key)) for key in ("k0", "k3")]
    await turns()
    store.answer()
    assert await asyncio.gather(*asked) == ["v-k0", "v-k1", "v-k2", "v-k3", "v-k0", "v-k3"]
    assert await lookups.get("k4") == "v-k4"


async def test_each_caller_has_a_deadline_whatever_it_waits_for() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1, timeout_s=0.05)
    first = asyncio.create_task(lookups.get("k1"))
    await turns()
    found = await asyncio.gather(first, lookups.get("k1"), lookups.get("k2"), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 3
    store.answer()
    while True:  # a machine that stops for a moment may miss the short deadline here too
        with contextlib.suppress(StoreUnavailable):
            assert await lookups.get("k3") == "v-k3"
            break


async def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1)
    asked = [asyncio.create_task(lookups.get(key)) for key in ("k1", "k1", "k2", "k2")]
    await turns()
    asked[0].cancel()
    asked[2].cancel()
    await turns()
    store.answer()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert isinstance(found[2], asyncio.CancelledError)
    assert [found[1], found[3]] == ["v-k1", "v-k2"]


async def test_a_key_that_nobody_waits_for_any_more_is_not_asked_for_and_leaves_its_place() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1, max_waiting=3)
    first = asyncio.create_task(lookups.get("k0"))
    await turns()
    asked = [asyncio.create_task(lookups.get(key)) for key in ("k1", "k2", "k2", "k3")]
    await turns()
    for one in (0, 1, 3):
        asked[one].cancel()
    await turns()
    asked += [asyncio.create_task(lookups.get(key)) for key in ("k4", "k5")]
    await turns()
    with pytest.raises(StoreUnavailable, match="3 keys are waiting already"):
        await lookups.get("k6")
    store.answer()
    assert await asyncio.gather(first, asked[2], *asked[4:]) == ["v-k0", "v-k2", "v-k4", "v-k5"]
    assert store.asked == [["k0"], ["k2", "k4", "k5"]]


async def test_a_query_whose_callers_have_all_left_is_not_made() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1)
    first = asyncio.create_task(lookups.get("k0"))
    await turns()
    gone = asyncio.create_task(lookups.get("k1"))
    await turns()
    gone.cancel()
    await turns()
    store.answer()
    assert await first == "v-k0"
    assert await lookups.get("k2") == "v-k2"
    assert store.asked == [["k0"], ["k2"]]


async def test_a_query_that_fails_fails_only_its_own_callers() -> None:
    store = DatabaseStore(answering=False)
    store.faults = [StoreUnavailable("PostgreSQL is away")]
    lookups = batched(store, workers=1)
    one = [asyncio.create_task(lookups.get("k1")) for _ in range(3)]
    await turns()
    other = asyncio.create_task(lookups.get("k2"))
    await turns()
    store.answer()
    found = await asyncio.gather(*one, return_exceptions=True)
    assert [(type(fault), str(fault)) for fault in found] == [(StoreUnavailable, "PostgreSQL is away")] * 3
    assert len({id(fault) for fault in found}) == 3
    assert await other == "v-k2"


async def test_a_query_that_fails_as_it_never_should_is_unavailable_and_logged_without_its_keys() -> None:
    store = DatabaseStore()
    store.faults = [KeyError("k1")]
    lookups = batched(store)
    with capture_logs() as lines, pytest.raises(StoreUnavailable, match="KeyError"):
        await lookups.get("k1")
    assert [(line["log_level"], line["error"]) for line in lines] == [("error", "KeyError")]
    assert "k1" not in str(lines)
    assert await lookups.get("k1") == "v-k1"


async def test_whoever_waits_when_it_closes_is_told_so() -> None:
    store = DatabaseStore(answering=False)
    lookups = batched(store, workers=1)
    asked = [asyncio.create_task(lookups.get("k1"))]
    await turns()
    asked.append(asyncio.create_task(lookups.get("k2")))
    await turns()
    await lookups.close()
    await lookups.close()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 2
    with pytest.raises(StoreUnavailable):
        await lookups.get("k3")
    assert store.under_way == 0
