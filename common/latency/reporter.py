"""Reports the latency ledger of a process to the routers, each of which gets what is of its slot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from watchout.common import supervisor
from watchout.common.bus.messages import LATENCY_LEVEL, LatencyReport, LatencyRow
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.slots import slot_of
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic

#: Seconds between two reports.
REPORT_EVERY_S: Final = 2.0


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
        before: called before each report, to bring the ledger up to date; None: nothing has to be.
    """

    def __init__(self, links: RouterLinks, ledger: LatencyLedger, before: Callable[[], None] | None = None) -> None:
        self._links = links
        self._ledger = ledger
        self._before = before
        self._periodic: Periodic | None = None

    def start(self) -> None:
        """Report every `REPORT_EVERY_S` from now on."""
        self._periodic = supervisor.current().every(REPORT_EVERY_S, self.report, "reports of latencies")

    def stop(self) -> None:
        """Report no more."""
        if self._periodic is not None:
            self._periodic.cancel()

    def tell_all(self) -> None:
        """Report every stream anew, because a router is new."""
        self._ledger.tell_all()

    def report(self) -> None:
        """Report what is due to the routers that are there and understand it. The first of them gets the totals."""
        links = [link for link in self._links.all() if link.live and link.level >= LATENCY_LEVEL]
        if not links:
            return
        if self._before is not None:
            self._before()
        now = time.monotonic()
        rows = by_slot(self._ledger.reports(now), self._links.slots)
        for link in links:
            own = rows.get(link.slot or 0, [])
            if link is links[0]:
                totals = self._ledger.totals(now)
                link.send(LatencyReport(rows=own, total=totals.total, since_start=totals.since_start))
            elif own:
                link.send(LatencyReport(rows=own))
