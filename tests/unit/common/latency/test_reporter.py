"""What a process tells the routers of latencies, what it does not tell them twice, and how much of it in one turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from tests.kit.loop_turns import counted_turns
from watchout.common.bus.messages import LATENCY_LEVEL, LatencyReport
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.slots import slot_of
from watchout.common.latency import reporter as module
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import ROWS_PER_REPORT, LatencyLedger, Objectives
from watchout.common.latency.reporter import REPORT_EVERY_S, ROWS_PER_TURN, TOLD_AGAIN_S, LatencyReporter


@dataclass
class Link:
    slot: int
    live: bool = True
    level: int = LATENCY_LEVEL
    told: list[LatencyReport] = field(default_factory=list)

    def send(self, report: LatencyReport) -> bool:
        self.told.append(report)
        return True


@dataclass
class Links:
    each: list[Link]

    @property
    def slots(self) -> int:
        return len(self.each)

    def all(self) -> list[Link]:
        return self.each


@dataclass
class World:
    """A reporter with two routers, and the seconds that `wait` lets pass with a report every `REPORT_EVERY_S`."""

    links: Links
    ledger: LatencyLedger
    reporter: LatencyReporter
    now: float = 1000.0

    async def wait(self, seconds: float) -> list[int]:
        """Return how many reports each router got."""
        before = [len(link.told) for link in self.links.each]
        for _ in range(int(seconds / REPORT_EVERY_S)):
            self.now += REPORT_EVERY_S
            await self.reporter.report()
        return [len(link.told) - had for link, had in zip(self.links.each, before, strict=True)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    links, ledger = Links([Link(0), Link(1)]), LatencyLedger(Objectives(500, 500))
    made = World(links, ledger, LatencyReporter(cast("RouterLinks", links), ledger))
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


async def test_totals_that_stay_the_same_are_told_once_and_again_before_they_are_forgotten(world: World) -> None:
    assert await world.wait(4) == [1, 0], "one router gets the totals"
    assert await world.wait(TOLD_AGAIN_S - 4) == [0, 0]
    assert await world.wait(4) == [1, 0]
    assert all(report.total is not None for report in world.links.each[0].told)


async def test_what_changed_is_told_at_the_next_report(world: World) -> None:
    await world.wait(10)
    world.ledger.add(Hop.GLASS_TO_GLASS, "door", 20.0, world.now)
    assert sum(await world.wait(REPORT_EVERY_S)) in (1, 2), "the totals, and the stream to the router of its slot"
    total = world.links.each[0].told[-1].total
    assert total is not None
    assert total.hops[0].buckets
    assert await world.wait(REPORT_EVERY_S) == [0, 0]


async def test_a_router_that_comes_or_that_is_the_first_now_is_told_all(world: World) -> None:
    await world.wait(10)
    world.reporter.tell_all()
    assert await world.wait(4) == [1, 0]
    first, second = world.links.each
    first.live = False
    assert await world.wait(4) == [0, 1]
    assert second.told[-1].total is not None
    first.live = True
    assert await world.wait(4) == [1, 0]


async def test_only_routers_that_understand_it_are_told(world: World) -> None:
    for link in world.links.each:
        link.level = LATENCY_LEVEL - 1
    assert await world.wait(10) == [0, 0]


def add_streams(world: World, count: int) -> set[str]:
    """Count something of so many streams; their ids."""
    streams = {f"s{number}" for number in range(count)}
    for stream in streams:
        world.ledger.add(Hop.ML, stream, 20.0, world.now)
    return streams


async def test_a_turn_of_the_loop_makes_few_rows_ready_and_one_report_has_all(world: World) -> None:
    streams = add_streams(world, ROWS_PER_REPORT)
    links = Links([Link(0)])
    with counted_turns() as turns:
        await LatencyReporter(cast("RouterLinks", links), world.ledger, turns.note).report()
    assert (turns.most, turns.total) == (ROWS_PER_TURN, ROWS_PER_REPORT)
    (report,) = links.each[0].told
    assert len(report.rows) == ROWS_PER_REPORT
    assert {row.stream for row in report.rows} == streams


async def test_each_router_is_told_the_streams_of_its_slot(world: World) -> None:
    streams = add_streams(world, 20)
    await world.wait(REPORT_EVERY_S)
    for link in world.links.each:
        assert {row.stream for row in link.told[0].rows} == {each for each in streams if slot_of(each, 2) == link.slot}


async def test_while_no_router_is_there_nothing_counts_as_told(world: World) -> None:
    streams = add_streams(world, 20)
    for link in world.links.each:
        link.live = False
    await world.wait(10)
    assert {row.stream for row in world.ledger.reports(world.now)} == streams
