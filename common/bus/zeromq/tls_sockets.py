"""Frame sockets between hosts: a PULL that listens, and a PUSH that connects, over TLS with certificates of both sides.

What a stranger sends is refused before a frame socket sees it. docs/bus.md, "Between hosts".
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from watchout.common import log, supervisor
from watchout.common.bus.zeromq.accept_guard import short_now
from watchout.common.bus.zeromq.frame_connection import FrameProtocol, FrameSender
from watchout.common.bus.zeromq.frame_sockets import LISTEN_BACKLOG, Connect, Dialing, next_connection
from watchout.common.bus.zeromq.mesh_certificates import MeshCertificates, refusal_reason
from watchout.common.bus.zeromq.tls_connection import TlsFrameProtocol
from watchout.common.bus.zeromq.zmtp import Deliver
from watchout.common.errors import StartError
from watchout.common.settings.mesh_listen import MeshListen
from watchout.common.toolbox.hosts import bracketed
from watchout.common.toolbox.name_lookup import look_up
from watchout.common.toolbox.reason import reason

#: Longest time in seconds for a connection to be made, and for the handshake of TLS within it.
CONNECT_S: Final = 5.0
HANDSHAKE_S: Final = 5.0
#: Longest pause in seconds between two attempts to connect.
LONGEST_RETRY_S: Final = 2.0
#: Connections without a verified certificate, of all peers and of one address; more are closed at once.
MAX_HANDSHAKES: Final = 64
MAX_HANDSHAKES_OF_ONE: Final = 16
#: Connections of other members; more are closed at once.
MAX_CONNECTIONS: Final = 2_000
#: Seconds between two log lines about refused connections.
LOG_EVERY_S: Final = 60.0
#: The kernel reports a peer that acknowledges nothing for this time as gone, in ms, and looks after an idle one.
USER_TIMEOUT_MS: Final = 5_000
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3))
#: Bytes not sent yet that the kernel may hold before it takes no more.
NOTSENT_BYTES: Final = 64 << 10

_log = log.get("common.bus.zeromq.tls_sockets")


@dataclass(slots=True)
class _Handshake:
    """A connection whose peer is not verified yet. `raw`: its socket, until the event loop has it; None from then on.

    Made by `TlsBinding`, which closes a socket that the event loop never got.
    """

    address: str
    raw: socket.socket | None


def set_options(raw: socket.socket) -> None:
    """Set the options of a connection between hosts: no delay, little unsent, and a peer that vanished is noticed."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = (*_KEEPALIVE, ("TCP_NOTSENT_LOWAT", NOTSENT_BYTES), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS))
    for name, value in wanted:
        number = getattr(socket, name, None)  # not every system has all of them
        if number is not None:
            raw.setsockopt(socket.IPPROTO_TCP, number, value)


class TlsBinding:
    """A listening PULL socket for members of other hosts, with its connections; made by `tls_mesh`.

    Args:
        listen: Where to listen: a free port of the range is taken.
        certificates: The host's certificates.
        max_bytes: Largest frame accepted, in bytes.
        deliver: Called with a view of each frame.

    Raises:
        StartError: No port of the range can be bound.

    """

    def __init__(self, listen: MeshListen, certificates: MeshCertificates, max_bytes: int, deliver: Deliver) -> None:
        self._certificates = certificates
        self._max_bytes = max_bytes
        self._deliver = deliver
        self._connections: set[FrameProtocol] = set()
        self._handshakes: dict[asyncio.Task[None], _Handshake] = {}
        self._of_one: Counter[str] = Counter()
        self._malformed = 0
        #: Connections that were refused: no certificate of the cluster, no handshake in time, too many.
        self.refused = 0
        self._logged_at = float("-inf")
        self._unlogged = 0
        self._listening = bind(listen)
        #: The port that was taken.
        self.port: int = self._listening.getsockname()[1]
        self._task = supervisor.current().keep(self._accept, f"frame mesh {self.port}")

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form, of all connections so far."""
        return self._malformed + sum(connection.malformed for connection in self._connections)

    async def _accept(self) -> None:
        """Accept connections for as long as the process lives."""
        loop = asyncio.get_running_loop()
        while True:
            raw, peer = await next_connection(self._listening, "of other hosts")
            address = str(peer[0])
            if len(self._connections) >= MAX_CONNECTIONS:
                self._refuse(raw, address, f"{MAX_CONNECTIONS} connections are open already")
            elif short_now():
                self._refuse(raw, address, "file descriptors are short")
            elif len(self._handshakes) >= MAX_HANDSHAKES or self._of_one[address] >= MAX_HANDSHAKES_OF_ONE:
                self._refuse(raw, address, "too many connections without a certificate")
            else:
                handshake = _Handshake(address, raw)
                task = loop.create_task(self._serve(handshake), name="frame mesh handshake")
                self._handshakes[task] = handshake
                self._of_one[address] += 1
                task.add_done_callback(self._on_handshake)

    def _on_handshake(self, task: asyncio.Task[None]) -> None:
        handshake = self._handshakes.pop(task)
        if handshake.raw is not None:  # cancelled before it began
            handshake.raw.close()
        address = handshake.address
        self._of_one[address] -= 1
        if not self._of_one[address]:
            del self._of_one[address]
        if not task.cancelled() and (error := task.exception()) is not None:
            supervisor.current().failed("connection of the frame mesh", error)

    async def _serve(self, handshake: _Handshake) -> None:
        """Verify one peer, and receive its frames from then on."""
        loop = asyncio.get_running_loop()
        raw, handshake.raw = handshake.raw, None
        assert raw is not None, "it is begun once"
        connection = FrameProtocol(b"PULL", self._max_bytes, deliver=self._deliver, views=True, lost=self._on_lost)
        try:
            set_options(raw)
            await loop.connect_accepted_socket(
                lambda: connection, raw, ssl=self._certificates.contexts.server, ssl_handshake_timeout=HANDSHAKE_S
            )
        except OSError as error:
            self._refuse(raw, handshake.address, refusal_reason(error))
        except asyncio.CancelledError:
            connection.abort()  # not the socket: its transport may be about to read from the number of its descriptor
            raise
        else:
            if not connection.transport.is_closing():
                self._connections.add(connection)

    def _refuse(self, raw: socket.socket, address: str, why: str) -> None:
        raw.close()
        self.refused += 1
        self._unlogged += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_EVERY_S:
            _log.warning("a connection to the frame mesh was refused", peer=address, reason=why, refused=self._unlogged)
            self._logged_at, self._unlogged = now, 0

    def _on_lost(self, connection: FrameProtocol) -> None:
        self._connections.discard(connection)
        self._malformed += connection.malformed
        if connection.fault is not None:
            _log.warning("a connection of the frame mesh was closed", reason=connection.fault)

    def close(self) -> None:
        """Close all connections at once, and listen no more."""
        self._task.cancel()
        self._listening.close()
        for task in list(self._handshakes):
            task.cancel()
        for connection in list(self._connections):
            connection.abort()


def bind(listen: MeshListen) -> socket.socket:
    """Return a listening socket on a free port of the range.

    Raises:
        StartError: There is none, or the host is not one of this machine.

    """
    try:
        found: list[tuple[Any, ...]] = socket.getaddrinfo(
            listen.host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise StartError(f"MESH_LISTEN={listen}: {bracketed(listen.host)} is not known: {reason(error)}") from None
    family, _, _, _, address = found[0]
    for port in range(listen.first, listen.last + 1):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.bind((address[0], port, *address[2:]))
            listening.listen(LISTEN_BACKLOG)
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise StartError(f"MESH_LISTEN={listen} cannot be bound: {reason(error)}") from None
            continue
        listening.setblocking(False)
        return listening
    raise StartError(
        f"MESH_LISTEN={listen}: every port is in use; each gateway and bridge of this host needs one, and a router one "
        "for each slot"
    )


def dial(
    host: str,
    port: int,
    certificates: MeshCertificates,
    max_bytes: int,
    sender: FrameSender,
    on_change: Callable[[str | None], None],
) -> Dialing:
    """Connect a PUSH socket to a member of another host.

    Args:
        host: What the peer's certificate has to name.
        port: The peer's port.
        certificates: The certificates of this host.
        max_bytes: Largest message accepted from the peer, in bytes; a PULL sends commands only.
        sender: Its frames go over the connection while there is one.
        on_change: Called with why there is no connection, or with None when there is one.

    Returns:
        The socket, connecting.

    """
    return Dialing(
        f"{bracketed(host)}:{port}",
        lambda lost: TlsFrameProtocol(max_bytes, sender, lost),
        _tls_connection(host, port, certificates),
        longest_retry_s=LONGEST_RETRY_S,
        jitter=0.5,
        on_change=on_change,
        explain=refusal_reason,
    )


def _tls_connection(host: str, port: int, certificates: MeshCertificates) -> Connect:
    """Return what connects to a member of another host."""

    async def connect(make: Callable[[], FrameProtocol]) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            raw = await _connected(loop, host, port)
        try:
            await loop.create_connection(
                make,
                sock=raw,
                ssl=certificates.contexts.client,
                server_hostname=host,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except Exception:
            raw.close()
            raise

    return connect


async def _connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Return a socket that is connected to the first address of the host that accepts. Raises `OSError`."""
    fault: OSError | None = None
    for family, _, _, _, address in await look_up(host, port):
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            set_options(raw)
            await loop.sock_connect(raw, address)
        except OSError as error:
            raw.close()
            fault = error
        except BaseException:
            raw.close()
            raise
        else:
            return raw
    raise fault or OSError(errno.EHOSTUNREACH, "no address")
