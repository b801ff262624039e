"""An ML service behind Redis Streams: frames are added to ``video-frames``, alerts read from ``ml-alerts`` by a group.

The newest `MAX_FRAMES` frames wait for a service that lags. Each alert goes to one bridge of a group, at least once:
it is acknowledged when it was taken, and taken by another bridge when it was not.
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
from watchout.mlbridge.targets.codec import Nonsense, read_json
from watchout.mlbridge.targets.redis import DEAD_S, QUIET_S, RedisTarget
from watchout.mlbridge.targets.tls import ClientTls

#: Frames that wait in their stream; Redis may keep a few more (``MAXLEN ~``).
MAX_FRAMES: Final = 256
#: Alerts that stay in theirs, whoever has read them.
MAX_ALERTS_KEPT: Final = 10_000
#: Alerts read at once.
READ_ALERTS: Final = 16
#: How often alerts are looked for that a bridge took and never acknowledged, how long ago that must be, how many are
#: looked at, and how often one is tried before it is passed over.
CLAIM_EVERY_S: Final = 10.0
CLAIM_IDLE_MS: Final = 5_000
CLAIM_ALERTS: Final = 100
MAX_DELIVERIES: Final = 3


class RedisStreamsTarget(RedisTarget[Redis]):
    """Alerts are read as the bridges' `group`."""

    def __init__(self, url: str, *, timeout_s: float, connections: int, tls: ClientTls, group: str) -> None:
        super().__init__(url, timeout_s=timeout_s, connections=connections, tls=tls)
        self._group = f"watchout-{group}"
        self._consumer = socket.gethostname()

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Redis]:
        """The group is there: it reads what is added from its creation on."""
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
        """Read alerts, and now and then those that another bridge left behind."""
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
        }
        await client.xadd(self.channels.frames, fields, maxlen=MAX_FRAMES, approximate=True)
        self.answers.paced(frame.stream_id)
        return []

    async def _take(self, client: Redis, entries: list[tuple[bytes, dict[bytes, bytes] | None]]) -> None:
        for _, fields in entries:
            text = (fields or {}).get(b"alert")
            self.answers.came(Nonsense("an entry without the field alert") if text is None else read_json(text))
        if entries:
            await client.xack(self.channels.alerts, self._group, *(entry_id for entry_id, _ in entries))

    async def _claim(self, client: Redis) -> None:
        """Take over what was read and not acknowledged, one by one: an entry that cannot be read stops no other."""
        alerts, group = self.channels.alerts, self._group
        await client.xtrim(alerts, maxlen=MAX_ALERTS_KEPT, approximate=True)
        pending: Any = await client.xpending_range(
            alerts, group, min="-", max="+", count=CLAIM_ALERTS, idle=CLAIM_IDLE_MS
        )
        for entry in pending:
            if entry["times_delivered"] >= MAX_DELIVERIES:
                self.answers.came(Nonsense("an entry that could not be read"))
                await client.xack(alerts, group, entry["message_id"])
                continue
            entries: Any = await client.xclaim(alerts, group, self._consumer, CLAIM_IDLE_MS, [entry["message_id"]])
            await self._take(client, [found for found in entries if found[0] is not None])
