"""The NATS target, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import nats
import pytest

from tests.integration.mlbridge.targets_kit import ALERT, PICTURE, WAIT_S, failure_of, frame, opened, shown
from tests.kit.brokers import Broker
from tests.kit.polling import until
from watchout.mlbridge.targets import TargetFailure, UnusableMessage


@contextlib.asynccontextmanager
async def nats_service(url: str, work: Callable[..., Any]) -> AsyncIterator[Any]:
    client = await nats.connect(url, connect_timeout=int(WAIT_S))
    await client.subscribe("video-frames", cb=work)
    await client.flush(int(WAIT_S))
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [{"alert": ALERT}, {"alerts": [ALERT]}, ALERT, [ALERT], {"streamId": "s", "frameId": 7, "alert": ALERT}],
)
@pytest.mark.usefixtures("patient")
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
        assert "nobody subscribes" in await failure_of(target, frame())


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


async def test_a_service_behind_nats_that_stops_answering_is_no_longer_waited_for(
    nats_server: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = True

    async def respond(message: Any) -> None:
        if answers:
            await message.respond(msgpack.packb({}))

    async with opened(nats_server.url, ml_timeout_s=1.0) as (target, _), nats_service(nats_server.url, respond):
        with monkeypatch.context() as patch:  # it answers, however late the first answer is
            patch.setattr("watchout.mlbridge.targets.pending_results.LEARN_S", WAIT_S)
            assert await shown(target, frame(1)) == []
        answers = False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await target.analyse(frame(2))
        assert await shown(target, frame(3)) == []
