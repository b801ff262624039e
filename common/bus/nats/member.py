"""A member's end of the bus over NATS, for the router of one slot."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from watchout.common.bus.messages import MEMBER_ID_BYTES
from watchout.common.bus.nats import sentences
from watchout.common.bus.nats.connection import NatsConnection
from watchout.common.bus.nats.parts import PartJoiner, split
from watchout.common.bus.peer_queue import Parts
from watchout.common.errors import BusError

#: Status of a reply of the server itself that nobody is subscribed (NATS ADR-4).
NO_RESPONDERS: Final = "503"


class NatsMemberTransport:
    """A member's end, a `MemberTransport`.

    While the member has not joined, the server tells of each message that no router is there for it; `send_control`
    then says so of the next ones.

    Args:
        connection: The connection of this process; the transport closes it.
        slot: The slot whose router it reaches.
        on_control: Called with each control message of that router.

    """

    def __init__(self, connection: NatsConnection, slot: int, *, on_control: Callable[[bytes], None]) -> None:
        self.member_id = bytes([secrets.randbelow(127) + 1]) + secrets.token_bytes(MEMBER_ID_BYTES - 1)
        self._connection = connection
        self._slot = slot
        self._on_control = on_control
        self._to_router = connection.subjects.to_router(slot, self.member_id)
        self._own = connection.subjects.to_member(slot, self.member_id)
        self._joiner = PartJoiner()
        self._number = 0
        self._joined = False
        self._nobody_listens = False
        self._malformed = 0
        self._dropped = 0
        self._subscriptions = [
            connection.subscribe(self._own, self._on_message),
            connection.subscribe(connection.subjects.to_members(slot), self._on_message),
        ]

    @property
    def frames_sent(self) -> int:
        """0: frames cross the frame mesh."""
        return 0

    @property
    def frames_dropped(self) -> int:
        """Frames for a router that has no address for frames."""
        return self._dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form, or because a part of them was lost."""
        return self._malformed + self._joiner.lost

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when there is no connection to NATS, too much waits, or no router is there."""
        connection = self._connection
        if not connection.connected:
            return False
        self._number += 1
        reply = "" if self._joined else self._own
        if not self._joined:
            connection.look_elsewhere()
        for part in split(message, connection.max_payload, self._number):
            if not connection.publish(self._to_router, part, reply):
                return False
        return not self._nobody_listens

    def send_frame(self, parts: Parts, coalescing_delay_s: float) -> None:  # noqa: ARG002
        """Drop the frame: the router has no address for frames, and NATS carries none."""
        self._dropped += 1

    def on_joined(self) -> None:
        """The router is there: the server need not tell of its absence any more."""
        self._joined, self._nobody_listens = True, False

    def drop_frames(self) -> None:
        """The router is out of reach: from now on the server tells whether one is there."""
        self._joined = False

    def explain_absence(self) -> str:
        """Return what of NATS is missing, or that no router is there."""
        connection = self._connection
        if why := connection.explain():
            return why
        if self._nobody_listens:
            return sentences.nobody_listens(connection.server, self._slot, connection.subjects.cluster)
        return sentences.silent_router(connection.server, self._slot)

    def close(self) -> None:
        """Receive nothing more, and give the connection back; what waits is sent."""
        for subscription in self._subscriptions:
            subscription.close()
        self._connection.close()

    def _on_message(self, message: Msg) -> None:
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            self._nobody_listens = not self._joined
            return
        self._nobody_listens = False
        self._connection.heard()
        try:
            whole = self._joiner.join(message.subject, message.data)
        except BusError:
            self._malformed += 1
            return
        if whole is not None:
            self._on_control(whole)
