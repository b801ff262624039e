"""What carries the bus, as two Protocols: the router's end and a member's end. Pure.

A transport moves two kinds of messages between the router and its members, without looking into control messages and
reading of a frame no more than its header: control messages, in order for each member, and frames, of which a newer one
replaces an older one that is still queued. `common.bus.zeromq` has the transports of the product,
`common.bus.transport_choice` selects one by the settings, and `tests/kit/memory_transport.py` is the smallest one.

A transport may lose messages at any time. It never blocks, and what it queues for one peer is bounded; a control
message that cannot be queued is lost. The layers above detect each loss: `Membership` by the numbers of the control
messages, viewers by the ids of the frames.

All callbacks run in the event loop in which the transport was opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class RouterTransport(Protocol):
    """The router's end of the bus; opened once by `router.app` at its start.

    A member is named by its id, 8 bytes that the member's transport chose. A new member needs no call; `forget` is
    called for one that is gone.
    """

    @property
    def frames_sent(self) -> int:
        """Frames handed to the connections of members, counted once per receiver."""

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a member and not sent: replaced by a newer one, over the limit, or forgotten."""

    @property
    def malformed(self) -> int:
        """Received messages that were dropped because of their form, before any callback."""

    @property
    def frames_at(self) -> str | None:
        """Where members send frames for the router (`common.bus.mesh`); None: over their own transports."""

    @property
    def over(self) -> str:
        """How members that are not remote are joined, for the log: ``ipc`` or ``nats``."""

    @property
    def refused(self) -> int | None:
        """Connections from other machines that were refused; None when the transport listens to none."""

    def is_remote(self, member: bytes) -> bool:
        """Whether a member is on another machine, where it may send only what a bridge sends.

        Args:
            member: A member's id.

        """

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a control message.

        Args:
            member: The receiver's id.
            message: An encoded message, `common.bus.messages.encode`.

        Returns:
            False when the member is not connected or its queue is full. The message is lost then; the member notices
            the gap in the numbers and joins again, so the caller does nothing.

        """

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:
        """Send a frame, or queue it until the member takes it; a newer frame of its queue key replaces a queued one.

        Args:
            member: The receiver's id. For one that is not connected frames are queued until `forget`.
            frame: An encoded frame, `common.bus.frames`.
            at: Where the member accepts frames of others (`Hello.frames_at`). A transport that carries frames itself
                ignores it.

        """

    def broadcast(self, message: bytes) -> None:
        """Send a control message to all that may be members, where they do not notice a new router by themselves.

        Args:
            message: An encoded message, `common.bus.messages.encode`.

        """

    def reaches(self, member: bytes) -> bool:
        """Whether frames for a member go out now, or are queued until its frame connection is there.

        Args:
            member: A member's id.

        """

    def forget(self, member: bytes) -> None:
        """Drop what is queued for a member that is gone.

        Args:
            member: The member's id; an unknown one is ignored.

        """

    def revoked(self) -> list[bytes]:
        """Return the ids of connected members whose permission to connect was taken away.

        Their messages are dropped already; the router removes them as members.
        """

    def close(self) -> None:
        """Close all connections. Queued control messages may still go out for a fraction of a second."""


class MemberTransport(Protocol):
    """A member's end of the bus; opened once by each `BusClient`, connects by itself, again after each loss."""

    @property
    def member_id(self) -> bytes:
        """The member's id, 8 bytes, new with each transport. The first byte is not zero."""

    @property
    def frames_sent(self) -> int:
        """Frames handed to the connection with the router."""

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for the router and not sent: replaced by a newer one, over the limit, or dropped."""

    @property
    def malformed(self) -> int:
        """Received messages that were dropped because of their form, before any callback."""

    def send_control(self, message: bytes) -> bool:
        """Queue a control message for the router.

        Args:
            message: An encoded message, `common.bus.messages.encode`.

        Returns:
            False when the router is not connected or the queue is full; the message is lost, and the caller joins
            again.

        """

    def send_frame(self, parts: tuple[bytes | memoryview, ...], coalescing_delay_s: float) -> None:
        """Send a frame, or queue it until the router takes it; a newer frame of its queue key replaces a queued one.

        Args:
            parts: The encoded frame in parts, its header within the first.
            coalescing_delay_s: Seconds for which the transport may hold the frame back to send it together with others,
                0 for none. Each wake-up of the router costs as much as several frames.

        """

    def on_joined(self) -> None:
        """The router knows this member from now on: frames may flow. Called by `BusClient` after each `Welcome`."""

    def drop_frames(self) -> None:
        """Drop the frames that are queued for the router, which is out of reach."""

    def explain_absence(self) -> str:
        """Return a sentence for the log: why the router may be out of reach, and what the operator can do."""

    def close(self) -> None:
        """Close all connections. Queued control messages may still go out for a fraction of a second."""


class OpenRouterTransport(Protocol):
    """Function that opens the router's end of the bus; made by `transport_choice`. `router.app` calls it once, when it
    is ready to receive messages. Raises `StartError` when a socket cannot be bound.
    """

    def __call__(
        self, *, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None]
    ) -> RouterTransport:
        """Open the transport in the running event loop.

        Args:
            on_control: Called with (member id, message) for each control message.
            on_frame: Called with each frame of a member.

        Returns:
            The open transport.

        Raises:
            StartError: An address cannot be bound, or a key is missing; the process ends.

        """


class OpenMemberTransport(Protocol):
    """Function that opens a member's end of the bus; made by `transport_choice`. `BusClient` calls it in its
    constructor. It does not fail when the router is away.
    """

    def __call__(
        self, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemberTransport:
        """Open the transport in the running event loop; the router need not be there.

        Args:
            on_control: Called with each control message of the router.
            on_frame: Called with each frame for this member; None for a member that takes no part in frames.

        Returns:
            The open transport.

        """
