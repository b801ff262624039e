"""A connection with TLS: the protocol of its socket on one side, the transport of what it carries on the other.

The event loop's own TLS keeps buffers for each connection and lets encrypted frames wait in two places, where no newer
one can replace them. Here a frame is encrypted when it is written, and what the kernel does not take waits in one
place, as without TLS: the transport of the socket, whose limits and pauses are those of the connection
(docs/backpressure.md).
"""

from __future__ import annotations

import abc
import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

from watchout.gateway.closed_transport import CLOSED_TRANSPORT
from watchout.gateway.listen.tls_session import PIECE_BYTES, TlsFault, TlsSession

#: Seconds that a peer has to answer the end of TLS (close_notify) before the connection is dropped.
SHUTDOWN_S: Final = 3.0
#: Most bytes of replies of TLS itself for a peer that reads nothing; one that asks for more is dropped.
MAX_REPLY_BYTES: Final = 16 * 1024
#: Bytes that are decrypted at once for a protocol that has no buffer of its own.
PLAIN_BYTES: Final = 64 * 1024


class SecuredProtocol(asyncio.Protocol):
    """Who takes the connection over after the handshake. Implemented by `ConnectionDispatcher`."""

    @abc.abstractmethod
    def on_secured(self, transport: asyncio.Transport) -> None:
        """Begin with what the connection carries; bytes follow by `data_received`."""

    @abc.abstractmethod
    def on_handshake_failed(self, error: Exception) -> None:
        """Handle that the handshake failed; `connection_lost` follows."""


class TlsConnection(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection with TLS, from its first byte to its end.

    To be set as the protocol of a new connection's transport.

    Args:
        socket: The transport of the socket.
        session: TLS of the connection.
        context: The session's context.
        owner: Gets the connection after the handshake, and its end in any case.
        scratch: Memory for one read, which all connections share.
        handshake_s: Seconds that the handshake may take.
    """

    __slots__ = (
        "_closing", "_context", "_encrypt", "_full", "_half_open", "_loop", "_owner", "_paused", "_protocol",
        "_replied", "_resuming", "_scratch", "_session", "_socket", "_timer", "_write",
    )  # fmt: skip

    def __init__(
        self,
        socket: asyncio.Transport,
        session: TlsSession,
        context: ssl.SSLContext,
        owner: SecuredProtocol,
        scratch: memoryview,
        handshake_s: float,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._socket, self._session, self._context, self._scratch = socket, session, context, scratch
        self._write, self._encrypt = socket.write, session.encrypt
        #: None once the handshake is complete.
        self._owner: SecuredProtocol | None = owner
        self._protocol: asyncio.BaseProtocol = owner
        self._closing = self._paused = self._full = self._resuming = False
        #: The peer has ended its side, and gets what is still to be sent.
        self._half_open = False
        #: Bytes of replies of TLS itself since the socket is full.
        self._replied = 0
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(handshake_s, self._on_handshake_timeout)

    # ── asyncio.BufferedProtocol: the socket ─────────────────────────────────────────────────────────────────────

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the memory that the next bytes are read into."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Process `nbytes` of the peer that were read into the memory."""
        data = self._scratch[:nbytes]
        if self._owner is None:
            self._receive(data)
        elif self._shake(data) and self._session.has_more:
            self._receive(b"")

    def eof_received(self) -> bool:
        """Handle the end of the peer's bytes: without the end of TLS before it, nothing tells that they are all."""
        return self._half_open and not self._closing

    def pause_writing(self) -> None:
        """Tell who writes that the kernel takes no more."""
        self._full = True
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell who writes that the kernel has taken everything."""
        self._full, self._replied = False, 0
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything, and tell the protocol."""
        self._stop_timer()
        protocol, self._protocol = self._protocol, _NOBODY
        self._closing, self._owner = True, None
        self._socket = CLOSED_TRANSPORT
        self._write = CLOSED_TRANSPORT.write
        protocol.connection_lost(exc)

    # ── the handshake ────────────────────────────────────────────────────────────────────────────────────────────

    def _shake(self, data: memoryview) -> bool:
        """Go on with the handshake; return whether it is complete."""
        assert self._owner is not None
        try:
            complete, reply = self._session.shake(data)
        except TlsFault as fault:
            self._owner.on_handshake_failed(fault.error)
            self._fail(fault)
            return False
        if reply:
            self._write(reply)
        if complete and self._owner is not None:
            self._stop_timer()
            owner, self._owner = self._owner, None
            owner.on_secured(self)
        return complete

    def _on_handshake_timeout(self) -> None:
        self._timer = None
        if self._owner is not None:
            self._owner.on_handshake_failed(TimeoutError("the handshake was not complete in time"))
        self._socket.abort()

    def _fail(self, fault: TlsFault) -> None:
        """Tell the peer what it did wrong, and drop the connection."""
        if self._closing:
            self._socket.abort()
            return
        if fault.alert:
            self._write(fault.alert)
        self._closing = True
        if self._full:
            self._socket.abort()
        else:
            self._socket.close()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, data: memoryview | bytes) -> None:
        """Decrypt bytes of the peer and pass them on, until the protocol pauses."""
        session = self._session
        while True:
            protocol = self._protocol
            buffered = isinstance(protocol, asyncio.BufferedProtocol) and not self._closing
            buffer = memoryview(cast("asyncio.BufferedProtocol", protocol).get_buffer(-1)) if buffered else _plain
            try:
                count, reply = session.decrypt(data, buffer)
            except TlsFault as fault:
                self._fail(fault)
                return
            if reply:
                self._reply(reply)
            if count and not self._closing:
                if buffered:
                    cast("asyncio.BufferedProtocol", protocol).buffer_updated(count)
                else:
                    cast("asyncio.Protocol", protocol).data_received(bytes(buffer[:count]))
            if session.ended:
                self._on_ended()
                return
            if not session.has_more or (self._paused and not self._closing):
                return
            data = b""

    def _reply(self, reply: bytes) -> None:
        """Send a reply of TLS itself, to a new key of the peer's."""
        if self._full:
            self._replied += len(reply)
            if self._replied > MAX_REPLY_BYTES:
                self._socket.abort()
                return
        self._write(reply)

    def _on_ended(self) -> None:
        """Handle the peer's close_notify: it sends nothing more. This side ends as well, or after the last answer."""
        if self._closing:
            self._socket.close()
        elif self._protocol.eof_received():  # type: ignore[attr-defined] # both kinds of protocols have it
            self._half_open = True
        else:
            self.close()
            self._socket.close()

    # ── asyncio.Transport: what the connection carries ───────────────────────────────────────────────────────────

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's transports with TLS tell of themselves, else what the socket's tells."""
        if name == "sslcontext":
            return self._context
        if name == "ssl_object":
            return self._session.tls
        return self._socket.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass everything on to this protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who gets the bytes."""
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send; nothing after `close`."""
        if self._closing:
            return
        size = len(data)
        if not size:
            return
        try:
            if size <= PIECE_BYTES:
                self._write(self._encrypt(data))
            else:
                view = memoryview(data)
                pieces = range(0, size, PIECE_BYTES)
                self._socket.writelines([self._encrypt(view[at : at + PIECE_BYTES]) for at in pieces])
        except TlsFault as fault:
            self._fail(fault)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Encrypt and send several pieces as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: TLS ends on both sides."""
        return False

    def write_eof(self) -> None:
        """Raise `NotImplementedError`: see `can_write_eof`."""
        raise NotImplementedError("TLS ends on both sides: use close()")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many bytes on that the kernel did not take the connection is full."""
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return these limits, the lower one first."""
        return self._socket.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel did not take, encrypted."""
        return self._socket.get_write_buffer_size()

    def is_reading(self) -> bool:
        """Return whether received bytes are passed on."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Pass nothing on until `resume_reading`, and let the kernel's buffer fill."""
        if not self._closing and not self._paused:
            self._paused = True
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Pass on what was received meanwhile, in a later turn of the loop, and read on."""
        if self._closing or not self._paused:
            return
        self._paused = False
        self._socket.resume_reading()
        if self._session.has_more and not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self._session.has_more and not self._paused and not self._closing:
            self._receive(b"")

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or about to be."""
        return self._closing or self._socket.is_closing()

    def close(self) -> None:
        """Send what waits and the end of TLS; drop the connection when the peer does not answer it in `SHUTDOWN_S`.

        What the peer still sends is read and discarded. If the connection were closed with unread bytes, the kernel
        would reset it, and the peer might lose what was sent last.
        """
        if self._closing:
            return
        self._closing = True
        self._stop_timer()
        self._write(self._session.end())
        if self._half_open:
            self._socket.close()
            return
        self._timer = self._loop.call_later(SHUTDOWN_S, self._socket.abort)
        self._socket.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._closing = True
        self._socket.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


#: Takes the place of the protocol of a connection that has ended.
_NOBODY: Final = asyncio.Protocol()
#: Bytes for protocols without a buffer of their own: copied before the next call.
_plain: Final = memoryview(bytearray(PLAIN_BYTES))
