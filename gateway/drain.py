"""Ends the clients of a gateway that shuts down: asks them to reconnect, waits, and cuts off those that stay."""

from __future__ import annotations

import asyncio
import contextlib

from watchout.gateway.context import Context


async def drain_clients(context: Context) -> None:
    """Close all WebSockets and MJPEG responses; return when they are gone, after `DRAIN_S` at the latest.

    Requires that `context.draining` is set and that the port accepts no more connections. A WebSocket gets a close
    frame with the code that asks the client to reconnect; those still open after `DRAIN_S` are dropped without one.
    """
    for socket in list(context.sockets):
        socket.end()
    for moving_picture in list(context.moving_pictures):
        moving_picture.end()
    if not context.sockets:
        context.all_gone.set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(context.settings.drain_s):
            await context.all_gone.wait()
    for socket in list(context.sockets):
        socket.abort()
