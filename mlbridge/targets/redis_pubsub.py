"""Target behind Redis or Valkey pub/sub: frames to channel ``video-frames``, alerts from channel ``ml-alerts``.

The server keeps nothing for a service that is not subscribed, and disconnects a subscriber that lags
(``client-output-buffer-limit pubsub``). A service that returns a result for each frame is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from watchout.common.media.frames import Frame
from watchout.mlbridge.targets.bodies import json_body
from watchout.mlbridge.targets.reconnecting import OPEN_S
from watchout.mlbridge.targets.redis_server import DEAD_S, QUIET_S, RedisTarget
from watchout.mlbridge.targets.results import read_json
from watchout.mlbridge.targets.target import TargetFailure


class RedisPubSubTarget(RedisTarget[PubSub]):
    """The `Target` of a service behind Redis Pub/Sub. Built by `targets.redis.open_target`.

    Arguments: as `RedisTarget`.
    """

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[PubSub]:
        """Open a connection that is subscribed to the alerts."""
        client = self.make_client(1, DEAD_S)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(self.channels.alerts)
                if await pubsub.get_message(timeout=OPEN_S) is None:
                    raise TimeoutError
                yield pubsub
        finally:
            await client.aclose()

    async def serve(self, connection: PubSub) -> None:
        """Read the messages on the channel of alerts. Raises `TimeoutError` when the server stops replying to pings."""
        clock = asyncio.get_running_loop().time
        pinged_at: float | None = None
        while True:
            message = await connection.get_message(timeout=QUIET_S)
            if message is not None:
                pinged_at = None
                if message["type"] == "message":
                    self.results.on_message(read_json(message["data"]))
            elif pinged_at is None:
                pinged_at = clock()
                await connection.ping()
            elif clock() - pinged_at > DEAD_S:
                raise TimeoutError

    async def send(self, client: Redis, frame: Frame) -> list[object]:
        """Publish the frame, and wait for its result if the service returns one. Raises `TargetFailure`."""
        body = json_body(frame)
        began = asyncio.get_running_loop().time()
        result = self.results.expect(frame)
        try:
            if not await client.publish(self.channels.frames, body):
                raise TargetFailure(f"nobody subscribes to {self.channels.frames}")
            return await self.results.wait(result, frame.stream_id)
        except asyncio.CancelledError:
            self.results.on_timeout(began)
            raise
        finally:
            self.results.forget(frame, result)
