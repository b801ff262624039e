"""Kept HTTP/1.1 connections to one ML service, with one request at a time on each.

From the bus to the result, a frame takes 631 calls of Python functions with the client of aiohttp, 472 with this one
(docs/performance.md). It posts bodies and nothing else: it follows no redirect, keeps no cookie, uses no proxy, and
does not decompress.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

import aiohappyeyeballs
from yarl import URL

from watchout.common.supervisor import Alarm
from watchout.common.toolbox.http_bounds import KEEPALIVE_S, BodyTooLarge
from watchout.common.toolbox.name_lookup import look_up
from watchout.common.toolbox.reason import reason
from watchout.common.toolbox.renewed import Renewed
from watchout.mlbridge.targets.http_response import BadResponse, HttpResponse, ResponseReader

#: How long the addresses of a name are kept, in seconds.
ADDRESSES_KEPT_S: Final = 10.0
#: Pause before the next address of a name is tried beside the one before (RFC 8305 section 5), in seconds.
NEXT_ADDRESS_S: Final = 0.25

_ENDS: Final = "no connection: the bridge ends"


class NoConnection(Exception):
    """No connection to the service could be opened; the text says why."""


class NoResponse(Exception):
    """A request had no whole response; the text says what came instead."""


class _Connection(asyncio.Protocol):
    """One connection. `answer` is the future of the request that is under way; None: it is idle.

    `is_abandoned`: nobody waits for it any more although the event loop may still make it.
    """

    __slots__ = ("_owner", "_reader", "answer", "deadline", "idle_since", "is_abandoned", "transport")

    def __init__(self, owner: HttpConnections, max_body_bytes: int) -> None:
        self._owner = owner
        self._reader = ResponseReader(max_body_bytes)
        self.answer: asyncio.Future[HttpResponse] | None = None
        self.deadline = 0.0
        self.idle_since = 0.0
        self.is_abandoned = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if self.is_abandoned:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None or answer.done():  # nobody asked
            self.transport.abort()
            return
        try:
            response = self._reader.feed(data)
        except (BadResponse, BodyTooLarge) as fault:
            answer.set_exception(fault if isinstance(fault, BodyTooLarge) else NoResponse(str(fault)))
            self.transport.abort()
            return
        if response is not None:
            answer.set_result(response)
            if response.is_last:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        answer = self.answer
        if answer is None or answer.done():
            return
        if exc is not None and not self._reader.has_begun:
            answer.set_exception(NoResponse(f"no HTTP answer: {reason(exc)}"))
            return
        try:
            answer.set_result(self._reader.end())
        except BadResponse as fault:
            answer.set_exception(NoResponse(str(fault) or "it closed the connection without an answer"))


class HttpConnections:
    """Posts bodies to one URL, over connections that are kept. Create and use it in a running loop; `close` it.

    Args:
        url: where bodies are posted to. Its user and password become ``Authorization``, unless a header has that name.
        headers: sent with every request, over those of this class.
        connections: most connections at a time; further requests wait for one.
        timeout_s: deadline of a request from connecting to the last byte, in seconds.
        max_body_bytes: most bytes of a response's body.
        tls: the context of each new connection for ``https``; None: certificates of the system's authorities.

    Raises:
        ValueError: a header holds a line end or a NUL.
    """

    def __init__(
        self,
        url: URL,
        headers: Sequence[tuple[str, str]],
        *,
        connections: int,
        timeout_s: float,
        max_body_bytes: int,
        tls: Renewed[ssl.SSLContext] | None = None,
    ) -> None:
        self._url = url
        self._head = request_head(url, headers)
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._tls = tls or Renewed("", (), ssl.create_default_context) if url.scheme == "https" else None
        self._loop = asyncio.get_running_loop()
        #: Requests that may still begin; 0 while others wait for their turn.
        self._room = connections
        self._waiters: deque[asyncio.Future[None]] = deque()
        #: The one that was used last is last.
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._addresses: tuple[float, list[tuple[Any, ...]]] = (float("-inf"), [])
        self._deadlines = Alarm(self._on_deadline, "deadlines of the ML service")
        self._expiry = Alarm(self._expire, "idle connections to the ML service")
        #: Whether these alarms are set: they ring and are set anew, and not for each request.
        self._watches_deadlines = self._watches_idle = False
        self._closed = False

    async def post(self, *body: bytes | memoryview, headers: bytes = b"") -> HttpResponse:
        """Post a body and return the response.

        Args:
            *body: the body, in parts that are not joined.
            headers: further header lines of this request, each with its line end.

        Raises:
            NoConnection: no connection could be opened.
            NoResponse: the connection ended, or what came is no HTTP response.
            watchout.common.toolbox.http_bounds.BodyTooLarge: the response is over the limit.
            TimeoutError: the deadline passed.
        """
        deadline = self._loop.time() + self._timeout_s
        connection = self._take() if self._room else None
        if connection is not None:
            self._room -= 1
        else:
            async with asyncio.timeout_at(deadline):
                await self._wait_for_room()
                try:
                    connection = self._take() or await self._connect()
                except BaseException:
                    self._give_room()
                    raise
        answer: asyncio.Future[HttpResponse] = self._loop.create_future()
        connection.answer = answer
        connection.deadline = deadline
        self._busy.add(connection)
        if not self._watches_deadlines:
            self._watch_deadlines(deadline)
        transport = connection.transport
        length = sum(map(len, body))
        transport.writelines((b"%b%bContent-Length: %d\r\n\r\n" % (self._head, headers, length), *body))
        try:
            return await answer
        finally:
            self._busy.discard(connection)
            connection.answer = None
            self._give_room()
            if not answer.done() or answer.cancelled() or transport.get_write_buffer_size():
                # To close it would be to wait until the service takes the rest of the request, which it may never do.
                transport.abort()
            elif not transport.is_closing():
                self._keep(connection)

    async def close(self) -> None:
        """Abort all connections. Requests under way fail."""
        self._closed = True
        self._deadlines.cancel()
        self._expiry.cancel()
        for connection in (*self._idle, *self._busy):
            connection.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    def lost(self, connection: _Connection) -> None:
        """Forget a connection that ended."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    async def _wait_for_room(self) -> None:
        """Wait until fewer requests than connections are under way, in the order of the calls."""
        if self._room:
            self._room -= 1
            return
        turn = self._loop.create_future()
        self._waiters.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._give_room()  # it came together with the cancellation
            raise

    def _give_room(self) -> None:
        """Let the next request begin."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._room += 1

    def _take(self) -> _Connection | None:
        """Take the connection that was used last; None: there is none."""
        if self._closed:
            raise NoConnection(_ENDS)
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def _keep(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if self._closed:
            connection.transport.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if not self._watches_idle:
            self._watch_idle(connection.idle_since + KEEPALIVE_S)

    def _expire(self) -> None:
        """Close the connections that were idle for `KEEPALIVE_S`."""
        idle, now = self._idle, self._loop.time()
        while idle and idle[0].idle_since + KEEPALIVE_S <= now:
            idle.popleft().transport.abort()
        self._watch_idle(idle[0].idle_since + KEEPALIVE_S if idle else None)

    def _watch_idle(self, at: float | None) -> None:
        self._watches_idle = at is not None
        self._expiry.set(at)

    def _on_deadline(self) -> None:
        """End the requests whose deadline has passed, and watch for the next one."""
        now = self._loop.time()
        for connection in [each for each in self._busy if each.deadline <= now]:
            if connection.answer is not None and not connection.answer.done():
                connection.answer.set_exception(TimeoutError())
            connection.transport.abort()
        self._watch_deadlines(min((each.deadline for each in self._busy if each.deadline > now), default=None))

    def _watch_deadlines(self, at: float | None) -> None:
        self._watches_deadlines = at is not None
        self._deadlines.set(at)

    async def _connect(self) -> _Connection:
        """Open a connection. Raises `NoConnection`."""
        host = self._url.raw_host
        assert host is not None, "the settings check that a URL names its host"
        try:
            addresses = await self._resolve(host)
        except OSError as error:
            detail = f" ({error.strerror})" if error.strerror else ""
            raise NoConnection(f"no connection: its name has no address{detail}") from None
        connection = _Connection(self, self._max_body_bytes)
        try:
            sock = await aiohappyeyeballs.start_connection(
                cast("Any", addresses), happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=self._loop
            )
            await self._loop.create_connection(
                lambda: connection,
                sock=sock, ssl=None if self._tls is None else self._tls.look(),
                server_hostname=None if self._tls is None else host,
            )  # fmt: skip
        except ssl.SSLCertVerificationError as error:
            text = getattr(error, "verify_message", "") or type(error).__name__
            raise NoConnection(f"its certificate is not accepted: {text}") from None
        except OSError as error:
            raise NoConnection(f"no connection: {reason(error)}") from None
        except asyncio.CancelledError:
            connection.is_abandoned = True  # with TLS the event loop may be past the step at which it closes it
            raise
        if self._closed:
            connection.transport.abort()
            raise NoConnection(_ENDS)
        return connection

    async def _resolve(self, host: str) -> list[tuple[Any, ...]]:
        """Return the addresses of a name, looked up `ADDRESSES_KEPT_S` ago at most. Raises `OSError`."""
        at, found = self._addresses
        now = self._loop.time()
        if now - at >= ADDRESSES_KEPT_S:
            found = await look_up(host, self._url.port or 0)
            self._addresses = now, found
        return found


def request_head(url: URL, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the request line and the headers of every request.

    Args:
        url: where to; its user and password become ``Authorization``.
        headers: of every request; a later one replaces an earlier one of its name, whatever its case.

    Raises:
        ValueError: one holds a line end or a NUL.
    """
    every = {"host": ("Host", url.host_port_subcomponent or "")}
    if url.user is not None or url.password is not None:
        every["authorization"] = ("Authorization", f"Basic {_credentials(url)}")
    every |= {name.lower(): (name, value) for name, value in headers}
    lines = [f"POST {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in every.values())]
    if any(mark in line for line in lines for mark in "\r\n\0"):
        raise ValueError("a header of the ML service holds a line end")
    return "\r\n".join([*lines, ""]).encode()


def _credentials(url: URL) -> str:
    """Return the user and the password of a URL as RFC 7617 has them."""
    return base64.b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
