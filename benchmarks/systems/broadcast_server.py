"""The edge protocol's frames on the `websockets` asyncio API: `broadcast_server.py PORT TOKEN`, on uvloop.

What the gateway would be without its own protocol: `websockets.asyncio.server.serve` and `broadcast()`. No
compression. A JSON frame gets its number by splicing the bytes; a form is never made into the other.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

MAX_BYTES = 16 << 20


@dataclass(slots=True)
class Stream:
    """Who watches, by form, and the last frame id."""

    number: int = 0
    json: set[ServerConnection] = field(default_factory=set)
    binary: set[ServerConnection] = field(default_factory=set)


class Relay:
    """All streams, and what each socket may say."""

    def __init__(self, token: str) -> None:
        self._users = {token: "bench"}
        self._streams: defaultdict[str, Stream] = defaultdict(Stream)

    async def serve(self, connection: ServerConnection) -> None:
        """One socket, to its end."""
        assert connection.request is not None
        path = connection.request.path
        try:
            message = json.loads(await connection.recv())
            if message.get("type") != "auth" or message.get("token") not in self._users:
                await connection.close(1008, "AUTH_FAILED")
                return
            await _say(connection, "Authentication successful")
            message = json.loads(await connection.recv())
            stream_id = str(message["streamId"])
            stream = self._streams[stream_id]
            if path == "/streams/register":
                await _say(connection, f"Registration successful. Stream ID: {stream_id}", streamId=stream_id)
                await _publish(connection, stream_id, stream)
            elif path == "/streams/subscribe":
                viewers = stream.binary if message.get("format") == "binary" else stream.json
                viewers.add(connection)
                try:
                    await _say(connection, "Subscription successful", streamId=stream_id)
                    await connection.wait_closed()
                finally:
                    viewers.discard(connection)
        except ConnectionClosed:
            pass


async def _publish(camera: ServerConnection, stream_id: str, stream: Stream) -> None:
    prefix = f'{{"type":"video-frame","streamId":{json.dumps(stream_id)},'.encode()
    recv = camera.recv
    while True:
        data = await recv(decode=False)  # bytes, also of a text message
        if data.startswith(prefix) and data.endswith(b"}"):
            stream.number += 1
            frame = b"".join((memoryview(data)[:-1], b',"frameId":%d}' % stream.number))
            broadcast(stream.json, frame, text=True)
        elif data[:1] == b"\x57":
            stream.number += 1
            header = stream.number.to_bytes(4, "big")
            broadcast(stream.binary, b"".join((data[:4], header, memoryview(data)[8:])))


async def _say(connection: ServerConnection, text: str, **fields: Any) -> None:
    now_ms = time.time_ns() // 1_000_000
    await connection.send(json.dumps({"type": "success", "message": text, **fields, "timestamp": now_ms}))


async def main(port: int, token: str) -> None:
    """Serve until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await serve(
        Relay(token).serve, "127.0.0.1", port, compression=None, max_size=MAX_BYTES, max_queue=64, ping_interval=None,
        backlog=4096,
    )  # fmt: skip
    await ended.wait()
    server.close(close_connections=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
