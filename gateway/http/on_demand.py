"""Loads aiohttp and the handlers of HTTP for the first request, which waits for them.

They are a third of what a gateway would load, and WebSocket clients need nothing of them: a gateway that starts again
is there for these sooner. They are loaded in a thread, so that frames go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from watchout.gateway.context import Context
from watchout.gateway.listen.dispatch import HttpConnection

if TYPE_CHECKING:
    from watchout.gateway.http.server import HttpServer

#: Seconds for which a gateway that ends waits for what is being loaded, to answer the requests that wait for it.
LOAD_S: Final = 1.0


class HttpOnDemand:
    """The `HttpServer` of a gateway, from the first request on; `gateway.app` closes it.

    The connections come from `listen.dispatch`, which calls `make_connection` for each that is HTTP.

    Args:
        context: What the gateway's connections share.
        make_server: Returns the server, with everything that it loads and the files that it reads. Called in a thread.
    """

    def __init__(self, context: Context, make_server: Callable[[Context], HttpServer] | None = None) -> None:
        self._context = context
        self._make_server = make_server or _make_server
        self._server: HttpServer | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: set[WaitingConnection] = set()

    def make_connection(self) -> HttpConnection:
        """Return the protocol of one connection: aiohttp's, or one that waits until aiohttp is loaded."""
        if self._server is not None:
            return self._server.make_connection()
        waiting = WaitingConnection()
        self._waiting.add(waiting)
        if self._loading is None or self._loading.done():  # the last attempt failed
            self._loading = self._context.tasks.start(self._load(), "load HTTP")
        return waiting

    async def _load(self) -> None:
        """Load what HTTP needs and let the waiting connections go on; they end if that fails, which is logged."""
        try:
            server = await asyncio.to_thread(self._make_server, self._context)
            await server.start()
            self._server = server
        finally:
            waiting, self._waiting = self._waiting, set()
            for connection in waiting:
                connection.go_on(None if self._server is None else self._server.make_connection())

    async def finish_requests(self) -> None:
        """Let requests under way finish, also those that wait, and drop their connections after a short while."""
        if self._loading is not None:
            await asyncio.wait((self._loading,), timeout=LOAD_S)
        if self._server is not None:
            await self._server.finish_requests()

    async def close(self) -> None:
        """Drop the remaining connections and release the application."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))
        if self._server is not None:
            await self._server.close()


class WaitingConnection(HttpConnection):
    """An HTTP connection that holds what it has received until `go_on`, and leaves everything to aiohttp then.

    Reading is paused meanwhile, so it holds no more than one read.
    """

    __slots__ = ("_http", "_input_ended", "_received", "_transport", "_writing_paused")

    def __init__(self) -> None:
        self._http: HttpConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._writing_paused = self._input_ended = False

    def go_on(self, http: HttpConnection | None) -> None:
        """Leave the connection to aiohttp's protocol; None: there is none, and the connection ends."""
        transport = self._transport
        if transport is None:  # lost meanwhile
            return
        if http is None:
            transport.abort()
            return
        self._http = http
        http.connection_made(transport)
        if self._writing_paused:
            http.pause_writing()
        received, self._received = self._received, b""
        http.data_received(received)
        if self._input_ended and not http.eof_received():
            transport.close()
        if not transport.is_closing():
            transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stop reading: the first request is there, and nothing can be done with more."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's classes do not inherit from asyncio's
        self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass a part of a request on, or keep it."""
        if self._http is None:
            self._received += data
        else:
            self._http.data_received(data)

    def eof_received(self) -> bool | None:
        """Handle the end of the peer's bytes, as aiohttp decides, once it is loaded."""
        if self._http is None:
            self._input_ended = True
            return True
        return self._http.eof_received()

    def pause_writing(self) -> None:
        """Pause aiohttp's writing, also that of the future."""
        self._writing_paused = True
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Resume aiohttp's writing."""
        self._writing_paused = False
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection."""
        self._transport = None
        self._received = b""
        if self._http is not None:
            self._http.connection_lost(exc)

    def close(self) -> None:
        """Close the connection, after the response that is under way, if there is one."""
        if self._http is not None:
            self._http.close()
        elif self._transport is not None:
            self._transport.close()

    def detach(self) -> bytes:
        """Release the connection for an upgrade, which aiohttp has read."""
        assert self._http is not None
        http, self._http, self._transport = self._http, None, None
        return http.detach()


def _make_server(context: Context) -> HttpServer:
    from watchout.gateway.http.server import HttpServer

    return HttpServer(context)
