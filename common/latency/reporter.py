"""Reports the latency ledger of a process to the routers, each of which gets what is of its slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from watchout.common import supervisor
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import LATENCY_LEVEL, LatencyReport, LatencyRow
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.slots import slot_of
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic

#: Seconds between two reports.
REPORT_EVERY_S: Final = 2.0
#: Streams that are made ready in one turn of the event loop: each takes 20 to 80 µs.
ROWS_PER_TURN: Final = 5
#: Totals that did not change are told again after this time, in seconds: routers forget them after ten minutes.
TOLD_AGAIN_S: Final = 60.0


def objectives_of(settings: Settings) -> Objectives:
    """Return what counts as in time."""
    video = settings.latency_objective_ms
    alert = settings.alert_latency_objective_ms
    return Objectives(video, video if alert is None else alert)


def by_slot(rows: Iterable[LatencyRow], slots: int) -> dict[int, list[LatencyRow]]:
    """Return rows by the slot of their stream."""
    found: dict[int, list[LatencyRow]] = {}
    for row in rows:
        found.setdefault(slot_of(row.stream, slots), []).append(row)
    return found


class LatencyReporter:
    """Sends the reports of one gateway or bridge while it runs.

    Args:
        links: the connections to the routers.
        ledger: what is reported.
        before: called before a stream is reported, to bring it up to date in the ledger; None: nothing has to be.
    """

    def __init__(self, links: RouterLinks, ledger: LatencyLedger, before: Callable[[str], None] | None = None) -> None:
        self._links = links
        self._ledger = ledger
        self._before = before
        #: The totals that were told last, to which router, and when.
        self._told: tuple[LatencyReport, BusClient] | None = None
        self._told_at = float("-inf")
        self._periodic: Periodic | None = None

    def start(self) -> None:
        """Report every `REPORT_EVERY_S` from now on."""
        self._periodic = supervisor.current().every(REPORT_EVERY_S, self.report, "reports of latencies")

    def stop(self) -> None:
        """Report no more."""
        if self._periodic is not None:
            self._periodic.cancel()

    def tell_all(self) -> None:
        """Report every stream and the totals anew, because a router is new."""
        self._ledger.tell_all()
        self._told = None

    async def report(self) -> None:
        """Report what is due to the routers that are there and understand it. The first of them gets the totals.

        Nothing is sent to a router for which there is nothing new; of the totals, for `TOLD_AGAIN_S`. The rows are made
        ready a few in a turn of the loop, so that frames do not wait for them.
        """
        if not self._receivers():
            return
        now = time.monotonic()
        ready: list[LatencyRow] = []
        for row in self._ledger.reports(now, self._before):
            ready.append(row)
            if len(ready) % ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
        rows = by_slot(ready, self._links.slots)
        for number, link in enumerate(self._receivers()):  # one that has come or gone meanwhile is told all anew
            own = rows.get(link.slot or 0, [])
            totals = None if number else self._new_totals(now, link)
            if totals is not None:
                link.send(LatencyReport(rows=own, total=totals.total, since_start=totals.since_start))
            elif own:
                link.send(LatencyReport(rows=own))

    def _receivers(self) -> list[BusClient]:
        return [link for link in self._links.all() if link.live and link.level >= LATENCY_LEVEL]

    def _new_totals(self, now: float, link: BusClient) -> LatencyReport | None:
        """Return the totals, which count as told to this router; None: it has them."""
        totals = self._ledger.totals(now)
        if (totals, link) == self._told and now - self._told_at < TOLD_AGAIN_S:
            return None
        self._told, self._told_at = (totals, link), now
        return totals
