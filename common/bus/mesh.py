"""What carries frames from member to member without the router, as a Protocol: the frame mesh. Pure.

The router says who gets the frames of a stream (`Forward.receivers`), and the publisher's gateway sends them there
itself: a frame crosses one process border instead of two, and goes on while the router is away. Each receiver has a
link of its own with a bounded queue in which the newest frame of a stream replaces an older one, so a slow receiver
delays no other. `common.bus.zeromq.unix_mesh` is the mesh of one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.transport import OpenMemberTransport


class FrameMesh(Protocol):
    """A member's part of the mesh: accepts frames at its address, and sends frames to the addresses of others.

    Opened once by `BusClient`. A link is made with the first frame for its address, again after each loss, and closed
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

    def send_frame(self, at: str, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame to one member, or queue it until its link takes it.

        Args:
            at: The member's address, as the router named it.
            parts: The encoded frame in parts, its header within the first (`common.bus.frames`).
            coalescing_delay_s: Seconds for which the frame may be held back to be sent together with others.

        """

    def close(self) -> None:
        """Close all links, and accept no more frames."""


class OpenFrameMesh(Protocol):
    """Function that opens a member's part of the mesh; made by `transport_choice`, called by `BusClient`."""

    def __call__(self, *, on_frame: Callable[[bytes], None]) -> FrameMesh:
        """Open it in the running event loop.

        Args:
            on_frame: Called with each frame that another member sends.

        Returns:
            The open mesh.

        """


@dataclass(frozen=True, slots=True)
class MemberCarrier:
    """All that carries a member's messages: its end of the bus, and its part of the frame mesh.

    Made by `transport_choice`. `open_mesh` is None for a member that gets frames from the router only, or none.
    """

    open_transport: OpenMemberTransport
    open_mesh: OpenFrameMesh | None = None
