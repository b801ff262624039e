"""A member's side of its bond with the router: greeting, numbering, heartbeats, loss. Pure; `now` in seconds.

::

            tick: Hello                Welcome
    DOWN ───────────────▶ GREETING ───────────────▶ LIVE
      ▲                       ▲                       │ gap, other epoch, Rejoin
      │                       └───────────────────────┤
      └───────────── silence of `LOST_AFTER_S` ───────┘

The router numbers what it sends to each member from its `Welcome` on; a hole in the numbers, or another epoch, means
that something was lost, and the member greets again and tells all it holds. Heartbeats are made by the loop that does
the work, because ZeroMQ's own are answered by a thread that does not know whether that loop hangs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from watchout.common.bus.messages import Envelope, FromRouter, Rejoin, Welcome

HELLO_EVERY_S = 0.25
#: A greeting that reached the router's queue and was not answered is followed by the next after twice the time, up to
#: this: a router that is slow to answer must be able to answer the last one.
HELLO_AT_MOST_EVERY_S = 2.0
#: Often enough to notice, seldom enough to cost nothing: each wakes six threads on its way.
BEAT_EVERY_S = 0.5
#: A member that hears nothing of the router for so long takes it for gone.
LOST_AFTER_S = 1.5
#: The router takes a member for gone after this; longer, so that a hiccup of the router costs no stream.
MEMBER_LOST_AFTER_S = 3.0
#: A bridge after this, so that its streams are with another within 2 s (the router looks every `BEAT_EVERY_S`). It
#: loses nothing by it, and greets again when it wakes.
BRIDGE_LOST_AFTER_S = 1.4


class BondState(enum.Enum):
    """Where the bond stands."""

    DOWN = "down"
    GREETING = "greeting"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class SendHello:
    """Greet the router; the envelope has number 0."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Prove life."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The router knows this member: send the snapshot. `epoch` is the router's."""

    epoch: int
    new_epoch: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """The router is out of reach, or forgot this member: pending requests have no answer."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message for the member itself."""

    body: FromRouter


Action = SendHello | SendHeartbeat | Joined | Lost | Deliver


class Membership:
    """The bond of one member."""

    def __init__(self) -> None:
        self.state = BondState.DOWN
        self.epoch = 0
        self._sent = 0
        self._received = 0
        self.attempt = 0
        self._hello_wait = HELLO_EVERY_S
        self._heard_at = 0.0
        self._hello_at = float("-inf")
        self._beat_at = float("-inf")

    def next_seq(self) -> int:
        """Number of the next message to the router."""
        self._sent += 1
        return self._sent

    def tick(self, now: float) -> list[Action]:
        """What time asks for. Call it every `BEAT_EVERY_S` or so."""
        actions: list[Action] = []
        if self.state is BondState.LIVE and now - self._heard_at > LOST_AFTER_S:
            self.state = BondState.DOWN
            actions.append(Lost())
        if self.state is BondState.LIVE:
            if now - self._beat_at >= BEAT_EVERY_S * 0.9:
                self._beat_at = now
                actions.append(SendHeartbeat())
        elif now - self._hello_at >= self._hello_wait * 0.9:
            actions += self._greet(now)
        return actions

    def received(self, envelope: Envelope[FromRouter], now: float) -> list[Action]:
        """A message from the router."""
        match envelope.body:
            case Welcome(attempt=attempt):
                if attempt != self.attempt:  # to a greeting that was followed by another
                    return []
                actions: list[Action] = [Lost()] if self.state is BondState.LIVE else []
                new_epoch = envelope.epoch != self.epoch
                self.state = BondState.LIVE
                self._hello_wait = HELLO_EVERY_S
                self.epoch = envelope.epoch
                self._received = envelope.seq
                self._heard_at = now
                return [*actions, Joined(self.epoch, new_epoch)]
            case Rejoin():
                return self._rejoin(now)
        if self.state is not BondState.LIVE:
            return []
        if envelope.epoch != self.epoch or envelope.seq != self._received + 1:
            return self._rejoin(now)
        self._received = envelope.seq
        self._heard_at = now
        return [Deliver(envelope.body)]

    def greeted(self, queued: bool) -> None:
        """The greeting is under way, or could not be sent because the router is not there."""
        self._hello_wait = min(self._hello_wait * 2, HELLO_AT_MOST_EVERY_S) if queued else HELLO_EVERY_S

    def send_failed(self, now: float) -> list[Action]:
        """A message to the router could not be queued: what it would have told is told again after a greeting."""
        return self._rejoin(now) if self.state is BondState.LIVE else []

    def _rejoin(self, now: float) -> list[Action]:
        actions: list[Action] = [Lost()] if self.state is BondState.LIVE else []
        self.state = BondState.GREETING
        if now - self._hello_at < HELLO_EVERY_S / 5:  # one greeting answers a burst of stray messages
            return actions
        return actions + self._greet(now)

    def _greet(self, now: float) -> list[Action]:
        self.state = BondState.GREETING
        self._hello_at = now
        self._sent = 0
        self.attempt += 1
        return [SendHello(self.attempt)]
