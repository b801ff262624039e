"""Decides what a new connection is: a WebSocket upgrade goes to `WebSocket`, all other requests to aiohttp.

Before that come TLS (where it is configured), the deadline for the first request, the limits of connections, and the
check of the request's head. A later request on a kept-alive HTTP connection may be the upgrade, as reverse proxies
send it.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Final, cast

from watchout.common import log
from watchout.common.process import garbage
from watchout.common.toolbox.reason import reason
from watchout.gateway.client.handshake import is_upgrade, values_of
from watchout.gateway.client.socket import WebSocket
from watchout.gateway.client.unfinished import FREE_BYTES
from watchout.gateway.closed_transport import CLOSED_TRANSPORT
from watchout.gateway.context import Context
from watchout.gateway.error_response import error_response
from watchout.gateway.kernel_buffers import limit_kernel_buffers
from watchout.gateway.listen.head import HeadFault, check_beginning, check_head, is_health_check
from watchout.gateway.listen.tls import Certificate
from watchout.gateway.listen.tls_connection import SecuredProtocol, TlsConnection
from watchout.gateway.quotas import ConnectionSlot
from watchout.gateway.requests.addresses import client_address, is_trusted, limit_key
from watchout.gateway.requests.origins import cors_headers
from watchout.gateway.write_monitor import WriteMonitor

#: Seconds after which an HTTP connection without a further request is closed if no request on it was authenticated;
#: others are kept for longer (`app.KEEPALIVE_S`).
UNAUTHENTICATED_KEEPALIVE_S: Final = 5.0
#: Seconds for which bytes of a refused connection are read and discarded. If it were closed with unread bytes, the
#: kernel would reset it, and the peer might lose the response.
LINGER_S: Final = 1.0
#: Seconds in which a gateway that ends waits for the first request of a connection that it has just accepted.
FIRST_REQUEST_S: Final = 1.0
#: As what a connection counts in `garbage.worked`: it makes about 100 objects that stay as long as it does.
PIECES_OF_CONNECTION: Final = 10

_log = log.get("gateway.listen.dispatch")


class HttpConnection(asyncio.Protocol):
    """aiohttp's protocol for one connection, as `ConnectionDispatcher` uses it: receives the bytes, and ends or
    releases the connection. Implemented by `JsonRequestHandler`.
    """

    @abc.abstractmethod
    def close(self) -> None:
        """Finish the response under way, if any, and close the connection."""

    @abc.abstractmethod
    def detach(self) -> bytes:
        """Release the connection without closing it; return the bytes received after the last request."""


class ConnectionDispatcher(SecuredProtocol):
    """One accepted connection: until its first request shows what it is, and for its whole life when it is HTTP.

    The event loop's server makes one per connection. It counts in the limits under the address of its first request
    (a proxy may send requests of other clients later), and as unauthenticated until a request shows who sent it.

    Args:
        context: What the gateway's connections share.
        make_http: Returns aiohttp's protocol for one connection.
        certificate: The certificate of the port; None: no TLS.
        unended: The gateway's open connections that are no WebSockets: this one is among them while it is one.
    """

    __slots__ = (
        "_accepted_at",
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
        "_proxied",
        "_refused",
        "_slot",
        "_transport",
        "_unended",
        "write_monitor",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        make_http: Callable[[], HttpConnection],
        certificate: Certificate | None,
        unended: set[ConnectionDispatcher],
    ) -> None:
        self._context = context
        self._unended = unended
        self._make_http = make_http
        self._certificate = certificate
        self._http: HttpConnection | None = None
        self._buffer = b""
        self._peer = ""
        #: When the connection was accepted, in seconds of the loop's clock.
        self._accepted_at = asyncio.get_running_loop().time()
        self._slot: ConnectionSlot
        self._transport: asyncio.Transport
        #: Ends a connection whose first request does not arrive in time, or one that was refused.
        self._deadline: asyncio.TimerHandle | None = None
        #: Ends an unauthenticated HTTP connection on which no further request arrives.
        self._idle: asyncio.TimerHandle | None = None
        #: Backpressure of the responses, once this connection is HTTP.
        self.write_monitor: WriteMonitor | None = None
        self._proxied = self._refused = self._lost = self._http_paused = False

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a new connection, and begin with TLS or the first request."""
        garbage.worked(PIECES_OF_CONNECTION)
        self._transport = cast("asyncio.Transport", transport)  # uvloop's classes do not inherit from asyncio's
        self._unended.add(self)
        peer = self._transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else ""
        self._proxied = is_trusted(self._peer, self._context.settings.trusted_proxies)
        self._slot = self._context.connections.open_slot(None if self._proxied else limit_key(self._peer))
        self._slot.give_way = self._transport.abort
        if self._slot.reached is not None:
            self._context.connections.make_room_for_refused()
        if self._slot.must_drop:
            self._drop()
        elif self._certificate is None:
            self._expect_head()
        else:
            connection = TlsConnection(
                self._transport, self._certificate.session(), self._certificate.context, self, self._context.scratch,
                self._context.settings.handshake_timeout_s,
            )  # fmt: skip
            self._transport.set_protocol(connection)

    def on_secured(self, transport: asyncio.Transport) -> None:
        """Begin with the first request: the TLS handshake is complete."""
        self._transport = transport
        self._expect_head()

    def on_handshake_failed(self, error: Exception) -> None:
        """Log why the TLS handshake failed."""
        _log.debug("TLS handshake failed", reason=reason(error))

    def _expect_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._context.settings.handshake_timeout_s, self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._buffer:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "TIMEOUT", "the head of the request did not arrive in time")
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process a part of a request: aiohttp's, or the head of the first."""
        if self._http is not None:
            self._http.data_received(data)
            return
        if self._refused:
            return
        self._buffer += data
        self._buffer = self._buffer.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = self._buffer.find(b"\r\n\r\n") + 4
        try:
            if end >= 4:
                check_head(self._buffer[:end])
                self._on_head(end)
            else:
                check_beginning(self._buffer)
                if len(self._buffer) > FREE_BYTES:
                    self._context.unfinished.hold(self, None, len(self._buffer))
        except HeadFault as fault:
            self._refuse(fault.status, fault.code, str(fault))

    def _on_head(self, end: int) -> None:
        """Count the connection under its client's address, and dispatch on the first request, of `end` bytes."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        settings = self._context.settings
        received, self._buffer = self._buffer, b""
        self._context.unfinished.release(self)
        head = received[:end]
        forwarded = values_of(head, "x-forwarded-for")
        address = client_address(self._peer, forwarded, settings.trusted_proxies)
        self._slot.address = self._slot.address or address
        self._slot.set_address(limit_key(address))
        if self._slot.reached is not None:
            self._context.connections.make_room_for_refused()
        if self._slot.must_drop:
            self._drop()
        elif is_upgrade(head):
            self._become_websocket(head, received[end:])
        elif self._slot.reached is not None and not is_health_check(head):
            origins = values_of(head, "origin")
            headers = cors_headers(origins[0] if len(origins) == 1 else None, settings.allowed_origins)
            text = f"too many connections {self._slot.reached.what}"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "TOO_MANY_CONNECTIONS", text, {"Retry-After": "1", **headers})
        else:
            limit_kernel_buffers(self._transport)
            self.write_monitor = WriteMonitor(self._transport)
            self._http = self._make_http()
            self._http.connection_made(self._transport)
            self._http.data_received(received)

    def _drop(self) -> None:
        """End a connection over a limit at once: too many refused ones are open to tell it why."""
        reached = self._slot.reached
        text = f"too many connections {'' if reached is None else reached.what}"
        self._context.recorder.refused(self._slot.address or self._peer, 0, "TOO_MANY_CONNECTIONS", text)
        self._transport.abort()

    def expects_first_request(self) -> bool:
        """Return whether its first request has yet to come, and may be on its way: it was accepted just now."""
        is_new = asyncio.get_running_loop().time() - self._accepted_at < FIRST_REQUEST_S
        return is_new and self._http is None and not self._refused and not self._lost

    @property
    def address_key(self) -> str | None:
        """The key under which the limits count the client's address; None while the address is not known."""
        return self._slot.key

    @property
    def address(self) -> str:
        """The client's address; empty while it is not known."""
        return self._slot.address

    def give_way(self) -> None:
        """Discard the unfinished head and end the connection; called by `Unfinished` when its budget is exceeded."""
        self._buffer, self._refused = b"", True
        text = "too many unfinished bytes here, and most of them its own"
        self._context.recorder.refused(self._slot.address or self._peer, 0, "OVERLOADED", text)
        self._transport.abort()

    def end(self) -> None:
        """End the connection at once, whatever it is doing: the gateway ends."""
        self._transport.abort()

    def on_request(self) -> None:
        """Handle a request that aiohttp has read: the connection is not idle."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def on_authenticated(self) -> None:
        """Count the connection as authenticated: the current request shows who sent it."""
        self._slot.mark_authenticated()

    def on_response(self) -> bool:
        """Handle a response that is about to be sent; return whether to keep the connection for further requests.

        Connections are not kept when the limits are nearly reached, or the gateway drains. An unauthenticated one is
        closed after `UNAUTHENTICATED_KEEPALIVE_S`, unless it is a trusted proxy's: those close connections that they
        do not need.
        """
        if self._slot.is_unauthenticated and not self._proxied and not self._lost:
            self._idle = asyncio.get_running_loop().call_later(UNAUTHENTICATED_KEEPALIVE_S, self._on_idle)
        return not (self._slot.crowded or self._context.draining)

    def _on_idle(self) -> None:
        self._idle = None
        if self._http is not None:
            self._http.close()

    def upgrade(self, head: bytes) -> None:
        """Become a WebSocket: a later request of this connection, read by aiohttp, is the upgrade with this head."""
        if self._http is not None:
            rest = self._http.detach()
            self._http = None
            self._stop_monitor()
            self._slot.mark_unauthenticated()
            self._become_websocket(head, rest)

    def _become_websocket(self, head: bytes, rest: bytes) -> None:
        self._unended.discard(self)
        websocket = WebSocket(self._context, self._slot)
        self._transport.pause_reading()  # a BufferedProtocol is read in another way
        self._transport.set_protocol(websocket)
        websocket.connection_made(self._transport)
        if rest:
            websocket.receive_rest(rest)
        self._transport.resume_reading()
        websocket.receive_head(head)

    def _refuse(self, status: HTTPStatus, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error response and end the connection."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._buffer, self._refused = b"", True
        self._context.recorder.refused(self._slot.address or self._peer, status, code, text)
        self._transport.write(error_response(status, code, text, headers))
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer has closed already
                self._transport.write_eof()
        else:
            self._transport.close()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    # ── HTTP, and the end ────────────────────────────────────────────────────────────────────────────────────────

    def eof_received(self) -> bool | None:
        """Handle the end of the peer's bytes; True keeps the connection half open, for the answers to its requests."""
        if self._http is None or (self.write_monitor is not None and self.write_monitor.streams):
            return None  # whoever reads a response without end leaves it so
        return self._http.eof_received()

    def pause_writing(self) -> None:
        """Pause aiohttp's writing: the kernel takes no more."""
        if self._http is not None:
            self._http_paused = True
            self._http.pause_writing()
        if self.write_monitor is not None:
            self.write_monitor.on_pause_writing()

    def resume_writing(self) -> None:
        """Resume aiohttp's writing: the kernel has taken everything."""
        # Only after a pause that aiohttp saw, else it raises: the pause may date from the TLS handshake.
        if self._http is not None and self._http_paused:
            self._http_paused = False
            self._http.resume_writing()
        if self.write_monitor is not None:
            self.write_monitor.on_resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything that the connection holds."""
        self._gone()
        if self._http is not None:
            self._http.connection_lost(exc)
            self._http = None
        self._transport = CLOSED_TRANSPORT

    def _stop_monitor(self) -> None:
        if self.write_monitor is not None:
            self.write_monitor.on_connection_lost()
            self.write_monitor = None

    def _gone(self) -> None:
        self._lost = True
        self._unended.discard(self)
        self._stop_monitor()
        for timer in (self._deadline, self._idle):
            if timer is not None:
                timer.cancel()
        self._deadline = self._idle = None
        self._context.unfinished.release(self)
        self._slot.release()


async def first_requests(connections: Collection[ConnectionDispatcher]) -> None:
    """Wait for the first requests of connections that were accepted just now: closed before, they would be lost.

    Args:
        connections: The open connections that are no WebSockets; none is added meanwhile.
    """
    while any(connection.expects_first_request() for connection in connections):  # noqa: ASYNC110  for a second at most
        await asyncio.sleep(FIRST_REQUEST_S / 50)
