"""The same ML service over one kept WebSocket, with a result for each frame.

Run it, and mlbridge with it:

    pip install opencv-python-headless websockets
    python over_websocket.py --port 8500
    ML_SERVICE_URL=ws://127.0.0.1:8500 honcho start

Each text message is a frame: ``{"streamId","frame":"<base64>","timestamp","frameId"}``. Each answer names its
frame, ``{"streamId","frameId","alerts":[…]}``, and so mlbridge never sends more than this service can take. Answers may
come in any order. A service may also send its alerts alone, ``{"severity",…}`` with ``streamId`` and ``frameId``.
"""

from __future__ import annotations

import asyncio
import json

from watcher import Watcher, fail_to_listen, listen_options, run
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MAX_MESSAGE_BYTES = 32 << 20


async def main(host: str, port: int) -> None:
    watcher = Watcher()

    async def bridge(connection: ServerConnection) -> None:
        try:
            async for message in connection:
                frame = None
                try:
                    frame = json.loads(message)
                    answer = await watcher.watch_object(frame)
                except ValueError as fault:
                    print(f"a frame was passed over: {fault}", flush=True)
                    if not isinstance(frame, dict):
                        continue
                    answer = {"streamId": frame.get("streamId"), "frameId": frame.get("frameId"), "alerts": []}
                await connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass

    async with serve(bridge, host, port, max_size=MAX_MESSAGE_BYTES, max_queue=4, compression=None):
        print(f"ready on ws://{host}:{port}", flush=True)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            watcher.close()


if __name__ == "__main__":
    options = listen_options(__doc__)
    try:
        run(main(options.host, options.port))
    except OSError as exc:
        fail_to_listen(options.port, exc)
