"""TLS of one connection as a machine without a socket: bytes of the peer in, bytes for the peer out. Pure.

All sessions of a gateway share the buffers between OpenSSL and the sockets. So these stay in the processor's caches,
and an idle connection has none. Between two calls of any session they are empty: what cannot be processed yet is kept
by its session. They are not for several threads.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final, cast

#: Most bytes that are encrypted at once, so that the shared buffer stays small whatever the size of a message.
PIECE_BYTES: Final = 256 * 1024

_Bytes = bytes | bytearray | memoryview


class TlsFault(Exception):
    """The peer violated TLS or refused the connection; the session is over.

    Attributes:
        error: What OpenSSL says.
        alert: Bytes for the peer that tell it, maybe none.
    """

    def __init__(self, error: ssl.SSLError, alert: bytes) -> None:
        self.error = error
        self.alert = alert
        super().__init__(str(error))


class TlsBuffers:
    """What OpenSSL reads from and writes to, for all sessions of one gateway.

    Attributes:
        incoming: Encrypted bytes of a peer, during one call of its session.
        outgoing: Encrypted bytes for a peer, during one call of its session.
    """

    __slots__ = ("incoming", "outgoing")

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()


class TlsSession:
    """The server's side of TLS on one connection.

    Args:
        context: The certificate and what is permitted.
        buffers: Those that all sessions share.

    Attributes:
        ended: The peer has ended its side (close_notify): nothing more can be decrypted.
        has_more: Received bytes wait to be decrypted, because the last buffer was too small for them.
    """

    __slots__ = ("_fault", "_incoming", "_outgoing", "_rest", "_tls", "ended", "has_more")

    def __init__(self, context: ssl.SSLContext, buffers: TlsBuffers) -> None:
        self._incoming, self._outgoing = buffers.incoming, buffers.outgoing
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        #: Received bytes that are not decrypted yet.
        self._rest = b""
        #: What is to be raised when the bytes before it were returned: the arguments of `TlsFault`.
        self._fault: tuple[ssl.SSLError, bytes] | None = None
        self.ended = self.has_more = False

    @property
    def tls(self) -> ssl.SSLObject:
        """The library's object, for its version, cipher and certificates."""
        return self._tls

    def shake(self, data: _Bytes) -> tuple[bool, bytes]:
        """Go on with the handshake; return whether it is complete, and bytes for the peer. Raises `TlsFault`."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
            complete = True
        except ssl.SSLWantReadError:
            complete = False
        except ssl.SSLError as error:
            raise TlsFault(error, self._drain()) from None
        self._rest = self._incoming.read()
        self.has_more = bool(self._rest)
        return complete, self._outgoing.read()

    def decrypt(self, data: _Bytes, buffer: memoryview) -> tuple[int, bytes]:
        """Decrypt received bytes into a buffer, as many as it has room for.

        Args:
            data: What was received; nothing: go on with what the session has kept.
            buffer: At least one byte.

        Returns:
            How many bytes are in the buffer now, and bytes for the peer (replies of TLS itself, seldom).

        Raises:
            TlsFault: Once the bytes before the fault were returned.
        """
        if self._fault is not None:
            raise TlsFault(*self._fault)
        incoming, tls = self._incoming, self._tls
        if self._rest:
            incoming.write(self._rest)
            self._rest = b""
        incoming.write(data)
        got, size, self.has_more = 0, len(buffer), False
        try:
            while got < size:
                count = cast("int", tls.read(size - got, buffer[got:] if got else buffer))  # typeshed says bytes
                if count == 0:
                    self.ended = True
                    break
                got += count
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self._fault = error.with_traceback(None), self._drain()  # its frames refer to this session
            if not got:
                raise TlsFault(*self._fault) from None
            self.has_more = True
            return got, b""
        if self.ended:
            incoming.read()
        elif incoming.pending:
            self._rest = incoming.read()
            self.has_more = True
        elif got == size:
            self.has_more = tls.pending() > 0
        return got, self._outgoing.read() if self._outgoing.pending else b""

    def encrypt(self, data: _Bytes) -> bytes:
        """Return at most `PIECE_BYTES` bytes as records of TLS, each as large as they can be. Raises `TlsFault`."""
        write, size = self._tls.write, len(data)
        try:
            done = write(data)
            if done < size:
                rest: memoryview[Any] = memoryview(data)
                while done < size:
                    done += write(rest[done:])
        except ssl.SSLError as error:
            raise TlsFault(error, self._drain()) from None
        return self._outgoing.read()

    def end(self) -> bytes:
        """Return the bytes that end this side (close_notify); nothing may be encrypted afterwards."""
        with contextlib.suppress(OSError):  # mostly SSLWantReadError: the peer has not ended its side yet
            self._tls.unwrap()
        return self._drain()

    def _drain(self) -> bytes:
        """Return what is for the peer, and leave both buffers empty."""
        self._incoming.read()
        return self._outgoing.read()
