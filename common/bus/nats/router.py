"""The router's end of the bus over NATS, for one slot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from watchout.common.bus.mesh import OpenFrameMesh
from watchout.common.bus.nats.connection import NatsConnection
from watchout.common.bus.nats.member import NO_RESPONDERS
from watchout.common.bus.nats.parts import PartJoiner, split
from watchout.common.bus.nats.subjects import member_of
from watchout.common.errors import BusError

#: Members of which it is known that they are there, at most.
MAX_KNOWN: Final = 10_000


class NatsRouterTransport:
    """The router's end, a `RouterTransport`. Frames for the router and from it cross its own part of the frame mesh.

    Args:
        connection: The connection of this process; the transport closes it.
        slot: The slot that this router serves.
        open_mesh: Opens the part of the frame mesh.
        on_control: Called with (member id, message).
        on_frame: Called with each frame of a member.
        on_denied: Called when NATS denies this router its own subject: no member reaches it.

    """

    def __init__(
        self,
        connection: NatsConnection,
        slot: int,
        *,
        open_mesh: OpenFrameMesh,
        on_control: Callable[[bytes, bytes], None],
        on_frame: Callable[[bytes], None],
        on_denied: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._slot = slot
        self._on_control = on_control
        self._mesh = open_mesh(on_frame=lambda frame: on_frame(bytes(frame)))  # the router keeps them
        self._joiner = PartJoiner()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._number = 0
        self._malformed = 0
        self._dropped = 0
        self._to_all: bytes | None = None
        self._subscription = connection.subscribe(connection.subjects.of_router(slot), self._on_message, on_denied)
        connection.on_connected(self._broadcast_late)

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links of the mesh, once per receiver."""
        return self._mesh.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a member and not sent, or for one without an address."""
        return self._mesh.frames_dropped + self._dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form, or because a part of them was lost."""
        return self._malformed + self._joiner.lost + self._mesh.malformed

    @property
    def frames_at(self) -> str | None:
        """Where this router accepts frames."""
        return self._mesh.address

    @property
    def over(self) -> str:
        """All members are joined over NATS."""
        return "nats"

    @property
    def refused(self) -> int | None:
        """None: NATS decides who may connect."""
        return None

    def is_remote(self, member: bytes) -> bool:  # noqa: ARG002
        """False: members on every machine may send the same."""
        return False

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when there is no connection to NATS, too much waits, or the member is not there."""
        connection = self._connection
        if member not in self._known or not connection.connected:
            return False
        self._number += 1
        subject = connection.subjects.to_member(self._slot, member)
        # Where nobody is subscribed any more the server says so to the subject on which this router hears the member.
        reply = connection.subjects.to_router(self._slot, member)
        return all(
            connection.publish(subject, part, reply)
            for part in split(message, connection.max_payload, self._number)
        )  # fmt: skip

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:  # noqa: ARG002
        """Send a frame over the mesh to where the member accepts it; dropped where that is nowhere."""
        if at is None:
            self._dropped += 1
        else:
            self._mesh.send_frame(at, (frame,), 0.0)

    def broadcast(self, message: bytes) -> None:
        """Send a message to all that may be members, once there is a connection."""
        self._to_all = message
        self._broadcast_late()

    def reaches(self, member: bytes) -> bool:
        """Whether the member was heard, and is subscribed as far as is known."""
        return self._connection.connected and member in self._known

    def forget(self, member: bytes) -> None:
        """Drop what is kept of a member that is gone."""
        self._known.pop(member, None)
        self._joiner.forget(member)

    def revoked(self) -> list[bytes]:
        """Return nothing: NATS decides who may connect."""
        return []

    def close(self) -> None:
        """Receive nothing more, and give the connection back; what waits is sent."""
        self._connection.not_on_connected(self._broadcast_late)
        self._subscription.close()
        self._mesh.close()
        self._connection.close()

    def _broadcast_late(self) -> None:
        message, connection = self._to_all, self._connection
        if message is None or not connection.connected:
            return
        self._number += 1
        subject = connection.subjects.to_members(self._slot)
        parts = list(split(message, connection.max_payload, self._number))
        if all([connection.publish(subject, part) for part in parts]):  # noqa: C419 - every part, also after a loss
            self._to_all = None

    def _on_message(self, message: Msg) -> None:
        member = member_of(message.subject)
        if member is None:
            self._malformed += 1
            return
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            self._known.pop(member, None)
            return
        try:
            whole = self._joiner.join(member, message.data)
        except BusError:
            self._malformed += 1
            return
        if whole is None:
            return
        if member not in self._known:
            self._known[member] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._on_control(member, whole)
