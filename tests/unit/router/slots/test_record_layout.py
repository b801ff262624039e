"""Records after the number of slots was changed: the router that its stream has now finds each, whatever fails."""

from __future__ import annotations

import asyncio
import copy
import itertools

import msgspec
import pytest

from tests.kit.memory_kv import MemoryKeyValue
from watchout.common.bus.key_value import BucketUnavailable, BucketValue
from watchout.common.bus.slot_entries import Shape, decode_shape, encode
from watchout.common.bus.slots import slot_of
from watchout.router.alerts.escalation import WaitingRecord
from watchout.router.shares.table import StreamShare
from watchout.router.slots import record_layout
from watchout.router.slots.keeper import SHAPE_KEY
from watchout.router.slots.kv_records import KvRecords, decode_chunk
from watchout.router.slots.record_layout import STREAM_OF, RecordLayout

STREAMS = [f"door-{number}" for number in range(40)]


def records_of(stream: str) -> dict[str, tuple[str, bytes]]:
    """A record of each kind: key and body."""
    share = StreamShare(
        id=f"{stream:x<22}"[:22], stream=stream, owner="ann", alerts=True, created_at=1, ends_at=9_999
    )  # fmt: skip
    return {
        "reservations": (stream, b"an owner"),
        "shares": (share.id, msgspec.json.encode(share)),
        "escalations": (f"{stream} a1", msgspec.json.encode(WaitingRecord("settled", 1))),
    }


async def loaded(
    store: MemoryKeyValue, slots: int, layout: RecordLayout, epoch: int = 9
) -> dict[tuple[str, int], set[str]]:
    """The keys that the router of each slot finds, by kind and slot."""
    return {
        (kind, slot): set(await KvRecords(store, kind, slot, epoch, kind, settle=layout.settle).load())
        for kind in STREAM_OF
        for slot in range(slots)
    }


def wanted(slots: int) -> dict[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = {(kind, slot): set() for kind in STREAM_OF for slot in range(slots)}
    for stream in STREAMS:
        for kind, (key, _) in records_of(stream).items():
            found[kind, slot_of(stream, slots)].add(key)
    return found


async def written(slots: int) -> MemoryKeyValue:
    """A bucket in which routers of so many slots have written records of all kinds of all streams."""
    store = MemoryKeyValue()
    layout = RecordLayout(store, slots, lambda: True)
    for kind in STREAM_OF:
        for slot in range(slots):
            records = KvRecords(store, kind, slot, 5, kind, settle=layout.settle)
            await records.load()
            records.change({
                key: body for stream in STREAMS if slot_of(stream, slots) == slot
                for key, body in [records_of(stream)[kind]]
            })  # fmt: skip
            assert await records.write()
    return store


@pytest.fixture(scope="module")
def stores() -> dict[int, MemoryKeyValue]:
    return {slots: asyncio.run(written(slots)) for slots in (1, 2, 4)}


def shape(store: MemoryKeyValue) -> int | None:
    found = decode_shape(store.values[SHAPE_KEY].data) if SHAPE_KEY in store.values else None
    return None if found is None else found.slots


def stored(store: MemoryKeyValue) -> int:
    """How many records there are, wherever."""
    chunks = [decode_chunk(each.data) for key, each in store.values.items() if key != SHAPE_KEY]
    return sum(len(chunk.records) for chunk in chunks if chunk is not None)


@pytest.mark.parametrize(("former", "slots"), [(2, 4), (4, 2), (1, 4), (4, 1), (2, 3), (4, 4)])
async def test_each_record_is_found_in_the_slot_that_its_stream_has_now(
    stores: dict[int, MemoryKeyValue], former: int, slots: int
) -> None:
    store = copy.deepcopy(stores[former])
    assert shape(store) == former
    assert await loaded(store, slots, RecordLayout(store, slots, lambda: True)) == wanted(slots)
    assert shape(store) == slots
    assert stored(store) == len(STREAM_OF) * len(STREAMS), "none is left behind"
    before = store.writes
    assert await loaded(store, slots, RecordLayout(store, slots, lambda: False)) == wanted(slots)
    assert store.writes == before, "it is done once"


async def test_only_who_has_the_first_slot_moves_and_the_others_wait(stores: dict[int, MemoryKeyValue]) -> None:
    store = copy.deepcopy(stores[2])
    before = dict(store.values)
    other = RecordLayout(store, 4, lambda: False)
    with pytest.raises(BucketUnavailable, match="divided by another number of slots"):
        await other.settle()
    assert store.values == before
    waiting = asyncio.create_task(KvRecords(store, "reservations", 3, 9, "owners", settle=other.settle).load())
    await RecordLayout(store, 4, lambda: True).settle()
    assert set(await waiting) == wanted(4)["reservations", 3]


async def test_a_bucket_that_does_not_say_its_number_has_the_present_one(stores: dict[int, MemoryKeyValue]) -> None:
    """It is of the release before, or new. Any process says it then."""
    store = copy.deepcopy(stores[2])
    del store.values[SHAPE_KEY]
    assert await loaded(store, 2, RecordLayout(store, 2, lambda: False)) == wanted(2)
    assert shape(store) == 2


async def test_a_mover_that_ends_at_any_moment_loses_nothing(stores: dict[int, MemoryKeyValue]) -> None:
    """It loses its lease, or is killed, before each of its writes in turn; the next one ends what it began."""
    for most in itertools.count(0, 5):
        store, left = copy.deepcopy(stores[2]), iter([True] * most)
        former = RecordLayout(store, 4, lambda left=left: next(left, False))  # type: ignore[misc]
        try:
            await former.settle()
        except BucketUnavailable:
            assert stored(store) >= len(STREAM_OF) * len(STREAMS)
            assert await loaded(store, 4, RecordLayout(store, 4, lambda: True)) == wanted(4), most
            assert stored(store) == len(STREAM_OF) * len(STREAMS)
        else:
            break
    assert most > 2 * 54, "each record is written at its new place and removed at the former one"


async def test_a_former_mover_brings_nothing_back_that_was_deleted_since(stores: dict[int, MemoryKeyValue]) -> None:
    """It stands still before its first write to a chunk, while its successor moves, serves, and deletes records."""
    store = copy.deepcopy(stores[2])
    went_on, stands = asyncio.Event(), asyncio.Event()
    plain = store.compare_and_set

    async def late(key: str, value: bytes, expected: int) -> int:
        if key != SHAPE_KEY:
            stands.set()
            await went_on.wait()
        return await plain(key, value, expected)

    former_store = copy.copy(store)
    former_store.compare_and_set = late  # type: ignore[method-assign]
    has_lease = [True]
    former = asyncio.create_task(RecordLayout(former_store, 4, lambda: has_lease[0]).settle())
    await stands.wait()
    has_lease[0] = False
    layout = RecordLayout(store, 4, lambda: True)
    for slot in range(4):
        records = KvRecords(store, "reservations", slot, 9, "owners", settle=layout.settle)
        records.change(dict.fromkeys(await records.load()))
        assert await records.write()
    went_on.set()
    with pytest.raises(BucketUnavailable):
        await former
    found = await loaded(store, 4, RecordLayout(store, 4, lambda: True))
    assert not any(keys for (kind, _), keys in found.items() if kind == "reservations")
    assert shape(store) == 4


async def test_who_reads_what_was_there_before_the_move_brings_nothing_back(stores: dict[int, MemoryKeyValue]) -> None:
    """A store that is cut in two answers with old values, of the number and of what was moved since."""
    store = copy.deepcopy(stores[2])
    old = dict(store.values)
    layout = RecordLayout(store, 4, lambda: True)
    for slot in (2, 3):
        records = KvRecords(store, "reservations", slot, 9, "owners", settle=layout.settle)
        records.change(dict.fromkeys(await records.load()))
        assert await records.write()
    stale = copy.copy(store)

    async def read(key: str) -> BucketValue:
        return store.values[key] if key.startswith(("reservations.2", "reservations.3")) else old[key]

    stale.read = read  # type: ignore[method-assign]
    with pytest.raises(BucketUnavailable, match="another process changes"):
        await RecordLayout(stale, 4, lambda: True).settle()
    for slot in (2, 3):
        assert await KvRecords(store, "reservations", slot, 9, "owners").load() == {}


async def test_of_two_records_of_one_key_that_of_the_later_router_holds() -> None:
    store = MemoryKeyValue()
    stream = next(each for each in STREAMS if slot_of(each, 4) == 3)
    for slot, epoch, body in ((0, 5, b"old"), (1, 7, b"new"), (3, 6, b"there")):
        records = KvRecords(store, "reservations", slot, epoch, "owners")
        await records.load()
        records.change({stream: body})
        await records.write()
    store.values.pop(SHAPE_KEY, None)
    await store.compare_and_set(SHAPE_KEY, encode(Shape(2)), 0)
    layout = RecordLayout(store, 4, lambda: True)
    assert await KvRecords(store, "reservations", 3, 9, "owners", settle=layout.settle).load() == {stream: b"new"}
    assert stored(store) == 1


async def test_what_cannot_be_read_stays_where_it_is_and_stops_nothing(stores: dict[int, MemoryKeyValue]) -> None:
    store = copy.deepcopy(stores[2])
    bad = KvRecords(store, "shares", 0, 5, "shares")
    await bad.load()
    bad.change({"not a share": b"\xff"})
    await bad.write()
    await store.compare_and_set("reservations.0.x", b"no chunk", 0)
    await store.compare_and_set("reservations.7.1", b"no chunk", 0)
    found = await loaded(store, 4, RecordLayout(store, 4, lambda: True))
    assert found["shares", 0] == wanted(4)["shares", 0] | {"not a share"}
    assert found["shares", 3] == wanted(4)["shares", 3]


async def test_a_store_that_fails_is_asked_again(stores: dict[int, MemoryKeyValue]) -> None:
    store = copy.deepcopy(stores[2])
    layout = RecordLayout(store, 4, lambda: True)
    store.down = True
    with pytest.raises(BucketUnavailable):
        await layout.settle()
    store.down, store.lose_replies = False, 3
    for _ in range(10):
        try:
            await layout.settle()
        except BucketUnavailable:
            continue
        break
    assert await loaded(store, 4, layout) == wanted(4)


async def test_the_number_is_written_again_when_the_store_lost_it(stores: dict[int, MemoryKeyValue]) -> None:
    store = copy.deepcopy(stores[2])
    layout = RecordLayout(store, 2, lambda: False)
    del store.values[SHAPE_KEY]
    await layout.keep()
    assert shape(store) is None, "it is not known yet that the records fit"
    await layout.settle()
    store.lose()
    await layout.keep()
    assert shape(store) == 2
    store.down = True
    await layout.keep()


def test_every_kind_of_the_products_records_can_be_moved() -> None:
    assert set(STREAM_OF) == {"reservations", "shares", "escalations"}
    for kind, (key, body) in records_of("door-1").items():
        assert record_layout.STREAM_OF[kind](key, body) == "door-1"
