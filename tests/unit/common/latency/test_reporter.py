"""What a process tells the routers of latencies, and what it does not tell them twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from watchout.common.bus.messages import LATENCY_LEVEL, LatencyReport
from watchout.common.bus.router_links import RouterLinks
from watchout.common.latency import reporter as module
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.latency.reporter import REPORT_EVERY_S, TOLD_AGAIN_S, LatencyReporter


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

    def wait(self, seconds: float) -> list[int]:
        """Return how many reports each router got."""
        before = [len(link.told) for link in self.links.each]
        for _ in range(int(seconds / REPORT_EVERY_S)):
            self.now += REPORT_EVERY_S
            self.reporter.report()
        return [len(link.told) - had for link, had in zip(self.links.each, before, strict=True)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    links, ledger = Links([Link(0), Link(1)]), LatencyLedger(Objectives(500, 500))
    made = World(links, ledger, LatencyReporter(cast("RouterLinks", links), ledger))
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


def test_totals_that_stay_the_same_are_told_once_and_again_before_they_are_forgotten(world: World) -> None:
    assert world.wait(4) == [1, 0], "one router gets the totals"
    assert world.wait(TOLD_AGAIN_S - 4) == [0, 0]
    assert world.wait(4) == [1, 0]
    assert all(report.total is not None for report in world.links.each[0].told)


def test_what_changed_is_told_at_the_next_report(world: World) -> None:
    world.wait(10)
    world.ledger.add(Hop.GLASS_TO_GLASS, "door", 20.0, world.now)
    assert sum(world.wait(REPORT_EVERY_S)) in (1, 2), "the totals, and the stream to the router of its slot"
    total = world.links.each[0].told[-1].total
    assert total is not None
    assert total.hops[0].buckets
    assert world.wait(REPORT_EVERY_S) == [0, 0]


def test_a_router_that_comes_or_that_is_the_first_now_is_told_all(world: World) -> None:
    world.wait(10)
    world.reporter.tell_all()
    assert world.wait(4) == [1, 0]
    first, second = world.links.each
    first.live = False
    assert world.wait(4) == [0, 1]
    assert second.told[-1].total is not None
    first.live = True
    assert world.wait(4) == [1, 0]


def test_only_routers_that_understand_it_are_told(world: World) -> None:
    for link in world.links.each:
        link.level = LATENCY_LEVEL - 1
    assert world.wait(10) == [0, 0]
