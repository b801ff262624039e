"""Runs aiohttp without a port of its own: makes its protocol for each HTTP connection, and ends them at shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final

from aiohttp import StreamReader, web

from watchout.common import log
from watchout.gateway.context import Context
from watchout.gateway.error_response import SERVER
from watchout.gateway.http.app import make_app
from watchout.gateway.http.expectations import make_request
from watchout.gateway.http.responses import HttpError
from watchout.gateway.listen.dispatch import HttpConnection
from watchout.gateway.listen.head import MAX_COOKIE_BYTES

#: Seconds for which requests under way may finish when the gateway ends.
SHUTDOWN_S: Final = 0.2
#: Seconds between two checks whether they have.
POLL_EVERY_S: Final = 0.01
#: Seconds after which an HTTP connection without a further request is closed.
KEEPALIVE_S: Final = 30.0
#: Seconds for which the rest of a refused body is read and discarded. If the connection were closed with unread bytes,
#: the kernel would reset it, and the client might lose the response.
LINGER_S: Final = 1.0

_log = log.get("gateway.http.server")


class JsonRequestHandler(web.RequestHandler, HttpConnection):
    """aiohttp's protocol for one HTTP connection, whose errors are JSON also when the request cannot be parsed.

    Created by `HttpServer.make_connection` for `ConnectionDispatcher`.
    """

    __slots__ = ("_input_ended", "body")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        #: The client sends no more, and gets its answers before the connection ends.
        self._input_ended = False
        #: The body of the newest request that is answered; None: none yet.
        self.body: StreamReader | None = None

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp returns None always
        """Handle that the client sends no more; return whether the connection stays open for answers to it.

        It does for requests that have come as a whole.
        """
        is_idle = self._waiter is not None and not self._waiter.done()
        bodies = (self.body, *(body for _, body in self._messages))
        if is_idle or not all(body is None or body.is_eof() for body in bodies):
            return False
        self._input_ended = True
        if not self._messages:
            self.close()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release everything; a body refers to its connection."""
        self.body = None
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response, the last one if the client sends no more and has its answers."""
        finished = await super().finish_response(request, resp, start_time)
        if self._input_ended and not self._messages:
            self.close()
        return finished

    def close(self) -> None:
        """Close the connection, after the response that is under way, if there is one."""
        is_idle = self._waiter is not None and not self._waiter.done()
        super().close()
        if is_idle:
            self.force_close()

    def detach(self) -> bytes:
        """Release the connection without closing it; return the bytes received after the last request."""
        rest, self._message_tail = self._message_tail, b""
        self.transport = None
        self.connection_lost(None)
        return rest

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log nothing about a body that could not be read: anyone can send one."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may quote the request
    ) -> web.StreamResponse:
        """Return the response to a request that could not be parsed, or whose handler failed."""
        if isinstance(exc, ConnectionError):  # the client disconnected
            error = HttpError(status, "INTERNAL_ERROR", "the connection was lost")
        elif status >= 500:
            _log.error("a request failed", path=request.path, exc_info=exc)
            error = HttpError(status, "INTERNAL_ERROR", "the request failed here")
        else:
            error = HttpError(status, "BAD_REQUEST", "not a valid HTTP request")
        response = error.response()
        response.headers["Server"] = SERVER  # aiohttp sends the signal that sets it only for parsed requests
        response.force_close()
        return response


class HttpServer:
    """aiohttp's application and its connections; `gateway.app` starts and closes it.

    The connections come from `listen.dispatch`, which calls `make_connection` for each that is HTTP.
    """

    def __init__(self, context: Context) -> None:
        self._runner = web.AppRunner(
            make_app(context), access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )

    async def start(self) -> None:
        """Set up the application; before the first `make_connection`."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        server.request_factory = functools.partial(_make_request, server.request_factory)

    def make_connection(self) -> HttpConnection:
        """Return aiohttp's protocol for one connection."""
        server = self._runner.server
        assert server is not None
        handler = JsonRequestHandler(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_field_size=MAX_COOKIE_BYTES,  # `listen.head.check_fields` bounds all other headers
            auto_decompress=False,  # no client compresses bodies; a small one could expand without bound
        )
        handler.access_logger = None  # a logged query might hold a token
        return handler

    async def finish_requests(self) -> None:
        """Let requests under way finish for `SHUTDOWN_S`, then drop their connections.

        `Server.shutdown` is not used: it fails once for each request that ends at the very moment of its deadline.
        """
        server = self._runner.server
        if server is None:
            return
        server.pre_shutdown()
        await _wait_until_closed(server)
        server.handler_cancellation = True
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await _wait_until_closed(server)

    async def close(self) -> None:
        """Drop the remaining connections and release the application."""
        await self.finish_requests()
        await self._runner.cleanup()


def _make_request(
    make: Callable[..., web.BaseRequest], message: Any, body: StreamReader, protocol: JsonRequestHandler, *rest: Any
) -> web.BaseRequest:
    """Make a request for aiohttp, by its own function `make`."""
    protocol.body = body
    if message.url.absolute and not message.url.relative().raw_path:  # RFC 9110 section 4.2.3
        message = message._replace(url=message.url.with_path("/", keep_query=True))
    return make_request(make, message, body, protocol, *rest)


async def _wait_until_closed(server: web.Server) -> None:
    """Wait until no HTTP connection is open, at most `SHUTDOWN_S`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_S):
            while server.connections:  # noqa: ASYNC110 - aiohttp has no event for it
                await asyncio.sleep(POLL_EVERY_S)
