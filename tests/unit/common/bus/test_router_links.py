"""The one face of several slots: which router is asked, what a missing one costs, bounds, and what stays with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit.clients import eventually
from tests.kit.memory_transport import MemoryBus
from watchout.common.bus.client import MAX_PENDING, MISSING_AGAIN_S
from watchout.common.bus.messages import (
    BARE_HEARTBEAT_LEVEL,
    FromMember,
    FromRouter,
    Hello,
    LinkReport,
    MemberHeartbeat,
    Message,
    OwnerLookup,
    OwnerReply,
    Query,
    QueryReply,
    Rejoin,
    RouterHeartbeat,
    SlotsDiffer,
    Welcome,
    decode_from_member,
    encode,
)
from watchout.common.bus.router_links import METRICS_ELSEWHERE_EVERY_S, RouterLinks
from watchout.common.bus.slots import slot_of
from watchout.common.errors import RouterUnavailable

pytestmark = pytest.mark.virtual_time


class SmallRouter:
    """A router of one slot that welcomes, beats, and replies to queries with its slot."""

    def __init__(self, bus: MemoryBus, slot: int, epoch: int = 5) -> None:
        self.slot, self.epoch = slot, epoch
        self.hellos: dict[bytes, Hello] = {}
        self.heard: list[FromMember] = []
        self.silent = False
        self.level = 0
        #: How many slots it has; 0: it does not ask.
        self.slots = 0
        self._sent: dict[bytes, int] = {}
        self.end = bus.open_router(on_control=self._on_control, on_frame=print, slot=slot)
        self._beats = asyncio.get_running_loop().create_task(self._beat())

    def say(self, member: bytes, body: FromRouter) -> None:
        self._sent[member] = self._sent.get(member, 0) + 1
        self.end.send_control(member, encode(self.epoch, self._sent[member], body))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            for member in self.hellos:
                self.say(member, RouterHeartbeat())

    def _on_control(self, member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        self.heard.append(body)
        if isinstance(body, Hello) and self.slots not in (0, body.slots):
            self.end.send_control(member, encode(self.epoch, 0, SlotsDiffer(attempt=body.attempt, slots=self.slots)))
        elif isinstance(body, Hello):
            self.hellos[member], self._sent[member] = body, 0
            self.end.send_control(member, encode(self.epoch, 0, Welcome(attempt=body.attempt, level=self.level)))
        elif self.silent:
            pass
        elif isinstance(body, Query):
            self.say(member, QueryReply(request=body.request, body=str(self.slot)))
        elif isinstance(body, OwnerLookup):
            self.say(member, OwnerReply(request=body.request, stream=body.stream, status="online"))

    async def close(self) -> None:
        self._beats.cancel()
        await asyncio.gather(self._beats, return_exceptions=True)
        self.end.close()


async def nothing() -> AsyncIterator[Message]:
    for message in ():
        yield message


class World:
    """A bus with so many slots, a router for each, and one member."""

    def __init__(self, slots: int) -> None:
        self.bus = MemoryBus(slots)
        self.routers = [SmallRouter(self.bus, slot) for slot in range(slots)]
        self.events: list[tuple[str, int]] = []
        self.links = RouterLinks(
            Hello(kind="gateway", name="g", pid=1), carrier=self.bus.carrier, request_timeout_s=30,
            snapshot=self._snapshot, metrics=dict, on_message=lambda *_: None, on_frame=print,
            on_joined=lambda slot, _: self.events.append(("joined", slot)),
            on_lost=lambda slot: self.events.append(("lost", slot)),
        )  # fmt: skip
        self.links.open()

    async def _snapshot(self, slot: int) -> AsyncIterator[Message]:
        self.events.append(("snapshot", slot))
        for message in ():
            yield message

    async def live(self) -> None:
        await eventually(lambda: not self.links.missing)

    async def ask(self, timeout_s: float | None = None) -> Any:
        return await self.links.ask_all(lambda _, n: Query(request=n, what="stats"), str, timeout_s)

    async def close(self) -> None:
        await self.links.close()
        for router in self.routers:
            await router.close()


@pytest.fixture
async def world() -> AsyncIterator[Callable[[int], World]]:
    made: list[World] = []

    def make(slots: int) -> World:
        made.append(World(slots))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_a_stream_is_asked_of_the_router_of_its_slot_alone(world: Callable[[int], World]) -> None:
    here = world(3)
    await here.live()
    for stream in ("a", "b", "cam", "door", "x"):
        reply = await here.links.of(stream).request(lambda n, s=stream: OwnerLookup(request=n, stream=s))
        assert isinstance(reply, OwnerReply)
        asked = [
            r.slot for r in here.routers if any(isinstance(m, OwnerLookup) and m.stream == stream for m in r.heard)
        ]
        assert asked == [slot_of(stream, 3)]


def _metrics_told(router: SmallRouter) -> list[bool]:
    """Of each heartbeat since the last greeting, whether it had metrics."""
    last = max(number for number, body in enumerate(router.heard) if isinstance(body, Hello))
    return [body.metrics is not None for body in router.heard[last:] if isinstance(body, MemberHeartbeat)]


async def test_metrics_go_to_one_router_each_second_and_to_the_others_now_and_then(
    world: Callable[[int], World],
) -> None:
    here = world(3)
    for router, level in zip(here.routers, (BARE_HEARTBEAT_LEVEL, BARE_HEARTBEAT_LEVEL, 3), strict=True):
        router.level = level
    await here.live()
    await asyncio.sleep(60)
    first, second, former = map(_metrics_told, here.routers)
    assert first[0], "a router that has just been joined is told them at once"
    assert second[0]
    assert all(former), "a router of the former release takes none without them"
    assert len(first) == pytest.approx(len(former), abs=2)
    assert len(first) > 2 * sum(first) > 80, "each second, not with each heartbeat"
    assert sum(second) == pytest.approx(60 / METRICS_ELSEWHERE_EVERY_S, abs=2)
    await here.routers[0].close()
    await eventually(lambda: here.links.missing == (0,))
    before = sum(_metrics_told(here.routers[1]))
    await asyncio.sleep(20)
    assert sum(_metrics_told(here.routers[1])) - before > 15, "it is the first one that is there"
    successor = SmallRouter(here.bus, 0, epoch=6)
    successor.level = BARE_HEARTBEAT_LEVEL
    here.routers.append(successor)
    await here.live()
    await eventually(lambda: any(isinstance(body, MemberHeartbeat) for body in successor.heard))
    assert _metrics_told(successor)[0]
    heard = len(successor.heard)
    here.links.send_heartbeats()
    await eventually(lambda: len(successor.heard) > heard)
    assert isinstance(last := successor.heard[heard], MemberHeartbeat)
    assert last.metrics is not None, "who is asked tells them now"


async def test_each_slot_is_joined_told_and_lost_by_itself(world: Callable[[int], World]) -> None:
    here = world(3)
    await here.live()
    await eventually(lambda: len(here.events) == 6)  # a snapshot begins in a later turn of the loop
    assert sorted(here.events) == sorted((what, slot) for what in ("joined", "snapshot") for slot in range(3))
    here.events.clear()
    await here.routers[1].close()
    await eventually(lambda: here.links.missing == (1,))
    assert here.events == [("lost", 1)]
    assert here.links.live
    successor = SmallRouter(here.bus, 1, epoch=6)
    await here.live()
    await eventually(lambda: len(here.events) == 3)
    assert here.events[1:] == [("joined", 1), ("snapshot", 1)]
    assert [link.epoch for link in here.links.all()] == [5, 6, 5]
    await successor.close()


async def test_all_members_of_one_process_say_that_they_are_one_and_have_one_address(
    world: Callable[[int], World],
) -> None:
    here = world(3)
    await here.live()
    hellos = [hello for router in here.routers for hello in router.hellos.values()]
    assert len({hello.process for hello in hellos}) == 1
    assert len({hello.frames_at for hello in hellos}) == 1
    assert hellos[0].process == here.links.own_id
    assert hellos[0].frames_at is not None
    assert len({member for router in here.routers for member in router.hellos}) == 3
    alone = world(1)
    await alone.live()
    (hello,) = alone.routers[0].hellos.values()
    assert hello.process is None, "with one slot the greeting is as ever"
    assert alone.links.where(0) == {}
    assert alone.links.streams_of(0) is None


async def test_all_slots_are_asked_and_a_missing_one_is_named_and_costs_little(world: Callable[[int], World]) -> None:
    here = world(3)
    await here.live()
    asked = await here.ask()
    assert (asked.by_slot, asked.missing) == ({0: "0", 1: "1", 2: "2"}, ())
    await here.routers[0].close()
    await eventually(lambda: here.links.missing == (0,))
    async with asyncio.timeout(15):  # less than the 30 s of a request
        asked = await here.ask()
    assert (asked.by_slot, asked.missing) == ({1: "1", 2: "2"}, (0,))
    some = await here.links.ask_all(lambda _, n: Query(request=n, what="stats"), str, slots=[0, 2])
    assert (some.by_slot, some.missing) == ({2: "2"}, (0,))
    here.routers[2].silent = True
    asked = await here.ask(timeout_s=0.5)
    assert (asked.by_slot, asked.missing) == ({1: "1"}, (0, 2))
    here.routers[1].silent = True
    with pytest.raises(RouterUnavailable, match="no router answered"):
        await here.ask(timeout_s=0.5)


async def test_requests_that_wait_for_a_missing_slot_leave_room_for_the_others(world: Callable[[int], World]) -> None:
    here = world(2)
    await here.live()
    await here.routers[0].close()
    await eventually(lambda: here.links.missing == (0,))
    lost, kept = here.links.at(0), here.links.at(1)
    most = MAX_PENDING // 2
    waiting = [
        asyncio.ensure_future(lost.request(lambda n: OwnerLookup(request=n, stream="a"), 0.5)) for _ in range(most)
    ]
    await asyncio.sleep(0)
    with pytest.raises(RouterUnavailable, match="requests wait"):
        await lost.request(lambda n: OwnerLookup(request=n, stream="a"))
    assert isinstance(await kept.request(lambda n: OwnerLookup(request=n, stream="b")), OwnerReply)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(outcome) for outcome in outcomes} == {"the router of slot 0 did not answer in time"}


async def test_a_greeting_carries_the_epoch_of_a_successor_that_was_heard(world: Callable[[int], World]) -> None:
    here = world(2)
    await here.live()
    (member,) = here.routers[0].hellos
    heard = len(here.routers[0].heard)
    here.routers[0].end.send_control(member, encode(9, 0, RouterHeartbeat()))
    await eventually(lambda: any(isinstance(m, Hello) for m in here.routers[0].heard[heard:]))
    assert here.links.missing == (0,), "the router of the lower epoch is not joined again"
    assert here.links.at(0)._membership.hello_epoch == 9


async def test_links_of_the_mesh_are_told_to_one_router_that_understands_it(world: Callable[[int], World]) -> None:
    here = world(2)
    await here.live()
    other = here.bus.open_mesh(on_frame=print)
    here.links.send_frame_to(other.address, (b"frame",), 0.0)
    here.links.report_links()
    for router in here.routers:
        router.level = 2
    await here.routers[0].close()
    await eventually(lambda: here.links.missing == (0,))
    assert not [m for r in here.routers for m in r.heard if isinstance(m, LinkReport)], "none of them knew the message"
    here.routers[1].say(next(iter(here.routers[1].hellos)), Rejoin())
    await eventually(lambda: here.links.at(1).level == 2)
    here.links.report_links()
    told = await eventually(lambda: [m for m in here.routers[1].heard if isinstance(m, LinkReport)])
    assert [(row.at, row.connected) for row in told[-1].rows] == [(other.address, True)]


async def test_the_greeting_has_the_number_of_slots_where_there_is_a_cluster(world: Callable[[int], World]) -> None:
    for slots, told in ((1, 0), (2, 2)):
        here = world(slots)
        await here.live()
        assert [hello.slots for router in here.routers for hello in router.hellos.values()] == [told] * slots


async def test_the_number_of_slots_is_told_also_where_a_cluster_has_one() -> None:
    bus = MemoryBus(1, fenced=True)
    router = SmallRouter(bus, 0)
    links = RouterLinks(
        Hello(kind="ctl", name="c", pid=1), carrier=bus.carrier, request_timeout_s=1, snapshot=lambda _: nothing(),
        metrics=dict, on_message=lambda *_: None,
    )  # fmt: skip
    links.open()
    await eventually(lambda: links.live)
    assert [hello.slots for hello in router.hellos.values()] == [1]
    await links.close()
    await router.close()


async def test_who_has_another_number_of_slots_says_both_and_joins_when_they_are_the_same(
    world: Callable[[int], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "watchout.common.bus.client._log",
        SimpleNamespace(warning=lambda what, **more: logged.append({"what": what, **more}), info=lambda *_, **__: None),
    )
    here = world(2)
    for router in here.routers:
        router.slots = 4
    await eventually(lambda: logged, 10)
    why = "CLUSTER_SLOTS is 2 here, and the routers have 4: expected the same number everywhere"
    assert here.links.explain_slots() == here.links.explain_absence() == why
    assert not here.links.live
    assert here.events == []
    assert logged[0] == {"what": "the router is missing", "reason": why, "slot": logged[0]["slot"]}
    await asyncio.sleep(MISSING_AGAIN_S * 2)
    assert len(logged) <= 2 * 3, "it is said once a minute for each slot"
    for router in here.routers:
        router.slots = 2
    await here.live()
    assert here.links.explain_slots() == ""
