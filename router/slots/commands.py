"""What the lease machine of a router process asks its keeper to do, and what it knows of an entry. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from watchout.common.bus.slot_entries import Beat, SlotEntry


@dataclass(frozen=True, slots=True)
class Known:
    """What a process knows of the entry of a slot: its revision, 0 where there never was one, and its value."""

    revision: int
    entry: SlotEntry | None


@dataclass(frozen=True, slots=True)
class Read:
    """Command: read the entry of a slot, and pass it to `LeaseMachine.was_read`."""

    slot: int
    request: int


@dataclass(frozen=True, slots=True)
class CompareAndSet:
    """Command: replace the entry of a slot if it has the revision `expected`, 0: if there is none.

    The outcome goes to `LeaseMachine.written`, `conflicted` or `failed`.
    """

    slot: int
    request: int
    expected: int
    entry: SlotEntry


@dataclass(frozen=True, slots=True)
class StartRouter:
    """Command: start the router of a slot with this epoch, in place of one that the process may run for it."""

    slot: int
    epoch: int


@dataclass(frozen=True, slots=True)
class StopRouter:
    """Command: stop the router of a slot, because of `why`. With `tell`, `LeaseMachine.stopped` is called then."""

    slot: int
    why: str
    tell: bool = False


@dataclass(frozen=True, slots=True)
class SendBeat:
    """Command: send a beat to all router processes."""

    beat: Beat


Command = Read | CompareAndSet | StartRouter | StopRouter | SendBeat
