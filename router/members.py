"""The processes that are joined to the router, with their message numbers and heartbeats. Pure; `now` in seconds."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.membership import BRIDGE_LOST_AFTER_S, LOST_AFTER_S, MEMBER_LOST_AFTER_S
from watchout.common.bus.messages import (
    BadFrame,
    Bye,
    CoverageReport,
    Envelope,
    FromMember,
    Hello,
    LatencyReport,
    LinkReport,
    MemberHeartbeat,
    RaiseAlert,
    SnapshotEnd,
    WhyAnswered,
)
from watchout.common.bus.router_clock import RouterClock
from watchout.router.latencies import MemberLatencies
from watchout.router.startup_hold import Reporters

#: Members at most; the greeting of a further one is ignored.
MAX_MEMBERS: Final = 1000
#: A timer of the router's loop that is later than this, in seconds, means that the process did not run.
STALL_S: Final = 0.5
#: A process that was turned away greets again within `HELLO_AT_MOST_EVERY_S`; it counts as there for so many seconds.
TURNED_AWAY_S: Final = 10.0
#: Members that were lost are remembered for operators: for this time, in seconds, and so many, also of those that were
#: turned away.
LOST_KEPT_S: Final = 600.0
MAX_LOST: Final = 100


@dataclass(slots=True)
class Member:
    """One process that has joined, from its greeting to its end; owned by `Members`.

    `joined_at` and `last_message_at` are in seconds of the router's monotonic clock. `received` and `sent` are the
    numbers of the last messages since the greeting. `metrics` are those that its heartbeats told last. `coverage` is,
    of a bridge, the share of the last minute in which the ML service saw each stream, 0 to 1. `links` is its last
    report of the frame mesh, which came at `links_at`, `latencies` what it reported of latencies. `clock` is how far
    its clock is from the router's.
    """

    id: bytes
    hello: Hello
    joined_at: float
    last_message_at: float
    received: int = 0
    sent: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    links: LinkReport | None = None
    links_at: float = 0.0
    clock: RouterClock = field(default_factory=RouterClock)
    latencies: MemberLatencies = field(default_factory=MemberLatencies)

    @property
    def lost_after_s(self) -> float:
        """Seconds of silence after which the member counts as lost."""
        return BRIDGE_LOST_AFTER_S if self.hello.kind == "mlbridge" else MEMBER_LOST_AFTER_S

    def next_seq(self) -> int:
        """Return the number of the next message to this member; the first one after `Welcome` has 1."""
        self.sent += 1
        return self.sent


@dataclass(frozen=True, slots=True)
class LostMember:
    """A gateway or bridge that fell silent at `at`, in seconds of the router's clock; kept by `Members`."""

    hello: Hello
    at: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What a process has again after its restart: kind, name and machine."""
        return _key_of(self.hello)


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A gateway or bridge that greeted with another number of slots, the last time at `at`; kept by `Members`."""

    hello: Hello
    at: float


def _key_of(hello: Hello) -> tuple[str, str, str]:
    return hello.kind, hello.name, hello.host


class MessageVerdict(enum.Enum):
    """What the router does with a received message; returned by `Members.receive`."""

    #: It is a greeting, and the sender is a member now: send `Welcome`.
    GREETED = enum.auto()
    #: It is the next message of a member.
    HANDLE = enum.auto()
    #: The sender is not a member, or a message before it was lost: send `Rejoin`.
    REJOIN = enum.auto()
    #: It is a greeting past `MAX_MEMBERS`.
    IGNORE = enum.auto()


class Members:
    """The members of one router, at most `MAX_MEMBERS`, and the check that none of their messages was lost.

    Created by `SlotRouter`. `MessageHandler` calls `receive` for each message, and removes those that `silent`
    names: members without a message for too long.

    Args:
        epoch: The router's epoch, which each message but `Hello` has to carry.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._members: dict[bytes, Member] = {}
        self._lost: OrderedDict[tuple[str, str, str], LostMember] = OrderedDict()
        self._turned_away: OrderedDict[tuple[str, str, str], TurnedAway] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def get(self, member: bytes) -> Member | None:
        """Return the member of this id, None when there is none."""
        return self._members.get(member)

    def all(self) -> list[Member]:
        """Return all members in the order of their first greetings."""
        return list(self._members.values())

    def receive(self, member: bytes, envelope: Envelope[FromMember], now: float) -> MessageVerdict:
        """Check the number and epoch of a message, and record that the member is alive.

        A greeting starts a new count; every other message must carry this epoch and the next number.
        """
        known = self._members.get(member)
        if isinstance(envelope.body, Hello):
            if known is None and len(self._members) >= MAX_MEMBERS:
                return MessageVerdict.IGNORE
            joined_at = known.joined_at if known else now
            made = self._members[member] = Member(member, envelope.body, joined_at, now)
            if known is not None:
                made.metrics, made.links, made.links_at = known.metrics, known.links, known.links_at
                made.latencies = known.latencies
            self._lost.pop(_key_of(envelope.body), None)
            self._turned_away.pop(_key_of(envelope.body), None)
            return MessageVerdict.GREETED
        if known is None or envelope.epoch != self.epoch or envelope.seq != known.received + 1:
            return MessageVerdict.REJOIN
        known.received = envelope.seq
        known.last_message_at = now
        return MessageVerdict.HANDLE

    def set_metrics(
        self, member: bytes, metrics: dict[str, float] | None, told_ms: int | None = None, now_ms: int = 0
    ) -> None:
        """Keep the metrics of a heartbeat, and by the member's time in it how far its clock is from the one here.

        Without metrics in it, those that came before hold.
        """
        if (known := self._members.get(member)) is not None:
            if metrics is not None:
                known.metrics = metrics
            known.clock.observe(told_ms, now_ms)

    def set_links(self, member: bytes, report: LinkReport, now: float) -> None:
        """Keep what a member reports of its links of the frame mesh."""
        if (known := self._members.get(member)) is not None:
            known.links, known.links_at = report, now

    def set_latencies(self, member: bytes, report: LatencyReport, now: float) -> None:
        """Keep what a member reports of latencies."""
        if (known := self._members.get(member)) is not None:
            known.latencies.add(report, now)

    def set_coverage(self, member: bytes, coverage: dict[str, float]) -> None:
        """Replace the coverage that a bridge reported."""
        if (known := self._members.get(member)) is not None:
            known.coverage = coverage

    def coverage(self) -> dict[str, float]:
        """Return the coverage of each stream by the bridge that covers it least; without streams no bridge reported."""
        least: dict[str, float] = {}
        for member in self._members.values():
            for stream, share in member.coverage.items():
                least[stream] = min(share, least.get(stream, 1.0))
        return least

    def remove(self, member: bytes) -> Member | None:
        """Remove and return a member that ended or was lost."""
        return self._members.pop(member, None)

    def remember_lost(self, member: Member, now: float) -> None:
        """Keep for operators that a gateway or a bridge fell silent, until one of its name joins."""
        if member.hello.kind != "ctl":
            lost = LostMember(member.hello, now)
            self._lost[lost.key] = lost
            self._lost.move_to_end(lost.key)
            while len(self._lost) > MAX_LOST:
                self._lost.popitem(last=False)

    def lost_lately(self, now: float) -> list[LostMember]:
        """Return who fell silent within `LOST_KEPT_S` and did not come back, the last one first."""
        return [each for each in reversed(self._lost.values()) if now - each.at <= LOST_KEPT_S]

    def turn_away(self, hello: Hello, now: float) -> None:
        """Keep for operators that a gateway or a bridge may not join, because it has another number of slots."""
        if hello.kind != "ctl":  # it says so itself, to whoever runs it
            key = _key_of(hello)
            self._turned_away[key] = TurnedAway(hello, now)
            self._turned_away.move_to_end(key)
            while len(self._turned_away) > MAX_LOST:
                self._turned_away.popitem(last=False)

    def turned_away_lately(self, now: float) -> list[TurnedAway]:
        """Return who greeted with another number of slots within `TURNED_AWAY_S`, the last one first."""
        return [each for each in reversed(self._turned_away.values()) if now - each.at <= TURNED_AWAY_S]

    def excuse(self, stall_s: float) -> None:
        """Do not count `stall_s` seconds in which the router itself did not run as silence of its members."""
        if stall_s > STALL_S:
            for member in self._members.values():
                member.last_message_at += stall_s

    def reporters(self, now: float) -> Reporters:
        """Return the gateways and bridges that are here; those that were silent for `LOST_AFTER_S` may be lost."""
        known = [member for member in self._members.values() if member.hello.kind != "ctl"]
        heard = frozenset(member.hello.process for member in known if now - member.last_message_at < LOST_AFTER_S)
        is_certain = bool(heard) and all(now - member.joined_at >= LOST_AFTER_S for member in known)
        return Reporters(heard, is_certain=is_certain)

    def silent(self, now: float) -> list[Member]:
        """Return the members that are lost: without a message for `Member.lost_after_s`."""
        return [m for m in self._members.values() if now - m.last_message_at > m.lost_after_s]


def may_be_remote(body: FromMember) -> bool:
    """Return whether a member on another machine may send this message.

    A bridge needs no more; a remote member cannot register streams or read what the router knows.
    """
    if isinstance(body, Hello):
        return body.kind == "mlbridge"
    allowed = SnapshotEnd | MemberHeartbeat | CoverageReport | LatencyReport | RaiseAlert | BadFrame | WhyAnswered | Bye
    return isinstance(body, allowed)
