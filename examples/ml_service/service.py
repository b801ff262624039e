"""An ML service for watchout that reports when somebody walks through the picture. Start from it.

mlbridge posts each frame to ``POST /analyze``: the first as ``{"streamId","frame":"<base64>","timestamp","frameId"}``,
the others as the picture itself with its ids in headers, because each answer says ``Accept: image/*``. The answer may
hold ``{"alert":{…}}``. ``GET /ws`` is the JSON over one WebSocket, and a message comes back only for an alert.
What knows pictures is in detector.py: put your model there and keep the rest.

Run it, and mlbridge with it:

    pip install opencv-python-headless aiohttp
    python service.py --port 8500
    ML_SERVICE_URL=http://127.0.0.1:8500 honcho start
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from detector import Detector
from watcher import MAX_STREAMS, Watcher, read_object, serve_http

__all__ = ["MAX_STREAMS", "Detector", "Service", "make_app", "read_frame"]

MAX_MESSAGE_BYTES = 32 << 20
#: Sent with each answer: pictures are taken as they are, which costs both sides less than base64.
ACCEPT = {"Accept": "image/*, application/json;q=0.5"}


class Service(Watcher):
    """Analyses frames as JSON objects. One instance serves all streams."""

    async def answer(self, raw: str | bytes) -> dict[str, Any]:
        """Return the result of one frame. Raises `ValueError` with the text of the response."""
        return await self.in_thread(self._look, raw, time.monotonic())

    async def answer_picture(self, encoded: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the result of a picture whose ids are headers. Raises `ValueError` and `KeyError`."""
        about = {"timestamp": int(headers["X-Frame-Time"]), "frameId": int(headers["X-Frame-Id"])}
        alert = await self.watch(headers["X-Stream-Id"], encoded, about)
        return {} if alert is None else {"alert": alert}

    def _look(self, raw: str | bytes, now: float) -> dict[str, Any]:
        stream, picture, body = read_frame(raw)
        alert = self.look(stream, picture, body, now)
        return {} if alert is None else {"alert": alert}


def read_frame(raw: str | bytes) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Return the stream, the decoded picture and the rest of the message. Raises `ValueError`."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    return read_object(body)


def make_app() -> web.Application:
    service = Service()

    async def close(_: web.Application) -> None:
        service.close()

    async def analyze(request: web.Request) -> web.Response:
        try:
            if request.content_type.startswith("image/"):
                found = await service.answer_picture(await request.read(), request.headers)
            else:
                found = await service.answer(await request.read())
            return web.json_response(found, headers=ACCEPT)
        except (ValueError, KeyError) as fault:
            return web.json_response({"error": str(fault)}, status=400, headers=ACCEPT)

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
    app.on_cleanup.append(close)
    app.add_routes([web.post("/analyze", analyze), web.get("/ws", socket)])
    return app


if __name__ == "__main__":
    serve_http(make_app, __doc__)
