"""What one router process knows of a slot and of the other router processes; `LeaseMachine` changes it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from watchout.common.bus.slot_entries import SlotEntry
from watchout.router.slots.commands import Known

#: A process of which no beat was heard for so long takes no slot, in seconds.
PEER_LOST_S: Final = 1.5


class Role(enum.Enum):
    """What a process is for a slot. GOING: it has the slot still, stops its router, and then releases it."""

    NONE = "none"
    HELD = "held"
    GOING = "going"


class Purpose(enum.Enum):
    """What a request to the store is for."""

    READ = "read"
    TAKE = "take"
    RENEW = "renew"
    RAISE = "raise"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Pending:
    """A request without a reply. `entry` is what it writes."""

    number: int
    purpose: Purpose
    sent_at: float
    entry: SlotEntry | None = None


@dataclass(slots=True)
class SlotState:
    """What a process knows of one slot; owned by `LeaseMachine`. Times are in seconds.

    Attributes:
        role: What this process is for it.
        epoch: The epoch of this process's router.
        confirmed_at: When the last write that succeeded was sent.
        known: The last entry that was read, written, or told by a beat; None: not known, it has to be read.
        known_at: Since when that revision is known.
        heard_at: When the last beat of another process named the slot.
        highest: The highest epoch known, from the store, beats, or members.
        raising: This process has the slot, and a later epoch is known.
        pending: The request that is under way.
        quiet_until: No request before this time.
        read_at: When the entry was read last.
        barred_until: This process does not take the slot before this time.
        stopped: The router that was to stop has ended.
        heir: Who this process releases it to.
        wanted_at: Since when it may be taken; None: it may not.
    """

    role: Role = Role.NONE
    epoch: int = 0
    confirmed_at: float = float("-inf")
    known: Known | None = None
    known_at: float = float("-inf")
    heard_at: float = float("-inf")
    highest: int = 0
    raising: bool = False
    pending: Pending | None = None
    quiet_until: float = float("-inf")
    read_at: float = float("-inf")
    barred_until: float = float("-inf")
    stopped: bool = False
    heir: str = ""
    wanted_at: float | None = None


@dataclass(slots=True)
class Peer:
    """Another router process, as its beats tell; owned by `LeaseMachine`.

    `since` is when the number of its slots changed last, `leader_here` whether it is on the host of the store's leader.
    """

    held: int
    since: float
    heard_at: float
    leaving: bool = False
    leader_here: bool = False
    spurned_at: float = float("-inf")

    def may_take(self, now: float) -> bool:
        """Return whether it is there, and takes slots."""
        return now - self.heard_at <= PEER_LOST_S and not self.leaving
