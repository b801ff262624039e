"""No connection of the WebSocket target outlives who opened it, whatever step its task is cancelled at."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any
from unittest import mock

import pytest

from tests.kit.polling import until
from watchout.common.media.frames import Frame
from watchout.mlbridge.targets import reconnecting, websocket
from watchout.mlbridge.targets.target import TargetFailure
from watchout.mlbridge.targets.websocket import WebSocketTarget

FRAME = Frame("stream_1", 7, 1_700_000_000_000, picture=b"\xff\xd8\xff")


class Connection:
    """A connection in memory whose peer never answers the closing handshake.

    `send_error` is raised by `send`, at once; `is_ended`: no message comes any more.
    """

    def __init__(self, send_error: Exception | None, is_ended: bool) -> None:
        self.transport = mock.Mock(spec=asyncio.Transport)
        self.transport.get_write_buffer_size.return_value = 0
        self._send_error, self._is_ended = send_error, is_ended

    def __await__(self) -> Generator[Any, None, Connection]:
        yield from asyncio.sleep(0).__await__()
        return self

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> str:
        if not self._is_ended:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def send(self, _: bytes, *, text: bool) -> None:
        assert text
        if self._send_error is not None:
            raise self._send_error

    async def ping(self) -> asyncio.Future[float]:
        return asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        await asyncio.Event().wait()

    @property
    def is_dropped(self) -> bool:
        return bool(self.transport.abort.called)


class Service:
    """What `connect` of the library gives: connections in memory."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.send_error: Exception | None = None
        self.is_ended = False

    def connect(self, *_: object, **__: object) -> Connection:
        self.connections.append(Connection(self.send_error, self.is_ended))
        return self.connections[-1]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(websocket, "connect", made.connect)
    monkeypatch.setattr(reconnecting, "CLOSE_S", 0.01)
    monkeypatch.setattr(websocket, "MAX_ISOLATED", 1)
    return made


async def test_the_kept_connection_is_dropped_where_its_closing_handshake_is_cut_short(service: Service) -> None:
    target = WebSocketTarget("ws://127.0.0.1:1/", timeout_s=60)
    await target.open(lambda _: None)
    await until(lambda: service.connections)
    await asyncio.sleep(0)
    await target.close()
    assert [each.is_dropped for each in service.connections] == [True]


async def test_the_connection_of_an_isolated_frame_is_dropped_where_its_reader_never_began(service: Service) -> None:
    target = WebSocketTarget("ws://127.0.0.1:1/", timeout_s=60)
    await target.open(lambda _: None)
    await until(lambda: service.connections)
    service.send_error = OSError("the network is down")
    for number in (1, 2):  # the second one needs the place of the first
        with pytest.raises(OSError, match="the network is down"):
            await target.analyse(FRAME, isolated=True)
        await until(lambda: service.connections[-1].is_dropped)
        assert len(service.connections) == 1 + number
    await target.close()


async def test_the_connection_of_an_isolated_frame_is_dropped_where_its_closing_handshake_is_cut_short(
    service: Service,
) -> None:
    target = WebSocketTarget("ws://127.0.0.1:1/", timeout_s=60)
    await target.open(lambda _: None)
    await until(lambda: service.connections)
    service.is_ended = True
    for number in (1, 2):
        with pytest.raises(TargetFailure, match="it closed the connection"):
            await target.analyse(FRAME, isolated=True)
        await until(lambda: service.connections[-1].is_dropped)
        assert len(service.connections) == 1 + number
    await target.close()
