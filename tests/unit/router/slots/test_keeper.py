"""The keeper: processes that share a store in memory start and stop the routers that their leases say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.kit.clients import eventually
from tests.kit.memory_kv import MemoryBeats, MemoryKeyValue
from watchout.common.bus.slot_entries import Shape, SlotEntry, decode_beat, decode_entry, encode
from watchout.common.errors import StartError
from watchout.router.slots import keeper as keeper_module
from watchout.router.slots.keeper import SlotKeeper

pytestmark = pytest.mark.virtual_time


class Router:
    """What a keeper runs for a slot."""

    def __init__(self, site: Site, name: str, slot: int, epoch: int) -> None:
        self.site, self.name, self.slot, self.epoch = site, name, slot, epoch
        self.silent = False

    async def start(self) -> None:
        if self.name in self.site.broken:
            raise StartError("it cannot run here")
        await asyncio.sleep(0)
        if not self.silent:
            self.site.running.append(self)

    def silence(self) -> None:
        self.silent = True
        if self in self.site.running:
            self.site.running.remove(self)

    async def save(self) -> None:
        assert self.silent
        await asyncio.sleep(0)
        self.site.saved.append((self.name, self.slot, self.epoch))

    async def drain(self) -> None:
        await asyncio.sleep(0.05)
        self.site.drained.append((self.name, self.slot))

    async def stop(self) -> None:
        self.silence()


class Site:
    """Keepers with one store and one channel."""

    def __init__(self) -> None:
        self.store = MemoryKeyValue()
        self.beats = MemoryBeats()
        self.running: list[Router] = []
        self.saved: list[tuple[str, int, int]] = []
        self.drained: list[tuple[str, int]] = []
        self.broken: set[str] = set()
        self.keepers: dict[str, SlotKeeper] = {}

    async def start(self, name: str, slots: int = 2) -> SlotKeeper:
        made = SlotKeeper(
            me=name * 16, name=name, host="here", slots=slots, store=self.store, open_beats=self.beats.open,
            make_router=lambda slot, epoch: Router(self, name, slot, epoch),
        )  # fmt: skip
        self.keepers[name] = made
        await made.start()
        return made

    def slots_of(self, name: str) -> set[int]:
        return {each.slot for each in self.running if each.name == name}

    def entry(self, slot: int) -> SlotEntry:
        found = decode_entry(self.store.values[f"slot.{slot}"].data)
        assert found is not None
        return found

    async def all_run(self, count: int = 2) -> None:
        await eventually(lambda: len(self.running) == count, what="not every slot has a router")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    for each in made.keepers.values():
        await each.stop()
    assert not made.running, "a router outlived its keeper"


async def test_one_process_has_all_slots_and_its_entries_say_so(site: Site) -> None:
    keeper = await site.start("a")
    await site.all_run()
    assert {each.epoch for each in site.running} == {site.entry(0).epoch, site.entry(1).epoch}
    assert site.entry(0) == SlotEntry("a" * 16, site.entry(0).epoch, "a", "here")
    assert keeper.held == [0, 1]
    assert keeper.counts.taken == 2
    assert keeper.renewed_ago_s(0) < 10


async def test_a_process_that_ends_writes_its_records_and_releases_before_others_begin(site: Site) -> None:
    first = await site.start("a")
    await site.all_run()
    before = {each.slot: each.epoch for each in site.running}
    await site.start("b")
    await first.leave()
    assert not site.slots_of("a")
    assert {(name, slot) for name, slot, _ in site.saved} == {("a", 0), ("a", 1)}
    await first.finished()
    assert sorted(site.drained) == [("a", 0), ("a", 1)], "what was accepted for the webhook goes out"
    assert first.held == []
    await eventually(lambda: site.slots_of("b") == {0, 1}, what="nobody took over")
    assert all(each.epoch > before[each.slot] for each in site.running)


async def test_a_later_epoch_of_a_member_begins_the_router_anew(site: Site) -> None:
    keeper = await site.start("a", slots=1)
    await site.all_run(1)
    former = site.running[0]
    later = former.epoch + 1_000_000
    keeper.epoch_seen(0, later)
    await eventually(lambda: site.running and site.running[0].epoch > later, what="it did not begin anew")
    assert former.silent
    assert site.entry(0).epoch == site.running[0].epoch


async def test_a_router_that_no_member_reaches_gives_its_slot_to_another_process_and_has_it_later(site: Site) -> None:
    first = await site.start("a", slots=1)
    await site.all_run(1)
    (former,) = site.running
    first.cannot_serve(0, former.epoch - 1)
    assert first.held == [0], "that was an earlier router"
    second = await site.start("b", slots=1)
    beats: dict[str, bool] = {}

    def hear(data: bytes) -> None:
        beat = decode_beat(data)
        assert beat is not None
        beats[beat.router[0]] = beat.leaving

    site.beats.open(hear)
    first.cannot_serve(0, former.epoch)
    await eventually(lambda: site.slots_of("b") == {0}, what="nobody took over")
    await eventually(lambda: beats == {"a": True, "b": False}, what="it may be given a slot")
    now = asyncio.get_running_loop().time
    pauses: list[float] = []
    await second.leave()
    for _ in range(7):  # alone now: again and again, later each time
        began = now()
        await eventually(lambda: site.slots_of("a") == {0}, 200, "it does not try again")
        pauses.append(round(now() - began))
        first.cannot_serve(0, site.running[0].epoch)
        assert not site.running
    assert pauses[1:] == [10, 20, 40, 60, 60, 60]
    await eventually(lambda: site.slots_of("a") == {0}, 200)
    await asyncio.sleep(200)
    assert beats["a"] is False
    first.cannot_serve(0, site.running[0].epoch)
    began = now()
    await eventually(lambda: site.slots_of("a") == {0}, 200)
    assert now() - began < 8, "it was reached for minutes"


async def test_its_beats_say_whether_the_leader_of_the_store_is_on_its_host(site: Site) -> None:
    said: list[bool] = []

    def hear(data: bytes) -> None:
        beat = decode_beat(data)
        assert beat is not None
        said.append(beat.leader_here)

    ear = site.beats.open(hear)
    site.store.led_here = True
    await site.start("a")
    await eventually(lambda: len(said) > 3, what="nothing is heard")
    assert all(said), "it is known before the first beat"
    site.store.led_here = False
    await eventually(lambda: not said[-1], what="the leader is said to be here still")
    ear.close()


async def test_a_router_that_cannot_start_leaves_its_slot_to_others(site: Site) -> None:
    site.broken.add("a")
    await site.start("a", slots=1)
    await eventually(lambda: "slot.0" in site.store.values and site.entry(0).router == "", what="it was not released")
    await site.start("b", slots=1)
    await eventually(lambda: site.slots_of("b") == {0}, what="nobody took it")


async def test_a_lost_reply_costs_nothing(site: Site) -> None:
    keeper = await site.start("a", slots=1)
    await site.all_run(1)
    epoch, writes = site.running[0].epoch, site.store.writes
    site.store.lose_replies = 1
    await eventually(lambda: site.store.writes >= writes + 3, what="it does not renew")
    assert site.running[0].epoch == epoch
    assert keeper.counts.lost == 0


async def test_an_entry_of_another_router_silences_the_router_at_once(site: Site) -> None:
    keeper = await site.start("a", slots=1)
    await site.all_run(1)
    router = site.running[0]
    revision = site.store.values["slot.0"].revision
    await site.store.compare_and_set("slot.0", encode(SlotEntry("c" * 16, router.epoch + 5)), revision)
    await eventually(lambda: router.silent, what="it goes on")
    assert keeper.counts.lost == 1
    assert keeper.counts.conflicts >= 1


async def test_a_lost_store_is_filled_again(site: Site) -> None:
    await site.start("a", slots=1)
    await site.all_run(1)
    epoch = site.running[0].epoch
    site.store.lose()
    await eventually(lambda: "slot.0" in site.store.values, what="it was not written again")
    assert (site.entry(0).epoch, site.running[0].epoch) == (epoch, epoch)


async def test_another_number_of_slots_is_refused_with_a_sentence(site: Site) -> None:
    await site.start("a", slots=2)
    with pytest.raises(StartError, match="CLUSTER_SLOTS is 3 here, and the other routers of this site have 2"):
        await site.start("b", slots=3)


async def test_a_store_that_is_away_at_the_start_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "SHAPE_WAIT_S", 0.0)
    site.store.down = True
    await site.start("a", slots=1)
    assert not site.running
    site.store.down = False
    await site.all_run(1)


async def test_another_number_that_is_found_later_lets_it_take_nothing_until_it_fits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "SHAPE_WAIT_S", 0.0)
    monkeypatch.setattr(keeper_module, "SHAPE_EVERY_S", 0.01)
    site.store.down = True
    keeper = await site.start("a", slots=1)
    site.store.values["cluster"] = await _stored(site, Shape(7))
    site.store.down = False
    await eventually(lambda: keeper._machine.leaving, what="it takes part")
    assert not site.running
    await _change(site, Shape(1))
    await site.all_run(1)


async def test_while_the_number_differs_nobody_has_slots_and_afterwards_they_have_them_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    keepers = [await site.start("a"), await site.start("b")]
    await eventually(lambda: site.slots_of("a") and site.slots_of("b"), 60, what="the slots are not shared")
    epochs = {each.slot: each.epoch for each in site.running}
    await _change(site, Shape(4))
    await eventually(lambda: not site.running, 60, what="a router goes on")
    assert all(keeper.held == [] for keeper in keepers)
    await asyncio.sleep(100)
    assert not site.running
    told = capsys.readouterr().out
    assert "CLUSTER_SLOTS is 2 here, and the other routers of this site have 4" in told
    assert told.count("takes no slot while that lasts") == 4, "each process, at once and again after a minute"
    assert "the other routers of the site have another CLUSTER_SLOTS" in told
    await _change(site, Shape(2))
    await site.all_run()
    assert all(each.epoch > epochs[each.slot] for each in site.running)
    assert capsys.readouterr().out.count("takes slots again") == 2
    await keepers[0].leave()
    assert keepers[0].held == [], "it does not wait for the release of its slots any more"


async def test_a_process_that_ends_does_not_come_back_because_the_number_fits(site: Site) -> None:
    keeper = await site.start("a")
    await site.all_run()
    await _change(site, Shape(4))
    await eventually(lambda: not site.running, 60, what="a router goes on")
    await keeper.leave()
    await _change(site, Shape(2))
    await asyncio.sleep(60)
    assert not site.running


async def _change(site: Site, shape: Shape) -> None:
    found = await site.store.read("cluster")
    await site.store.compare_and_set("cluster", encode(shape), found.revision)


async def _stored(site: Site, shape: Shape) -> object:
    site.store.down = False
    await site.store.compare_and_set("cluster", encode(shape), 0)
    site.store.down = True
    return site.store.values["cluster"]


async def test_messages_that_are_no_beats_are_ignored(site: Site) -> None:
    await site.start("a", slots=1)
    stranger = site.beats.open(lambda _: None)
    for message in (b"", b"{}", b'{"router":"x"}', b"\xff" * 99):
        stranger.send(message)
    await site.all_run(1)
