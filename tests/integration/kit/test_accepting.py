"""A connection that is accepted while its server closes is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket


async def test_who_is_accepted_when_the_server_closes_is_let_go() -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = await loop.create_server(asyncio.Protocol, sock=listener)
    with socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        loop._accept_connection(asyncio.Protocol, listener, None, server)  # type: ignore[attr-defined]
        server.close()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(client, 1) == b""
