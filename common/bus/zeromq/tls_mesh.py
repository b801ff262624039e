"""The frame mesh of several hosts: the sockets of one machine, and a port on which other hosts connect over TLS.

A member has one address that names both. A sender of the same home uses the Unix socket, any other one the port.
docs/bus.md, "Between hosts".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from watchout.common import log, metric_names, supervisor
from watchout.common.bus.mesh import LinkState, OnFrame, SendFrameTo
from watchout.common.bus.mesh_address import MeshAddress
from watchout.common.bus.zeromq import tls_sockets
from watchout.common.bus.zeromq.control import FRAME_MARGIN_BYTES
from watchout.common.bus.zeromq.frame_connection import FrameSender
from watchout.common.bus.zeromq.frame_sockets import Dialing
from watchout.common.bus.zeromq.mesh_certificates import LOOK_EVERY_S, MeshCertificates, MeshFiles
from watchout.common.bus.zeromq.mesh_links import MeshLinks
from watchout.common.bus.zeromq.unix_mesh import UnixFrameMesh
from watchout.common.metric_names import MetricName
from watchout.common.settings.mesh_listen import MeshListen

_log = log.get("common.bus.zeromq.tls_mesh")


class TlsFrameMesh:
    """A member's part of the mesh, a `FrameMesh`; made where `MESH_LISTEN` is set.

    Args:
        home: Directory of the sockets, `WATCHOUT_HOME`.
        listen: Where other hosts connect.
        files: The certificates of this host.
        max_message_bytes: Largest frame in bytes, without its header.
        on_frame: Called with each frame that another member sends.

    Raises:
        StartError: The certificates cannot be used, or no port can be bound.

    """

    def __init__(
        self,
        home: Path,
        listen: MeshListen,
        files: MeshFiles,
        *,
        max_message_bytes: int,
        on_frame: OnFrame,
    ) -> None:
        self._frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._certificates = MeshCertificates(files, listen.advertise)
        self._binding = tls_sockets.TlsBinding(listen, self._certificates, self._frame_bytes, on_frame)
        self._near = UnixFrameMesh(home, max_message_bytes=max_message_bytes, on_frame=on_frame, dial_host=self._dial)
        self.send_frame: SendFrameTo = self._near.send_frame
        self.address: str | None = str(MeshAddress(self._near.name, listen.advertise, self._binding.port))
        self._look = supervisor.current().every(
            LOOK_EVERY_S, self._certificates.look, "certificates of the frame mesh", first_s=0
        )
        _log.info("frames of other hosts are accepted", address=self.address)

    @property
    def frames_sent(self) -> int:
        """Frames handed to the links."""
        return self._near.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued and not sent."""
        return self._near.frames_dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._near.malformed + self._binding.malformed

    @property
    def refused(self) -> int:
        """Connections of other hosts that were refused."""
        return self._binding.refused

    @property
    def links(self) -> MeshLinks:
        """The links to other members, of this machine and of other hosts."""
        return self._near.links

    def figures(self) -> dict[MetricName, float]:
        """Return the links to other hosts, those without a connection, and what was refused here."""
        remote = [state for state in self._near.links.states() if state.remote]
        return {
            metric_names.MESH_LINKS: len(remote),
            metric_names.MESH_LINKS_DOWN: sum(not state.connected for state in remote),
            metric_names.MESH_REFUSED: self._binding.refused,
            metric_names.MESH_CERTIFICATE_EXPIRES: self._certificates.contexts.not_after.timestamp(),
        }

    def link_states(self) -> list[LinkState]:
        """Return the state of each link."""
        return self._near.links.states()

    def close(self) -> None:
        """Close all links, and accept no more frames."""
        self._look.cancel()
        self._near.close()
        self._binding.close()

    def _dial(self, address: MeshAddress, sender: FrameSender, on_change: Callable[[str | None], None]) -> Dialing:
        assert address.host is not None
        return tls_sockets.dial(address.host, address.port, self._certificates, self._frame_bytes, sender, on_change)
