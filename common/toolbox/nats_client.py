"""The NATS client: sends no credentials to a server without TLS where TLS is demanded, and has an end that cannot hang.

A thin layer over nats-py, used for the bus between machines and for the ML service behind NATS.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.transport import TcpTransport, WebSocketTransport
from nats.errors import Error as NatsError

from watchout.common.toolbox.futures import in_background

#: What was written to an abandoned connection may take so long to go out, in seconds.
LINGER_S: Final = 2.0


class NoTlsError(NatsError):
    """The server does not begin TLS. Raised within nats-py, by `StrictClient`; nothing was sent to the server."""

    def __str__(self) -> str:
        return "the server does not begin TLS"


class StrictClient(Client):
    """A NATS client that sends nothing, not even credentials, to a server that does not begin TLS where it is demanded.

    Args:
        demand_tls: Whether TLS is demanded.

    Attributes:
        greeting: What the server last said of itself; empty before the first time.

    """

    def __init__(self, *, demand_tls: bool = False) -> None:
        super().__init__()
        self.demand_tls = demand_tls
        self.greeting: dict[str, Any] = {}

    @property
    def server_name(self) -> str:
        """The name of the server, as JetStream calls it; empty before it has said it."""
        return str(self.greeting.get("server_name") or "")

    def abandon(self, *, linger_s: float = LINGER_S) -> None:
        """Close the socket and end the tasks of nats-py, in whatever state they are; a second call changes nothing.

        In contrast to `close`, which takes several turns of the event loop and waits for a server that hangs, it cannot
        be cancelled half-way. `closed_cb` is not called, and what was not handed to the socket yet is dropped.

        Args:
            linger_s: How long what was written may take to go out, in seconds; 0: it is dropped.

        """
        self._status = Client.CLOSED
        messages = [each._wait_for_msgs_task for each in self._subs.values()]
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task, *messages):
            if task is not None:
                task.cancel()
        transport = self._transport
        if isinstance(transport, WebSocketTransport):
            in_background(_end_websocket(transport))
        elif isinstance(transport, TcpTransport) and (writer := transport._io_writer) is not None:
            if linger_s:
                writer.close()
                asyncio.get_running_loop().call_later(linger_s, writer.transport.abort)
            else:
                writer.transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.greeting = info
        secure = info.get("tls_required") or info.get("tls_available")
        if initial_connection and self.demand_tls and not secure:
            raise NoTlsError
        if initial_connection and self.demand_tls:
            info["tls_required"] = True  # what the library then looks at
        await super()._process_info(info, initial_connection)


async def _end_websocket(transport: WebSocketTransport) -> None:
    """Close the WebSocket, and the HTTP session that nats-py opened for it."""
    transport.close()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(LINGER_S):
            await transport.wait_closed()  # type: ignore[no-untyped-call]
    finally:
        if transport._client is not None:
            await transport._client.close()
