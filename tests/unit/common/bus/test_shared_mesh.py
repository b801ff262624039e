"""One mesh for all slots of a router process: who gets a frame, what is counted, when it opens and closes."""

from __future__ import annotations

import asyncio

from tests.kit.memory_transport import MemoryBus
from watchout.common.bus.frames import EVERYBODY, FORM_JSON_TEXT, BusFrame
from watchout.common.bus.shared_mesh import SharedMesh
from watchout.common.bus.slots import slot_of

SLOTS = 3
STREAM_OF = {slot: next(f"cam-{n}" for n in range(99) if slot_of(f"cam-{n}", SLOTS) == slot) for slot in range(SLOTS)}


def frame(stream: str) -> bytes:
    return BusFrame(
        stream=stream, form=FORM_JSON_TEXT, frame_id=1, timestamp=1, term=1, to=EVERYBODY, codec=0, payload=b'"x"'
    ).encode()


async def test_all_slots_share_one_address_and_each_gets_the_frames_of_its_streams() -> None:
    bus = MemoryBus(SLOTS)
    shared, sender = SharedMesh(bus.open_mesh, SLOTS), bus.open_mesh(on_frame=print)
    got: dict[int, list[bytes]] = {slot: [] for slot in range(SLOTS)}
    shares = [shared.of(slot)(on_frame=got[slot].append) for slot in (0, 1)]
    assert len(bus.meshes) == 2
    at = {share.address for share in shares}.pop()
    assert at is not None
    for slot in range(SLOTS):
        sender.send_frame(at, (frame(STREAM_OF[slot]),), 0.0)
    sender.send_frame(at, (b"no frame",), 0.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert got == {0: [frame(STREAM_OF[0])], 1: [frame(STREAM_OF[1])], 2: []}
    assert [share.malformed for share in shares] == [1, 0]


async def test_the_mesh_is_open_as_long_as_the_process_has_a_slot() -> None:
    bus = MemoryBus(SLOTS)
    shared = SharedMesh(bus.open_mesh, SLOTS)
    first, second = shared.of(0)(on_frame=print), shared.of(1)(on_frame=print)
    first.close()
    first.close()
    assert list(bus.meshes) == [second.address]
    second.close()
    assert not bus.meshes
    again = shared.of(1)(on_frame=print)
    assert list(bus.meshes) == [again.address]


async def test_the_counts_of_all_slots_together_are_those_of_the_mesh() -> None:
    bus = MemoryBus(SLOTS)
    shared, other = SharedMesh(bus.open_mesh, SLOTS), bus.open_mesh(on_frame=print)
    first, second = shared.of(0)(on_frame=print), shared.of(1)(on_frame=print)
    first.send_frame(other.address or "", (b"1",), 0.0)
    second.send_frame(other.address or "", (b"2",), 0.0)
    assert first.frames_sent + second.frames_sent == 2
    first.close()
    second.send_frame(other.address or "", (b"3",), 0.0)
    assert first.frames_sent + second.frames_sent == 3
    first.send_frame(other.address or "", (b"after its end",), 0.0)
    assert first.frames_sent + second.frames_sent == 3
