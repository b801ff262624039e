"""Router processes, a key-value store, members and a clock in one deterministic world, with faults: for the leases.

The router processes are real `LeaseMachine`s. Everything between them is a model that can fail in every way that a test
asks for. `check` runs after each step and raises `Violation` when a promise of the design is broken.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Final, TypeVar

from watchout.common.bus.slot_entries import Beat, SlotEntry
from watchout.router.slots.commands import Command, CompareAndSet, Known, Read, SendBeat, StartRouter, StopRouter
from watchout.router.slots.lease import LEADER_STEADY_S, STALE_S, UNCHANGED_S, LeaseMachine

#: Seconds of a step, and what the clock of the first process shows at the start, in ms.
STEP_S: Final = 0.5
START_MS: Final = 1_000_000
#: What may happen to a request: lost, its reply lost, applied or answered so many seconds late.
LOST, REPLY_LOST, LATE, REPLY_LATE = "request lost", "reply lost", "request late", "reply late"


_T = TypeVar("_T")


def _copied(value: _T) -> _T:
    """Return a shallow copy of a dataclass: what `copy.copy` does, in a tenth of the time."""
    made = object.__new__(type(value))
    for name in type(value).__dataclass_fields__:  # type: ignore[attr-defined]
        setattr(made, name, getattr(value, name))
    return made


class Violation(AssertionError):
    """A promise of the design was broken."""


@dataclass
class Node:
    """A router process: its machine, and what the world does to it. Times are those of the world, in seconds."""

    id: str
    machine: LeaseMachine
    skew_ms: int
    running: dict[int, int] = field(default_factory=dict)
    confirmed: dict[int, float] = field(default_factory=dict)
    alive: bool = True
    paused_until: float = 0.0
    deaf_until: float = 0.0
    cut_until: float = 0.0
    restart_at: float = float("inf")
    #: When a process that was told to leave may have slots again.
    back_at: float = float("inf")
    #: What happens to its next request.
    fate: tuple[str, float] | None = None
    #: Beats that wait while it is paused.
    inbox: list[Beat] = field(default_factory=list)

    def clone(self) -> Node:
        made = _copied(self)
        machine = made.machine = _copied(self.machine)
        machine.slots = [_copied(each) for each in machine.slots]
        machine.peers = {name: _copied(each) for name, each in machine.peers.items()}
        machine._released, machine._given = dict(machine._released), dict(machine._given)
        made.running, made.confirmed, made.inbox = dict(self.running), dict(self.confirmed), list(self.inbox)
        return made


@dataclass
class Member:
    """A process that talks to the routers, as `Membership` does where epochs are fenced: one number for each slot."""

    highest: dict[int, int] = field(default_factory=dict)
    accepted_at: dict[int, float] = field(default_factory=dict)
    accepted_from: dict[int, str] = field(default_factory=dict)
    #: Processes that it cannot hear, until when.
    cut: dict[str, float] = field(default_factory=dict)
    #: The latest epoch whose words had an effect here, and whose they were: what the world checks.
    counted: dict[int, tuple[int, str]] = field(default_factory=dict)

    def clone(self) -> Member:
        return Member(*(dict(getattr(self, name)) for name in self.__dataclass_fields__))

    def hear(self, slot: int, epoch: int, router: str, now: float) -> bool:
        if epoch < self.highest.get(slot, 0):
            return False
        self.highest[slot], self.accepted_at[slot], self.accepted_from[slot] = epoch, now, router
        return True


class World:
    """`nodes` router processes at one store with `slots` slots, and `members` members."""

    def __init__(self, nodes: int = 2, slots: int = 1, members: int = 2, skews_ms: tuple[int, ...] = ()) -> None:
        self.now = 0.0
        #: The faults so far, in words.
        self.history: tuple[str, ...] = ()
        self.slots = slots
        self.made = 0
        self.kv: dict[int, Known] = {}
        self.seq = 0
        self.written_at: dict[int, float] = {}
        self.lost_at = float("-inf")
        #: Indexes of the processes on the host of the store's leader; None: they do not know.
        self.led_at: frozenset[int] | None = None
        #: Requests and replies under way: when, the node's id, and what.
        self.late: list[tuple[float, str, Command, int | None]] = []
        self.owners: dict[tuple[int, int], str] = {}
        self.nodes: list[Node] = []
        for index in range(nodes):
            self.nodes.append(self.new_node(skews_ms[index] if index < len(skews_ms) else 0))
        self.members = [Member() for _ in range(members)]
        #: When a slot had a router last that runs, and whose store can be written.
        self.served_at = dict.fromkeys(range(slots), 0.0)

    def new_node(self, skew_ms: int) -> Node:
        self.made += 1
        name = f"{self.made:016x}"
        # No two clocks of computers show the same millisecond for long: a remainder for each process.
        return Node(name, LeaseMachine(name, self.slots, self.now), skew_ms + 7 * self.made)

    def clone(self) -> World:
        made = copy.copy(self)
        made.kv, made.written_at, made.late = dict(self.kv), dict(self.written_at), list(self.late)
        made.owners, made.served_at = dict(self.owners), dict(self.served_at)
        made.nodes = [each.clone() for each in self.nodes]
        made.members = [each.clone() for each in self.members]
        return made

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    def crash(self, node: Node, restart_s: float) -> None:
        node.alive, node.running, node.inbox = False, {}, []
        node.restart_at = self.now + restart_s

    def step_aside(self, node: Node, seconds: float) -> None:
        """The process releases its slots and takes none for so long, as while the number of slots differs."""
        node.back_at = self.now + seconds
        self.run(node, node.machine.leave(self.now, self.ms(node)))

    def lose_store(self) -> None:
        """The bucket is deleted; revisions begin at 1 again."""
        self.kv, self.seq, self.lost_at = {}, 0, self.now

    # ── one step ─────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> None:
        """Let `STEP_S` pass: late messages come, paused processes go on, everyone speaks and ticks."""
        self.now += STEP_S
        due = [each for each in self.late if each[0] <= self.now]
        self.late = [each for each in self.late if each[0] > self.now]
        for _, name, command, revision in due:
            node = next((each for each in self.nodes if each.id == name and each.alive), None)
            if isinstance(command, CompareAndSet) and revision is None:  # it was not applied yet
                revision = self.apply(name, command, None)
            if node is not None and node.paused_until <= self.now:
                self.reply(node, command, revision)
        for index, node in enumerate(self.nodes):
            if not node.alive:
                if node.restart_at <= self.now:
                    self.nodes[index] = self.new_node(node.skew_ms)
                continue
            if node.paused_until > self.now:
                continue
            if self.led_at is not None:
                node.machine.leader_seen(index in self.led_at, self.now)
            if node.back_at <= self.now:
                node.back_at = float("inf")
                self.run(node, node.machine.come_back(self.now, self.ms(node)))
            self.speak(node)  # before its tick, as after a pause: what waits in its sockets may be handled first
            inbox, node.inbox = node.inbox, []
            for beat in inbox:
                self.run(node, node.machine.heard(beat, self.now, self.ms(node)))
            self.run(node, node.machine.tick(self.now, self.ms(node)))
            self.greet(node)
        self.check()

    def ms(self, node: Node) -> int:
        return START_MS + int(self.now * 1000) + node.skew_ms

    def speak(self, node: Node) -> None:
        """Send a word of each router that the node runs to every member."""
        for slot, epoch in node.running.items():
            for member in self.members:
                if member.cut.get(node.id, 0.0) <= self.now:
                    self.hear(member, slot, epoch, node)

    def hear(self, member: Member, slot: int, epoch: int, node: Node) -> None:
        """Let a member hear a word. None counts that is of an earlier epoch than one that counted before."""
        if member.hear(slot, epoch, node.id, self.now):
            latest = max(member.counted.get(slot, (0, node.id)), (epoch, node.id), key=lambda each: each[0])
            if latest != (epoch, node.id):
                raise Violation(f"{latest[1]} and {node.id} both count for slot {slot}: epochs {latest[0]}, {epoch}")
            member.counted[slot] = latest

    def greet(self, node: Node) -> None:
        """Members that have not heard an accepted word for a while greet the routers, with the epoch that they know."""
        for slot in list(node.running):
            for member in self.members:
                silent = self.now - member.accepted_at.get(slot, float("-inf")) > 1.5
                if silent and member.cut.get(node.id, 0.0) <= self.now and slot in node.running:
                    highest = member.highest.get(slot, 0)
                    if highest > node.running[slot]:
                        self.run(node, node.machine.epoch_seen(slot, highest, self.now, self.ms(node)))

    def run(self, node: Node, commands: list[Command]) -> None:
        """Run the commands of a machine, and those that follow from their outcome."""
        for command in commands:
            match command:
                case StartRouter(slot, epoch):
                    self.start(node, slot, epoch)
                case StopRouter(slot, _, tell):
                    node.running.pop(slot, None)
                    if tell:
                        self.run(node, node.machine.stopped(slot, self.now, self.ms(node)))
                case SendBeat(beat):
                    for other in self.nodes:
                        if other is not node and other.alive and max(other.deaf_until, node.deaf_until) <= self.now:
                            other.inbox.append(beat)
                case Read() | CompareAndSet():
                    self.request(node, command)

    def start(self, node: Node, slot: int, epoch: int) -> None:
        owner = self.owners.setdefault((slot, epoch), node.id)
        if owner != node.id:
            raise Violation(f"{owner} and {node.id} had epoch {epoch} of slot {slot}")
        if node.running.get(slot, 0) >= epoch:
            raise Violation(f"{node.id} begins slot {slot} with epoch {epoch} after {node.running[slot]}")
        node.running[slot] = epoch

    def request(self, node: Node, command: Read | CompareAndSet) -> None:
        fate, node.fate = node.fate, None
        kind, late_s = fate or ("", 0.0)
        if node.cut_until > self.now or kind == LOST:
            return
        if kind == LATE:
            self.late.append((self.now + late_s, node.id, command, None))
            return
        revision = self.apply(node.id, command, node) if isinstance(command, CompareAndSet) else None
        if kind == REPLY_LATE:
            self.late.append((self.now + late_s, node.id, command, -1 if revision is None else revision))
        elif kind != REPLY_LOST:
            self.reply(node, command, revision)

    def reply(self, node: Node, command: Command, revision: int | None) -> None:
        machine, now, ms = node.machine, self.now, self.ms(node)
        if isinstance(command, Read):
            known = self.kv.get(command.slot, Known(0, None))
            self.run(node, machine.was_read(command.slot, command.request, known, now, ms))
        elif isinstance(command, CompareAndSet):
            if revision is None or revision < 0:
                self.run(node, machine.conflicted(command.slot, command.request, now, ms))
            else:
                self.run(node, machine.written(command.slot, command.request, revision, now, ms))

    def apply(self, name: str, command: CompareAndSet, node: Node | None) -> int | None:
        """Apply a compare-and-set, and return the new revision; None: the entry has another revision."""
        slot, entry = command.slot, command.entry
        before = self.kv.get(slot, Known(0, None))
        if not self.may_apply(before, command):
            return None
        if before.entry is not None:
            other = before.entry.router not in ("", name)
            age = self.now - self.written_at.get(slot, float("-inf"))
            fresh = self.now - self.lost_at > (STALE_S if node is not None else 15)  # revisions of before may match
            if other and age < UNCHANGED_S and fresh:
                raise Violation(f"{name} robbed {before.entry.router} of slot {slot}, written {age} s before")
            falls = entry.epoch < before.entry.epoch or (other and entry.epoch == before.entry.epoch)
            if falls and self.now - self.lost_at > 15:
                raise Violation(f"epoch {entry.epoch} follows {before.entry.epoch} for slot {slot}")
        self.seq += 1
        self.kv[slot] = Known(self.seq, entry)
        self.written_at[slot] = self.now
        if node is not None and entry.router == name:
            node.confirmed[slot] = self.now
        return self.seq

    @staticmethod
    def may_apply(before: Known, command: CompareAndSet) -> bool:
        return before.revision == command.expected

    # ── promises ─────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Check what has to hold after each step."""
        for node in self.nodes:
            if not node.alive or node.paused_until > self.now:
                continue
            for slot in node.running:
                if self.now - node.confirmed.get(slot, self.now) >= 10.0 + STEP_S:
                    raise Violation(f"{node.id} runs slot {slot} {self.now - node.confirmed[slot]} s after a write")
                if node.cut_until <= self.now:
                    self.served_at[slot] = self.now

    def settled(self) -> None:
        """Check what has to hold when nothing has failed for a while: each slot has one router, and members heed it."""
        for slot in range(self.slots):
            running = [each for each in self.nodes if slot in each.running]
            if len(running) != 1:
                raise Violation(f"slot {slot} has {len(running)} routers: {[each.id for each in running]}")
            for member in self.members:
                if member.accepted_from.get(slot) != running[0].id or self.now - member.accepted_at[slot] > STEP_S:
                    raise Violation(f"a member does not heed the router of slot {slot}")

    # ── equal states ─────────────────────────────────────────────────────────────────────────────────────────────

    def key(self) -> tuple[object, ...]:
        """Return a value that is equal for worlds with the same future: times are ages, epochs are ranks."""
        now, seq = self.now, self.seq
        epochs: set[int] = {e for (_, e), _ in self.owners.items()}
        for node in self.nodes:
            epochs.update(each.highest for each in node.machine.slots)
        order = {epoch: index for index, epoch in enumerate(sorted(epochs))}
        names = {node.id: index for index, node in enumerate(self.nodes)}

        def entry(value: SlotEntry | None) -> object:
            return value and (names.get(value.router, value.router and "gone"), order.get(value.epoch), value.heir)

        def known(value: Known | None) -> object:
            return value and (value.revision - seq, entry(value.entry))

        def age(at: float, most: float) -> float:
            return min(now - at, most)

        def left(until: float) -> float:
            return max(until - now, 0.0)

        nodes = []
        for node in self.nodes:
            if not node.alive:
                nodes.append((left(node.restart_at),))
                continue
            m = node.machine
            nodes.append((
                tuple(node.running.items()), left(node.paused_until), left(node.deaf_until), left(node.cut_until),
                left(node.back_at),
                node.fate, age(m.began, 4), age(m._beat_at, 1), m.leaving, len(node.inbox),
                m.leader_here, m._leader_moved_at is not None and age(m._leader_moved_at, LEADER_STEADY_S),
                tuple((age(node.confirmed[s], 11)) for s in node.running if s in node.confirmed),
                tuple(
                    (s.role, order.get(s.epoch), age(s.confirmed_at, 11), known(s.known), age(s.known_at, 5),
                     age(s.heard_at, 4), order.get(s.highest), s.raising, left(s.quiet_until), age(s.read_at, 1),
                     s.pending and (s.pending.purpose, age(s.pending.sent_at, 3), entry(s.pending.entry)),
                     s.wanted_at is not None and age(s.wanted_at, 2))
                    for s in m.slots
                ),
                tuple((slot, age(at, 3), row.revision - seq) for slot, (at, row) in m._released.items()),
            ))  # fmt: skip
        members = tuple(
            (tuple((s, order.get(e, -1)) for s, e in m.highest.items()),
             tuple((names.get(m.accepted_from[s]), age(at, 2)) for s, at in m.accepted_at.items()),
             tuple((names.get(n), left(u)) for n, u in m.cut.items() if u > now))
            for m in self.members
        )  # fmt: skip
        store = tuple((slot, known(each), age(self.written_at.get(slot, -9), 4)) for slot, each in self.kv.items())
        late = tuple((at - now, names.get(n), type(c), r and r - seq) for at, n, c, r in self.late)
        return tuple(nodes), members, store, late, age(self.lost_at, 16), self.led_at
