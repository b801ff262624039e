"""A router for tests of members: greets, answers alerts, beats, pushes frames. It keeps what it was told.

It decides nothing about streams; what it does wrong on purpose is said by its attributes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from watchout.common.alerts.model import Alert
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.messages import (
    AcceptedReply,
    BadFrame,
    Bye,
    CoverageReport,
    FromMember,
    FromRouter,
    Hello,
    MemberHeartbeat,
    RaiseAlert,
    RefusedReply,
    RouterHeartbeat,
    SnapshotEnd,
    Welcome,
    decode_from_member,
    encode,
)
from watchout.common.bus.zeromq.local import LocalRouterTransport
from watchout.common.media.frames import Frame


@dataclass
class Told:
    """What members said, in order."""

    hellos: list[Hello] = field(default_factory=list)
    attempts: list[Alert] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    raised: list[RaiseAlert] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    bad_frames: list[BadFrame] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    synced: int = 0
    byes: int = 0


class FakeRouter:
    """One router's life; make another with a higher epoch for the next."""

    def __init__(self, home: Path, *, epoch: int = 1, told: Told | None = None, max_message_bytes: int = 16 << 20):
        self.told = told or Told()
        #: Alerts that come are taken, but this many answers are withheld.
        self.withheld_answers = 0
        #: With this code each alert is refused.
        self.refusal: str | None = None
        self._epoch = epoch
        self._sent: dict[bytes, int] = {}
        self._expected: dict[bytes, int] = {}
        self._ids = {alert.id for alert in self.told.alerts}
        self._bus = LocalRouterTransport(
            home, max_message_bytes=max_message_bytes, on_control=self._came, on_frame=self.told.frames.append
        )
        self._timer = asyncio.get_running_loop().call_soon(self._beat)

    @property
    def members(self) -> int:
        """Members that are known."""
        return len(self._sent)

    @property
    def receivers(self) -> int:
        """Members that take frames now."""
        return sum(map(self._bus.reaches, self._sent))

    def push(self, frame: Frame) -> None:
        """A frame for every member."""
        self.push_bytes(frame.to_bus())

    def push_bytes(self, data: bytes) -> None:
        """Whatever bytes in the place of a frame."""
        for member in self._sent:
            self._bus.send_frame(member, data, None)

    def tell(self, body: FromRouter) -> None:
        """A message for every member."""
        for member in list(self._sent):
            self._send(member, body)

    def close(self) -> None:
        """Vanish."""
        self._timer.cancel()
        self._bus.close()

    def _send(self, member: bytes, body: FromRouter) -> None:
        self._sent[member] += 1
        self._bus.send_control(member, encode(self._epoch, self._sent[member], body))

    def _beat(self) -> None:
        self.tell(RouterHeartbeat())
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_EVERY_S, self._beat)

    def _came(self, member: bytes, data: bytes) -> None:
        envelope = decode_from_member(data)
        if isinstance(envelope.body, Hello):
            self.told.hellos.append(envelope.body)
            self._sent[member] = 0
            self._expected[member] = 0
            self._send(member, Welcome(attempt=envelope.body.attempt))
            return
        if member not in self._sent:
            return
        self._expected[member] += 1
        assert envelope.seq == self._expected[member], "a member numbers its messages without a hole"
        self._handle(member, envelope.body)

    def _handle(self, member: bytes, body: FromMember) -> None:
        match body:
            case SnapshotEnd():
                self.told.synced += 1
            case MemberHeartbeat(metrics=dict(metrics)):
                self.told.metrics = metrics
            case CoverageReport(rows=rows):
                self.told.coverage = dict(rows)
            case BadFrame():
                self.told.bad_frames.append(body)
            case Bye():
                self.told.byes += 1
                del self._sent[member]
            case RaiseAlert(request=request, alert=alert):
                self.told.raised.append(body)
                self._alert_came(member, request, alert)

    def _alert_came(self, member: bytes, request: int, alert: Alert) -> None:
        self.told.attempts.append(alert)
        if self.refusal is not None:
            self._send(member, RefusedReply(request=request, code=self.refusal, message="refused on purpose"))
            return
        duplicate = alert.id in self._ids
        if not duplicate:
            self._ids.add(alert.id)
            self.told.alerts.append(alert)
        if self.withheld_answers:
            self.withheld_answers -= 1
            return
        self._send(member, AcceptedReply(request=request, id=alert.id, duplicate=duplicate))
