"""The WebSocket target, against services of every temper."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from tests.integration.mlbridge.targets_kit import ALERT, PICTURE, WAIT_S, failure_of, frame, opened, shown
from tests.kit.polling import until
from tests.kit.ports import free_port
from tests.kit.relays import Relays
from watchout.mlbridge.targets import TargetFailure


class Service:
    """A WebSocket service that does with each frame what its `work` says."""

    def __init__(self, work: Callable[[ServerConnection, dict[str, Any]], Any]) -> None:
        self.work = work
        self.frames: list[dict[str, Any]] = []
        self.connections: list[ServerConnection] = []
        self.port = 0
        self._server: Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self, **options: Any) -> Service:
        self.port = self.port or free_port()  # of nobody else while it is stopped
        self._server = await serve(self._serve, "127.0.0.1", self.port, max_size=64 << 20, **options)
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close(close_connections=False)
            for connection in self.connections:
                connection.transport.abort()
            await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        async for message in connection:
            assert isinstance(message, str)
            self.frames.append(json.loads(message))
            task = asyncio.create_task(self.work(connection, self.frames[-1]))
            self._tasks.add(task)


@pytest.fixture
async def service() -> AsyncIterator[Callable[..., Any]]:
    services: list[Service] = []

    async def start(work: Callable[[ServerConnection, dict[str, Any]], Any], **options: Any) -> Service:
        services.append(Service(work))
        return await services[-1].start(**options)

    yield start
    for one in services:
        await one.stop()


async def answer_each(connection: ServerConnection, body: dict[str, Any]) -> None:
    await connection.send(json.dumps({"streamId": body["streamId"], "frameId": body["frameId"], "alert": ALERT}))


async def say_nothing(connection: ServerConnection, body: dict[str, Any]) -> None:
    """Read on."""


@pytest.mark.usefixtures("patient")
async def test_over_websocket_the_frame_is_sent_as_the_contract_says(service: Any) -> None:
    running = await service(answer_each)
    async with opened(running.url) as (target, heard):
        (alert,) = await target.analyse(frame(7))
        assert alert == {"streamId": "s", "frameId": 7, **ALERT}
        assert heard == []
    assert running.frames == [
        {
            "streamId": "s",
            "frame": base64.b64encode(PICTURE).decode(),
            "timestamp": 1_700_000_000_007,
            "frameId": 7,
        }
    ]


@pytest.mark.usefixtures("patient")
async def test_answers_out_of_order_find_their_frames(service: Any) -> None:
    waiting: list[tuple[ServerConnection, dict[str, Any]]] = []

    async def answer_in_reverse(connection: ServerConnection, body: dict[str, Any]) -> None:
        waiting.append((connection, body))
        if len(waiting) == 4:
            for one in reversed(waiting):
                await answer_each(*one)

    running = await service(answer_in_reverse)
    async with opened(running.url) as (target, heard):
        answers: list[list[Any]] = await asyncio.gather(*(target.analyse(frame(n, f"s{n}")) for n in range(4)))
        assert [one["frameId"] for (one,) in answers] == [0, 1, 2, 3]
        assert heard == []


@pytest.mark.usefixtures("patient")
async def test_a_service_that_answers_each_frame_is_waited_for_beyond_the_pong(service: Any) -> None:
    release = asyncio.Event()

    async def answer_late(connection: ServerConnection, body: dict[str, Any]) -> None:
        if body["frameId"] > 1:
            await release.wait()
        await connection.send(json.dumps({"streamId": "s", "frameId": body["frameId"]}))

    running = await service(answer_late)
    async with opened(running.url) as (target, _):
        assert await target.analyse(frame(1)) == []
        second = asyncio.create_task(target.analyse(frame(2)))
        await asyncio.sleep(1.0)  # the pong came long ago
        assert not second.done()
        release.set()
        assert await second == []


async def test_a_service_that_speaks_only_for_alerts_is_paced_by_the_pong(service: Any) -> None:
    release = asyncio.Event()

    async def alert_later(connection: ServerConnection, body: dict[str, Any]) -> None:
        await release.wait()
        await connection.send(json.dumps({**ALERT, "streamId": "s", "frameId": body["frameId"]}))

    running = await service(alert_later)
    async with opened(running.url) as (target, heard):
        assert await shown(target, frame(1)) == []
        assert heard == []
        release.set()
        await until(lambda: heard == [{**ALERT, "streamId": "s", "frameId": 1}], WAIT_S)


@pytest.mark.parametrize(
    ("message", "refused"),
    [("no json", True), ("7", True), ('"alert"', True), ("[" * 5000, True), (b"\xff\xfe", True), ("[]", False),
     ('{"streamId":"other","frameId":99}', False), ('{"streamId":{},"frameId":[]}', True),
     ('{"alerts":{}}', True), (json.dumps([ALERT] * 101), True)],
)  # fmt: skip
@pytest.mark.usefixtures("patient")
async def test_what_a_service_writes_that_is_no_answer_ends_nothing(
    service: Any, message: str | bytes, refused: bool
) -> None:
    async def babble(connection: ServerConnection, body: dict[str, Any]) -> None:
        await connection.send(message)
        await answer_each(connection, body)

    running = await service(babble)
    async with opened(running.url) as (target, heard):
        assert len(await target.analyse(frame())) == 1
        assert len(heard) == (1 if refused else 0)
    assert len(running.connections) == 1


@pytest.mark.usefixtures("patient")
async def test_an_alert_of_a_frame_that_nobody_asked_about_is_heard(service: Any) -> None:
    foreign = {**ALERT, "streamId": "another", "frameId": 4_000_000_000}

    async def talk(connection: ServerConnection, body: dict[str, Any]) -> None:
        await connection.send(json.dumps([foreign, {**ALERT, "streamId": "s", "frameId": body["frameId"]}]))

    running = await service(talk)
    async with opened(running.url) as (target, heard):
        assert len(await target.analyse(frame())) == 1
        assert heard == [foreign]


@pytest.mark.usefixtures("patient")
async def test_a_message_over_a_mebibyte_ends_the_connection_and_the_next_one_works(service: Any) -> None:
    async def flood(connection: ServerConnection, body: dict[str, Any]) -> None:
        if body["frameId"] == 1:
            await connection.send("[" * (2 << 20))
        else:
            await answer_each(connection, body)

    running = await service(flood)
    async with opened(running.url) as (target, _):
        with pytest.raises(TargetFailure):  # noqa: PT012 - one of many fails
            await target.analyse(frame(1))
            await target.analyse(frame(1))
        assert len(await shown(target, frame(2))) == 1
    assert len(running.connections) == 2


async def test_a_service_that_is_away_fails_at_once_and_is_found_when_it_is_back(service: Any) -> None:
    running = await service(answer_each)
    async with opened(running.url) as (target, _):
        assert len(await shown(target, frame(1))) == 1
        await running.stop()
        with pytest.raises(TargetFailure):
            await target.analyse(frame(2))
        with pytest.raises(TargetFailure, match="no connection"):
            await target.analyse(frame(3))
        await running.start()
        assert len(await shown(target, frame(4))) == 1
    assert [one["frameId"] for one in running.frames] in ([1, 4], [1, 2, 4])  # and nothing of what failed meanwhile


async def test_a_connection_that_is_not_read_is_given_up_with_all_that_waits_in_it() -> None:
    """A service that accepts, and then reads nothing: what was sent must not be scored when it wakes."""
    came: list[bytes] = []

    async def handshake_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from websockets.server import ServerProtocol

        protocol = ServerProtocol()
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
        writer.write(b"".join(protocol.data_to_send()))
        came.append(b"")
        await asyncio.sleep(3600)

    async with (
        Relays(handshake_and_hang, limit=1024) as server,
        opened(f"ws://127.0.0.1:{server.port}", ml_timeout_s=0.5) as (target, _),
    ):
        number = 0
        async with asyncio.timeout(WAIT_S):
            while len(came) < 2:  # on a busy machine a frame's time may be over before the handshake is
                number += 1
                with pytest.raises((TimeoutError, TargetFailure)):
                    async with asyncio.timeout(0.5):
                        await target.analyse(frame(number, picture=PICTURE[:3] + bytes(1 << 20)))


@pytest.mark.usefixtures("patient")
async def test_headers_go_with_the_handshake_and_are_not_shown(service: Any) -> None:
    running = await service(answer_each)
    async with opened(running.url + "?key=secret", ml_headers=(("Authorization", "Bearer secret"),)) as (target, _):
        await target.analyse(frame())
        assert target.public_url == running.url
    assert running.connections[0].request.headers["Authorization"] == "Bearer secret"


async def test_a_handshake_that_is_refused_says_its_status(service: Any) -> None:
    running = await service(answer_each, process_request=lambda connection, request: connection.respond(401, "no"))
    async with opened(running.url) as (target, _):
        assert "401" in await failure_of(target, frame())
