"""What a slot's router says of its lease in the replies to operators. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReport:
    """The lease of one slot, and what its process counts of all its slots; made by the router's app for each query.

    Attributes:
        slot: The slot.
        process: Id of this run of the process.
        name: The name of the process.
        host: Its machine.
        age_s: Seconds since the lease was renewed.
        oldest_s: The same of the lease of this process that was renewed the longest ago.
        held: Slots that the process has.
        taken: Slots that it took so far.
        lost: Leases that it lost so far.
        conflicts: Writes of leases that found the entry changed.
    """

    slot: int
    process: str
    name: str
    host: str
    age_s: float
    oldest_s: float
    held: int
    taken: int
    lost: int
    conflicts: int


#: Returns the report of a slot's lease.
LeaseSource = Callable[[], LeaseReport]
