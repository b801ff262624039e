"""The same ML service behind Redis (or Valkey), by pub/sub.

Run it, and mlbridge with it:

    pip install opencv-python-headless redis
    python over_redis_pubsub.py --url redis://127.0.0.1:6379
    ML_SERVICE_URL=redis://127.0.0.1:6379 honcho start

Channel ``video-frames`` has the frames: ``{"streamId","frame":"<base64>","timestamp","frameId"}``. What is published to
``ml-alerts`` is an answer, ``{"streamId","frameId","alerts":[…]}``, or an alert alone. This one answers each frame, and
so mlbridge never publishes more than it can take. Every subscriber sees every frame: run one of these.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway
from watcher import Watcher, run


async def main(url: str) -> None:
    watcher = Watcher()
    async with Redis.from_url(url) as redis:
        try:
            while True:
                try:
                    await serve(redis, watcher)
                except RedisAway as exc:
                    print(f"Redis is away: {exc}", flush=True)
                    await asyncio.sleep(0.5)
        finally:
            watcher.close()


async def serve(redis: Redis, watcher: Watcher) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as frames:
        await frames.subscribe("video-frames")
        print("ready", flush=True)
        async for message in frames.listen():
            try:
                answer = await watcher.watch_object(json.loads(message["data"]))
            except ValueError as fault:
                print(f"a frame was passed over: {fault}", flush=True)
                continue
            await redis.publish("ml-alerts", json.dumps(answer))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="redis://127.0.0.1:6379")
    run(main(parser.parse_args().url))
