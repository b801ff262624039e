"""Which router process had which slot when, from what the routers logged."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tests.kit.cluster import Site, told
from watchout.router.slots.lease import STEP_DOWN_S


@dataclass(frozen=True)
class Tenure:
    """A slot that a process had with one epoch, from `since` until `until`, in seconds since 1970."""

    slot: int
    epoch: int
    pid: int
    since: float
    until: float


def tenures_of(pid: int, lines: Iterable[str], now: float | None = None) -> list[Tenure]:
    """What one router process had.

    Args:
        pid: The process.
        lines: What it logged.
        now: Until when it had what it never gave up; None: to its last line, as it has ended.
    """
    found: list[Tenure] = []
    begun: dict[int, tuple[int, float]] = {}
    at = 0.0

    def end(slot: int) -> None:
        if slot in begun:
            epoch, since = begun.pop(slot)
            found.append(Tenure(slot, epoch, pid, since, at))

    for line in lines:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        at = datetime.fromisoformat(said["timestamp"]).timestamp()
        if said["event"] in ("slot taken", "slot given up"):
            end(said["slot"])
        if said["event"] == "slot taken":
            begun[said["slot"]] = said["epoch"], at
    at = at if now is None else now
    for slot in list(begun):
        end(slot)
    return found


def longest_overlap_s(tenures: Iterable[Tenure]) -> float:
    """The longest time for which two processes had one slot. Raises `AssertionError` when an epoch was given twice."""
    longest = 0.0
    ordered = sorted(tenures, key=lambda tenure: (tenure.slot, tenure.epoch))
    for _, group in itertools.groupby(ordered, lambda tenure: tenure.slot):
        of_slot = list(group)
        assert len({tenure.epoch for tenure in of_slot}) == len(of_slot), of_slot
        for later in of_slot:
            for other in of_slot:
                if other.pid != later.pid and other.epoch < later.epoch:
                    longest = max(longest, min(other.until, later.until) - max(other.since, later.since))
    return longest


def assert_leases_hold(site: Site, what: str = "") -> None:
    """No epoch was given twice, and no slot had two routers for longer than the lease allows.

    Not after a process was stopped for longer: it logs nothing then, and does nothing.
    """
    longest = longest_overlap_s(
        tenure
        for machine in site
        for process in machine.processes
        if process.name == "router"
        for tenure in tenures_of(process.pid, process.lines, time.time() if process.running else None)
    )
    if what:
        told(f"longest time with two routers of one slot: {what}", longest)
    assert longest <= STEP_DOWN_S
