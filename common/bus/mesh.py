"""What carries frames from member to member without the router, as a Protocol: the frame mesh. Pure.

The router says who gets the frames of a stream (`Forward.receivers`), and the publisher's gateway sends them there
itself: a frame crosses one process border instead of two, and goes on while the router is away. Each receiver has a
link of its own with a bounded queue in which the newest frame of a stream replaces an older one, so a slow receiver
delays no other. `common.bus.zeromq.unix_mesh` is the mesh of one machine, `tls_mesh` that of several hosts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.transport import MemberTransport, OpenMemberTransport
from watchout.common.metric_names import MetricName

#: Is called with each frame of another member: bytes, or a view of them that is valid during the call. Who keeps the
#: frame copies it, so that it is copied once.
OnFrame = Callable[[bytes | memoryview], None]


class SendFrameTo(Protocol):
    """Function that sends a frame to one member."""

    def __call__(self, at: str, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame, or queue it.

        Args:
            at: The member's address, as the router named it.
            parts: The encoded frame in parts, its header within the first (`common.bus.frames`).
            coalescing_delay_s: Seconds for which the frame may be held back to be sent together with others.

        """


@dataclass(frozen=True, slots=True)
class LinkState:
    """One link of a member's part of the mesh, with what was counted since it was made; for `watchout-ctl cluster`.

    Attributes:
        at: Address of the receiver.
        remote: Whether it goes to another host.
        connected: Whether there is a connection now.
        sent: Frames sent over it.
        sent_bytes: Their sizes together.
        replaced: Frames that were queued for it, until a newer one took their place.
        evicted: Frames that were queued for it and dropped: over a bound, or cleared.
        queued_bytes: Bytes that are queued for it.
        fault: Why there is no connection; empty while there is one, and where nobody knows.

    """

    at: str
    remote: bool
    connected: bool
    sent: int
    sent_bytes: int
    replaced: int
    evicted: int
    queued_bytes: int
    fault: str


class FrameMesh(Protocol):
    """A member's part of the mesh: accepts frames at its address, and sends frames to the addresses of others.

    Opened once by `RouterLinks`. A link is made with the first frame for its address, again after each loss, and closed
    when no frame was sent over it for a while. Frames may be lost at any time; viewers notice by the ids of the frames.
    """

    @property
    def address(self) -> str | None:
        """Where other members send frames to; None: nowhere, and the router sends them."""

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links."""

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a link and not sent: replaced by a newer one, over the limit, or at its close."""

    @property
    def malformed(self) -> int:
        """Received messages that were dropped because of their form."""

    def figures(self) -> dict[MetricName, float]:
        """Return what is told of the links to other hosts, by the metrics' names; empty where there is one host."""

    def link_states(self) -> list[LinkState]:
        """Return the state of each link."""

    @property
    def send_frame(self) -> SendFrameTo:
        """Sends a frame to one member, or queues it until its link takes it; the same function until `close`."""

    def close(self) -> None:
        """Close all links, and accept no more frames."""


class OpenFrameMesh(Protocol):
    """Function that opens a member's part of the mesh; made by `transport_choice`, called by `RouterLinks`."""

    def __call__(self, *, on_frame: OnFrame) -> FrameMesh:
        """Open it in the running event loop.

        Args:
            on_frame: Called with each frame that another member sends.

        Returns:
            The open mesh.

        """


class OpenSlotTransport(Protocol):
    """Function that opens a member's end of the bus for one slot; made by `transport_choice`, called by `RouterLinks`.
    It does not fail when the slot has no router.
    """

    def __call__(
        self, slot: int, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemberTransport:
        """Open the transport in the running event loop.

        Args:
            slot: The slot whose router it reaches, from 0.
            on_control: Called with each control message of that router.
            on_frame: Called with each frame for this member; None for a member that takes no part in frames.

        Returns:
            The open transport, with a member id of its own.

        """


@dataclass(frozen=True, slots=True)
class MemberCarrier:
    """All that carries a member's messages: its end of the bus for each slot, and its part of the frame mesh.

    Made by `transport_choice`.

    Attributes:
        open_transport: Opens the end of one slot.
        open_mesh: Opens the part of the mesh; None: a member that gets frames from the router only, or none.
        slots: How many slots there are: one router each (`common.bus.slots`).
        fenced: Whether a slot can have two live routers for a moment, so that the member obeys the highest epoch alone.

    """

    open_transport: OpenSlotTransport
    open_mesh: OpenFrameMesh | None = None
    slots: int = 1
    fenced: bool = False

    def opener(self, slot: int) -> OpenMemberTransport:
        """Return what opens the end of this slot."""
        return functools.partial(self.open_transport, slot)


def one_slot(open_transport: OpenMemberTransport) -> OpenSlotTransport:
    """Return what opens the end of the only slot, for a carrier that knows no slots.

    Args:
        open_transport: Opens the member's end.

    """

    def open_it(
        slot: int, *, on_control: Callable[[bytes], None], on_frame: Callable[[bytes], None] | None
    ) -> MemberTransport:
        assert slot == 0, slot
        return open_transport(on_control=on_control, on_frame=on_frame)

    return open_it
