"""The same ML service behind NATS; several of them share the frames.

Run it, and mlbridge with it:

    pip install opencv-python-headless nats-py msgpack
    python over_nats.py --url nats://127.0.0.1:4222
    ML_SERVICE_URL=nats://127.0.0.1:4222 honcho start

Subject ``video-frames`` has the frames in MessagePack: ``{"streamId","frame":<bytes>,"timestamp","frameId"}``, each
with a reply subject. This one answers there, ``{"alerts":[…]}``, and so mlbridge never publishes more than it can take.
A service that does not answer may publish its alerts to ``ml-alerts`` at any time.
The server's ``max_payload`` (1 MB by default) must be larger than a frame.
"""

from __future__ import annotations

import argparse
import asyncio

import msgpack
import nats
from nats.aio.msg import Msg
from watcher import Watcher, run

QUEUE = "ml-service"  # the services of one queue group share the frames


async def main(url: str) -> None:
    watcher = Watcher()

    async def looked_at(message: Msg) -> None:
        try:
            answer = await watcher.watch_object(msgpack.unpackb(message.data))
        except ValueError as fault:
            print(f"a frame was passed over: {fault}", flush=True)
            return
        await message.respond(msgpack.packb(answer))

    client = await nats.connect(url, max_reconnect_attempts=-1)
    try:
        await client.subscribe("video-frames", queue=QUEUE, cb=looked_at, pending_msgs_limit=8)
        await client.flush()
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()
    finally:
        await client.close()
        watcher.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    run(main(parser.parse_args().url))
