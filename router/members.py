"""Who takes part: gateways, bridges and operators, with numbered messages and heartbeats. Pure; `now` in seconds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from watchout.common.bus.membership import BRIDGE_LOST_AFTER_S, MEMBER_LOST_AFTER_S
from watchout.common.bus.messages import (
    BadFrame,
    Bye,
    CoverageReport,
    Envelope,
    FromMember,
    Hello,
    MemberHeartbeat,
    RaiseAlert,
    SnapshotEnd,
)

#: Most members at once; a further greeting is not answered.
MAX_MEMBERS = 1000
#: A turn of the router's loop that is later than this was a stall.
STALL_S = 0.5


@dataclass(slots=True)
class Member:
    """One process that greeted this router. Times in seconds of the router's monotonic clock."""

    id: bytes
    hello: Hello
    joined_at: float
    heard_at: float
    received: int = 0
    sent: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)

    @property
    def lost_after_s(self) -> float:
        """Silence after which it is taken for gone."""
        return BRIDGE_LOST_AFTER_S if self.hello.kind == "mlbridge" else MEMBER_LOST_AFTER_S

    def next_seq(self) -> int:
        """Number of the next message to this member, counted from its `Welcome`."""
        self.sent += 1
        return self.sent


class Verdict(enum.Enum):
    """What to do with a message of a member."""

    GREETED = enum.auto()
    TAKE = enum.auto()
    REJOIN = enum.auto()
    IGNORE = enum.auto()


class Members:
    """All members of one router's life; `epoch` is that life's number."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._members: dict[bytes, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def get(self, member: bytes) -> Member | None:
        """The member, if it is known."""
        return self._members.get(member)

    def all(self) -> list[Member]:
        """Every member, in the order of first greetings."""
        return list(self._members.values())

    def receive(self, member: bytes, envelope: Envelope[FromMember], now: float) -> Verdict:
        """Judge a message: a greeting begins a new count, everything else must be the next of this epoch's."""
        known = self._members.get(member)
        if isinstance(envelope.body, Hello):
            if known is None and len(self._members) >= MAX_MEMBERS:
                return Verdict.IGNORE
            joined_at = known.joined_at if known else now
            metrics = known.metrics if known else {}
            self._members[member] = Member(member, envelope.body, joined_at, now, metrics=metrics)
            return Verdict.GREETED
        if known is None or envelope.epoch != self.epoch or envelope.seq != known.received + 1:
            return Verdict.REJOIN
        known.received = envelope.seq
        known.heard_at = now
        return Verdict.TAKE

    def coverage(self) -> dict[str, float]:
        """How well each stream is looked at, by the bridge that looks least; not of those that no bridge told of."""
        least: dict[str, float] = {}
        for member in self._members.values():
            for stream, share in member.coverage.items():
                least[stream] = min(share, least.get(stream, 1.0))
        return least

    def remove(self, member: bytes) -> Member | None:
        """Forget a member that ended or was lost."""
        return self._members.pop(member, None)

    def excuse(self, stall_s: float) -> None:
        """The router itself stood still for so long: what members said meanwhile waits to be read."""
        if stall_s > STALL_S:
            for member in self._members.values():
                member.heard_at += stall_s

    def silent(self, now: float) -> list[Member]:
        """Members that have not been heard for `MEMBER_LOST_AFTER_S`, bridges for `BRIDGE_LOST_AFTER_S`."""
        return [m for m in self._members.values() if now - m.heard_at > m.lost_after_s]


def may_come_from_afar(body: FromMember) -> bool:
    """Whether a member on another machine may say this: what a bridge needs, and nothing about streams or others."""
    if isinstance(body, Hello):
        return body.kind == "mlbridge"
    return isinstance(body, SnapshotEnd | MemberHeartbeat | CoverageReport | RaiseAlert | BadFrame | Bye)
