"""Which server is tried first, and that an attempt that is ended leaves nothing open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.kit.clients import eventually
from watchout.common.bus.nats import dialing
from watchout.common.bus.nats.dialing import DialCallbacks, DialedClient, Dialer, DialError, close_surely
from watchout.common.settings import Settings, load
from watchout.common.settings.bus_servers import BusServer

#: Of documentation (RFC 5737, RFC 3849).
FAR = ("203.0.113.1", "203.0.113.2", "2001:db8::1")


@pytest.mark.parametrize("here", ["127.0.0.1", "::1"])
async def test_a_server_of_this_machine_is_tried_first_and_the_lost_one_last(here: str) -> None:
    hosts = [f"[{host}]" if ":" in host else host for host in (FAR[0], here, *FAR[1:])]
    settings = load({"WATCHOUT_BUS": ",".join(f"nats://{host}:4222" for host in hosts)})
    dialer = Dialer.of(settings, "inbox")
    orders = set()
    for _ in range(50):
        tried = [candidate.address for candidate in await dialer._candidates(None)]
        assert tried[0] == here
        orders.add(tuple(tried[1:]))
    assert len(orders) > 1, "the others in random order"
    own = settings.bus[1]
    assert [candidate.address for candidate in await dialer._candidates(own)][-1] == here


class Server:
    """Greets like NATS, and answers pings; `opened` are its connections, and `left` those that clients left open."""

    def __init__(self, max_payload: int = 1 << 20) -> None:
        self.max_payload = max_payload
        self.opened = self.left = 0
        #: Whether it reads nothing after a ping.
        self.hangs = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.left += 1
        try:
            writer.write(b'INFO {"server_id":"a","max_payload":%d}\r\n' % self.max_payload)
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                    while self.hangs:
                        await asyncio.sleep(0.01)
        finally:
            self.left -= 1
            writer.close()


@asynccontextmanager
async def two_ports_of(server: Server) -> AsyncIterator[Settings]:
    """Serve at two ports, which settings name; nothing may be open there at the end."""
    async with (
        await asyncio.start_server(server.serve, "127.0.0.1", 0) as first,
        await asyncio.start_server(server.serve, "127.0.0.1", 0) as second,
    ):
        ports = [each.sockets[0].getsockname()[1] for each in (first, second)]
        yield load({"WATCHOUT_BUS": ",".join(f"nats://127.0.0.1:{port}" for port in ports)})
        await eventually(lambda: not server.left, 10, "a connection is left open")


def dial(settings: Settings) -> Coroutine[Any, Any, tuple[DialedClient, BusServer]]:
    async def failed(error: Exception) -> None:
        raise AssertionError(error)

    async def ended() -> None: ...

    return Dialer.of(settings, "inbox").dial(DialCallbacks(failed, ended, ended))


async def test_a_dial_that_is_cancelled_at_any_turn_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers are dialed at once: either may be connected, or be about to be, when the other one is taken."""
    monkeypatch.setattr(dialing, "NEXT_ATTEMPT_S", 0)
    server = Server()
    turns, connected = 0, 0
    async with two_ports_of(server) as settings:
        while connected < 20:
            work = asyncio.create_task(dial(settings))
            await cancel_after(turns, work)
            turns += 1
            if not work.cancelled():
                connected += 1
                await close_surely(work.result()[0])
    assert server.opened > turns, "both were dialed"


async def test_a_close_that_is_cancelled_at_any_turn_closes_the_connection() -> None:
    async with two_ports_of(Server()) as settings:
        for turns in range(1, 10):  # before its first turn it has not begun
            client, _ = await dial(settings)
            await cancel_after(turns, asyncio.create_task(close_surely(client)))


async def test_a_server_that_cannot_be_used_is_left() -> None:
    server = Server(max_payload=100)
    async with two_ports_of(server) as settings:
        with pytest.raises(DialError, match="100"):
            await dial(settings)
    assert server.opened == 2


async def test_a_connection_whose_server_takes_nothing_more_is_dropped_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialing, "CONNECT_TIMEOUT_S", 0.1)
    server = Server()
    server.hangs = True
    async with two_ports_of(server) as settings:
        client, _ = await dial(settings)
        client.send_last([("a", bytes(8 << 20), "")])  # more than the kernel takes
        client.abandon()
        async with asyncio.timeout(30):
            await client._transport._io_writer.wait_closed()
        server.hangs = False


async def cancel_after(turns: int, work: asyncio.Task[Any]) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
