"""An ML service for watchout: tells when somebody walks through the picture. Start from it and put your model in.

mlbridge posts each frame to ``POST /analyze`` as ``{"streamId","frame":"<base64>","timestamp","frameId"}``; the answer
may hold ``{"alert":{…}}``. ``GET /ws`` is the same over one WebSocket, and a message comes back only for an alert.
The only part that knows pictures is `Detector`.
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

WIDTH = 320  # pictures are made this wide before they are looked at
LEAST_SHARE = 0.004  # of the picture that must move; below it is noise
LIGHT_SHARE = 0.6  # when more than this changes at once, it is the light or the camera
LIGHT_STEP = 60  # so is a change of most of the picture by so many of 255 levels: too much to be fitted
COOLDOWN_S = 5.0  # between two alerts of a stream
FORGET_S = 60.0  # a stream of which nothing came for so long is forgotten
MAX_STREAMS = 100  # a detector holds about 4 MB
MAX_MESSAGE_BYTES = 32 << 20


class Detector:
    """Finds motion against a still background in one stream; a second frame must confirm the first."""

    def __init__(self) -> None:
        self.seen_at = 0.0
        self._alerted_at = float("-inf")
        self._frames = self._moving = 0
        self._shape: tuple[int, ...] = ()

    def look(self, picture: np.ndarray, now: float) -> dict[str, Any] | None:
        """An alert, or None. `now` in seconds."""
        self.seen_at = now
        height = max(1, round(picture.shape[0] * WIDTH / picture.shape[1]))
        small = cv2.resize(picture, (WIDTH, min(height, 4 * WIDTH)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (5, 5), 0)
        if small.shape != self._shape:  # the first frame, or the phone was turned
            self._shape, self._frames, self._moving = small.shape, 0, 0
            self._background = cv2.createBackgroundSubtractorMOG2(history=60, varThreshold=25, detectShadows=False)
            self._background.setNMixtures(3)
        new_light = False
        if self._frames:
            background = self._background.getBackgroundImage()
            new_light = float(np.median(cv2.absdiff(small, background))) > LIGHT_STEP
            small = small if new_light else same_light(small, background)
        moved = cv2.morphologyEx(self._background.apply(small), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        self._frames += 1
        if self._frames == 1:
            return None
        if new_light or np.count_nonzero(moved) > LIGHT_SHARE * moved.size:
            self._background.apply(small, None, 1.0)  # begin anew with this picture
            self._moving = 0
            return None
        _, _, boxes, centres = cv2.connectedComponentsWithStats(moved)
        biggest = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA])) if len(boxes) > 1 else 0
        share = float(boxes[biggest, cv2.CC_STAT_AREA]) / moved.size if biggest else 0.0
        self._moving = self._moving + 1 if share >= LEAST_SHARE else 0
        if self._moving < 2 or now - self._alerted_at < COOLDOWN_S:
            return None
        self._alerted_at = now
        upright = boxes[biggest, cv2.CC_STAT_HEIGHT] > 1.2 * boxes[biggest, cv2.CC_STAT_WIDTH]
        x, y = (float(c) / size for c, size in zip(centres[biggest], moved.shape[::-1], strict=True))
        return {
            "severity": "medium" if upright else "low",
            "message": "A person walks through the picture" if upright else "Something moves in the picture",
            "metadata": {
                "confidence": round(min(0.99, 0.5 + 10 * share), 2),
                "location": {"x": round(x, 3), "y": round(y, 3)},
                "objectType": "person" if upright else "object",
            },
        }


def same_light(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The picture as it would be in the light of the background: one gain and offset a colour, fitted to most of it."""
    colours = []
    for now, before in zip(cv2.split(picture), cv2.split(background), strict=True):
        x, y = (channel[::4, ::4].astype(np.float32).ravel() for channel in (before, now))
        near = np.full(x.shape, True)
        for _ in range(3):
            gain = np.cov(x[near], y[near])[0, 1] / x[near].var() if x[near].std() > 2 else 1.0
            gain = float(np.clip(gain, 0.5, 2.0))
            offset = float(np.median(y - gain * x))
            off = np.abs(y - gain * x - offset)
            near = off <= max(4.0, 2 * float(np.median(off)))
        colours.append(np.clip((now.astype(np.float32) - offset) / gain, 0, 255).astype(np.uint8))
    return cv2.merge(colours)


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
