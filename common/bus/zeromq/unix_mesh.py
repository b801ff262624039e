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
from pathlib import Path
from typing import Final

from watchout.common import log
from watchout.common.bus.mesh import LinkState, OnFrame, SendFrameTo
from watchout.common.bus.mesh_address import MeshAddress
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.control import FRAME_MARGIN_BYTES
from watchout.common.bus.zeromq.mesh_links import DialHost, MeshLinks
from watchout.common.errors import StartError
from watchout.common.home_files import FRAME_MESH_PREFIX
from watchout.common.metric_names import MetricName

#: A socket file on which nobody listens is removed when it is older than this, in seconds: between its creation and
#: the moment when its owner listens, nobody listens either.
ABANDONED_AFTER_S: Final = 10.0

_log = log.get("common.bus.zeromq.unix_mesh")


class UnixFrameMesh:
    """A member's part of the mesh, a `FrameMesh`.

    Where the socket cannot be made, a warning is logged, the address is None, and the router sends the frames.

    Args:
        home: Directory of the sockets, `WATCHOUT_HOME`.
        max_message_bytes: Largest frame in bytes, without its header.
        on_frame: Called with each frame that another member sends.
        dial_host: Connects to members of other hosts; None: there are none.

    """

    def __init__(
        self,
        home: Path,
        *,
        max_message_bytes: int,
        on_frame: OnFrame,
        dial_host: DialHost | None = None,
    ) -> None:
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._binding: frame_sockets.Binding | None = None
        #: Name of the socket in the home.
        self.name = FRAME_MESH_PREFIX + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        self.address: str | None = None
        try:
            remove_abandoned(home)
            self._binding = frame_sockets.pull(home / self.name, frame_bytes, on_frame, views=True)
            self.address = str(MeshAddress(self.name))
        except (StartError, OSError) as error:
            _log.warning("frames of other processes come through the router", reason=str(error))
        self.links = MeshLinks(home, frame_bytes, dial_host)
        #: The links' own function: each frame to another member passes here.
        self.send_frame: SendFrameTo = self.links.send_frame

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links."""
        return self.links.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued and not sent."""
        return self.links.frames_dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self.links.malformed + (0 if self._binding is None else self._binding.malformed)

    def figures(self) -> dict[MetricName, float]:
        """Return nothing: there is one host."""
        return {}

    def link_states(self) -> list[LinkState]:
        """Return the state of each link."""
        return self.links.states()

    def close(self) -> None:
        """Close all links, and accept no more frames."""
        self.links.close()
        if self._binding is not None:
            self._binding.close()


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
