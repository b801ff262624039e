"""The same ML service for raw pictures over HTTP: the body is the JPEG itself, its ids are headers. No base64.

Run it, and mlbridge with it:

    pip install opencv-python-headless aiohttp
    python over_http_raw.py --port 8500
    ML_SERVICE_URL=http://127.0.0.1:8500 ML_HTTP_FORMAT=raw honcho start

Without ``ML_HTTP_FORMAT`` the first frame would come as JSON, which this service does not take (service.py takes both).
``POST /analyze`` has ``X-Stream-Id``, ``X-Frame-Id`` and ``X-Frame-Time`` (ms since the epoch). The answer is ``{}`` or
``{"alert":{…}}``. With ``ML_BATCH=8`` up to 8 pictures come as ``multipart/form-data``, each part with these headers;
the answer is then ``{"answers":[…]}``, one for each in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import BodyPartReader, web
from watcher import Watcher, serve_http

MAX_MESSAGE_BYTES = 64 << 20


async def answer(watcher: Watcher, headers: Mapping[str, str], encoded: bytes) -> dict[str, Any]:
    about = {"timestamp": int(headers["X-Frame-Time"]), "frameId": int(headers["X-Frame-Id"])}
    alert = await watcher.watch(headers["X-Stream-Id"], encoded, about)
    return {} if alert is None else {"alert": alert}


def make_app() -> web.Application:
    watcher = Watcher()

    async def analyze(request: web.Request) -> web.Response:
        try:
            if not request.content_type.startswith("multipart/"):
                return web.json_response(await answer(watcher, request.headers, await request.read()))
            answers = []
            async for part in await request.multipart():
                assert isinstance(part, BodyPartReader)
                try:
                    answers.append(await answer(watcher, part.headers, bytes(await part.read())))
                except ValueError as fault:  # this frame alone
                    answers.append({"error": str(fault)})
            return web.json_response({"answers": answers})
        except (ValueError, KeyError) as fault:
            return web.json_response({"error": str(fault)}, status=400)

    async def close(_: web.Application) -> None:
        watcher.close()

    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    app.on_cleanup.append(close)
    app.add_routes([web.post("/analyze", analyze)])
    return app


if __name__ == "__main__":
    serve_http(make_app, __doc__)
