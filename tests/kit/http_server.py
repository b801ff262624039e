"""An HTTP server on loopback for tests of clients, and responses of servers that do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.kit.ports import free_port

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """Passes every request, whatever its method and path, to `respond`; may be started again on the same port."""

    def __init__(self, respond: Respond, **options: Any) -> None:
        self._respond = respond
        self._options = options
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = self.port or free_port()  # of nobody else while it is stopped
        app = web.Application(**self._options)
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls, reuse_address=True)
        await site.start()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await clean_up(runner)


async def clean_up(runner: web.AppRunner) -> None:
    """End a server, and drop its connections: aiohttp closes them, which waits for who reads nothing of a response."""
    server = runner.server
    open_ones = [] if server is None else [connection.transport for connection in server.connections]
    try:
        await runner.cleanup()
    finally:
        for transport in open_ones:
            if transport is not None:
                transport.abort()
    await asyncio.sleep(0)  # they give back their sockets


async def drip(request: web.Request) -> web.StreamResponse:
    """One byte after the other, without end."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(OSError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)
    return response


async def silence(_: web.Request) -> web.StreamResponse:
    """Nothing for a minute."""
    await asyncio.sleep(60)
    return web.Response()


async def flood(request: web.Request) -> web.StreamResponse:
    """Ten megabytes."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(OSError):
        for _ in range(160):
            await response.write(b" " * 65536)
    return response
