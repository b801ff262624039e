"""Reservations between the registry and the store: many of them over several turns of the event loop, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.kit.clients import eventually
from tests.kit.memory_kv import MemoryKeyValue
from watchout.common.bus.messages import Claim, GrantedReply, StreamReport
from watchout.common.media.frame_ids import FRAME_ID_JUMP
from watchout.common.reservations import Reservation
from watchout.router import reservation_sync
from watchout.router.record_store import ReservationChange
from watchout.router.reservation_sync import ReservationSync
from watchout.router.slots.kv_records import KvRecords
from watchout.router.slots.kv_reservations import KvReservations
from watchout.router.streams import ownership
from watchout.router.streams.registry import Streams

NOW, NOW_MS = 1000.0, 1_700_000_000_000


class Store:
    """A store that keeps what it is given, and can fail to."""

    failing = False

    def __init__(self, stored: int = 0) -> None:
        self.stored = [(f"cam-{number}", kept(number)) for number in range(stored)]
        self.saved: list[tuple[list[ReservationChange], bool]] = []
        self.failed: Callable[[], None] = lambda: None
        self.is_full = self.is_closed = False

    async def load(self, now_ms: int) -> list[tuple[str, Reservation]]:
        return self.stored

    def ready(self, now: float) -> bool:
        return True

    def save(self, changes: list[ReservationChange], now: float, *, whole: bool) -> None:
        if self.is_full:
            raise OSError("full")
        self.saved.append((changes, whole))

    async def wait(self) -> None:
        """Nothing is written later."""

    async def close(self) -> None:
        self.is_closed = True


def kept(number: int) -> Reservation:
    return Reservation("ann", (), number, 0, NOW_MS - number)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    monkeypatch.setattr(reservation_sync, "AT_ONCE", 3)
    return Streams(5, max_streams=100)


async def test_what_is_stored_is_taken_over_in_its_order_while_others_have_their_turn(streams: Streams) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await ReservationSync(streams, Store(10)).restore(NOW, NOW_MS)
    beside.cancel()
    assert turns >= 3
    assert [row[0] for row in streams.reservations(None, 100, NOW)] == [f"cam-{number}" for number in range(10)]


async def test_a_stored_term_that_no_router_can_have_granted_is_not_taken_over_and_its_owner_is(
    streams: Streams, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store()
    store.stored = [(name, replace(kept(9), term=2**62, frame_id=7)) for name in ("a", "b")]
    await ReservationSync(streams, store).restore(NOW, NOW_MS)
    assert streams.owner("a") == "ann"
    granted = streams.claim(b"a" * 8, Claim(request=1, stream="a", user="ann"), NOW, NOW_MS)[-1].body
    assert isinstance(granted, GrantedReply)
    assert (granted.term, granted.first_frame_id) == ((5 << 20) + 1, 8 + FRAME_ID_JUMP)
    assert "count=2" in capfd.readouterr().out


async def test_many_changes_are_collected_in_parts_and_written_as_one(streams: Streams) -> None:
    sync = ReservationSync(streams, store := Store(10))
    await sync.restore(NOW, NOW_MS)
    sync.save(NOW, NOW_MS)
    streams.unreserve("cam-9")
    sync.save(NOW, NOW_MS)
    assert store.saved == [], "they are still collected"
    await sync.close(NOW, NOW_MS)
    (first, _), (second, _) = store.saved
    assert first == [*((f"cam-{number}", kept(number)) for number in range(9)), ("cam-9", None)]
    assert second == [("cam-9", None)], "what changed meanwhile is written once more"
    assert store.is_closed


async def test_few_changes_are_given_to_the_store_at_once(streams: Streams) -> None:
    sync = ReservationSync(streams, store := Store(2))
    await sync.restore(NOW, NOW_MS)
    sync.save(NOW, NOW_MS)
    assert store.saved == [([("cam-0", kept(0)), ("cam-1", kept(1))], False)]


async def test_past_the_bound_of_changes_all_are_written_and_what_is_not_among_them_is_deleted(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "MAX_CHANGED", 4)
    sync = ReservationSync(streams, store := Store(10))
    await sync.restore(NOW, NOW_MS)
    await sync.close(NOW, NOW_MS)
    assert [(len(changes), whole) for changes, whole in store.saved] == [(10, True)]


async def test_when_the_store_refuses_all_is_written_the_next_time(streams: Streams) -> None:
    sync = ReservationSync(streams, store := Store(10))
    await sync.restore(NOW, NOW_MS)
    store.is_full = True
    sync.save(NOW, NOW_MS)
    for _ in range(20):
        await asyncio.sleep(0)
    assert streams.changed_all
    store.is_full = False
    await sync.close(NOW, NOW_MS)
    assert [(len(changes), whole) for changes, whole in store.saved] == [(10, True)]


async def test_the_next_router_of_a_slot_is_above_the_frame_ids_of_a_camera_whose_gateway_was_lost_with_the_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("watchout.router.slots.kv_reservations.AGAIN_S", 0.01)
    store, last = MemoryKeyValue(), 180_000

    async def router_of(epoch: int) -> tuple[Streams, ReservationSync, KvRecords]:
        streams, records = Streams(epoch, max_streams=100), KvRecords(store, "reservations", 0, epoch, "ids")
        sync = ReservationSync(streams, KvReservations(records))
        await sync.restore(NOW, NOW_MS)
        return streams, sync, records

    def first_id_at(streams: Streams, member: bytes) -> int:
        granted = streams.claim(member, Claim(request=1, stream="cam", user="ann"), NOW, NOW_MS)[-1].body
        assert isinstance(granted, GrantedReply)
        return granted.first_frame_id

    former, sync, records = await router_of(5)
    assert first_id_at(former, b"a" * 8) == 1
    for frame_id in range(0, last, 300):
        former.report(b"a" * 8, StreamReport(rows=[("cam", frame_id, frame_id, 10.0, NOW_MS)]))
        sync.save(NOW, NOW_MS)
    await eventually(lambda: not records.unwritten)
    later, _, _ = await router_of(1000)
    assert first_id_at(later, b"b" * 8) > last
