"""The frame mesh of one machine: each member listens on a Unix socket in ``WATCHOUT_HOME``, and connects to others'.

Frames go over PUSH and PULL sockets as they do to the router (`frame_sockets`). docs/bus.md, "Frame mesh".
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchout.common import log, supervisor
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.control import FRAME_MARGIN_BYTES, queue_key
from watchout.common.bus.zeromq.frame_connection import FrameSender
from watchout.common.errors import StartError
from watchout.common.home_files import FRAME_MESH_PREFIX

#: A link over which no frame was sent for this time, or up to twice as long, is closed, in seconds.
LINK_IDLE_S: Final = 30.0
#: Most links at once; frames for a further address are dropped until one is closed.
MAX_LINKS: Final = 1_000
#: Most bytes of frames that are queued for one link, or one larger frame, and for all links together. Past the second
#: bound the link for which most is queued loses its queue.
MAX_LINK_BYTES: Final = 8 << 20
MAX_MESH_BYTES: Final = 64 << 20
#: A socket file on which nobody listens is removed when it is older than this, in seconds: between its creation and
#: the moment when its owner listens, nobody listens either.
ABANDONED_AFTER_S: Final = 10.0
_SCHEME: Final = "unix:"

_log = log.get("common.bus.zeromq.unix_mesh")


class _Link:
    """The connection to one other member, with its queue. `used`: a frame was sent since the last look."""

    __slots__ = ("dialing", "sender", "used")

    def __init__(self, path: Path, frame_bytes: int) -> None:
        self.sender = FrameSender(queue_key, max_bytes=MAX_LINK_BYTES)
        self.dialing = frame_sockets.push(path, frame_bytes, self.sender)
        self.used = True


class UnixFrameMesh:
    """A member's part of the mesh, a `FrameMesh`.

    Where the socket cannot be made, a warning is logged, the address is None, and the router sends the frames.

    Args:
        home: Directory of the sockets, `WATCHOUT_HOME`.
        max_message_bytes: Largest frame in bytes, without its header.
        on_frame: Called with each frame that another member sends.

    """

    def __init__(self, home: Path, *, max_message_bytes: int, on_frame: Callable[[bytes], None]) -> None:
        self._home = home
        self._frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._links: dict[str, _Link] = {}
        self._sent = self._dropped = self._malformed = 0
        self._binding: frame_sockets.Binding | None = None
        self.address: str | None = None
        name = FRAME_MESH_PREFIX + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        try:
            remove_abandoned(home)
            self._binding = frame_sockets.pull(home / name, self._frame_bytes, on_frame)
            self.address = _SCHEME + name
        except (StartError, OSError) as error:
            _log.warning("frames of other processes come through the router", reason=str(error))
        self._idle_check = supervisor.current().every(LINK_IDLE_S, self._close_idle, "links of the frame mesh")

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
        received = 0 if self._binding is None else self._binding.malformed
        return self._malformed + received + sum(link.dialing.malformed for link in self._links.values())

    def send_frame(self, at: str, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame to one member, or queue it."""
        link = self._links.get(at)
        if link is None:
            if len(self._links) >= MAX_LINKS:
                self._dropped += 1
                return
            link = self._links[at] = _Link(self._home / at.removeprefix(_SCHEME), self._frame_bytes)
        link.used = True
        link.sender.offer(parts, coalescing_delay_s)
        if link.sender.queue.bytes:
            self._bound()

    def close(self) -> None:
        """Close all links, and accept no more frames."""
        self._idle_check.cancel()
        for at in list(self._links):
            self._close(at)
        if self._binding is not None:
            self._binding.close()

    def _bound(self) -> None:
        while sum(link.sender.queue.bytes for link in self._links.values()) > MAX_MESH_BYTES:
            max(self._links.values(), key=lambda link: link.sender.queue.bytes).sender.clear()

    def _close_idle(self) -> None:
        for at, link in list(self._links.items()):
            if link.used:
                link.used = False
            else:
                self._close(at)

    def _close(self, at: str) -> None:
        link = self._links.pop(at)
        link.sender.clear()
        self._sent += link.sender.sent
        self._dropped += link.sender.dropped
        self._malformed += link.dialing.malformed
        link.dialing.close()


def remove_abandoned(home: Path) -> None:
    """Remove the sockets of members that ended without removing them.

    Args:
        home: Directory of the sockets.

    Raises:
        OSError: The directory cannot be read.

    """
    oldest = time.time() - ABANDONED_AFTER_S
    for path in home.glob(f"{FRAME_MESH_PREFIX}*"):
        with contextlib.suppress(OSError):  # another member removes it at the same time
            found = path.stat()
            if stat.S_ISSOCK(found.st_mode) and found.st_mtime < oldest and not _is_listening(path):
                path.unlink()


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # its backlog is full
            return True
    return True
