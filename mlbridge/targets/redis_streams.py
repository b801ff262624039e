"""Target behind Redis Streams: frames are added to stream ``video-frames``, a group reads alerts from ``ml-alerts``.

The newest `MAX_FRAMES` frames are kept for a service that lags. Each alert is delivered to one bridge of a group, at
least once: a bridge acknowledges it after it has read it, and another bridge claims it otherwise.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from watchout.common.media.frames import Frame
from watchout.mlbridge.targets.bodies import trace_headers
from watchout.mlbridge.targets.redis_server import DEAD_S, QUIET_S, RedisTarget
from watchout.mlbridge.targets.results import Undecodable, read_json
from watchout.mlbridge.targets.tls import ClientTls

#: Frames that the stream keeps; Redis may keep a few more (``MAXLEN ~``).
MAX_FRAMES: Final = 256
#: Alerts that the stream keeps, read or not.
MAX_ALERTS_KEPT: Final = 10_000
#: Most alerts in one read.
READ_ALERTS: Final = 16
#: How often a bridge claims alerts that another one read and did not acknowledge (in seconds), how long ago it must
#: have read them (in ms), most alerts in one claim, and deliveries after which an alert is given up as unreadable.
CLAIM_EVERY_S: Final = 10.0
CLAIM_IDLE_MS: Final = 5_000
CLAIM_ALERTS: Final = 100
MAX_DELIVERIES: Final = 3


class RedisStreamsTarget(RedisTarget[Redis]):
    """The `Target` of a service behind Redis Streams. Built by `targets.redis.open_target`.

    Args:
        url: URL of the server, or of its Sentinels.
        timeout_s: deadline of a command, in seconds.
        connections: most connections for frames at once.
        tls: files for ``rediss://``.
        group: bridges of one group share the alerts.
    """

    def __init__(self, url: str, *, timeout_s: float, connections: int, tls: ClientTls, group: str) -> None:
        super().__init__(url, timeout_s=timeout_s, connections=connections, tls=tls)
        self._group = f"watchout-{group}"
        self._consumer = socket.gethostname()

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Redis]:
        """Open a connection and create the group if it does not exist. It reads alerts from its creation on."""
        client = self.make_client(1, QUIET_S + DEAD_S)
        try:
            try:
                await client.xgroup_create(self.channels.alerts, self._group, id="$", mkstream=True)
            except ResponseError as exc:
                if not str(exc).startswith("BUSYGROUP"):
                    raise
            yield client
        finally:
            await client.aclose()

    async def serve(self, connection: Redis) -> None:
        """Read alerts, and every `CLAIM_EVERY_S` those that another bridge did not acknowledge."""
        clock = asyncio.get_running_loop().time
        claim_at = clock()
        while True:
            if clock() >= claim_at:
                claim_at = clock() + CLAIM_EVERY_S
                await self._claim(connection)
            found: Any = await connection.xreadgroup(
                self._group, self._consumer, {self.channels.alerts: ">"}, count=READ_ALERTS, block=int(QUIET_S * 1000)
            )
            for _, entries in found or ():
                await self._take(connection, entries)

    async def send(self, client: Redis, frame: Frame) -> list[object]:
        """Add the frame; the service may lag behind, by `MAX_FRAMES` frames."""
        fields: dict[Any, Any] = {
            "streamId": frame.stream_id,
            "frameId": frame.frame_id,
            "timestamp": frame.timestamp,
            "frame": frame.picture,
            **trace_headers(frame),
        }
        await client.xadd(self.channels.frames, fields, maxlen=MAX_FRAMES, approximate=True)
        self.results.on_delivered(frame.stream_id)
        return []

    async def _take(self, client: Redis, entries: list[tuple[bytes, dict[bytes, bytes] | None]]) -> None:
        for _, fields in entries:
            text = (fields or {}).get(b"alert")
            self.results.on_message(
                Undecodable("an entry without the field alert") if text is None else read_json(text)
            )
        if entries:
            await client.xack(self.channels.alerts, self._group, *(entry_id for entry_id, _ in entries))

    async def _claim(self, client: Redis) -> None:
        """Claim alerts that were not acknowledged, one by one: one that cannot be read must not hold up others."""
        alerts, group = self.channels.alerts, self._group
        await client.xtrim(alerts, maxlen=MAX_ALERTS_KEPT, approximate=True)
        pending: Any = await client.xpending_range(
            alerts, group, min="-", max="+", count=CLAIM_ALERTS, idle=CLAIM_IDLE_MS
        )
        for entry in pending:
            if entry["times_delivered"] >= MAX_DELIVERIES:
                self.results.on_message(Undecodable("an entry that could not be read"))
                await client.xack(alerts, group, entry["message_id"])
                continue
            entries: Any = await client.xclaim(alerts, group, self._consumer, CLAIM_IDLE_MS, [entry["message_id"]])
            await self._take(client, [found for found in entries if found[0] is not None])
