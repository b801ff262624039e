"""Recovery of alerts at a gateway whose clock is apart from that of the gateway before: nothing is lost unsaid."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from watchout.common.bus.reply_records import RecentAlertRow
from watchout.common.bus.router_clock import RouterClock
from watchout.gateway import router_queries
from watchout.gateway.router_queries import AHEAD_MS, RouterQueries

#: What the clock of this gateway shows, in ms.
NOW = 1_800_000_000_000
MINUTES = 600_000


class OneRouter:
    """The bond with a router that has an alert for each 10 s of the last hour, by its own clock."""

    def __init__(self, ahead_ms: int) -> None:
        self.clock = RouterClock()
        self.clock.observe(NOW + ahead_ms, NOW)
        self.slot = 0
        self._now_ms = NOW + ahead_ms

    async def query(self, make: Any, _kind: Any, _timeout_s: Any = None) -> Any:
        since = make(1).since
        times = range(self._now_ms - 3_600_000, self._now_ms, 10_000)
        json = b'{"type":"alert","id":"a","streamId":"s","timestamp":1,"severity":"low","message":"m"}'
        rows = [RecentAlertRow(str(at), "ann", json, at) for at in times if at >= since]
        return {"alerts": [[row.id, row.owner, row.json, row.at] for row in rows], "missingBefore": None}


def queries(ahead_ms: int, *, fenced: bool = True) -> RouterQueries:
    link = OneRouter(ahead_ms)
    links: Any = SimpleNamespace(of=lambda _: link, at=lambda _: link, fenced=fenced, slots=1)
    return RouterQueries(links, lambda: None)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_queries, "clock", SimpleNamespace(now_ms=lambda: NOW))


async def recovered(ahead_ms: int, since: int, *, fenced: bool = True) -> tuple[list[int], int | None]:
    """The times of the alerts, by the router's clock, and what is missing."""
    asked = queries(ahead_ms, fenced=fenced)
    found = await asked.alerts_since("s", asked.meant_here("s", since))
    return [int(row.id) for row in found.alerts], found.missing_before


async def test_a_gateway_whose_clock_is_behind_loses_nothing_of_a_client_that_comes_from_another_one() -> None:
    true_now = NOW + MINUTES
    times, missing = await recovered(MINUTES, true_now - 60_000)
    assert times == list(range(true_now - 60_000, true_now, 10_000))
    assert missing is None


@pytest.mark.parametrize("ahead_ms", [0, -MINUTES, MINUTES])
async def test_a_time_of_the_clock_here_is_taken_as_it_is(ahead_ms: int) -> None:
    times, missing = await recovered(ahead_ms, NOW - 60_000)
    assert times == list(range(NOW + ahead_ms - 60_000, NOW + ahead_ms, 10_000))
    assert missing is None


async def test_a_time_of_a_clock_that_is_ahead_of_all_is_told_as_a_gap() -> None:
    times, missing = await recovered(0, NOW + MINUTES)
    assert (times, missing) == ([], NOW)
    assert (await recovered(0, NOW + AHEAD_MS))[1] is None, "clocks that differ as clocks do are no gap"


async def test_on_one_machine_a_time_to_come_is_no_gap() -> None:
    assert (await recovered(0, NOW + MINUTES, fenced=False)) == ([], None)
