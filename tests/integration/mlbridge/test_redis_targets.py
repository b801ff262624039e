"""The Redis targets, publish/subscribe and streams, against real servers, alone and behind Sentinel."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.integration.mlbridge.targets_kit import ALERT, PICTURE, WAIT_S, ended, failure_of, frame, opened, shown
from tests.kit.brokers import Broker
from tests.kit.polling import until
from tests.kit.ports import free_port
from watchout.mlbridge.targets import TargetFailure, UnusableMessage
from watchout.mlbridge.targets.redis_streams import MAX_FRAMES


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


@pytest.mark.usefixtures("patient")
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
        assert "nobody subscribes to video-frames" in await failure_of(target, frame())


async def test_over_redis_alerts_come_by_themselves_and_nonsense_is_told(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url + "?alerts=other") as (target, heard):
        assert "nobody subscribes" in await failure_of(target, frame())  # it is connected now
        for data in (json.dumps({**ALERT, "streamId": "s"}), "nonsense", b"\xff"):
            await redis.publish("other", data)
        await until(lambda: len(heard) == 3, WAIT_S)
        assert heard[0] == {**ALERT, "streamId": "s"}
        assert all(isinstance(one, UnusableMessage) for one in heard[1:])


async def test_over_redis_a_message_that_is_too_long_is_not_read(redis: Redis, redis_server: Broker) -> None:
    async with opened(redis_server.url) as (target, heard):
        assert "nobody subscribes" in await failure_of(target, frame())
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


@pytest.mark.usefixtures("patient")
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
            await shown(target, frame())
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
        assert "auth" in (await failure_of(target, frame())).lower()
    async with opened(f"redis://:hunter2@127.0.0.1:{broker.port}/2", ml_redis_mode="streams") as (target, _):
        assert await shown(target, frame()) == []
        assert target.public_url == f"redis://127.0.0.1:{broker.port}/2"


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
            # Until the test stops it: a master that only pauses is not down.
            "sentinel down-after-milliseconds main 60000",
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
        await asyncio.to_thread(first.stop)
        await asked.execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", "500")
        async with asyncio.timeout(2 * WAIT_S):
            while True:
                async with Redis(port=second.port) as client:
                    if (await client.role())[0] == b"master":
                        break
                await asyncio.sleep(0.1)
        await asked.execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", "60000")
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
