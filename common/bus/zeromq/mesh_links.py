"""The links of a member's part of the frame mesh: one connection to each receiver, on this machine or on another.

It owns what bounds them all: the queue of each link, the sum of the queues, the number of links, and their idle time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchout.common import log, supervisor
from watchout.common.bus import mesh_address
from watchout.common.bus.mesh import LinkState
from watchout.common.bus.mesh_address import MeshAddress
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.control import queue_key
from watchout.common.bus.zeromq.frame_connection import FrameSender
from watchout.common.bus.zeromq.frame_sockets import Dialing

#: A link over which no frame was sent for this time, or up to twice as long, is closed, in seconds.
LINK_IDLE_S: Final = 30.0
#: Most links at once; frames for a further address are dropped until one is closed.
MAX_LINKS: Final = 1_000
#: Most bytes of frames that are queued for one link, or one larger frame, and for all links together. Past the second
#: bound the link for which most is queued loses its queue.
MAX_LINK_BYTES: Final = 8 << 20
MAX_MESH_BYTES: Final = 64 << 20
#: A link without a connection is logged after the first time, and again after the second, in seconds.
MISSING_AFTER_S: Final = 5.0
MISSING_AGAIN_S: Final = 60.0

#: Connects to a member of another host: (its address, sender, on_change) to the socket.
DialHost = Callable[[MeshAddress, FrameSender, Callable[[str | None], None]], Dialing]

_log = log.get("common.bus.zeromq.mesh_links")


class _Link:
    """The connection to one other member, with its queue. `used`: a frame was sent since the last look."""

    __slots__ = ("_log_at", "_loop", "_missing", "dialing", "fault", "remote", "sender", "used")

    def __init__(self, address: MeshAddress, home: Path, frame_bytes: int, dial_host: DialHost | None) -> None:
        self.sender = FrameSender(queue_key, max_bytes=MAX_LINK_BYTES)
        self.used = True
        self.fault = ""
        self._missing = False
        self._loop = asyncio.get_running_loop()
        self._log_at = self._loop.time() + MISSING_AFTER_S
        path = home / address.name
        self.remote = dial_host is not None and address.host is not None and not path.exists()
        if self.remote:
            assert dial_host is not None
            self.dialing = dial_host(address, self.sender, lambda fault: self._on_change(address, fault))
        else:
            self.dialing = frame_sockets.push(path, frame_bytes, self.sender)

    def _on_change(self, address: MeshAddress, fault: str | None) -> None:
        """Log a connection that is missing for longer than a restart takes, and its return."""
        now = self._loop.time()
        if fault is None:
            if self._missing:
                _log.info("frames reach the other host again", peer=str(address))
            self._missing, self.fault, self._log_at = False, "", now + MISSING_AFTER_S
            return
        self.fault = fault
        if now >= self._log_at:
            self._missing, self._log_at = True, now + MISSING_AGAIN_S
            _log.warning("frames do not reach another host", peer=str(address), reason=fault)


class MeshLinks:
    """All links of one member; made by `UnixFrameMesh`.

    Args:
        home: Directory of the sockets of this machine's members.
        frame_bytes: Largest message in bytes.
        dial_host: Connects to members of other hosts; None: there are none.

    """

    def __init__(self, home: Path, frame_bytes: int, dial_host: DialHost | None = None) -> None:
        self._home = home
        self._frame_bytes = frame_bytes
        self._dial_host = dial_host
        self._links: dict[str, _Link] = {}
        self._sent = self._dropped = self._malformed = 0
        self._unreachable_at = float("-inf")
        self._idle_check = supervisor.current().every(LINK_IDLE_S, self.close_idle, "links of the frame mesh")

    def __len__(self) -> int:
        return len(self._links)

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links."""
        return self._sent + sum(link.sender.sent for link in self._links.values())

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued and not sent."""
        return self._dropped + sum(link.sender.dropped for link in self._links.values())

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._malformed + sum(link.dialing.malformed for link in self._links.values())

    @property
    def queued_bytes(self) -> dict[str, int]:
        """Bytes that are queued for each address."""
        return {at: link.sender.queue.bytes for at, link in self._links.items()}

    def states(self) -> list[LinkState]:
        """Return the state of each link."""
        return [
            LinkState(
                at=at, remote=link.remote, connected=link.sender.connection is not None, sent=link.sender.sent,
                sent_bytes=link.sender.queue.sent_bytes, replaced=link.sender.queue.replaced,
                evicted=link.sender.queue.evicted, queued_bytes=link.sender.queue.bytes, fault=link.fault,
            )
            for at, link in self._links.items()
        ]  # fmt: skip

    def send_frame(self, at: str, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame to one member, or queue it.

        Args:
            at: The member's address, as the router named it; for one that cannot be used the frame is dropped.
            parts: The encoded frame in parts, its header within the first.
            coalescing_delay_s: Seconds for which the frame may be held back to be sent together with others.

        """
        link = self._links.get(at)
        if link is None and (link := self._open(at)) is None:
            self._dropped += 1
            return
        link.used = True
        link.sender.offer(parts, coalescing_delay_s)
        if link.sender.queue.bytes:
            self._bound()

    def close_idle(self) -> None:
        """Close the links over which no frame was sent since the last call."""
        for at, link in list(self._links.items()):
            if link.used:
                link.used = False
            else:
                self._close(at)

    def close(self) -> None:
        """Close all links."""
        self._idle_check.cancel()
        for at in list(self._links):
            self._close(at)

    def _open(self, at: str) -> _Link | None:
        """Make the link to an address; None where that is not possible."""
        if len(self._links) >= MAX_LINKS:
            return None
        try:
            address = mesh_address.parse(at)
        except ValueError:  # a router of a later release may name other kinds
            return None
        if address.host is None and self._dial_host is not None and not (self._home / address.name).exists():
            self._log_unreachable(at)
        link = self._links[at] = _Link(address, self._home, self._frame_bytes, self._dial_host)
        return link

    def _log_unreachable(self, at: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._unreachable_at >= MISSING_AGAIN_S:
            self._unreachable_at = now
            _log.warning(
                "a member has an address that only its own host reaches: it gets no frames from here",
                peer=at, remedy="set MESH_LISTEN for every process of its host",
            )  # fmt: skip

    def _bound(self) -> None:
        while sum(link.sender.queue.bytes for link in self._links.values()) > MAX_MESH_BYTES:
            max(self._links.values(), key=lambda link: link.sender.queue.bytes).sender.clear()

    def _close(self, at: str) -> None:
        link = self._links.pop(at)
        link.sender.clear()
        self._sent += link.sender.sent
        self._dropped += link.sender.dropped
        self._malformed += link.dialing.malformed
        link.dialing.close()
