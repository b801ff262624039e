"""What a new connection is: a WebSocket upgrade goes to `WebSocket`, everything else to aiohttp. One port for both.

Only the head of a request is looked at, and only for that. On a kept-alive HTTP connection a later request may be the
upgrade, as a reverse proxy does it.
"""

from __future__ import annotations

import abc
import asyncio
import fcntl
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Final, cast

from common.errors import StartError
from gateway.limits import Full
from gateway.rooms import Rooms
from gateway.session import Path
from gateway.websocket import WebSocket

#: A request's head over this goes to aiohttp as it is, which refuses it.
MAX_HEAD_BYTES: Final = 16 * 1024
BACKLOG: Final = 1024
#: A client that reads nothing of its HTTP answer for so long is cut off.
STALLED_S: Final = 10.0

_UPGRADE_LINE: Final = re.compile(rb"GET (%b)(?:\?[^ \r\n]*)? HTTP/1\.1\r\n" % b"|".join(p.encode() for p in Path))
_UPGRADE_HEADER: Final = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)


def is_upgrade(head: bytes) -> bool:
    """Whether a request's head asks for a WebSocket on one of our paths."""
    return _UPGRADE_LINE.match(head) is not None and _UPGRADE_HEADER.search(head) is not None


class HttpConnection(asyncio.Protocol):
    """aiohttp's side of a connection."""

    @abc.abstractmethod
    def detach(self) -> None:
        """Let go of the connection without closing it."""


class Listener(asyncio.Protocol):
    """A connection until it is known what it is, and for its whole life when it is HTTP."""

    __slots__ = ("_address", "_buffer", "_deadline", "_full", "_http", "_make_http", "_rooms", "_transport")

    def __init__(self, rooms: Rooms, make_http: Callable[[], HttpConnection]) -> None:
        self._rooms = rooms
        self._make_http = make_http
        self._http: HttpConnection | None = None
        self._buffer = b""
        self._full: Full | None = None
        self._address = ""
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection came."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        peer = self._transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._full = self._rooms.connections.opened(self._address)
        if self._rooms.connections.total > self._rooms.settings.max_connections + BACKLOG:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._rooms.settings.auth_timeout_s, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        if self._http is not None:
            self._http.data_received(data)
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= MAX_HEAD_BYTES and b"\r\n" in self._buffer[: MAX_HEAD_BYTES // 2]:
            return
        if end < 0 and len(self._buffer) <= MAX_HEAD_BYTES // 2:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        head, self._buffer = self._buffer, b""
        if 0 <= end <= MAX_HEAD_BYTES and is_upgrade(head[: end + 4]):
            self._become_websocket(head)
        else:
            self._become_http(head)

    def upgrade(self, head: bytes) -> None:
        """A later request of this connection, which aiohttp has read, is an upgrade: it is a WebSocket from now on."""
        if self._http is not None:
            self._http.detach()
            self._http = None
            self._become_websocket(head)

    def _become_websocket(self, head: bytes) -> None:
        websocket = WebSocket(self._rooms, self._address, self._full)
        self._transport.set_protocol(websocket)
        websocket.connection_made(self._transport)
        end = head.index(b"\r\n\r\n") + 4
        websocket.data_received(head[:end])
        if len(head) > end:  # what came with the head is answered after the handshake
            websocket.data_received(head[end:])

    def _become_http(self, head: bytes) -> None:
        if self._full is not None:
            body = b'{"error":{"code":"TOO_MANY_CONNECTIONS","message":"too many connections %b"}}' % (
                self._full.what.encode()
            )
            self._transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
                b"Retry-After: 1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
            )
            self._transport.close()
            return
        self._http = self._make_http()
        self._http.connection_made(self._transport)
        self._http.data_received(head)

    def eof_received(self) -> bool | None:
        """The peer will send no more."""
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        if self._http is not None:
            self._http.pause_writing()
            self._deadline = asyncio.get_running_loop().call_later(STALLED_S, self._transport.abort)

    def resume_writing(self) -> None:
        """The kernel took what there was."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._rooms.connections.closed(self._address)
        if self._http is not None:
            self._http.connection_lost(exc)
            self._http = None


def open_sockets(host: str, port: int, home: FilePath) -> tuple[list[socket.socket], int]:
    """Listening sockets on `host` (empty: every address) and a lock that says that this home serves the port.

    Gateways of one home share the port (SO_REUSEPORT); anybody else on it is `StartError`, because the kernel would
    hand some of the clients to a stranger.
    """
    gate = os.open(home / "listen.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        share = os.open(home / f"port-{port}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        os.close(gate)
        raise
    sockets: list[socket.socket] = []
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        alone = _try_lock(share)
        for family, address in _addresses(host, port):
            if alone:
                _probe(family, address, port)
            listening = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        fcntl.flock(share, fcntl.LOCK_SH)
    except OSError as error:
        for listening in sockets:
            listening.close()
        os.close(share)
        raise StartError(f"cannot listen on port {port} of {host or 'all addresses'}: {error.strerror}") from None
    except StartError:
        for listening in sockets:
            listening.close()
        os.close(share)
        raise
    finally:
        os.close(gate)
    return sockets, share


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    if not host:
        found: list[tuple[socket.AddressFamily, tuple[str, int]]] = [(socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104
        if _has_ipv6():
            found.append((socket.AF_INET6, ("::", port)))
        return found
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"WATCHOUT_HOST={host} is no address of this machine: {error.strerror}") from None
    unique = {(info[0], (str(info[4][0]), port)): None for info in infos}
    return list(unique)


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _probe(family: socket.AddressFamily, address: tuple[str, int], port: int) -> None:
    """Raise `StartError` when somebody listens already: without SO_REUSEPORT a bind then fails."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise StartError(
                f"port {port} cannot be had ({error.strerror}); another program listens there, or a watchout with "
                "another WATCHOUT_HOME. Set WATCHOUT_PORT to a free one"
            ) from None
