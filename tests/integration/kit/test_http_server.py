"""The HTTP servers of the tests leave no connection open, also of who reads nothing of what they send."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from tests.kit.http_server import HttpServer, flood


async def test_a_server_ends_the_connection_of_a_client_that_reads_nothing() -> None:
    begun = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        begun.set()
        return await flood(request)

    server = HttpServer(respond)
    await server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        await asyncio.sleep(0)
        await server.stop()
        transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined] # as tests/kit/left_open.py
        assert not [each for each in transports.values() if each._sock is not None]
