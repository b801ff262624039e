"""Sends control messages to members, numbered for each so that a member notices a lost one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from watchout.common import clock, log
from watchout.common.bus.messages import (
    LEVEL,
    FromRouter,
    QueryReply,
    RefusedReply,
    Rejoin,
    RouterHeartbeat,
    Welcome,
    encode,
)
from watchout.common.bus.transport import RouterTransport
from watchout.common.errors import BusError
from watchout.router.members import Members
from watchout.router.streams.stream import Send

_log: Final = log.get("router.outbox")


class Outbox:
    """Encodes, numbers and queues the router's messages to its members. `SlotRouter` creates one.

    A message that the transport cannot queue is lost: the gap in the numbers makes the member join again.

    Args:
        epoch: The router's epoch.
        members: The router's members.
        has_lease: Returns whether the router may speak; what it says without its lease is dropped. None: it may.
    """

    def __init__(self, epoch: int, members: Members, has_lease: Callable[[], bool] | None = None) -> None:
        self._has_lease = has_lease
        self._epoch = epoch
        self._members = members
        self._is_closed = False

    def attach(self, bus: RouterTransport) -> None:
        """Set the transport, once it is open and before the first message."""
        self._bus = bus

    def close(self) -> None:
        """Send nothing more: what is sent later is dropped."""
        self._is_closed = True

    def ask_all_to_join(self) -> None:
        """Ask all that may be members to join, where they do not notice a new router by themselves."""
        if self._may_speak():
            self._bus.broadcast(encode(self._epoch, 0, Rejoin()))

    def send(self, member: bytes, body: FromRouter) -> None:
        """Send one message, with the member's next number; 0 for a sender that is not a member."""
        known = self._members.get(member)
        self._put(member, known.next_seq() if known is not None else 0, body)

    def send_all(self, sends: Iterable[Send]) -> None:
        """Send messages in their order."""
        for send in sends:
            self.send(send.member, send.body)

    def welcome(self, member: bytes, attempt: int) -> None:
        """Send the `Welcome` that replies to the greeting of this attempt. It has number 0; the next message has 1."""
        welcome = Welcome(attempt=attempt, level=LEVEL, frames_at=self._bus.frames_at, now=self._told_ms())
        self._put(member, 0, welcome)

    def heartbeat(self, member: bytes) -> None:
        """Send a heartbeat."""
        self.send(member, RouterHeartbeat(now=self._told_ms()))

    def _may_speak(self) -> bool:
        return not self._is_closed and (self._has_lease is None or self._has_lease())

    def _told_ms(self) -> int | None:
        """Return the time that members are told, in ms since the epoch; None where they have the same clock."""
        return None if self._bus.frames_at is None else clock.now_ms()

    def _put(self, member: bytes, seq: int, body: FromRouter) -> None:
        """Encode and queue a message. In the place of a reply that is too large, a refusal is sent."""
        try:
            message = encode(self._epoch, seq, body)
        except BusError as exc:
            _log.error("a message is too large for the bus", error=str(exc))
            if not isinstance(body, QueryReply):
                return
            refusal = RefusedReply(request=body.request, code="ROUTING_ERROR", message=str(exc))
            message = encode(self._epoch, seq, refusal)
        if self._may_speak():
            self._bus.send_control(member, message)
