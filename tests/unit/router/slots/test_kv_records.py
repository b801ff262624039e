"""Records of a slot in the key-value store: what the next router finds, whatever fails in between."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.clients import eventually
from tests.kit.memory_kv import MemoryKeyValue
from watchout.common.bus.key_value import MIN_VALUE_BYTES, BucketValue
from watchout.common.reservations import Reservation
from watchout.router.slots.kv_records import CHUNKS, Chunk, KvRecords
from watchout.router.slots.kv_reservations import KvReservations


async def opened(store: MemoryKeyValue, epoch: int = 1, **more: float) -> tuple[KvRecords, dict[str, bytes]]:
    records = KvRecords(store, "things", 2, epoch, "things", **more)
    return records, await records.load()


async def test_what_was_written_is_there_for_the_next_router_and_what_was_deleted_is_not() -> None:
    store = MemoryKeyValue()
    first, found = await opened(store)
    assert found == {}
    first.change({f"key {number}": b"%d" % number for number in range(500)})
    assert await first.write()
    assert len(store.values) == CHUNKS
    first.change({"key 1": None, "key 2": b"two"})
    assert await first.write()
    _, found = await opened(store, 2)
    assert len(found) == 499
    assert found["key 2"] == b"two"
    assert "key 1" not in found


async def test_a_change_writes_its_chunk_alone_and_kinds_and_slots_are_apart() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({f"{number}": b"x" for number in range(500)})
    await records.write()
    before = store.writes
    records.change({"1": b"y"})
    assert await records.write()
    assert store.writes == before + 1
    assert await KvRecords(store, "things", 3, 1, "things").load() == {}
    assert await KvRecords(store, "thing", 2, 1, "things").load() == {}


async def test_a_router_with_a_successor_overwrites_nothing() -> None:
    store = MemoryKeyValue()
    former, _ = await opened(store, 1)
    former.change({"a": b"1"})
    await former.write()
    later, found = await opened(store, 2)
    assert found == {"a": b"1"}
    later.change({"a": b"2"})
    assert await later.write()
    former.change({"a": b"3"})
    assert not await former.write()
    assert not await former.write()
    assert not former.failing, "nothing is wrong with the store"
    _, found = await opened(store, 3)
    assert found == {"a": b"2"}


async def test_a_late_write_of_the_former_router_is_overwritten() -> None:
    store = MemoryKeyValue()
    former, _ = await opened(store, 1)
    later, _ = await opened(store, 2)
    former.change({"a": b"late"})
    assert await former.write()
    later.change({"a": b"2"})
    assert await later.write()
    assert (await opened(store, 3))[1] == {"a": b"2"}


async def test_an_own_write_whose_reply_was_lost_is_recognized() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    store.lose_replies = 1
    records.change({"a": b"1"})
    assert not await records.write()
    assert records.unwritten == 1
    records.change({"a": b"2"})
    assert await records.write()
    assert (await opened(store, 2))[1] == {"a": b"2"}


async def test_a_store_that_fails_is_said_once_and_all_is_written_later(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    store.down = True
    for number in range(3):
        records.change({f"{number}": b"x"})
        assert not await records.write()
        assert records.failing
    store.down = False
    assert await records.write()
    assert not records.failing
    assert len((await opened(store, 2))[1]) == 3


async def test_nothing_is_written_before_all_is_loaded_and_what_was_changed_meanwhile_is_newer() -> None:
    store = MemoryKeyValue()
    former, _ = await opened(store)
    former.change({"a": b"1", "b": b"1", "c": b"1"})
    await former.write()
    store.down = True
    records = KvRecords(store, "things", 2, 2, "things")
    loading = asyncio.create_task(records.load())
    records.change({"a": b"2", "b": None})
    assert not await records.write()
    store.down = False
    assert await loading == {"c": b"1"}
    assert await records.write()
    assert (await opened(store, 3))[1] == {"a": b"2", "c": b"1"}


async def test_a_load_ends_with_its_store() -> None:
    store = MemoryKeyValue()
    store.down = True
    records = KvRecords(store, "things", 2, 2, "things")
    loading = asyncio.create_task(records.load())
    await asyncio.sleep(0)
    await records.close()
    assert await loading == {}


async def test_a_lost_bucket_is_written_anew_chunk_by_chunk() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({"a": b"1"})
    await records.write()
    store.lose()
    records.change({"a": b"2"})
    assert await records.write()
    assert (await opened(store, 2))[1] == {"a": b"2"}


async def test_writes_that_may_wait_are_made_together_and_the_last_one_at_the_end() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store, every_s=1e6)
    records.change({"a": b"1"})
    assert await records.write()
    records.change({"a": b"2"})
    assert not await records.write()
    await records.close()
    assert (await opened(store, 2))[1] == {"a": b"2"}


async def test_past_the_largest_value_the_oldest_records_are_left_out() -> None:
    store = MemoryKeyValue()
    store.max_value_bytes = MIN_VALUE_BYTES
    records, _ = await opened(store)
    same_chunk = keys_of_one_chunk(40)
    for key in same_chunk:
        records.change({key: random.randbytes(4000)})
    assert await records.write()
    found = (await opened(store, 2))[1]
    assert 10 < len(found) < 16
    assert list(found) == same_chunk[-len(found) :]


def keys_of_one_chunk(count: int) -> list[str]:
    return [f"{n}" for n in range(9000) if zlib.crc32(f"{n}".encode()) % CHUNKS == 7][:count]


async def test_a_record_that_is_larger_than_any_value_is_left_out_alone(capsys: pytest.CaptureFixture[str]) -> None:
    store = MemoryKeyValue()
    store.max_value_bytes = MIN_VALUE_BYTES
    records, _ = await opened(store)
    before, large, after = keys_of_one_chunk(3)
    records.change({before: b"1", large: random.randbytes(MIN_VALUE_BYTES), after: b"3"})
    assert await records.write()
    assert (await opened(store, 2))[1] == {before: b"1", after: b"3"}
    assert "larger than 61440 bytes will not survive this router" in capsys.readouterr().out


async def test_a_store_that_takes_hardly_anything_is_not_written_and_no_record_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({"a": b"1"})
    assert await records.write()
    for most in (0, MIN_VALUE_BYTES - 1):
        store.max_value_bytes = most
        records.change({"b": b"2"})
        assert not await records.write()
        assert records.failing
        assert (await opened(store, 2))[1] == {"a": b"1"}
    assert "takes values of at most 0 bytes, expected at least 61440: raise its max_payload" in capsys.readouterr().out
    store.max_value_bytes = MIN_VALUE_BYTES
    assert await records.write()
    assert (await opened(store, 2))[1] == {"a": b"1", "b": b"2"}


#: What a chunk may hold instead of records, made by the test that has it.
DAMAGED: Final = {
    "nothing": lambda: b"",
    "nonsense": lambda: b"nonsense",
    "nonsense, compressed": lambda: zlib.compress(b"nonsense"),
    "other values": lambda: zlib.compress(msgspec.msgpack.encode([1, 2])),
    "80 MiB": lambda: zlib.compress(bytes(80 << 20)),
}


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_chunk_that_cannot_be_read_costs_no_other(damage: str) -> None:
    damaged = DAMAGED[damage]()
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({f"{number}": b"x" for number in range(500)})
    await records.write()
    key = "things.2.7"
    lost = len(msgspec.msgpack.decode(zlib.decompress(store.values[key].data or b""), type=Chunk).records)
    store.values[key] = BucketValue(store.values[key].revision, damaged)
    store.values["things.2.99"] = store.values["things.2.x"] = BucketValue(1, b"of somebody else")
    again, found = await opened(store, 2)
    assert len(found) == 500 - lost
    again.change({f"{number}": b"y" for number in range(500)})
    assert await again.write()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["change", "delete", "write", "next", "down", "up", "lost reply"]), st.integers(0, 5)
        ),
        max_size=40,
    )
)
async def test_what_was_said_to_be_written_is_found_by_the_next_router(steps: list[tuple[str, int]]) -> None:
    store, epoch = MemoryKeyValue(), 1
    records, _ = await opened(store, epoch)
    wanted: dict[str, bytes] = {}
    safe: dict[str, bytes] = {}
    for step, (what, number) in enumerate(steps):
        match what:
            case "change":
                wanted[f"{number}"] = b"%d" % step
                records.change({f"{number}": b"%d" % step})
            case "delete":
                wanted.pop(f"{number}", None)
                records.change({f"{number}": None})
            case "write":
                if await records.write():
                    safe = dict(wanted)
            case "next" if not store.down and not records.unwritten:
                epoch += 1
                records, found = await opened(store, epoch)
                assert found == safe
                wanted = dict(found)
            case "down":
                store.down = True
            case "up":
                store.down = False
            case "lost reply":
                store.lose_replies = 1
    store.down, store.lose_replies = False, 0
    assert await records.write()
    assert (await opened(store, epoch + 1))[1] == wanted


# ── reservations ─────────────────────────────────────────────────────────────────────────────────────────────────────

NOW_MS = 1_700_000_000_000
ANN = Reservation("ann", ("acme", "böse"), 7 << 20, 41, NOW_MS - 5000)


async def test_reservations_are_found_again_oldest_first_and_none_ends_in_the_future() -> None:
    store = MemoryKeyValue()
    kept = KvReservations(KvRecords(store, "reservations", 0, 1, "ids"))
    assert await kept.load(NOW_MS) == []
    late = Reservation("bob", (), 1, 2, NOW_MS + 999_999)
    live = Reservation("bob", (), 1, 2, float("inf"))
    kept.save([("b", late), ("a", ANN), ("c", live), ("d", ANN)], 0.0, whole=False)
    kept.save([("d", None)], 0.0, whole=False)
    await kept.close()
    after = KvReservations(KvRecords(store, "reservations", 0, 2, "ids"))
    found = await after.load(NOW_MS)
    assert found[0] == ("a", ANN)
    assert {stream: each.ended_at for stream, each in found[1:]} == {"b": NOW_MS, "c": NOW_MS}


async def test_reservations_that_cannot_be_written_now_are_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchout.router.slots.kv_reservations.AGAIN_S", 0.01)
    store = MemoryKeyValue()
    kept = KvReservations(KvRecords(store, "reservations", 0, 1, "ids"))
    await kept.load(NOW_MS)
    store.down = True
    kept.save([("a", ANN)], 0.0, whole=False)
    await eventually(lambda: kept.failing, what="no failure")
    store.down = False
    await eventually(lambda: store.values, what="not written")
    await kept.close()


async def test_reservations_that_are_being_written_at_the_end_are_not_lost() -> None:
    store = MemoryKeyValue()
    kept = KvReservations(KvRecords(store, "reservations", 0, 1, "ids"))
    await kept.load(NOW_MS)
    names = [f"stream {number}" for number in range(100)]  # more chunks than are written at a time
    kept.save([(name, ANN) for name in names], 0.0, whole=False)
    while not store.writes:  # to the very turn
        await asyncio.sleep(0)
    assert store.writes < 60, "all of them are written already"
    await kept.close()
    after = await KvRecords(store, "reservations", 0, 2, "ids").load()
    assert sorted(after) == sorted(names)


async def test_what_one_chunk_fails_at_keeps_no_other_chunk_from_being_written_later() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({f"key {number}": b"%d" % number for number in range(200)})
    encoded, broken = records._encoded, [0]

    def encode(number: int) -> bytes:
        if number in broken:
            raise ZeroDivisionError
        return encoded(number)

    records._encoded = encode  # type: ignore[method-assign]
    store.down = True
    with pytest.raises(ZeroDivisionError):
        await records.write()
    store.down = False
    broken.clear()
    assert await records.write()
    assert len((await opened(store, 2))[1]) == 200


async def test_records_that_are_no_reservations_are_passed_over() -> None:
    store = MemoryKeyValue()
    records = KvRecords(store, "reservations", 0, 1, "ids")
    await records.load()
    records.change({"a": b"nonsense", "b": msgspec.msgpack.encode(["no id!", "ann", [], 1, 2, 3])})
    await records.write()
    assert await KvReservations(KvRecords(store, "reservations", 0, 2, "ids")).load(NOW_MS) == []


async def test_records_that_the_store_has_lost_are_written_again_also_those_that_did_not_change() -> None:
    store = MemoryKeyValue()
    records, _ = await opened(store)
    records.change({f"key {number}": b"%d" % number for number in range(200)})
    assert await records.write()
    writes = store.writes
    await records.restore_lost()
    assert store.writes == writes, "nothing is lost"
    store.lose()
    store.down = True
    await records.restore_lost()
    store.down = False
    await records.restore_lost()
    assert len((await opened(store, 2))[1]) == 200


async def test_a_router_with_a_successor_writes_no_lost_records() -> None:
    store = MemoryKeyValue()
    former, _ = await opened(store, 1)
    former.change({"a": b"1"})
    await former.write()
    later, _ = await opened(store, 2)
    later.change({"a": b"2"})
    await later.write()
    former.change({"a": b"3"})
    assert not await former.write()
    store.lose()
    await former.restore_lost()
    await later.restore_lost()
    assert (await opened(store, 3))[1] == {"a": b"2"}
