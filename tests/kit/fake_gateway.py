"""A gateway for tests of clients: speaks the edge protocol (docs/protocol.md) on `websockets`, and keeps what it heard.

It knows one token and decides nothing; what it does to its clients on purpose is said by its attributes and methods.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pybase64
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.kit.ports import free_port
from watchout.common.clock import now_ms
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame, parse_binary

TOKEN = "token-of-the-tests-0123456789"


class FakeGateway:
    """Listens on a port of loopback from `start` to `stop`, and may be started again."""

    def __init__(self) -> None:
        self.port = 0
        #: Every message of every client that was not a frame, in order.
        self.heard: list[dict[str, Any]] = []
        #: Frames of cameras: (stream id, timestamp, picture, whether it came binary).
        self.frames: list[tuple[str, int, bytes, bool]] = []
        #: Close codes of the clients that left, in order; None: without a close.
        self.left: list[int | None] = []
        #: The next registrations and subscriptions are answered with this error and close code, one each.
        self.refusals: list[tuple[str, int | None]] = []
        #: Whether it answers request ids and pings, and acknowledges frames while `acknowledging` is set.
        self.modern = False
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()
        #: Cleared: cameras' messages are not read.
        self.reading = asyncio.Event()
        self.reading.set()
        self.cameras: list[ServerConnection] = []
        self.viewers: list[tuple[ServerConnection, dict[str, Any]]] = []
        #: Sockets that were accepted and have not left.
        self.open = 0
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        # While it is stopped nobody may get its port: the kernel gives those below its own range to nobody.
        self.port = self.port or free_port()
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, compression=None, max_size=32 << 20, max_queue=1, close_timeout=10
        )

    async def stop(self) -> None:
        """Close all with 1001, as a gateway that drains."""
        if self._server is not None:
            self.reading.set()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def close_all(self, code: int, reason: str = "") -> None:
        for socket in [*self.cameras, *(socket for socket, _ in self.viewers)]:
            await socket.close(code, reason)

    async def cut_all(self) -> None:
        """Lose every socket without a close."""
        for socket in [*self.cameras, *(socket for socket, _ in self.viewers)]:
            socket.transport.abort()

    async def tell_cameras(self, message: dict[str, Any]) -> None:
        for socket in list(self.cameras):
            await self._say(socket, message)

    async def tell_viewers(self, message: dict[str, Any]) -> None:
        for socket, _ in list(self.viewers):
            await self._say(socket, message)

    async def show(self, frame: Frame) -> None:
        """Send a frame to the viewers of its stream that consume frames, in the format that each asked for."""
        for socket, wish in list(self.viewers):
            if wish["streamId"] == frame.stream_id and "video-frame" in wish.get("consumes", []):
                if wish.get("format") == "binary":
                    await socket.send(frame.to_binary())
                else:
                    await socket.send(frame.to_json(), text=True)

    async def _say(self, socket: ServerConnection, message: dict[str, Any]) -> None:
        await socket.send(json.dumps({"timestamp": now_ms(), **message}))

    async def _serve(self, socket: ServerConnection) -> None:
        self.open += 1
        try:
            assert socket.request is not None
            path = socket.request.path.partition("?")[0]
            auth = await self._hear(socket)
            if auth.get("type") != "auth" or auth.get("token") != TOKEN:
                await self._answer(socket, auth, type="error", code="AUTH_FAILED", message="no such session")
                await socket.close(1008, "AUTH_FAILED")
                return
            await self._answer(socket, auth, message="Authentication successful", event="authenticated")
            while True:
                wish = await self._hear(socket)
                plain = {key: value for key, value in wish.items() if key != "requestId"}
                self.heard.append(plain)
                if not self.refusals:
                    break
                code, close = self.refusals.pop(0)
                await self._answer(socket, wish, type="error", code=code, message="refused by the test")
                if close is not None:
                    await socket.close(close, code)
                    return
            if path == "/streams/register":
                await self._camera(socket, wish)
            else:
                await self._viewer(socket, wish, plain)
        except ConnectionClosed:
            pass
        finally:
            self.cameras = [s for s in self.cameras if s is not socket]
            self.viewers = [(s, w) for s, w in self.viewers if s is not socket]
            self.open -= 1
            self.left.append(socket.close_code if socket.close_code != 1006 else None)

    async def _hear(self, socket: ServerConnection) -> dict[str, Any]:
        """The next message that is no ping."""
        while (message := json.loads(await socket.recv())).get("type") == "ping":
            await self._pong(socket)
        return dict(message)

    async def _pong(self, socket: ServerConnection) -> None:
        unknown = {"type": "error", "code": "UNKNOWN_MESSAGE_TYPE", "message": "ping is not known"}
        await self._say(socket, {"type": "pong"} if self.modern else unknown)

    async def _answer(self, socket: ServerConnection, request: dict[str, Any], **fields: Any) -> None:
        number = {"requestId": request["requestId"]} if self.modern and "requestId" in request else {}
        await self._say(socket, {"type": "success", **fields, **number})

    async def _camera(self, socket: ServerConnection, wish: dict[str, Any]) -> None:
        stream = wish.get("streamId") or "stream_1729943200000_k3j9x"
        text = f"Registration successful. Stream ID: {stream}"
        await self._answer(socket, wish, message=text, event="registered", streamId=stream)
        self.cameras.append(socket)
        while True:
            await self.reading.wait()
            data = await socket.recv()
            if isinstance(data, bytes):
                binary = parse_binary(data)
                assert binary.codec is Codec.JPEG
                self.frames.append((binary.stream_id or stream, binary.timestamp or 0, binary.picture, True))
                await self._acknowledge(socket, wish)
                continue
            message = json.loads(data)
            if message.get("type") == "video-frame":
                picture = pybase64.b64decode(message["data"], validate=True)
                self.frames.append((message["streamId"], message["timestamp"], picture, False))
                await self._acknowledge(socket, wish)
            elif message.get("type") == "ping":
                await self._pong(socket)
            else:
                self.heard.append(message)

    async def _acknowledge(self, socket: ServerConnection, wish: dict[str, Any]) -> None:
        if self.modern and "window" in wish and self.acknowledging.is_set():
            stream, timestamp, _, _ = self.frames[-1]
            await self._say(
                socket, {"type": "ack", "streamId": stream, "frameId": len(self.frames), "timestamp": timestamp}
            )

    async def _viewer(self, socket: ServerConnection, wish: dict[str, Any], plain: dict[str, Any]) -> None:
        stream = wish["streamId"]
        text = "Subscription successful"
        recovered = {"recovered": True} if self.modern and "alertsSince" in wish else {}
        await self._answer(socket, wish, message=text, event="subscribed", streamId=stream, **recovered)
        await self._say(socket, {"type": "status", "streamId": stream, "status": "offline"})
        self.viewers.append((socket, plain))
        async for data in socket:
            message = json.loads(data)
            if message.get("type") == "ping":
                await self._pong(socket)
            elif message.get("type") != "ack":
                self.heard.append(message)


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Poll until `condition` holds; fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
