"""The same ML service for batches over HTTP: several frames in one call, for a model on a GPU.

Run it, and mlbridge with it:

    pip install opencv-python-headless aiohttp
    python over_http_batch.py --port 8500
    ML_SERVICE_URL=http://127.0.0.1:8500 ML_BATCH=8 honcho start

``POST /analyze`` gets ``{"frames":[{"streamId","frame":"<base64>","timestamp","frameId"},…]}``, at most ``ML_BATCH`` of
them, each of another stream. The answer is ``{"answers":[…]}``, one for each frame in their order: ``{}``,
``{"alert":{…}}``, or ``{"error":"…"}`` for a frame that could not be looked at.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from watcher import Watcher, serve_http

MAX_MESSAGE_BYTES = 64 << 20


def make_app() -> web.Application:
    watcher = Watcher()

    async def one(frame: object) -> dict[str, Any]:
        try:
            return await watcher.watch_object(frame)
        except ValueError as fault:
            return {"error": str(fault)}

    async def analyze(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("frames"), list):
            return web.json_response({"error": 'expected {"frames":[…]}'}, status=400)
        return web.json_response({"answers": [await one(frame) for frame in body["frames"]]})

    async def close(_: web.Application) -> None:
        watcher.close()

    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    app.on_cleanup.append(close)
    app.add_routes([web.post("/analyze", analyze)])
    return app


if __name__ == "__main__":
    serve_http(make_app, __doc__)
