"""What a new connection is: a WebSocket upgrade goes to `WebSocket`, everything else to aiohttp. One port for both.

Here is also what must hold before a request is believed to be one: TLS where it is set, the deadlines, the limits of
connections, and a head that no two parsers can read in two ways (RFC 9112). On a kept-alive HTTP connection a later
request may be the upgrade, as a reverse proxy does it.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Final, cast

from watchout.common import log
from watchout.common.errors import StartError
from watchout.common.home import open_file
from watchout.common.process.port_holder import holder_of
from watchout.gateway.client.handshake import is_upgrade, values_of
from watchout.gateway.client.socket import WebSocket, bound_the_kernel
from watchout.gateway.client.unfinished import FREE_BYTES
from watchout.gateway.closed_transport import GONE
from watchout.gateway.context import Context
from watchout.gateway.listen.bare_http import error_answer
from watchout.gateway.listen.tls import SHUTDOWN_S, Certificate
from watchout.gateway.quotas import Place
from watchout.gateway.requests.addresses import client_address, is_trusted, limit_key
from watchout.gateway.requests.origins import cors_headers
from watchout.gateway.sending import Sending

#: Most bytes of a request's head, of one line of it, and most header lines.
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 100
#: Most bytes of its cookies together, which do not count for those: a browser sends what other apps of the host set.
MAX_COOKIE_BYTES: Final = 64 * 1024
BACKLOG: Final = 1024
#: A stranger's HTTP connection without a request is closed after this; that of somebody known is kept for longer.
STRANGER_KEEPALIVE_S: Final = 5.0
#: A refused connection is read for so long, unheard: with unread bytes the kernel would take the answer back.
LINGER_S: Final = 1.0

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE: Final = re.compile(rb"%b{1,32} [\x21-\x7e]+ HTTP/1\.([01])" % _TOKEN)
_FIELD: Final = re.compile(rb"(%b+):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
#: Requests that are answered whatever limit is reached: who looks after the gateway must not take it for dead.
_HEALTH: Final = re.compile(rb"(?:GET|HEAD) /health(?:/live)?[ ?]")
_BEGINNING: Final = re.compile(rb"%b{0,32}( |\Z)" % _TOKEN)

_log = log.get("gateway.listen.dispatch")


class HeadFault(Exception):
    """A request whose head is refused, with the HTTP status; the text is a fixed sentence."""

    def __init__(self, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        self.status = status
        super().__init__(_FAULTS[status])

    @property
    def code(self) -> str:
        """The code of the error body."""
        return "BAD_REQUEST" if self.status is HTTPStatus.BAD_REQUEST else "TOO_LARGE"


_FAULTS: Final = {
    HTTPStatus.BAD_REQUEST: "not a request that can be read",
    HTTPStatus.REQUEST_URI_TOO_LONG: f"the first line of a request has at most {MAX_LINE_BYTES} bytes",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        f"the head of a request has at most {MAX_HEAD_BYTES} bytes, {MAX_HEADERS} header lines and {MAX_LINE_BYTES} "
        "bytes a line"
    ),
}


def check_head(head: bytes) -> None:
    """Check a whole head, with its empty line, by the grammar of RFC 9112. Raises `HeadFault`.

    Stricter than the RFC allows a server to be where parsers differ: no bare CR or LF, no folded lines, no space
    before a colon, no control characters. One Host header (section 3.2), which only HTTP/1.0 may leave out.
    """
    check_size(head)
    line, *lines = head[:-4].split(b"\r\n")
    if len(line) > MAX_LINE_BYTES:
        raise HeadFault(HTTPStatus.REQUEST_URI_TOO_LONG)
    if (request := _REQUEST_LINE.fullmatch(line)) is None:
        raise HeadFault
    fields: list[tuple[bytes, bytes]] = []
    for each in lines[: MAX_HEADERS + 1]:
        if len(each) > MAX_LINE_BYTES and not _is_cookie(each):
            raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if (field := _FIELD.fullmatch(each)) is None:
            raise HeadFault
        fields.append((field[1], field[2]))
    check_fields(fields, host_needed=request[1] == b"1")


def check_size(head: bytes) -> None:
    """Check that what has come of a head is not too much, however it ends. Raises `HeadFault`."""
    if len(head) <= MAX_HEAD_BYTES:
        return
    cookies = sum(len(line) for line in head.split(b"\r\n")[1:] if _is_cookie(line))
    if len(head) - cookies > MAX_HEAD_BYTES or cookies > MAX_COOKIE_BYTES:
        raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def _is_cookie(line: bytes) -> bool:
    return line[:7].lower() == b"cookie:"


def check_fields(fields: Sequence[tuple[bytes, bytes]], *, host_needed: bool) -> None:
    """What of `check_head` is not about lines, for a request that was read elsewhere. Raises `HeadFault`."""
    sizes = [(name.lower() == b"cookie", len(name) + len(value)) for name, value in fields]
    cookies, others = (sum(size for is_cookie, size in sizes if is_cookie is which) for which in (True, False))
    longest = max((size for is_cookie, size in sizes if not is_cookie), default=0)
    if (
        len(fields) > MAX_HEADERS or others > MAX_HEAD_BYTES or longest > MAX_LINE_BYTES or cookies > MAX_COOKIE_BYTES
    ):  # fmt: skip
        raise HeadFault(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    hosts = [value.strip() for name, value in fields if name.lower() == b"host"]
    if len(hosts) > 1 or (host_needed and not hosts) or not all(_HOST.fullmatch(host) for host in hosts):
        raise HeadFault


class HttpConnection(asyncio.Protocol):
    """aiohttp's side of a connection."""

    @abc.abstractmethod
    def close(self) -> None:
        """Finish the answer that is under way, if any, and close the connection."""

    @abc.abstractmethod
    def detach(self) -> bytes:
        """Let go of the connection without closing it; return what came after the last request."""


class Listener(asyncio.Protocol):
    """A connection until it is known what it is, and for its whole life when it is HTTP.

    It counts under the address that its first request comes from: a proxy may send the requests of other clients later
    on the same connection. It is a stranger's until one of its requests shows who sent it.
    """

    __slots__ = (
        "_buffer",
        "_certificate",
        "_context",
        "_deadline",
        "_http",
        "_http_paused",
        "_idle",
        "_lost",
        "_make_http",
        "_peer",
        "_place",
        "_proxied",
        "_refused",
        "_shaking",
        "_transport",
        "sending",
    )  # fmt: skip

    def __init__(
        self, context: Context, make_http: Callable[[], HttpConnection], certificate: Certificate | None = None
    ) -> None:
        self._context = context
        self._make_http = make_http
        self._certificate = certificate
        self._http: HttpConnection | None = None
        self._buffer = b""
        self._peer = ""
        self._place: Place
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        #: Ends a stranger's connection on which no request comes any more.
        self._idle: asyncio.TimerHandle | None = None
        #: What aiohttp sends, once this connection is HTTP.
        self.sending: Sending | None = None
        self._proxied = self._shaking = self._refused = self._lost = self._http_paused = False

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection came."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        peer = self._transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._proxied = is_trusted(self._peer, self._context.settings.trusted_proxies)
        self._place = self._context.connections.opened(None if self._proxied else limit_key(self._peer))
        self._place.give_way = self._transport.abort
        if self._place.full is not None:
            self._context.connections.make_room_for_refused()
        if self._place.turned_away:
            self._transport.abort()
        elif self._certificate is None:
            self._expect_head()
        else:
            self._shaking = True
            self._transport.pause_reading()  # what comes now is for TLS
            self._context.tasks.start(self._shake_hands(self._certificate), "TLS handshake")

    async def _shake_hands(self, certificate: Certificate) -> None:
        """Speak TLS from now on. Here, not in the loop's server, so that who is slow at it is counted."""
        if self._lost:
            return
        loop, plain = asyncio.get_running_loop(), self._transport
        handshake = loop.create_task(
            loop.start_tls(
                plain, self, certificate.context, server_side=True,
                ssl_handshake_timeout=self._context.settings.handshake_timeout_s, ssl_shutdown_timeout=SHUTDOWN_S,
            )
        )  # fmt: skip
        try:
            await asyncio.sleep(0)  # until TLS has taken the transport over
            early, self._buffer = self._buffer, b""
            if early:  # uvloop reads at once, also when it was told to wait
                _hand_on(early, plain.get_protocol())
            secured = await handshake
        except OSError as error:  # also ssl.SSLError, and the deadline
            _log.debug("no TLS handshake", reason=getattr(error, "reason", None) or type(error).__name__)
            self._gone()
            return
        finally:
            handshake.cancel()
        if secured is None or self._lost:  # the client did not wait
            self._gone()
            return
        self._transport, self._shaking = secured, False
        self._expect_head()
        if self._buffer:  # the first bytes may come with the end of the handshake
            self.data_received(b"")

    def _expect_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._context.settings.handshake_timeout_s, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self._buffer:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "TIMEOUT", "the head of the request did not come in time")
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        if self._http is not None:
            self._http.data_received(data)
            return
        if self._refused:
            return
        self._buffer += data
        if self._shaking:
            return
        self._buffer = self._buffer.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = self._buffer.find(b"\r\n\r\n") + 4
        try:
            if end >= 4:
                check_head(self._buffer[:end])
                self._head_came(end)
            elif not _BEGINNING.match(self._buffer):
                raise HeadFault
            else:
                check_size(self._buffer)
                if len(self._buffer) > FREE_BYTES:
                    self._context.unfinished.hold(self, None, len(self._buffer))
        except HeadFault as fault:
            self._refuse(fault.status, fault.code, str(fault))

    def _head_came(self, end: int) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        settings = self._context.settings
        came, self._buffer = self._buffer, b""
        self._context.unfinished.release(self)
        head = came[:end]
        forwarded = values_of(head, "x-forwarded-for")
        self._place.came_from(limit_key(client_address(self._peer, forwarded, settings.trusted_proxies)))
        if self._place.full is not None:
            self._context.connections.make_room_for_refused()
        if self._place.turned_away:
            self._transport.abort()
        elif is_upgrade(head):
            self._become_websocket(head, came[end:])
        elif self._place.full is not None and not _HEALTH.match(head):
            origins = values_of(head, "origin")
            headers = cors_headers(origins[0] if len(origins) == 1 else None, settings.allowed_origins)
            text = f"too many connections {self._place.full.what}"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "TOO_MANY_CONNECTIONS", text, {"Retry-After": "1", **headers})
        else:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                bound_the_kernel(raw)
            self.sending = Sending(self._transport)
            self._http = self._make_http()
            self._http.connection_made(self._transport)
            self._http.data_received(came)

    @property
    def address(self) -> str | None:
        """The key by which limits know the client's address."""
        return self._place.key

    def give_way(self) -> None:
        """Too many heads are unfinished, and this one is the largest."""
        self._buffer, self._refused = b"", True
        self._transport.abort()

    def asked(self) -> None:
        """A request was read."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def authenticated(self) -> None:
        """The present request shows who sent it."""
        self._place.trusted()

    def answered(self) -> bool:
        """The answer is about to be sent; whether the connection may be kept for more requests.

        A trusted proxy keeps its own count of connections, and closes those that it does not need.
        """
        if self._place.is_stranger and not self._proxied and not self._lost:
            self._idle = asyncio.get_running_loop().call_later(STRANGER_KEEPALIVE_S, self._idle_too_long)
        return not self._place.crowded

    def _idle_too_long(self) -> None:
        self._idle = None
        if self._http is not None:
            self._http.close()

    def upgrade(self, head: bytes) -> None:
        """A later request of this connection, which aiohttp has read, is an upgrade: it is a WebSocket from now on."""
        if self._http is not None:
            rest = self._http.detach()
            self._http = None
            self._end_sending()
            self._place.doubted()
            self._become_websocket(head, rest)

    def _become_websocket(self, head: bytes, rest: bytes) -> None:
        websocket = WebSocket(self._context, self._place)
        self._transport.pause_reading()  # it reads in another way from now on
        self._transport.set_protocol(websocket)
        websocket.connection_made(self._transport)
        if rest:
            websocket.more_received(rest)
        self._transport.resume_reading()
        websocket.head_received(head)

    def _refuse(self, status: HTTPStatus, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an error and end the connection."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._buffer, self._refused = b"", True
        self._transport.write(error_answer(status, code, text, headers))
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer was faster
                self._transport.write_eof()
        else:
            self._transport.close()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    # ── HTTP, and the end ────────────────────────────────────────────────────────────────────────────────────────

    def eof_received(self) -> bool | None:
        """The peer will send no more."""
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        if self._http is not None:
            self._http_paused = True
            self._http.pause_writing()
        if self.sending is not None:
            self.sending.pause()

    def resume_writing(self) -> None:
        """The kernel took what there was."""
        # aiohttp takes it for a fault where it was not told to pause: the handshake of TLS came before it.
        if self._http is not None and self._http_paused:
            self._http_paused = False
            self._http.resume_writing()
        if self.sending is not None:
            self.sending.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._gone()
        if self._http is not None:
            self._http.connection_lost(exc)
            self._http = None
        self._transport = GONE

    def _end_sending(self) -> None:
        if self.sending is not None:
            self.sending.lost()
            self.sending = None

    def _gone(self) -> None:
        self._lost = True
        self._end_sending()
        for timer in (self._deadline, self._idle):
            if timer is not None:
                timer.cancel()
        self._deadline = self._idle = None
        self._context.unfinished.release(self)
        self._place.closed()


def _hand_on(data: bytes, protocol: asyncio.BaseProtocol) -> None:
    """Give bytes to a protocol as its transport would."""
    receiver = cast("asyncio.BufferedProtocol", protocol)
    while data:
        buffer = memoryview(receiver.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        receiver.buffer_updated(size)
        data = data[size:]


def open_sockets(host: str, port: int, home: FilePath) -> tuple[list[socket.socket], int]:
    """Listening sockets on `host` (empty: every address) and a lock that says that this home serves the port.

    Gateways of one home share the port (SO_REUSEPORT); anybody else on it is `StartError`, because the kernel would
    hand some of the clients to a stranger.
    """
    gate = open_file(home / "listen.lock", os.O_RDWR | os.O_CREAT)
    try:
        share = open_file(home / f"port-{port}", os.O_RDWR | os.O_CREAT)
    except StartError:
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
            raise StartError(_taken(port, error)) from None


def _taken(port: int, error: OSError) -> str:
    """Why the port cannot be had, and whose it is if that can be seen."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"port {port} cannot be had ({error.strerror}): ports below 1024 need CAP_NET_BIND_SERVICE. Set "
            "WATCHOUT_PORT to a higher one"
        )
    if error.errno != errno.EADDRINUSE:
        return f"port {port} cannot be had ({error.strerror}). Set WATCHOUT_HOST to an address of this machine"
    if whose := holder_of(port):
        who = f"{whose} listens there, and is no gateway of this WATCHOUT_HOME"
    else:
        who = "another program listens there, or a watchout with another WATCHOUT_HOME"
    return f"port {port} cannot be had ({error.strerror}); {who}. Set WATCHOUT_PORT to a free one"
