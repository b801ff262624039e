"""One WebSocket to a gateway, on `websockets`: opens it, or explains why that failed; reads, writes, closes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from watchout.client.errors import Disconnected, NotAGateway, Unreachable
from watchout.common.errors import CloseCode
from watchout.common.toolbox.gateway_address import LOOPBACK

#: Deadlines in seconds: of connecting, and of closing.
OPEN_S: Final = 10.0
CLOSE_S: Final = 2.0
#: Received messages that wait in `websockets`; with that many the socket is not read.
MAX_QUEUE: Final = 4
#: Interval of WebSocket pings, and deadline of the pong, in seconds. They detect a lost connection to a gateway without
#: `pingEvery`; a pong may wait behind a camera's frames.
PING_EVERY_S: Final = 20.0
PING_ANSWER_S: Final = 60.0

#: Reasons that OpenSSL gives for a response that is not TLS.
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


class GatewaySocket:
    """An open WebSocket. Messages are written in order by `run`, which also reads until the end.

    Args:
        connection: the socket.
        on_data: called with each message, text or binary.
    """

    def __init__(self, connection: ClientConnection, on_data: Callable[[bytes], None]) -> None:
        self._connection = connection
        self._on_data = on_data
        self._outbox: deque[tuple[bytes, bool, asyncio.Future[None] | None]] = deque()
        self._filled = asyncio.Event()
        self._closing = False

    def send(self, data: bytes, *, binary: bool = False) -> None:
        """Queue a message.

        Args:
            data: the payload.
            binary: whether it is a binary message; False: a text.
        """
        self._outbox.append((data, binary, None))
        self._filled.set()

    async def send_and_wait(self, data: bytes, *, binary: bool) -> bool:
        """Send a message and wait until the socket has room for the next one; return False if the connection was lost.

        Args:
            data: the payload.
            binary: whether it is a binary message; False: a text.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append((data, binary, written))
        self._filled.set()
        try:
            await written
        except ConnectionError:
            return False
        return True

    async def run(self) -> tuple[int | None, str]:
        """Read and write until the socket ends; return its close code (None: no close frame came) and reason."""
        writer = asyncio.create_task(self._write(), name="watchout socket writer")
        try:
            while True:
                try:
                    data = await self._connection.recv(decode=False)
                except ConnectionClosed as exc:
                    return self._verdict(exc)
                self._on_data(data)
        finally:
            self._closing = True
            writer.cancel()
            try:
                await asyncio.wait({writer})
            finally:  # also where this is cancelled: who waits for a message to be written would wait for ever
                for _, _, written in self._outbox:
                    if written is not None and not written.done():
                        written.set_exception(ConnectionError("the connection was lost"))
                        written.exception()
                self._outbox.clear()
            if not writer.cancelled() and (error := writer.exception()) is not None:
                raise error

    async def close(self) -> None:
        """Write the queued messages, then close with the closing handshake; cancelled meanwhile, drop it at once."""
        try:
            if not self._closing:
                last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._outbox.append((b"", False, last))
                self._filled.set()
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(CLOSE_S):
                        await last
            await self._connection.close()
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._connection.transport.abort()

    async def _write(self) -> None:
        while not self._closing:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox:
                data, binary, written = self._outbox[0]
                if data:
                    try:
                        await self._connection.send(data, text=not binary)
                    except ConnectionClosed:
                        return  # `run` reports it
                self._outbox.popleft()
                if written is not None and not written.done():
                    written.set_result(None)

    @staticmethod
    def _verdict(exc: ConnectionClosed) -> tuple[int | None, str]:
        if exc.rcvd is not None:
            return exc.rcvd.code, exc.rcvd.reason
        if exc.sent is not None and exc.sent.code == CloseCode.TOO_BIG:
            raise Disconnected(
                CloseCode.TOO_BIG, "the gateway sent a message over MAX_MESSAGE_BYTES; give this client the same limit"
            )
        return None, ""


async def open_socket(url: str, path: str, *, max_message_bytes: int) -> ClientConnection:
    """Open a WebSocket.

    Args:
        url: the gateway, of `gateway_url`.
        path: ``/streams/register`` or ``/streams/subscribe``, with or without a query.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.

    Raises:
        Unreachable: no gateway accepts the connection now.
        NotAGateway: the server is no gateway, or is not trusted; another attempt would fail too.
    """
    try:
        return await connect(
            url + path,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_ANSWER_S,
            compression=None,
            # A frame that was published in binary is a third larger for a JSON viewer.
            max_size=2 * max_message_bytes,
            max_queue=MAX_QUEUE,
            proxy=None if urlsplit(url).hostname in LOOPBACK else True,
        )
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status >= 500 or status == 429:
            raise Unreachable(f"{url} responds with HTTP status {status}") from None
        where = url + path.partition("?")[0]
        raise NotAGateway(f"{where} responds with HTTP status {status}: is that a watchout gateway?") from None
    except ssl.SSLError as exc:
        if exc.reason in _NOT_TLS:
            raise NotAGateway(f"{url} does not use TLS, expected ws:// in place of wss://") from None
        raise NotAGateway(f"{url} cannot be trusted: {exc.reason or exc}") from None
    except InvalidMessage as exc:
        if isinstance(exc.__cause__, EOFError):  # closed without a byte: a proxy without its server, or TLS
            raise Unreachable(f"{url} closes the connection without a response (does it use TLS?)") from None
        raise NotAGateway(f"{url} does not respond with HTTP (if it uses TLS, write wss://)") from None
    except socket.gaierror as exc:
        raise Unreachable(f"the host name of {url} cannot be found ({exc.strerror})") from None
    except (ConnectionError, TimeoutError, OSError):
        raise Unreachable(f"nothing is running at {url} (is `honcho start` up?)") from None
    except InvalidHandshake as exc:
        raise NotAGateway(f"{url} does not respond as a WebSocket server: {str(exc)[:200]!a}") from None
