"""A client of the edge protocol (docs/protocol.md): connects, authenticates with the first message, reconnects.

Used by `publish` and `watch`. Whether it reconnects after a close code is decided by `may_reconnect`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import pybase64
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from watchout.common.errors import CloseCode, ErrorCode
from watchout.common.media.frames import Frame, FrameFault, parse_binary
from watchout.common.toolbox.retry import backoff_s
from watchout.ctl.environment import Failure
from watchout.ctl.terminal import printable

#: Deadlines in seconds: of connecting, of the reply to a request, and of closing.
OPEN_TIMEOUT_S: Final = 10.0
REPLY_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 2.0
#: Seconds between two attempts within the time of `--wait`.
WAIT_STEP_S: Final = 0.25
#: First and longest pause before a reconnect, in seconds.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 10.0
#: Seconds after which a connection counts as stable: the back-off starts from the beginning.
STEADY_S: Final = 5.0
#: Received frames that wait in this process; beyond it the socket is not read, and the gateway drops frames.
MAX_QUEUE: Final = 2

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
#: Error codes after which the same request may succeed later.
_TRANSIENT: Final = (ErrorCode.ROUTING_ERROR, ErrorCode.RATE_LIMITED, ErrorCode.AUTH_UNAVAILABLE,
                     ErrorCode.TOO_MANY_CONNECTIONS, ErrorCode.AUTH_TIMEOUT)  # fmt: skip

#: Reasons that OpenSSL gives for a response that is not TLS.
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")

Message = dict[str, Any]


class EdgeTokenRefused(Failure):
    """The gateway refused the token (`AUTH_FAILED`). Raised by `EdgeConnection.request`.

    `keep_connected` adds where the token comes from and ends the command.
    """


class ConnectionLost(Exception):
    """The connection to the gateway ended; raised by the methods of `EdgeConnection`. The text says why.

    `keep_connected` catches it and connects again.
    """


def may_reconnect(code: int | None) -> bool:
    """Whether a client may reconnect unchanged after this close code; None: the connection was lost without one."""
    if code is None or 4400 <= code <= 4499:
        return True
    return code in (CloseCode.GOING_AWAY, CloseCode.INTERNAL, CloseCode.RESTART, CloseCode.TRY_LATER)


def encode_frame(stream_id: str, timestamp: int, picture: bytes, *, binary: bool) -> bytes:
    """Return a publisher's frame as a message, binary or JSON text; `timestamp` in ms since 1970."""
    if binary:
        return Frame(stream_id, 0, timestamp, picture=picture).to_binary()
    return b'{"type":"video-frame","streamId":"%b","timestamp":%d,"data":"%b"}' % (
        stream_id.encode("ascii"),
        timestamp,
        pybase64.b64encode(picture),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Where and how to connect. Made by the commands from their options.

    Attributes:
        url: the gateway, as ``ws://`` or ``wss://`` without a path.
        token: returns the session token; called when a connection is open.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.
        token_origin: where the token comes from, a sentence for when it is refused; empty: the user gave it.
        wait_s: seconds in which the first connection is tried again.
    """

    url: str
    token: Callable[[], str]
    max_message_bytes: int
    token_origin: str = ""
    wait_s: float = 0.0


class EdgeConnection:
    """An open WebSocket to a gateway. `keep_connected` makes one for each attempt.

    All methods raise `ConnectionLost` when the client may reconnect, and `Failure` when it must not.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_error = ""

    async def send(self, message: Message) -> None:
        """Send a JSON message."""
        await self.send_frame(msgspec.json.encode(message), binary=False)

    async def send_frame(self, data: bytes, *, binary: bool) -> None:
        """Send an encoded message; return when the socket has room for the next one."""
        try:
            await self._socket.send(data, text=not binary)
        except ConnectionClosed as exc:
            raise self._verdict(exc) from None

    async def receive(self) -> Frame | Message:
        """Return the next message. Error messages are returned too, and quoted when the gateway closes."""
        try:
            data = await self._socket.recv(decode=False)
        except ConnectionClosed as exc:
            raise self._verdict(exc) from None
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, FrameFault, UnicodeError, RecursionError) as exc:
            raise Failure(f"the server does not use watchout's protocol: {printable(exc)}") from None

    def _decode(self, data: bytes) -> Frame | Message:
        """Return a frame, or any other message as an object."""
        if data[:1] != b"{":
            binary = parse_binary(data)
            return Frame(
                binary.stream_id or "",
                binary.frame_id,
                binary.timestamp or 0,
                picture=binary.picture,
                codec=binary.codec,
            )
        message = msgspec.json.decode(data, type=dict[str, Any])
        match message:
            case {"type": "video-frame", "streamId": str(stream), "frameId": int(number), "data": str(text)}:
                at = message.get("timestamp")
                at_ms = int(at) if isinstance(at, int | float) else 0
                return Frame(stream, number, at_ms, text=b'"%b"' % text.encode())
            case {"type": "error"}:
                self._last_error = f"{printable(message.get('code', ''))}: {printable(message.get('message', ''))}"
        return message

    async def request(self, message: Message) -> Message:
        """Send `message` and return its `success`; other messages before it are ignored."""
        await self.send(message)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                while True:
                    reply = await self.receive()
                    match reply:
                        case Frame():
                            continue
                        case {"type": "success"}:
                            return reply
                        case {"type": "error", "code": code} if code in _TRANSIENT:
                            raise ConnectionLost(self._last_error)
                        case {"type": "error", "code": ErrorCode.AUTH_FAILED}:
                            raise EdgeTokenRefused(f"the token was refused ({self._last_error})")
                        case {"type": "error"}:
                            raise Failure(self._last_error)
        except TimeoutError:
            raise ConnectionLost(f"no reply to {message['type']} within {REPLY_TIMEOUT_S:.0f} s") from None

    async def close(self) -> None:
        """Close with the closing handshake, after everything that was sent."""
        await self._socket.close()

    def _verdict(self, exc: ConnectionClosed) -> ConnectionLost | Failure:
        """Return the exception for a closed socket, by its close code."""
        last_error = f" ({self._last_error})" if self._last_error else ""
        if exc.rcvd is None:
            if exc.sent is not None and exc.sent.code == CloseCode.TOO_BIG:
                return Failure("the gateway sent a message over MAX_MESSAGE_BYTES; give this command the same setting")
            return ConnectionLost(f"the connection was lost{last_error}")
        reason = f" {printable(exc.rcvd.reason)}" if exc.rcvd.reason else ""
        sentence = f"the gateway closed the connection with {exc.rcvd.code}{reason}{last_error}"
        return ConnectionLost(sentence) if may_reconnect(exc.rcvd.code) else Failure(sentence)


async def keep_connected(
    edge: Edge, path: str, talk: Callable[[EdgeConnection], Awaitable[None]], notify: Callable[[str], None]
) -> None:
    """Run `talk` on an authenticated connection until it returns; after each lost connection, on a new one.

    Args:
        edge: where to connect.
        path: ``/streams/register`` or ``/streams/subscribe``.
        talk: the conversation after authentication.
        notify: gets a line on each lost connection, with the pause before the next attempt.

    Raises:
        Failure: no gateway responds within `edge.wait_s`, or it refuses the client for good.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + edge.wait_s
    responded = False
    attempt = 0
    while True:
        opened_at = loop.time()
        try:
            socket = await _open(edge, path)
            responded = True
            connection = EdgeConnection(socket)
            try:
                await _authenticate(connection, edge)
                await talk(connection)
                return
            finally:
                await connection.close()
        except _UnreachableError as exc:
            why = str(exc)
            if not responded and loop.time() >= give_up_at:
                raise Failure(why) from None
        except ConnectionLost as lost:
            why = str(lost)
            if loop.time() - opened_at > STEADY_S:
                attempt = 0
        if not responded:
            await asyncio.sleep(min(WAIT_STEP_S, max(0.0, give_up_at - loop.time())))
            continue
        delay = backoff_s(attempt, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MOST_S, chance=random.random())
        attempt += 1
        notify(f"{why}; trying again in {delay:.1f} s")
        await asyncio.sleep(delay)


async def _authenticate(connection: EdgeConnection, edge: Edge) -> None:
    """Send `auth`; a refused token is reported with its origin."""
    try:
        await connection.request({"type": "auth", "token": edge.token()})
    except EdgeTokenRefused as refused:
        raise Failure(f"{refused.message}{f': {edge.token_origin}' if edge.token_origin else ''}") from None


class _UnreachableError(Exception):
    """No gateway accepts the connection now. Raised by `_open`; the text is a sentence.

    `keep_connected` tries again, and ends the command with a `Failure` when that takes too long.
    """


async def _open(edge: Edge, path: str) -> ClientConnection:
    """Open a WebSocket. Raises `_UnreachableError`, or `Failure` where another attempt would not help."""
    try:
        return await connect(
            edge.url + path,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            compression=None,
            # A frame that was published in binary is a third larger for a JSON viewer.
            max_size=2 * edge.max_message_bytes,
            max_queue=MAX_QUEUE,
            proxy=None if urlsplit(edge.url).hostname in _LOOPBACK else True,
        )
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status >= 500 or status == 429:
            raise _UnreachableError(f"{edge.url} responds with HTTP status {status}") from None
        raise Failure(f"{edge.url}{path} responds with HTTP status {status}: is that a watchout gateway?") from None
    except ssl.SSLError as exc:
        if exc.reason in _NOT_TLS:
            raise Failure(f"{edge.url} does not use TLS, expected ws:// in place of wss://") from None
        raise Failure(f"{edge.url} cannot be trusted: {exc.reason or exc}") from None
    except InvalidMessage as exc:
        if isinstance(exc.__cause__, EOFError):  # closed without a byte: a proxy without its server, or TLS
            raise _UnreachableError(f"{edge.url} closes the connection without a response (does it use TLS?)") from None
        raise Failure(f"{edge.url} does not respond with HTTP (if it uses TLS, write wss://)") from None
    except socket.gaierror as exc:
        raise _UnreachableError(f"the host name of {edge.url} cannot be found ({exc.strerror})") from None
    except (ConnectionError, TimeoutError, OSError):
        raise _UnreachableError(f"nothing is running at {edge.url} (is `honcho start` up?)") from None
    except InvalidHandshake as exc:
        raise Failure(f"{edge.url} does not respond as a WebSocket server: {printable(exc)}") from None
