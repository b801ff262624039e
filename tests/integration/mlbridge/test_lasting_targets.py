"""The targets with a lasting connection, against real servers and services of every temper."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import nats
import pytest
import zmq
import zmq.asyncio
from redis.asyncio import Redis
from websockets.asyncio.server import Server, ServerConnection, serve

from tests.kit.brokers import Broker
from tests.kit.polling import until
from tests.kit.ports import free_port
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.mlbridge.targets import Target, TargetFailure, UnusableMessage, open_target
from watchout.mlbridge.targets.redis_streams import MAX_FRAMES

ALERT = {"severity": "high", "message": "a person"}
PICTURE = b"\xff\xd8\xff" + bytes(range(256))
#: For what must come.
WAIT_S = 20.0


def frame(number: int = 1, stream: str = "s", picture: bytes = PICTURE) -> Frame:
    return Frame(stream, number, 1_700_000_000_000 + number, picture=picture)


class OnAlerts(list[Any]):
    """What came by itself."""

    def __call__(self, values: list[object]) -> None:
        self.extend(values)


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[tuple[Target, OnAlerts]]:
    heard = OnAlerts()
    target = open_target(Settings(ml_service_url=url, **{"ml_timeout_s": WAIT_S, **settings}))
    assert target is not None
    await target.open(heard)
    try:
        yield target, heard
    finally:
        await asyncio.wait_for(target.close(), WAIT_S)


async def shown(target: Target, one: Frame) -> list[Any]:
    """Show a frame, again until the service takes it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await target.analyse(one)
            except TargetFailure:
                await asyncio.sleep(0.02)


# ── WebSocket ────────────────────────────────────────────────────────────────────────────────────────────────────


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
        self._server = await serve(self._serve, "127.0.0.1", self.port, max_size=64 << 20, **options)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
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
    async def alert_later(connection: ServerConnection, body: dict[str, Any]) -> None:
        await asyncio.sleep(1.0)
        await connection.send(json.dumps({**ALERT, "streamId": "s", "frameId": body["frameId"]}))

    running = await service(alert_later)
    async with opened(running.url) as (target, heard):
        assert await target.analyse(frame(1)) == []
        assert heard == []
        await until(lambda: heard == [{**ALERT, "streamId": "s", "frameId": 1}], WAIT_S)


@pytest.mark.parametrize(
    ("message", "refused"),
    [("no json", True), ("7", True), ('"alert"', True), ("[" * 5000, True), (b"\xff\xfe", True), ("[]", False),
     ('{"streamId":"other","frameId":99}', False), ('{"streamId":{},"frameId":[]}', True),
     ('{"alerts":{}}', True), (json.dumps([ALERT] * 101), True)],
)  # fmt: skip
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


async def test_an_alert_of_a_frame_that_nobody_asked_about_is_heard(service: Any) -> None:
    foreign = {**ALERT, "streamId": "another", "frameId": 4_000_000_000}

    async def talk(connection: ServerConnection, body: dict[str, Any]) -> None:
        await connection.send(json.dumps([foreign, {**ALERT, "streamId": "s", "frameId": body["frameId"]}]))

    running = await service(talk)
    async with opened(running.url) as (target, heard):
        assert len(await target.analyse(frame())) == 1
        assert heard == [foreign]


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
        await target.analyse(frame(1))
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
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.sleep(3600)
        writer.close()

    server = await asyncio.start_server(handshake_and_hang, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"ws://127.0.0.1:{port}", ml_timeout_s=0.5) as (target, _):
        for number in range(3):
            with pytest.raises((TimeoutError, TargetFailure)):
                async with asyncio.timeout(0.5):
                    await target.analyse(frame(number, picture=PICTURE[:3] + bytes(1 << 20)))
        await until(lambda: len(came) >= 2, WAIT_S)
    server.close()


async def test_headers_go_with_the_handshake_and_are_not_shown(service: Any) -> None:
    running = await service(answer_each)
    async with opened(running.url + "?key=secret", ml_headers=(("Authorization", "Bearer secret"),)) as (target, _):
        await target.analyse(frame())
        assert target.public_url == running.url
    assert running.connections[0].request.headers["Authorization"] == "Bearer secret"


async def test_a_handshake_that_is_refused_says_its_status(service: Any) -> None:
    running = await service(answer_each, process_request=lambda connection, request: connection.respond(401, "no"))
    async with opened(running.url) as (target, _):
        with pytest.raises(TargetFailure, match="401"):
            await target.analyse(frame())


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def redis(redis_server: Broker) -> AsyncIterator[Redis]:
    async with Redis(port=redis_server.port) as client:
        await client.flushall()
        yield client


@contextlib.asynccontextmanager
async def subscriber(redis: Redis, work: Callable[[dict[str, Any]], Any]) -> AsyncIterator[list[dict[str, Any]]]:
    """Somebody who does something with each published frame."""
    frames: list[dict[str, Any]] = []
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("video-frames")

        async def read() -> None:
            async for message in pubsub.listen():
                frames.append(json.loads(message["data"]))
                await work(frames[-1])

        task = asyncio.create_task(read())
        await until_subscribed(redis, "video-frames")
        try:
            yield frames
        finally:
            await ended(task)


async def until_subscribed(redis: Redis, channel: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not (await redis.pubsub_numsub(channel))[0][1]:
            await asyncio.sleep(0.01)


async def ended(task: asyncio.Task[None]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=1)


async def test_over_redis_a_frame_is_published_and_its_answer_found(redis: Redis, redis_server: Broker) -> None:
    async def answer(body: dict[str, Any]) -> None:
        await redis.publish("ml-alerts", json.dumps({"streamId": "s", "frameId": body["frameId"], "alert": ALERT}))

    async with opened(redis_server.url) as (target, heard), subscriber(redis, answer) as frames:
        assert await shown(target, frame(7)) == [{"streamId": "s", "frameId": 7, **ALERT}]
        assert len(await target.analyse(frame(8))) == 1
        assert frames[0] == {
            "streamId": "s", "frame": base64.b64encode(PICTURE).decode(), "timestamp": 1_700_000_000_007, "frameId": 7,
        }  # fmt: skip
        assert heard == []


async def test_over_redis_a_frame_that_nobody_hears_is_a_failure(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url) as (target, _):
        with pytest.raises(TargetFailure, match="nobody subscribes to video-frames"):
            await target.analyse(frame())


async def test_over_redis_alerts_come_by_themselves_and_nonsense_is_told(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url + "?alerts=other") as (target, heard):
        with contextlib.suppress(TargetFailure):
            await target.analyse(frame())  # it is connected now
        for data in (json.dumps({**ALERT, "streamId": "s"}), "nonsense", b"\xff"):
            await redis.publish("other", data)
        await until(lambda: len(heard) == 3, WAIT_S)
        assert heard[0] == {**ALERT, "streamId": "s"}
        assert all(isinstance(one, UnusableMessage) for one in heard[1:])


async def test_over_redis_a_message_that_is_too_long_is_not_read(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url) as (target, heard):
        with contextlib.suppress(TargetFailure):
            await target.analyse(frame())
        await redis.publish("ml-alerts", json.dumps([ALERT] * 100_000))
        async with asyncio.timeout(WAIT_S):
            while not heard:  # on the next connection
                await redis.publish("ml-alerts", json.dumps({**ALERT, "streamId": "s"}))
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["pubsub", "streams"])
async def test_a_redis_that_is_away_fails_at_once_and_is_found_when_it_is_back(
    start_broker: Callable[..., Broker], mode: str
) -> None:
    broker = start_broker("valkey")
    async with opened(broker.url, ml_redis_mode=mode) as (target, heard):
        async with Redis(port=broker.port) as client, contextlib.AsyncExitStack() as stack:
            if mode == "pubsub":
                await stack.enter_async_context(subscriber(client, lambda _: asyncio.sleep(0)))
            await shown(target, frame(1))
        await asyncio.to_thread(broker.stop)
        for number in (2, 3):
            with pytest.raises(TargetFailure):
                await target.analyse(frame(number))
        await asyncio.to_thread(broker.start)
        async with Redis(port=broker.port) as client, contextlib.AsyncExitStack() as stack:
            if mode == "pubsub":
                await stack.enter_async_context(subscriber(client, lambda _: asyncio.sleep(0)))
            await shown(target, frame(4))
            if mode == "streams":
                await client.xadd("ml-alerts", {"alert": json.dumps(ALERT)})
                await until(lambda: heard == [ALERT], WAIT_S)


async def test_in_a_stream_the_newest_frames_wait_and_no_more(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url, ml_redis_mode="streams") as (target, _):
        for number in range(MAX_FRAMES + 200):
            assert await target.analyse(frame(number)) == []
        assert MAX_FRAMES <= await redis.xlen("video-frames") <= MAX_FRAMES + 100
        ((_, last),) = await redis.xrevrange("video-frames", count=1)
        assert last == {
            b"streamId": b"s", b"frameId": b"455", b"timestamp": b"1700000000455", b"frame": PICTURE,
        }  # fmt: skip


async def test_alerts_of_a_stream_are_acknowledged_and_go_to_one_bridge_of_a_group(
    redis: Redis, redis_server: Broker
) -> None:
    streams = {"ml_redis_mode": "streams"}
    async with (
        opened(redis_server.url, **streams) as (one, heard_1),
        opened(redis_server.url, **streams) as (two, heard_2),
        opened(redis_server.url, ml_group="night", **streams) as (other, heard_3),
    ):
        for target in (one, two, other):
            await target.analyse(frame())
        for number in range(40):
            await redis.xadd("ml-alerts", {"alert": json.dumps({**ALERT, "frameId": number})})
        await redis.xadd("ml-alerts", {"nothing": "here"})
        await until(lambda: len(heard_1) + len(heard_2) == 41 == len(heard_3), WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while any(group["pending"] for group in await redis.xinfo_groups("ml-alerts")):
                await asyncio.sleep(0.01)


async def test_an_alert_that_a_dead_bridge_left_is_taken_and_one_too_long_stops_none(
    redis: Redis, redis_server: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.mlbridge.targets.redis_streams.CLAIM_IDLE_MS", 0)
    monkeypatch.setattr("watchout.mlbridge.targets.redis_streams.CLAIM_EVERY_S", 0.05)
    await redis.xgroup_create("ml-alerts", "watchout-default", id="0", mkstream=True)
    for text in (json.dumps(ALERT), "x" * (2 << 20), json.dumps(ALERT)):
        await redis.xadd("ml-alerts", {"alert": text})
    await redis.xreadgroup("watchout-default", "dead", {"ml-alerts": ">"})
    async with opened(redis_server.url, ml_redis_mode="streams") as (_, heard):
        await until(lambda: heard.count(ALERT) >= 2 and len(heard) >= 3, WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while (await redis.xpending("ml-alerts", "watchout-default"))["pending"]:
                await asyncio.sleep(0.05)


async def test_redis_wants_its_password_and_does_not_show_it(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker("valkey", options=("--requirepass", "hunter2"))
    async with opened(broker.url) as (target, _):
        with pytest.raises(TargetFailure, match=r"(?i)auth"):
            await target.analyse(frame())
    async with opened(f"redis://:hunter2@127.0.0.1:{broker.port}/2", ml_redis_mode="streams") as (target, _):
        assert await target.analyse(frame()) == []
        assert target.public_url == f"redis://127.0.0.1:{broker.port}/2"


# ── NATS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def nats_service(url: str, work: Callable[..., Any]) -> AsyncIterator[Any]:
    client = await nats.connect(url)
    await client.subscribe("video-frames", cb=work)
    await client.flush()
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [{"alert": ALERT}, {"alerts": [ALERT]}, ALERT, [ALERT], {"streamId": "s", "frameId": 7, "alert": ALERT}],
)
async def test_over_nats_a_frame_is_answered_on_its_reply_subject(nats_server: Broker, answer: object) -> None:
    bodies: list[Any] = []

    async def respond(message: Any) -> None:
        bodies.append(msgpack.unpackb(message.data))
        await message.respond(msgpack.packb(answer))

    async with opened(nats_server.url) as (target, heard), nats_service(nats_server.url, respond):
        (alert,) = await shown(target, frame(7))
        assert {**alert, "streamId": "s", "frameId": 7} == {**ALERT, "streamId": "s", "frameId": 7}
        assert heard == []
    assert bodies == [{"streamId": "s", "frame": PICTURE, "timestamp": 1_700_000_000_007, "frameId": 7}]


async def test_over_nats_a_frame_that_nobody_hears_is_a_failure(nats_server: Broker) -> None:
    async with opened(nats_server.url + "?frames=nobody.here") as (target, _):
        with pytest.raises(TargetFailure, match="nobody subscribes"):
            await target.analyse(frame())


async def test_over_nats_alerts_come_by_themselves_to_one_bridge_of_a_group(nats_server: Broker) -> None:
    async def say_nothing(_: Any) -> None:
        """Read on."""

    async with (
        opened(nats_server.url) as (one, heard_1),
        opened(nats_server.url) as (two, heard_2),
        opened(nats_server.url, ml_group="night") as (other, heard_3),
        nats_service(nats_server.url, say_nothing) as client,
    ):
        for target in (one, two, other):
            assert await shown(target, frame()) == []
        for number in range(20):
            await client.publish("ml-alerts", msgpack.packb({**ALERT, "streamId": "s", "frameId": number}))
        await client.publish("ml-alerts", b"\xc1nonsense")
        await client.publish("ml-alerts", msgpack.packb(b"bytes"))
        await until(lambda: len(heard_1) + len(heard_2) == 22 == len(heard_3), WAIT_S)
        assert sum(isinstance(one, UnusableMessage) for one in heard_3) == 2


async def test_over_nats_a_frame_above_max_payload_fails_alone_and_says_so(nats_server: Broker) -> None:
    async def respond(message: Any) -> None:
        await message.respond(msgpack.packb({}))

    async with opened(nats_server.url) as (target, _), nats_service(nats_server.url, respond):
        assert await shown(target, frame(1)) == []
        with pytest.raises(TargetFailure, match="max_payload is 1048576"):
            await target.analyse(frame(2, picture=PICTURE[:3] + bytes(2 << 20)))
        assert await target.analyse(frame(3)) == []


async def test_a_nats_that_is_away_fails_at_once_and_is_found_when_it_is_back(
    start_broker: Callable[..., Broker],
) -> None:
    async def respond(message: Any) -> None:
        await message.respond(msgpack.packb({}))

    broker = start_broker("nats")
    async with opened(broker.url) as (target, _):
        async with nats_service(broker.url, respond):
            assert await shown(target, frame(1)) == []
        await asyncio.to_thread(broker.stop)
        for number in (2, 3):
            with pytest.raises(TargetFailure):
                await target.analyse(frame(number))
        await asyncio.to_thread(broker.start)
        async with nats_service(broker.url, respond):
            assert await shown(target, frame(4)) == []


async def test_a_service_behind_nats_that_stops_answering_is_no_longer_waited_for(nats_server: Broker) -> None:
    answers = True

    async def respond(message: Any) -> None:
        if answers:
            await message.respond(msgpack.packb({}))

    async with opened(nats_server.url, ml_timeout_s=1.0) as (target, _), nats_service(nats_server.url, respond):
        assert await shown(target, frame(1)) == []
        answers = False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await target.analyse(frame(2))
        assert await shown(target, frame(3)) == []


# ── ZeroMQ ───────────────────────────────────────────────────────────────────────────────────────────────────────


def free_pair() -> int:
    """A port that is free, and so is the next one."""
    while True:
        port = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port + 1))
            return port


@contextlib.asynccontextmanager
async def zmq_service(port: int) -> AsyncIterator[tuple[zmq.asyncio.Socket, zmq.asyncio.Socket]]:
    context = zmq.asyncio.Context()
    frames, alerts = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    frames.rcvhwm = 2
    frames.bind(f"tcp://127.0.0.1:{port}")
    alerts.bind(f"tcp://127.0.0.1:{port + 1}")
    try:
        yield frames, alerts
    finally:
        context.destroy(linger=0)


async def test_over_zeromq_frames_are_pushed_and_alerts_pulled() -> None:
    port = free_pair()
    async with opened(f"tcp://127.0.0.1:{port}") as (target, heard), zmq_service(port) as (frames, alerts):
        assert await shown(target, frame(7)) == []
        body = msgpack.unpackb(await asyncio.wait_for(frames.recv(), WAIT_S))
        assert body == {"streamId": "s", "frame": PICTURE, "timestamp": 1_700_000_000_007, "frameId": 7}
        for data in (msgpack.packb({**ALERT, "streamId": "s", "frameId": 7}), b"\xc1"):
            await asyncio.wait_for(alerts.send(data), WAIT_S)
        await until(lambda: len(heard) == 2, WAIT_S)
        assert heard[0] == {**ALERT, "streamId": "s", "frameId": 7}
        assert isinstance(heard[1], UnusableMessage)


async def test_over_zeromq_a_message_over_a_mebibyte_is_not_read() -> None:
    port = free_pair()
    async with opened(f"tcp://127.0.0.1:{port}") as (_, heard), zmq_service(port) as (_, alerts):
        await asyncio.wait_for(alerts.send(bytes(2 << 20)), WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while not heard:
                await alerts.send(msgpack.packb({**ALERT, "streamId": "s"}))
                await asyncio.sleep(0.1)


async def test_over_zeromq_what_waits_for_a_service_that_reads_nothing_is_bounded() -> None:
    port = free_pair()
    async with opened(f"tcp://127.0.0.1:{port}") as (target, _), zmq_service(port) as (frames, _):
        await shown(target, frame(0))
        with pytest.raises(TargetFailure, match="reads no frames"):  # noqa: PT012 - one of many fails
            for number in range(1, 1000):
                await target.analyse(frame(number, picture=PICTURE[:3] + bytes(500_000)))
        assert number < 40
        async with asyncio.timeout(WAIT_S):
            while msgpack.unpackb(await frames.recv())["frameId"] != 2000:
                with contextlib.suppress(TargetFailure):
                    await target.analyse(frame(2000))


async def test_over_zeromq_a_service_that_is_away_is_a_failure_and_found_when_it_is_back() -> None:
    port = free_pair()
    async with opened(f"tcp://127.0.0.1:{port}") as (target, _):
        with pytest.raises(TargetFailure, match="no connection"):
            await target.analyse(frame(1))
        for number in (2, 3):
            async with zmq_service(port) as (frames, _):
                # A frame that goes into the former connection before its end is seen is lost, and PUSH does not say
                # so: what counts is that one of those after it arrives.
                async with asyncio.timeout(WAIT_S):
                    await shown(target, frame(number))
                    while not await frames.poll(1000):
                        await shown(target, frame(number))
                assert msgpack.unpackb(await frames.recv())["frameId"] == number


# ── Sentinel ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["pubsub", "streams"])
async def test_behind_sentinel_frames_and_alerts_go_to_the_master_and_follow_a_failover(
    start_broker: Callable[..., Broker], mode: str
) -> None:
    first = start_broker("valkey")
    second = start_broker("valkey", options=("--replicaof", "127.0.0.1", str(first.port)))
    sentinel = start_broker(
        "sentinel",
        options=(
            f"sentinel monitor main 127.0.0.1 {first.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 5000",
        ),
    )
    dead = free_port()
    url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel.port}/main/1"
    async with opened(url, ml_redis_mode=mode) as (target, heard), Redis(port=sentinel.port) as asked:

        async def works_on(broker: Broker, number: int) -> None:
            heard.clear()
            async with Redis(port=broker.port, db=1) as client, contextlib.AsyncExitStack() as stack:
                if mode == "pubsub":
                    frames = await stack.enter_async_context(subscriber(client, lambda _: asyncio.sleep(0)))
                assert await shown(target, frame(number)) == []
                if mode == "pubsub":
                    await client.publish("ml-alerts", json.dumps({**ALERT, "streamId": "s"}))
                    await until(lambda: frames, WAIT_S)
                else:
                    await client.xadd("ml-alerts", {"alert": json.dumps({**ALERT, "streamId": "s"})})
                    assert await client.xlen("video-frames") >= 1
                await until(lambda: heard, WAIT_S)

        await works_on(first, 1)
        async with asyncio.timeout(WAIT_S):
            while (await asked.execute_command("SENTINEL", "MASTER", "main"))[b"num-slaves"] != b"1":
                await asyncio.sleep(0.1)
        first.stop()
        async with asyncio.timeout(2 * WAIT_S):
            while True:
                async with Redis(port=second.port) as client:
                    if (await client.role())[0] == b"master":
                        break
                await asyncio.sleep(0.1)
        await works_on(second, 2)


async def test_a_master_that_the_sentinels_do_not_know_is_named(start_broker: Callable[..., Broker]) -> None:
    sentinel = start_broker("sentinel")
    async with opened(f"redis+sentinel://:hunter2@127.0.0.1:{sentinel.port}/nobody") as (target, _):
        async with asyncio.timeout(WAIT_S):
            while True:
                with pytest.raises(TargetFailure) as raised:
                    await target.analyse(frame())
                if "master of this name" in str(raised.value):
                    break
                await asyncio.sleep(0.05)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "credentials", "says"),
    [
        (("--requirepass", "secret-7"), "", "lets nobody in"),
        (("--requirepass", "secret-7"), ":wrong-8@", "lets nobody in"),
        ((), "", "no database of the number"),
    ],
)
async def test_what_redis_refuses_is_said_in_one_clear_line(
    start_broker: Callable[..., Broker], options: tuple[str, ...], credentials: str, says: str
) -> None:
    broker = start_broker("valkey", options=options)
    async with opened(f"redis://{credentials}127.0.0.1:{broker.port}/99") as (target, _):
        async with asyncio.timeout(WAIT_S):
            while True:
                with pytest.raises(TargetFailure) as raised:
                    await target.analyse(frame())
                if says in str(raised.value):
                    break
                await asyncio.sleep(0.05)
    assert "wrong-8" not in str(raised.value)
