"""Which router process had which slot when, from what the routers logged."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tests.kit.clients import eventually
from tests.kit.cluster import COMES_S, Site, told
from watchout.router.slots.lease import RENEW_S, REQUEST_S, RETRY_S, STEP_DOWN_S

#: A lease outlives the time without a leader of its bucket, if that is shorter: its last write may be as old as
#: `RENEW_S`, and of the next one it is known after `REQUEST_S` only that it failed.
OUTLIVES_S: Final = STEP_DOWN_S - RENEW_S - REQUEST_S - RETRY_S


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


def longest_overlap_s(tenures: Iterable[Tenure], since: float = 0.0) -> float:
    """The longest time for which two processes had one slot, from `since` on, in seconds since 1970.

    Raises `AssertionError` when an epoch was given twice, at any time.
    """
    longest = 0.0
    ordered = sorted(tenures, key=lambda tenure: (tenure.slot, tenure.epoch))
    for _, group in itertools.groupby(ordered, lambda tenure: tenure.slot):
        of_slot = list(group)
        assert len({tenure.epoch for tenure in of_slot}) == len(of_slot), of_slot
        for later in of_slot:
            for other in of_slot:
                if other.pid != later.pid and other.epoch < later.epoch:
                    longest = max(longest, min(other.until, later.until) - max(other.since, later.since, since))
    return longest


def assert_leases_hold(site: Site, what: str = "") -> None:
    """No epoch was given twice, and no slot had two routers for longer than the lease allows.

    Not after a process was stopped for longer: it logs nothing then, and does nothing. What was before the test is not
    judged, because another test may have stopped one.
    """
    tenures = [
        tenure
        for machine in site
        for process in machine.processes
        if process.name == "router"
        for tenure in tenures_of(process.pid, process.lines, time.time() if process.running else None)
    ]
    longest = longest_overlap_s(tenures, site.judged_since)
    if what:
        told(f"longest time with two routers of one slot: {what}", longest)
    assert longest <= STEP_DOWN_S


async def elected_s(site: Site, killed: int) -> float:
    """Wait until the bucket of the slots has a leader, and not the server that is killed; the seconds that it took.

    The others need 4 to 9 s, and as long again when they fail. Leases outlive the first, not always the second.
    """
    at, began = (killed + 1) % len(site.nats.servers), time.monotonic()

    async def led() -> bool:
        return await asyncio.to_thread(site.leader_of_slots, at) not in ("", site.server(killed).name)

    await eventually(led, COMES_S, "nobody leads the bucket of the slots")
    took_s = time.monotonic() - began
    told("the bucket of the slots has a leader after", took_s)
    return took_s
