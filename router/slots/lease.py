"""Decides which slots one router process has: by leases in a key-value store. Pure; `now` in seconds, `now_ms` in ms.

::

                take: written                     conflict and another's entry,
    NONE ─────────────────────▶ HELD ───────────────── no write for 10 s ──────▶ NONE
      ▲                          │ │
      │                          │ └── raise: a later epoch is known ──▶ HELD, begun anew
      └──── released ◀── GOING ◀─┘ the process ends, or gives the slot to a process that has fewer

The key of a slot says who has it, with which epoch. It is changed only by compare-and-set: a write names the revision
that it replaces, so of several that want a slot one wins. A read decides nothing; it tells the revision for the next
write. The holder writes its entry again every `RENEW_S`. Nobody takes a slot from a holder that is heard, or whose
writes go through: a taker has to hear no beat for `SILENCE_S`, and its write succeeds only if the entry was the same
for `UNCHANGED_S`. Each new holder has a higher epoch, and members refuse words of a lower epoch than the highest that
they know. So what a holder does that was stopped, or cut off, has no effect where its successor is known, whatever the
clocks say.

A host may be lost with the server that leads the store and with routers: their slots cannot be taken before the store
has a new leader. So a process on the leader's host has slots only while there is no process elsewhere to have them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH
from watchout.common.bus.slot_entries import Beat, SlotBeat, SlotEntry
from watchout.router.slots.commands import Command, CompareAndSet, Known, Read, SendBeat, StartRouter, StopRouter
from watchout.router.slots.slot_state import Peer, Pending, Purpose, Role, SlotState

#: Seconds between two beats, and from a success of a holder's write to its next write.
BEAT_S: Final = 0.5
RENEW_S: Final = 1.0
#: A holder stops this long after it sent the last write that succeeded. The store needs 4 to 9 s for a new leader, and
#: the last write may be `RENEW_S` older than that.
STEP_DOWN_S: Final = 10.0
#: A slot may be taken when no beat has named it for so long, and its entry was the same for so long, in seconds. The
#: second is longer than `RENEW_S`, so that a holder whose writes go through keeps the slot even if nobody hears it.
SILENCE_S: Final = 2.0
UNCHANGED_S: Final = 1.8
#: A process reads the entry before it writes, when what it knows is so old, in seconds: less than `UNCHANGED_S`, after
#: which the slot may have another holder. Where the store was lost meanwhile, the revision that this process knows may
#: be of an entry of the other.
STALE_S: Final = 1.7
#: A process that has just begun listens so long for beats before it takes a slot that has no entry, in seconds.
LISTEN_S: Final = 1.2
#: Without an event for so long, in seconds, the process did not run.
STALL_S: Final = 1.0
#: The entry of a slot of which no beat was heard for so long is read, and again after so long, in seconds.
READ_AFTER_S: Final = 0.8
READ_EVERY_S: Final = 0.5
#: Seconds after which a request without a reply has failed; from a failure to the next request; from a conflict to the
#: next request; and from a new epoch to the next one of the same slot here.
REQUEST_S: Final = 2.0
RETRY_S: Final = 0.4
CONFLICT_S: Final = 0.1
RAISE_EVERY_S: Final = 1.0
#: A holder that begins anew exceeds the epoch that a member knows by up to so much, by a hash of the process: one that
#: took the slot after that epoch, and of which nobody knows, will hardly have had the same.
EPOCH_STEPS: Final = 1000
#: Whoever has fewer slots comes first: seconds by which a taker waits for each slot that it has more than another which
#: may take it; and the most by which it waits besides, by a hash of (process, slot), so that several do not all begin
#: with the same slot.
TAKE_DELAY_S: Final = 0.2
SPREAD_S: Final = 0.15
#: A process on the host of the store's leader waits so much longer while others may take the slot, in seconds.
LEADER_DELAY_S: Final = 1.0
#: A change of the leader counts when it has lasted for so long, in seconds: servers that are restarted one after the
#: other move it several times.
LEADER_STEADY_S: Final = 15.0
#: A released slot is left to its heir for so long, in seconds.
HEIR_S: Final = 1.5
#: A slot is given away when the numbers of slots have been the same for so long; to a process that did not take the
#: last one, after so long, in seconds. A process that is silent is forgotten after `SPURNED_S` too.
GIVE_AFTER_S: Final = 3.0
SPURNED_S: Final = 60.0
#: A released slot is named in beats for so long, in seconds.
TELL_RELEASED_S: Final = 2.0


@dataclass(slots=True)
class LeaseMachine:
    """The leases of one router process. Its keeper passes each event and, every 100 ms, the time; it runs the commands.

    Each event first ends what has run out: a process that was stopped for a while does nothing as a holder before.

    Attributes:
        me: Id of this run of the process, 16 hexadecimal digits.
        count: The number of slots.
        began: Now, at the start; later, when the process went on after a stall.
        name: The name of the process, for operators.
        host: Its machine, for operators.
        leader_here: Whether the server that leads the store is on this machine; None: that was never known.
    """

    me: str
    count: int
    began: float
    name: str = ""
    host: str = ""
    slots: list[SlotState] = field(init=False)
    peers: dict[str, Peer] = field(default_factory=dict, init=False)
    leaving: bool = field(default=False, init=False)
    leader_here: bool | None = field(default=None, init=False)
    _leader_moved_at: float | None = field(default=None, init=False)
    _requests: int = field(default=0, init=False)
    _beat_at: float = field(default=float("-inf"), init=False)
    _changed_at: float = field(init=False)
    _ran_at: float = field(init=False)
    _released: dict[int, tuple[float, SlotBeat]] = field(default_factory=dict, init=False)
    _given: dict[int, str] = field(default_factory=dict, init=False)
    _spread: tuple[float, ...] = field(init=False)
    #: What this process adds to the highest epoch when it begins anew.
    _epoch_step: int = field(init=False)

    def __post_init__(self) -> None:
        self.slots = [SlotState() for _ in range(self.count)]
        self._changed_at = self._ran_at = self.began
        self._spread = tuple(_spread(self.me, slot) for slot in range(self.count))
        self._epoch_step = 1 + int(_hashed(self.me) * EPOCH_STEPS)

    @property
    def held(self) -> list[int]:
        """The slots that this process has, those included whose router it stops to release them."""
        return [slot for slot, state in enumerate(self.slots) if state.role is not Role.NONE]

    def has(self, slot: int, epoch: int, now: float) -> bool:
        """Return whether the router of a slot and epoch may speak now: this process has the lease, and it goes on.

        It may have run out without an event so far: after a stall other work of the process can come before the tick.
        """
        state = self.slots[slot]
        return state.role is not Role.NONE and state.epoch == epoch and now - state.confirmed_at < STEP_DOWN_S

    @property
    def gone(self) -> bool:
        """Whether a process that leaves has released all that it had, or may get yet."""
        taking = any(each.pending and each.pending.purpose is Purpose.TAKE for each in self.slots)
        return self.leaving and not self.held and not taking

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float, now_ms: int) -> list[Command]:
        """Return what is due."""
        commands = self._expire(now)
        for slot, state in enumerate(self.slots):
            if state.pending is not None and now - state.pending.sent_at >= REQUEST_S:
                self._failed(state, now)
            commands += self._next(slot, state, now, now_ms)
        self._give(now, commands)
        if any(isinstance(each, StopRouter) for each in commands) or now - self._beat_at >= BEAT_S * 0.9:
            commands.append(self._beat(now))
        return commands

    def heard(self, beat: Beat, now: float, now_ms: int) -> list[Command]:
        """Handle the beat of another process."""
        commands = self._expire(now)
        if beat.router in (self.me, ""):
            return commands
        peer = self.peers.get(beat.router)
        if peer is None or peer.held != len(beat.held):
            spurned_at = peer.spurned_at if peer else float("-inf")
            peer = self.peers[beat.router] = Peer(len(beat.held), now, now, spurned_at=spurned_at)
        peer.heard_at, peer.leaving, peer.leader_here = now, beat.leaving, beat.leader_here
        for row in beat.held:
            if row.slot < self.count:
                self._heard_held(beat, row, now)
        for row in beat.released:
            if row.slot < self.count:
                self._heard_released(row, now)
        return commands + self._run(now, now_ms)

    def was_read(self, slot: int, request: int, known: Known, now: float, now_ms: int) -> list[Command]:
        """Handle the reply to `Read`."""
        commands = self._expire(now)
        state = self.slots[slot]
        if self._answered(state, request) is None:
            return commands
        self._learn(state, known, now)
        state.read_at = now
        if state.role is not Role.NONE:
            entry = known.entry
            if entry is not None and (entry.router, entry.epoch) != (self.me, state.epoch):
                commands.append(self._lose(slot, state, "another router has the slot", now))
            elif state.role is Role.HELD:  # what was written and not acknowledged, or an entry that was lost
                commands += self._write(slot, state, Purpose.RENEW, state.epoch, now)
        return commands + self._run(now, now_ms)

    def written(self, slot: int, request: int, revision: int, now: float, now_ms: int) -> list[Command]:
        """Handle that a `CompareAndSet` succeeded; `revision` is that of the new entry."""
        commands = self._expire(now)
        state = self.slots[slot]
        pending = self._answered(state, request)
        if pending is None or pending.entry is None:
            return commands
        self._learn(state, Known(revision, pending.entry), now)
        is_valid = now - pending.sent_at < STEP_DOWN_S
        match pending.purpose:
            case Purpose.RELEASE:
                self._released[slot] = now, SlotBeat(slot, state.epoch, revision, pending.entry.heir)
                self._drop(state, now)
            case Purpose.RENEW if state.role is not Role.NONE:
                state.confirmed_at = pending.sent_at
            case Purpose.TAKE if self.leaving and is_valid:
                state.role, state.epoch, state.confirmed_at = Role.GOING, pending.entry.epoch, pending.sent_at
                state.stopped = True
            case Purpose.TAKE | Purpose.RAISE if is_valid and not self.leaving:
                commands += self._begin(slot, state, pending, now)
            case _:
                pass  # too late: the entry names this process, which takes it anew unless it leaves
        commands += self._run(now, now_ms)
        return [*commands, self._beat(now)]

    def conflicted(self, slot: int, request: int, now: float, now_ms: int) -> list[Command]:
        """Handle that a `CompareAndSet` failed because the entry has another revision than expected."""
        commands = self._expire(now)
        state = self.slots[slot]
        pending = self._answered(state, request)
        if pending is None:
            return commands
        state.known, state.wanted_at, state.quiet_until = None, None, now + CONFLICT_S
        if pending.purpose is Purpose.RELEASE:
            self._drop(state, now)
        elif pending.purpose is Purpose.RAISE and state.role is not Role.NONE:
            commands.append(self._lose(slot, state, "another router has the slot", now))
        return commands + self._run(now, now_ms)

    def failed(self, slot: int, request: int, now: float, now_ms: int) -> list[Command]:
        """Handle that a request got no reply, or an error: what it was to write may be written or not."""
        commands = self._expire(now)
        state = self.slots[slot]
        if state.pending is not None and state.pending.number == request:
            self._failed(state, now)
        return commands + self._run(now, now_ms)

    def leader_seen(self, is_here: bool, now: float) -> None:
        """Note whether the server that leads the store is on this machine."""
        if self.leader_here is None or is_here == self.leader_here:
            self.leader_here, self._leader_moved_at = is_here, None
        elif self._leader_moved_at is None:
            self._leader_moved_at = now
        elif now - self._leader_moved_at >= LEADER_STEADY_S:
            self.leader_here, self._leader_moved_at = is_here, None

    def epoch_seen(self, slot: int, epoch: int, now: float, now_ms: int) -> list[Command]:
        """Handle that a member of a slot knows this epoch."""
        commands = self._expire(now)
        state = self.slots[slot]
        self._see(state, epoch)
        state.raising |= state.role is Role.HELD and state.highest > state.epoch
        return commands + self._run(now, now_ms)

    def stopped(self, slot: int, now: float, now_ms: int) -> list[Command]:
        """Handle that the router of a slot has ended, as `StopRouter` asked for."""
        commands = self._expire(now)
        state = self.slots[slot]
        state.stopped = state.role is Role.GOING
        return commands + self._run(now, now_ms)

    def release(
        self,
        slot: int,
        now: float,
        now_ms: int,
        why: str = "its router cannot run here",
        *,
        barred_s: float = SPURNED_S,
    ) -> list[Command]:
        """Release a slot of which the router is of no use here; this process does not take it for `barred_s`."""
        commands = self._expire(now)
        state = self.slots[slot]
        if state.role is Role.HELD:
            commands.append(self._go(slot, state, "", why))
            state.barred_until = now + barred_s
        return commands + self._run(now, now_ms)

    def leave(self, now: float, now_ms: int, why: str = "this process ends") -> list[Command]:
        """Release all slots and take none any more: the process ends, or is not to have any before `come_back`."""
        commands = self._expire(now)
        self.leaving = True
        for slot, state in enumerate(self.slots):
            if state.role is Role.HELD:
                commands.append(self._go(slot, state, "", why))
        return [*commands, *self._run(now, now_ms), self._beat(now)]

    def come_back(self, now: float, now_ms: int) -> list[Command]:
        """Take slots again after `leave`: it has listened all the time."""
        commands = self._expire(now)
        self.leaving = False
        return [*commands, *self._run(now, now_ms), self._beat(now)]

    # ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, now: float, now_ms: int) -> list[Command]:
        commands: list[Command] = []
        for slot, state in enumerate(self.slots):
            commands += self._next(slot, state, now, now_ms)
        return commands

    def _expire(self, now: float) -> list[Command]:
        """Step down from slots of which no write succeeded for `STEP_DOWN_S`.

        Time in which this process did not run is no silence of others: it listens anew. What it knows of the slots
        stays as old as it is, and is read before a write: the store may have been lost meanwhile, with all revisions.
        """
        if now - self._ran_at > STALL_S:
            self.began = now
        self._ran_at = now
        commands: list[Command] = []
        for slot, state in enumerate(self.slots):
            if state.role is not Role.NONE and now - state.confirmed_at >= STEP_DOWN_S:
                commands.append(self._lose(slot, state, "its lease cannot be renewed", now))
                self._released[slot] = now, SlotBeat(slot, state.epoch, state.known.revision if state.known else 0)
        return commands

    def _next(self, slot: int, state: SlotState, now: float, now_ms: int) -> list[Command]:
        """Return the next request for a slot, if one is due and none is under way."""
        if state.pending is not None or now < state.quiet_until:
            return []
        if state.role is Role.NONE:
            return [] if self.leaving else self._next_of_spare(slot, state, now, now_ms)
        if state.known is None or now - max(state.confirmed_at, state.read_at) >= STALE_S:
            return [self._ask(slot, state, now)]
        if state.role is Role.GOING:
            if not state.stopped:
                return []
            return self._write(slot, state, Purpose.RELEASE, max(state.epoch, state.highest), now)
        if state.raising:
            return self._write(slot, state, Purpose.RAISE, state.highest + self._epoch_step, now)
        if now - state.confirmed_at >= RENEW_S:
            return self._write(slot, state, Purpose.RENEW, state.epoch, now)
        return []

    def _next_of_spare(self, slot: int, state: SlotState, now: float, now_ms: int) -> list[Command]:
        """Take a slot whose time has come; read its entry while nobody is heard who has it."""
        if now < state.barred_until:
            return []
        if state.known is None:
            return [self._ask(slot, state, now)]
        since = self._free_since(state, now)
        if since is None:
            state.wanted_at = None
            is_due = now - state.heard_at >= READ_AFTER_S and now - state.read_at >= READ_EVERY_S
            return [self._ask(slot, state, now)] if is_due else []
        if state.wanted_at is None:
            state.wanted_at = max(since, now - BEAT_S)
        if any(each.pending and each.pending.purpose is Purpose.TAKE for each in self.slots):
            return []
        if now - max(state.read_at, state.known_at) >= STALE_S:
            return [self._ask(slot, state, now)]
        if now < state.wanted_at + self._take_delay(now) + self._spread[slot]:
            return []
        by_clock = now_ms if now_ms < EXCEEDABLE_EPOCH else 0
        return self._write(slot, state, Purpose.TAKE, max(by_clock, state.highest + 1), now)

    def _take_delay(self, now: float) -> float:
        """Return for how many seconds others come first, which may take a slot too."""
        others = [peer for peer in self.peers.values() if peer.may_take(now)]
        fewest = min((peer.held for peer in others if self.leader_here or not peer.leader_here), default=len(self.held))
        delay_s = TAKE_DELAY_S * max(0, len(self.held) - fewest)
        if self.leader_here and any(not peer.leader_here for peer in others):
            delay_s += LEADER_DELAY_S
        return delay_s

    def _free_since(self, state: SlotState, now: float) -> float | None:
        """Return since when a slot may be taken, as far as this process knows; None: it may not be taken now."""
        assert state.known is not None
        entry = state.known.entry
        heard_at = max(state.heard_at, self.began)
        if entry is None:
            since = max(heard_at + SILENCE_S if state.heard_at > self.began else self.began + LISTEN_S, state.known_at)
        elif entry.router == self.me or (entry.router == "" and entry.heir in ("", self.me)):
            since = state.known_at
        elif entry.router == "":
            since = state.known_at + HEIR_S
        else:
            since = max(heard_at + SILENCE_S, state.known_at + UNCHANGED_S)
        return since if now >= since else None

    # ── changes of a slot ────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, slot: int, state: SlotState, pending: Pending, now: float) -> list[Command]:
        """Have a slot from now on, with the epoch that was written; or have it anew with a higher one."""
        assert pending.entry is not None
        commands: list[Command] = []
        if state.role is Role.GOING or (pending.purpose is Purpose.RAISE and state.role is Role.NONE):
            return []
        if state.role is Role.HELD:
            commands.append(StopRouter(slot, "a member knows a later epoch, it begins anew"))
            state.quiet_until = now + RAISE_EVERY_S
        else:
            self._changed_at = now
        state.role, state.epoch, state.confirmed_at = Role.HELD, pending.entry.epoch, pending.sent_at
        state.raising = state.highest > state.epoch
        state.wanted_at = None
        self._released.pop(slot, None)
        self._spurn(slot, self.me, now)
        return [*commands, StartRouter(slot, state.epoch)]

    def _lose(self, slot: int, state: SlotState, why: str, now: float) -> StopRouter:
        """Have a slot no more."""
        self._drop(state, now)
        return StopRouter(slot, why)

    def _drop(self, state: SlotState, now: float) -> None:
        state.role, state.raising, state.stopped, state.heir, state.wanted_at = Role.NONE, False, False, "", None
        self._changed_at = now

    def _go(self, slot: int, state: SlotState, heir: str, why: str) -> StopRouter:
        """Begin to release a slot: first its router ends."""
        state.role, state.raising, state.stopped, state.heir = Role.GOING, False, False, heir
        return StopRouter(slot, why, tell=True)

    def _give(self, now: float, commands: list[Command]) -> None:
        """Give a slot to a process that has fewer by two at least, when nothing has changed for a while.

        From the host of the store's leader any slot is given to a process elsewhere, and none is given there.
        """
        for name in [name for name, peer in self.peers.items() if now - peer.heard_at > SPURNED_S]:
            del self.peers[name]
        mine = [slot for slot, state in enumerate(self.slots) if state.role is Role.HELD]
        steady = now - self._changed_at >= GIVE_AFTER_S and len(mine) == len(self.held)
        if self.leaving or not mine or not steady:
            return
        heirs = [
            (peer.leader_here, peer.held, name)
            for name, peer in self.peers.items()
            if peer.may_take(now)
            and now - peer.since >= GIVE_AFTER_S
            and now - peer.spurned_at >= SPURNED_S
            and (self.leader_here or not peer.leader_here)
        ]
        if not heirs:
            return
        heir_has_leader, held, heir = min(heirs)
        if self.leader_here and not heir_has_leader:
            why = "the NATS server of this host leads the bucket of leases"
        elif len(mine) - held >= 2:
            why = "another process has fewer slots"
        else:
            return
        slot = max(mine, key=lambda each: self._spread[each])
        self._given[slot] = heir
        commands.append(self._go(slot, self.slots[slot], heir, why))

    def _heard_held(self, beat: Beat, row: SlotBeat, now: float) -> None:
        """Note who has a slot, as its beat says."""
        state = self.slots[row.slot]
        self._see(state, row.epoch)
        if state.role is not Role.NONE and state.epoch <= row.epoch < EXCEEDABLE_EPOCH:
            state.raising, state.heard_at = state.role is Role.HELD, now
        self._spurn(row.slot, beat.router, now)
        known = state.known
        if state.role is Role.NONE and (known is None or known.entry is None or known.entry.epoch <= row.epoch):
            state.heard_at = now
            entry = SlotEntry(beat.router, row.epoch, beat.name, beat.host)
            if known is None or known.revision < row.revision or known.entry != entry:
                self._learn(state, Known(row.revision, entry), now)

    def _spurn(self, slot: int, router: str, now: float) -> None:
        """Note that `router` has a slot now: a process that it was given to and that did not take it gets no other."""
        heir = self._given.pop(slot, None)
        if heir is not None and heir != router and heir in self.peers:
            self.peers[heir].spurned_at = now

    def _heard_released(self, row: SlotBeat, now: float) -> None:
        """Note that a slot was released: nobody has to wait for the silence of its holder."""
        state = self.slots[row.slot]
        self._see(state, row.epoch)
        known = state.known
        is_old = known is not None and known.entry is not None and (
            known.entry.epoch > row.epoch or known.entry.router == "" or known.revision > row.revision
        )  # fmt: skip
        if state.role is Role.NONE and not is_old and state.pending is None:
            state.heard_at = float("-inf")
            self._learn(state, Known(row.revision, SlotEntry("", row.epoch, heir=row.heir)), now)

    # ── requests and knowledge ───────────────────────────────────────────────────────────────────────────────────

    def _ask(self, slot: int, state: SlotState, now: float) -> Read:
        self._requests += 1
        state.pending = Pending(self._requests, Purpose.READ, now)
        return Read(slot, self._requests)

    def _write(self, slot: int, state: SlotState, purpose: Purpose, epoch: int, now: float) -> list[Command]:
        if state.known is None:
            return []
        self._requests += 1
        if purpose is Purpose.RELEASE:
            entry = SlotEntry("", epoch, heir=state.heir)
        else:
            entry = SlotEntry(self.me, epoch, self.name, self.host)
        state.pending = Pending(self._requests, purpose, now, entry)
        return [CompareAndSet(slot, self._requests, state.known.revision, entry)]

    def _answered(self, state: SlotState, request: int) -> Pending | None:
        """Return the request that a reply belongs to; None for a reply that comes too late."""
        pending = state.pending
        if pending is None or pending.number != request:
            return None
        state.pending = None
        return pending

    def _failed(self, state: SlotState, now: float) -> None:
        pending, state.pending = state.pending, None
        assert pending is not None
        state.quiet_until = now + RETRY_S
        if pending.purpose is Purpose.RELEASE:
            self._drop(state, now)
        if state.role is Role.NONE:
            state.known = None

    def _learn(self, state: SlotState, known: Known, now: float) -> None:
        if state.known != known:
            state.known_at = now
        state.known = known
        if known.entry is not None:
            self._see(state, known.entry.epoch)

    def _see(self, state: SlotState, epoch: int) -> None:
        if epoch < EXCEEDABLE_EPOCH:
            state.highest = max(state.highest, epoch)

    def _beat(self, now: float) -> SendBeat:
        self._beat_at = now
        held = tuple(
            SlotBeat(slot, state.epoch, state.known.revision if state.known else 0)
            for slot, state in enumerate(self.slots)
            if state.role is not Role.NONE
        )
        self._released = {slot: each for slot, each in self._released.items() if now - each[0] < TELL_RELEASED_S}
        released = tuple(row for _, row in self._released.values())
        leader_here = bool(self.leader_here)
        return SendBeat(Beat(self.me, held, released, self.leaving, self.name, self.host, leader_here=leader_here))


def _spread(me: str, slot: int) -> float:
    """Return by how many seconds a process waits for a slot, 0 to `SPREAD_S`."""
    return SPREAD_S * _hashed(f"{me} {slot}")


def _hashed(text: str) -> float:
    """Return a hash of a text, from 0 to below 1."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=2).digest(), "big") / 65536
