"""The ZeroMQ target, against sockets of a service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgpack
import pytest
import zmq
import zmq.asyncio

from tests.integration.mlbridge.targets_kit import ALERT, PICTURE, WAIT_S, frame, free_pair, opened, shown
from tests.kit.polling import until
from watchout.mlbridge.targets import TargetFailure, UnusableMessage


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
