"""The same ML service behind Redis Streams: it may lag for a moment, and several of them share the frames.

Run it, and mlbridge with it:

    pip install opencv-python-headless redis
    python over_redis_streams.py --url redis://127.0.0.1:6379
    ML_SERVICE_URL=redis://127.0.0.1:6379 ML_REDIS_MODE=streams honcho start

Stream ``video-frames`` has an entry per frame: ``streamId``, ``frameId``, ``timestamp`` and ``frame``, the picture
itself. Some 256 frames are kept. An alert is added to stream ``ml-alerts``, as JSON in the field ``alert``.
What is older than ``--max-age-s`` is not looked at: an alert should be about now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import ResponseError
from watcher import Watcher, run

GROUP = "ml-service"  # the services of one group share the frames
CONSUMER = f"{socket.gethostname()}-{os.getpid()}"
ALERTS_KEPT = 10_000


async def main(url: str, max_age_s: float) -> None:
    watcher = Watcher()
    async with Redis.from_url(url) as redis:
        try:
            while True:
                try:
                    await serve(redis, watcher, max_age_s)
                except RedisAway as exc:
                    print(f"Redis is away: {exc}", flush=True)
                    await asyncio.sleep(0.5)
        finally:
            watcher.close()


async def serve(redis: Redis, watcher: Watcher, max_age_s: float) -> None:
    try:
        await redis.xgroup_create("video-frames", GROUP, id="$", mkstream=True)
    except ResponseError as exc:
        if not str(exc).startswith("BUSYGROUP"):
            raise
    print("ready", flush=True)
    while True:
        # Not acknowledged one by one (noack): a frame that was lost with its service is no loss.
        found = await redis.xreadgroup(GROUP, CONSUMER, {"video-frames": ">"}, count=8, block=1000, noack=True)
        for _, entries in found or ():
            for entry_id, entry in entries:
                age_s = time.time() - int(entry_id.split(b"-")[0]) / 1000  # an entry's id is the server's time
                if age_s <= max_age_s:
                    await look(redis, watcher, entry)


async def look(redis: Redis, watcher: Watcher, entry: dict[bytes, bytes]) -> None:
    about = {"timestamp": int(entry[b"timestamp"]), "frameId": int(entry[b"frameId"])}
    try:
        alert = await watcher.watch(entry[b"streamId"].decode(), entry[b"frame"], about)
    except ValueError as fault:
        print(f"a frame was passed over: {fault}", flush=True)
        return
    if alert is not None:
        await redis.xadd("ml-alerts", {"alert": json.dumps(alert)}, maxlen=ALERTS_KEPT, approximate=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="redis://127.0.0.1:6379")
    parser.add_argument("--max-age-s", type=float, default=1.0)
    options = parser.parse_args()
    run(main(options.url, options.max_age_s))
