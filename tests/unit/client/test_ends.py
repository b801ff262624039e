"""No socket of a client outlives it, whatever step it is cancelled at, and nobody waits for one that is lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from watchout.client import connect
from watchout.client.commands import CloseSocket
from watchout.client.driver import Driver
from watchout.client.sockets import GatewaySocket


class Connection:
    """A connection in memory: nothing comes, no closing handshake ends, and what is sent takes two cancellations."""

    def __init__(self) -> None:
        self.transport = mock.Mock(spec=asyncio.Transport)
        self.closing = asyncio.Event()
        self.sending = asyncio.Event()

    async def recv(self, decode: bool) -> bytes:
        del decode
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, _: bytes, *, text: bool) -> None:
        del text
        self.sending.set()
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        raise asyncio.CancelledError

    async def close(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def socket(connection: Connection) -> GatewaySocket:
    return GatewaySocket(cast("Any", connection), lambda _: None)


def a_driver(socket: GatewaySocket) -> Driver[Any]:
    core: Any = SimpleNamespace(stop=lambda: [CloseSocket(abort=False)], due_at=None)
    nothing: Any = None
    driver: Driver[Any] = Driver(
        core, url="ws://127.0.0.1:1", tokens=nothing, max_message_bytes=1024, wait_s=None, on_phase=nothing,
        on_report=nothing, on_wake=nothing,
    )  # fmt: skip
    driver.socket = socket
    return driver


async def ended(*tasks: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_client_that_is_cancelled_while_it_closes_drops_its_socket(
    connection: Connection, socket: GatewaySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.client.sockets.CLOSE_S", 0.0)
    driver = a_driver(socket)
    closing = asyncio.create_task(driver.close())
    await connection.closing.wait()
    connection.transport.abort.assert_not_called()
    closing.cancel()
    await ended(closing, *driver._tasks)
    assert closing.cancelled()
    connection.transport.abort.assert_called()


async def test_a_socket_is_dropped_whose_closing_is_cancelled_before_it_begins(
    connection: Connection, socket: GatewaySocket
) -> None:
    driver = a_driver(socket)
    driver.do([CloseSocket(abort=False)])
    tasks = list(driver._tasks)
    for task in tasks:  # as the end of the program does
        task.cancel()
    await ended(*tasks)
    await asyncio.sleep(0)
    assert not connection.closing.is_set()
    connection.transport.abort.assert_called_once_with()


async def test_who_sends_is_told_that_the_connection_is_lost_although_its_end_is_cancelled(
    connection: Connection, socket: GatewaySocket
) -> None:
    running = asyncio.create_task(socket.run())
    sent = [asyncio.create_task(socket.send_and_wait(b"frame", binary=True)) for _ in range(3)]
    await connection.sending.wait()
    for _ in range(2):  # the first one ends the reading, the second one the wait for the writer
        running.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await ended(running, *sent)
    assert [task.result() for task in sent] == [False] * 3
    for task in asyncio.all_tasks():
        if task.get_name() == "watchout socket writer":
            task.cancel()
            await ended(task)


async def test_a_client_that_is_cancelled_while_one_part_closes_closes_all_others() -> None:
    client = connect("ws://127.0.0.1:1", token="token")
    began, closed = asyncio.Event(), []

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    def part(name: str) -> Any:
        async def close() -> None:
            closed.append(name)

        return SimpleNamespace(close=close)

    client._cameras = cast("Any", [part("camera"), SimpleNamespace(close=hang)])  # the last one is closed first
    client._former, client._viewer = [part("former viewer")], part("viewer")
    client._tokens, client._http = part("tokens"), part("http")
    subscription: Any = SimpleNamespace(news=asyncio.Event())
    client._subscriptions = {1: subscription}
    closing = asyncio.create_task(client.close())
    await began.wait()
    closing.cancel()
    await ended(closing)
    assert closing.cancelled()
    assert closed == ["camera", "former viewer", "viewer", "tokens", "http"]
    assert subscription.news.is_set()
