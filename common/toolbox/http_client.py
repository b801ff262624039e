"""The HTTP client for services that are not trusted: bounded bodies, no redirects, nothing from the environment.

A thin layer over aiohttp, used for the ML service, the alert webhook, the identity endpoints and ``watchout-ctl``.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from watchout.common.toolbox.http_bounds import KEEPALIVE_S, BodyTooLarge
from watchout.common.toolbox.reason import reason, reason_with_text

#: aiohttp warns about larger bodies that are not files, as it sends them in one piece.
MAX_PLAIN_BODY_BYTES: Final = 1 << 20

#: What a request raises, beside `TimeoutError`: the arguments of `http_reason`.
HTTP_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)


class ForbiddenAddress(OSError):
    """A `socket_factory` refuses to connect to an address: the webhook's does for addresses that are not public.

    The request fails like one to an unreachable server. The text says why and is safe to log.
    """


class _Connector(aiohttp.TCPConnector):
    """Aborts a connection whose request ends before the server has taken all of it.

    To close it would be to wait until the server takes the rest. One that hangs never does, and each request that it is
    given would leave a socket and a part of its body behind.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._in_use: set[asyncio.Transport] = set()

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        """Return a connection for one request."""
        connection = await super().connect(*args, **options)
        if (transport := connection.transport) is not None:
            self._in_use.add(transport)
            connection.add_callback(partial(self._given_back, transport))
        return connection

    def abort_unsent(self) -> None:
        """Abort the connections of requests that are not sent whole."""
        for transport in list(self._in_use):
            if transport.get_write_buffer_size():
                transport.abort()

    def _given_back(self, transport: asyncio.Transport) -> None:
        self._in_use.discard(transport)
        if transport.get_write_buffer_size():
            transport.abort()


class HttpClient:
    """Sends HTTP requests with aiohttp: keeps connections, follows no redirect, keeps no cookie, uses no proxy.

    Bodies are not decompressed, so that their size is what came over the network. Create it in a running loop;
    `close` it, or use it as an async context manager. A request raises `HTTP_ERRORS` or `TimeoutError`, of which
    `http_reason` makes a text for the log; `read_body` reads a response up to a limit.

    Args:
        user_agent: The ``User-Agent`` of every request.
        connections: Most connections at a time; further requests wait for one.
        headers: Sent with every request, over those of this class.
        timeout_s: Deadline of a request from connecting to the last byte, in seconds; None: the caller has one.
        tls: The context for ``https``; True: certificates of the system's authorities.
        resolver: Finds addresses of names; None: the system's resolver.
        dns_cache: Whether addresses are kept for 10 s; False: a name is looked up for each connection.
        socket_factory: Makes the socket for an address of ``getaddrinfo``, and may raise `ForbiddenAddress`.
        traces: Observers of requests, see aiohttp's ``TraceConfig``.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        connections: int,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        tls: ssl.SSLContext | bool = True,
        resolver: AbstractResolver | None = None,
        dns_cache: bool = True,
        socket_factory: Callable[[tuple[Any, ...]], socket.socket] | None = None,
        traces: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self._connector = _Connector(
            limit=connections,
            keepalive_timeout=KEEPALIVE_S,
            ssl=tls,
            resolver=resolver,
            use_dns_cache=dns_cache,
            socket_factory=socket_factory,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": user_agent, **(headers or {})},
            auto_decompress=False,
            trust_env=False,
            trace_configs=list(traces),
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def request(
        self,
        method: str,
        url: URL | str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        trace: object = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Return a context manager that sends the request and gives the `aiohttp.ClientResponse` with its headers.

        Args:
            method: ``GET``, ``POST``, …
            url: Where to.
            headers: Of this request alone.
            body: The body, None for none.
            trace: Handed to the observers as ``trace_request_ctx``.

        Raises:
            TimeoutError: The deadline passed.
            aiohttp.ClientError, OSError, ValueError: There is no response; `http_reason` says why.
        """
        data = body if body is None or len(body) <= MAX_PLAIN_BODY_BYTES else io.BytesIO(body)
        return self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False, trace_request_ctx=trace
        )

    async def close(self) -> None:
        """Close all connections. A request that is under way fails."""
        self._connector.abort_unsent()
        await self._session.close()


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the whole body of a response.

    Raises:
        BodyTooLarge: It has over `max_bytes`. Its connection is closed, not used again.
        TimeoutError, aiohttp.ClientError, OSError: It did not come whole.
    """
    announced = response.content_length
    if announced is not None:
        if announced > max_bytes:
            response.close()
            raise BodyTooLarge(max_bytes, announced)
        return await response.content.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise BodyTooLarge(max_bytes, None)
    return bytes(body)


def http_reason(exc: BaseException, *, with_text: bool = False) -> str:
    """Return why a request had no response, as a clause about the server: ``no connection: Connection refused``.

    Args:
        exc: What the request raised; a deadline is for the caller to name.
        with_text: Show the library's own text where the cause is none of the usual ones: for servers whose operator
            reads it, and only when neither URL nor headers hold a secret that it could repeat.
    """
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            text = getattr(exc.certificate_error, "verify_message", "") or type(exc.certificate_error).__name__
            return f"its certificate is not accepted: {text}"
        case aiohttp.InvalidURL():
            return "its URL cannot be used"
        case aiohttp.ClientConnectorDNSError():
            detail = exc.os_error.strerror  # a resolver that cannot be reached is another fault than a wrong name
            return (
                f"no connection: its name has no address ({detail})"
                if detail
                else "no connection: its name has no address"
            )
        case aiohttp.ClientConnectorError(os_error=ForbiddenAddress() as forbidden):
            return str(forbidden)
        case aiohttp.ClientConnectorError():
            return f"no connection: {reason(exc.os_error)}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientOSError():
            return f"no HTTP answer: {reason(exc)}"
    return reason_with_text(exc) if with_text else f"no HTTP answer: {type(exc).__name__}"
