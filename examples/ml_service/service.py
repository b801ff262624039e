"""An ML service for watchout: tells when somebody walks through the picture. Start from it.

mlbridge posts each frame to ``POST /analyze`` as ``{"streamId","frame":"<base64>","timestamp","frameId"}``; the answer
may hold ``{"alert":{…}}``. ``GET /ws`` is the same over one WebSocket, and a message comes back only for an alert.
What knows pictures is in detector.py: put your model there and keep the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from aiohttp import WSMsgType, web
from detector import Detector

FORGET_S = 60.0  # a stream of which nothing came for so long is forgotten
MAX_STREAMS = 100  # a detector holds about 4 MB
MAX_MESSAGE_BYTES = 32 << 20


class Service:
    """Detectors by stream. One thread looks at pictures: the event loop stays free, and detectors need no lock."""

    def __init__(self) -> None:
        self.detectors: dict[str, Detector] = {}  # the one not seen for longest is first
        self._thread = ThreadPoolExecutor(1, "detector")

    async def answer(self, raw: str | bytes) -> dict[str, Any]:
        """The answer to one frame. Raises `ValueError` with a sentence for whoever sent it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, raw, time.monotonic())

    async def close(self, _: web.Application) -> None:
        self._thread.shutdown()

    def _look(self, raw: str | bytes, now: float) -> dict[str, Any]:
        stream, picture, body = read_frame(raw)
        detector = self.detectors.pop(stream, None) or Detector()
        self.detectors[stream] = detector
        alert = detector.look(picture, now)
        for name, other in list(self.detectors.items()):
            if now - other.seen_at < FORGET_S and len(self.detectors) <= MAX_STREAMS:
                break
            del self.detectors[name]
        if alert is None:
            return {}
        return {"alert": {"type": "alert", "streamId": stream, **{k: body[k] for k in body if k != "frame"}, **alert}}


def read_frame(raw: str | bytes) -> tuple[str, np.ndarray, dict[str, Any]]:
    """The stream, the decoded picture and the message. Raises `ValueError`."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("streamId"), str) or not body["streamId"]:
        raise ValueError('expected an object with "streamId" as text')
    if not isinstance(body.get("frame"), str):
        raise ValueError('expected "frame" as text, the picture in base64')
    try:
        data = base64.b64decode(body["frame"], validate=True)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (ValueError, cv2.error):
        picture = None
    if picture is None:
        raise ValueError('"frame" is not a picture in base64')
    return body["streamId"], picture, {k: body[k] for k in ("timestamp", "frameId") if isinstance(body.get(k), int)}


def make_app() -> web.Application:
    service = Service()

    async def analyze(request: web.Request) -> web.Response:
        try:
            return web.json_response(await service.answer(await request.read()))
        except ValueError as fault:
            return web.json_response({"error": str(fault)}, status=400)

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=20)
        await ws.prepare(request)
        async for message in ws:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                try:
                    answer = await service.answer(message.data)
                except ValueError as fault:
                    print(f"a frame was passed over: {fault}", flush=True)
                    continue
                if answer:
                    await ws.send_json(answer["alert"])
        return ws

    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    app.on_cleanup.append(service.close)
    app.add_routes([web.post("/analyze", analyze), web.get("/ws", socket)])
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8500)
    options = parser.parse_args()
    web.run_app(make_app(), host=options.host, port=options.port, access_log=None)


if __name__ == "__main__":
    main()
