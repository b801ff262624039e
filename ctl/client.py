"""A client of the edge protocol (docs/protocol.md): connects, authenticates with the first message, comes back.

Shared by `publish` and `watch`. Close codes decide what happens: `may_return` is the protocol's rule.
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

OPEN_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 2.0
#: Pause between two attempts while `--wait` lasts.
WAIT_STEP_S: Final = 0.25
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 10.0
#: A connection that stood for so long starts the back-off anew.
STEADY_S: Final = 5.0
#: Frames that may wait in this process; past it the socket is not read, and the gateway skips.
MAX_QUEUE: Final = 2

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
#: Answers after which the same question may succeed.
_TRY_AGAIN: Final = (ErrorCode.ROUTING_ERROR, ErrorCode.RATE_LIMITED, ErrorCode.AUTH_UNAVAILABLE,
                     ErrorCode.TOO_MANY_CONNECTIONS, ErrorCode.AUTH_TIMEOUT)  # fmt: skip

#: What OpenSSL says of an answer that is no TLS.
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")

Message = dict[str, Any]


class EdgeTokenRefused(Failure):
    """The gateway does not know the token."""


class Dropped(Exception):
    """The connection is gone and may come back; the text says why."""


def may_return(code: int | None) -> bool:
    """Whether a client that was closed with `code` reconnects as it is; None: the socket was lost."""
    if code is None or 4400 <= code <= 4499:
        return True
    return code in (CloseCode.GOING_AWAY, CloseCode.INTERNAL, CloseCode.RESTART, CloseCode.TRY_LATER)


def encode_frame(stream_id: str, timestamp: int, picture: bytes, *, binary: bool) -> bytes:
    """A camera's frame as a message, binary or JSON text."""
    if binary:
        return Frame(stream_id, 0, timestamp, picture=picture).to_binary()
    return b'{"type":"video-frame","streamId":"%b","timestamp":%d,"data":"%b"}' % (
        stream_id.encode("ascii"),
        timestamp,
        pybase64.b64encode(picture),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Where to connect, and as whom.

    `token` is called once a gateway answers; `token_origin` says in a sentence where it comes from, for when it is
    refused.
    """

    url: str
    token: Callable[[], str]
    max_message_bytes: int
    token_origin: str = ""
    wait_s: float = 0.0


class Connection:
    """One socket. Everything here raises `Dropped` when it is gone, and `Failure` when it must not come back."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_error = ""

    async def send(self, message: Message) -> None:
        """Send JSON."""
        await self.send_frame(msgspec.json.encode(message), binary=False)

    async def send_frame(self, data: bytes, *, binary: bool) -> None:
        """Send a message; returns when the socket has room for the next one."""
        try:
            await self._socket.send(data, text=not binary)
        except ConnectionClosed as exc:
            raise self._verdict(exc) from None

    async def receive(self) -> Frame | Message:
        """The next message. Errors are returned as any other, and remembered for when the socket closes."""
        try:
            data = await self._socket.recv(decode=False)
        except ConnectionClosed as exc:
            raise self._verdict(exc) from None
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, FrameFault, UnicodeError, RecursionError) as exc:
            raise Failure(f"the server does not speak watchout's protocol: {printable(exc)}") from None

    def _decode(self, data: bytes) -> Frame | Message:
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

    async def ask(self, message: Message) -> Message:
        """Send `message` and wait for its success; whatever else comes before that is passed over."""
        await self.send(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while True:
                    answer = await self.receive()
                    match answer:
                        case Frame():
                            continue
                        case {"type": "success"}:
                            return answer
                        case {"type": "error", "code": code} if code in _TRY_AGAIN:
                            raise Dropped(self._last_error)
                        case {"type": "error", "code": ErrorCode.AUTH_FAILED}:
                            raise EdgeTokenRefused(f"the token was refused ({self._last_error})")
                        case {"type": "error"}:
                            raise Failure(self._last_error)
        except TimeoutError:
            raise Dropped(f"no answer to {message['type']} within {ANSWER_TIMEOUT_S:.0f} s") from None

    async def close(self) -> None:
        """Close in order; what was sent before arrives before."""
        await self._socket.close()

    def _verdict(self, exc: ConnectionClosed) -> Dropped | Failure:
        said = f" ({self._last_error})" if self._last_error else ""
        if exc.rcvd is None:
            if exc.sent is not None and exc.sent.code == CloseCode.TOO_BIG:
                return Failure("the gateway sent a message over MAX_MESSAGE_BYTES; give this command the same setting")
            return Dropped(f"the connection was lost{said}")
        reason = f" {printable(exc.rcvd.reason)}" if exc.rcvd.reason else ""
        sentence = f"the gateway closed the connection with {exc.rcvd.code}{reason}{said}"
        return Dropped(sentence) if may_return(exc.rcvd.code) else Failure(sentence)


async def keep_connected(
    edge: Edge, path: str, talk: Callable[[Connection], Awaitable[None]], say: Callable[[str], None]
) -> None:
    """Run `talk` on an authenticated connection until it returns; after each drop, again on a new one.

    Raises `Failure` when nothing answers within `edge.wait_s`, or when the gateway says not to come back.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + edge.wait_s
    answered = False
    attempt = 0
    while True:
        opened_at = loop.time()
        try:
            socket = await _open(edge, path)
            answered = True
            connection = Connection(socket)
            try:
                await _sign_in(connection, edge)
                await talk(connection)
                return
            finally:
                await connection.close()
        except _NoAnswerError as exc:
            why = str(exc)
            if not answered and loop.time() >= give_up_at:
                raise Failure(why) from None
        except Dropped as dropped:
            why = str(dropped)
            if loop.time() - opened_at > STEADY_S:
                attempt = 0
        if not answered:
            await asyncio.sleep(min(WAIT_STEP_S, max(0.0, give_up_at - loop.time())))
            continue
        delay = backoff_s(attempt, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MOST_S, chance=random.random())
        attempt += 1
        say(f"{why}; trying again in {delay:.1f} s")
        await asyncio.sleep(delay)


async def _sign_in(connection: Connection, edge: Edge) -> None:
    try:
        await connection.ask({"type": "auth", "token": edge.token()})
    except EdgeTokenRefused as refused:
        raise Failure(f"{refused.message}{f': {edge.token_origin}' if edge.token_origin else ''}") from None


class _NoAnswerError(Exception):
    """Nothing took the connection; the text is a sentence."""


async def _open(edge: Edge, path: str) -> ClientConnection:
    try:
        return await connect(
            edge.url + path,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            compression=None,
            # A binary camera's frame grows by a third for a JSON viewer.
            max_size=2 * edge.max_message_bytes,
            max_queue=MAX_QUEUE,
            proxy=None if urlsplit(edge.url).hostname in _LOOPBACK else True,
        )
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status >= 500 or status == 429:
            raise _NoAnswerError(f"{edge.url} answers with HTTP status {status}") from None
        raise Failure(f"{edge.url}{path} answers with HTTP status {status}: is that a watchout gateway?") from None
    except ssl.SSLError as exc:
        if exc.reason in _NOT_TLS:
            raise Failure(f"{edge.url} does not speak TLS, expected ws:// in place of wss://") from None
        raise Failure(f"{edge.url} cannot be trusted: {exc.reason or exc}") from None
    except InvalidMessage as exc:
        if isinstance(exc.__cause__, EOFError):  # nothing came before the end: a proxy without its server, or TLS
            raise _NoAnswerError(f"{edge.url} ends the connection without an answer (does it speak TLS?)") from None
        raise Failure(f"{edge.url} does not speak HTTP (if it speaks TLS, write wss://)") from None
    except socket.gaierror as exc:
        raise _NoAnswerError(f"the host name of {edge.url} cannot be found ({exc.strerror})") from None
    except (ConnectionError, TimeoutError, OSError):
        raise _NoAnswerError(f"nothing is running at {edge.url} (is `honcho start` up?)") from None
    except InvalidHandshake as exc:
        raise Failure(f"{edge.url} does not answer as a WebSocket server: {printable(exc)}") from None
