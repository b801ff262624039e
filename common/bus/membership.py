"""A member's membership at the router: joining, numbering, heartbeats, loss. Pure: `now` is an argument, in seconds.

::

            tick: Hello                Welcome
    DOWN ───────────────▶ GREETING ───────────────▶ LIVE
      ▲                       ▲                       │ gap, other epoch, Rejoin
      │                       └───────────────────────┤
      └───────────── silence of `LOST_AFTER_S` ───────┘

The router numbers its messages to each member from its `Welcome` on. A gap in the numbers, or another epoch, means that
a message was lost: the member sends `Hello` again, and after the `Welcome` its whole state. Heartbeats are sent by the
event loop that does the work; ZeroMQ's own would be answered by a thread that cannot know whether that loop hangs.

On a carrier on which two routers can be live for one slot (`fenced`) the member obeys the highest epoch that it has
seen: what a router of a lower one says has no effect. One that no router can exceed (`EXCEEDABLE_EPOCH`), as of bytes
that changed on their way, is not obeyed for good.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from watchout.common.bus.messages import Envelope, FromRouter, Rejoin, RouterHeartbeat, SlotsDiffer, Welcome
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH

#: Interval of `Hello` while the router is not connected, in seconds.
HELLO_EVERY_S = 0.25
#: After each `Hello` that was queued and not answered the interval doubles, up to this: a router that is slow to answer
#: must be able to answer the last one.
HELLO_AT_MOST_EVERY_S = 2.0
#: Interval of heartbeats, both ways. Each one wakes six threads on its way.
HEARTBEAT_EVERY_S = 0.5
#: A heartbeat of the router is answered with one at once, as both processes are awake then, unless the member sent one
#: within this time, in seconds. Without the router's the member sends its own after `HEARTBEAT_EVERY_S`.
ANSWERED_AGAIN_S = 0.1
#: A member that receives nothing for this time considers the router gone.
LOST_AFTER_S = 1.5
#: The router removes a gateway after this silence; longer, so that a short hang of the router costs no stream.
MEMBER_LOST_AFTER_S = 3.0
#: The router removes a bridge after this silence, so that another bridge has its streams within 2 s (the router checks
#: every `HEARTBEAT_EVERY_S`). The bridge loses no state by it, and joins again when it wakes.
BRIDGE_LOST_AFTER_S = 1.4
#: An epoch that no router can exceed is forgotten when no router has spoken with it for so long, in seconds: longer
#: than a router that has a successor can go on.
FORGOTTEN_AFTER_S = 15.0


class MembershipState(enum.Enum):
    """State of a `Membership`. DOWN: the router is silent. GREETING: `Hello` was sent, or is due. LIVE: the router
    knows this member.
    """

    DOWN = "down"
    GREETING = "greeting"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class SendHello:
    """Action of `Membership`: `BusClient` sends `Hello` with this `attempt`, as message number 0, and calls
    `Membership.hello_sent`.
    """

    attempt: int


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Action of `Membership`: `BusClient` sends a `MemberHeartbeat` with the member's metrics, so that the router does
    not count this member as lost.
    """


@dataclass(frozen=True, slots=True)
class Joined:
    """Action of `Membership`: the router knows this member, and `BusClient` sends the snapshot.

    `epoch` is the router's; `new_epoch`: it changed since this member was last joined. `router_ms` is the router's time
    at its `Welcome`, in ms since the epoch, None when it did not say.
    """

    epoch: int
    new_epoch: bool
    router_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """Action of `Membership`: the router is out of reach, or does not know this member any more. `BusClient` sends each
    pending request again after it has joined again.
    """


@dataclass(frozen=True, slots=True)
class Deliver:
    """Action of `Membership`: `BusClient` passes `body`, a message of the router, to its handler."""

    body: FromRouter


#: What `BusClient` does for the state machine.
Action = SendHello | SendHeartbeat | Joined | Left | Deliver


class Membership:
    """Decides when a member greets the router, has joined it, or has lost it. Made by `BusClient`.

    `BusClient` passes it each received message and, regularly, the time in seconds, and performs the actions it
    returns.

    Args:
        fenced: Whether messages of a lower epoch than the highest one seen are ignored.

    """

    def __init__(self, *, fenced: bool = False) -> None:
        self.state = MembershipState.DOWN
        self._fenced = fenced
        #: The highest epoch that a message carried, 0 before the first one.
        self.highest_epoch = 0
        self._highest_at = 0.0
        #: The router's epoch, 0 before the first `Welcome`.
        self.epoch = 0
        #: Which messages the router understands (`Welcome.level`), 0 before the first `Welcome`.
        self.level = 0
        #: Where the router accepts frames (`Welcome.frames_at`); None: over the member's transport.
        self.frames_at: str | None = None
        #: How many slots the routers have, when the last `Hello` was answered by `SlotsDiffer`; else 0.
        self.other_slots = 0
        #: Number of `Hello` messages so far.
        self.attempt = 0
        self._sent = 0
        self._received = 0
        self._hello_interval_s = HELLO_EVERY_S
        self._received_at = 0.0
        self._hello_at = float("-inf")
        self._heartbeat_at = float("-inf")

    @property
    def hello_epoch(self) -> int:
        """The epoch that a `Hello` carries: the highest one known, where the router has to learn of a successor."""
        return self.highest_epoch if self._fenced else self.epoch

    def next_seq(self) -> int:
        """Return the number of the next message to the router."""
        self._sent += 1
        return self._sent

    def tick(self, now: float) -> list[Action]:
        """Return the actions that are due; to be called every `HEARTBEAT_EVERY_S`, while not live every
        `HELLO_EVERY_S`.

        Args:
            now: Time in seconds.

        Returns:
            The actions, in order.

        """
        actions: list[Action] = []
        if self.highest_epoch >= EXCEEDABLE_EPOCH and now - self._highest_at >= FORGOTTEN_AFTER_S:
            self.highest_epoch = self.epoch if self.epoch < EXCEEDABLE_EPOCH else 0
        if self.state is MembershipState.LIVE and now - self._received_at > LOST_AFTER_S:
            self.state = MembershipState.DOWN
            actions.append(Left())
        if self.state is MembershipState.LIVE:
            if now - self._heartbeat_at >= HEARTBEAT_EVERY_S * 0.9:
                self._heartbeat_at = now
                actions.append(SendHeartbeat())
        elif now - self._hello_at >= self._hello_interval_s * 0.9:
            actions += self._greet(now)
        return actions

    def received(self, envelope: Envelope[FromRouter], now: float) -> list[Action]:
        """Handle a message of the router.

        Args:
            envelope: The decoded message.
            now: Time in seconds.

        Returns:
            The actions, in order; none for the reply to an earlier attempt, and where epochs are fenced, for a message
            of a router that has a successor.

        """
        if self._fenced and envelope.epoch < self.highest_epoch:
            return []
        succeeded = self._fenced and envelope.epoch > self.highest_epoch
        if envelope.epoch >= self.highest_epoch:
            self.highest_epoch, self._highest_at = envelope.epoch, now
        match envelope.body:
            case Welcome(attempt=attempt, level=level, frames_at=frames_at, now=router_ms):
                if attempt != self.attempt:  # the reply to an earlier `Hello`
                    return []
                actions: list[Action] = [Left()] if self.state is MembershipState.LIVE else []
                new_epoch = envelope.epoch != self.epoch
                self.state = MembershipState.LIVE
                self._hello_interval_s = HELLO_EVERY_S
                self.epoch, self.level, self.frames_at, self.other_slots = envelope.epoch, level, frames_at, 0
                self._received = envelope.seq
                self._received_at = now
                return [*actions, Joined(self.epoch, new_epoch, router_ms)]
            case SlotsDiffer(attempt=attempt, slots=slots):
                if attempt == self.attempt and self.state is not MembershipState.LIVE:
                    self.other_slots = slots
                return []
            case Rejoin():
                return self._rejoin(now)
        if self.state is not MembershipState.LIVE:
            return self._rejoin(now) if succeeded else []
        if envelope.epoch != self.epoch or envelope.seq != self._received + 1:
            return self._rejoin(now)
        self._received = envelope.seq
        self._received_at = now
        if isinstance(envelope.body, RouterHeartbeat) and now - self._heartbeat_at >= ANSWERED_AGAIN_S:
            self._heartbeat_at = now
            return [Deliver(envelope.body), SendHeartbeat()]
        return [Deliver(envelope.body)]

    def hello_sent(self, queued: bool) -> None:
        """Report the outcome of `SendHello`.

        Args:
            queued: False when the router is not connected.

        """
        self._hello_interval_s = min(self._hello_interval_s * 2, HELLO_AT_MOST_EVERY_S) if queued else HELLO_EVERY_S

    def send_failed(self, now: float) -> list[Action]:
        """Handle that a message to the router could not be queued: the snapshot after the next `Welcome` replaces it.

        Args:
            now: Time in seconds.

        Returns:
            The actions, in order.

        """
        return self._rejoin(now) if self.state is MembershipState.LIVE else []

    def _rejoin(self, now: float) -> list[Action]:
        """Return the actions after a loss: leave, and greet unless that was done just now."""
        actions: list[Action] = [Left()] if self.state is MembershipState.LIVE else []
        self.state = MembershipState.GREETING
        if now - self._hello_at < HELLO_EVERY_S / 5:  # one `Hello` for a burst of messages with a gap
            return actions
        return actions + self._greet(now)

    def _greet(self, now: float) -> list[Action]:
        """Return the action of the next `Hello`, and number messages from 1 again."""
        self.state = MembershipState.GREETING
        self._hello_at = now
        self._sent = 0
        self.attempt += 1
        return [SendHello(self.attempt)]
