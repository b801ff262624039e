"""Shared by all examples of an ML service: a detector for each stream in one thread, and decoding of frames."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import cv2
import numpy as np
from detector import Detector

FORGET_S = 60.0  # a stream without frames for this many seconds is forgotten
MAX_STREAMS = 100  # a detector holds about 4 MB

T = TypeVar("T")


class Watcher:
    """The detectors of all streams. They run in one thread: the event loop stays free, and they need no lock."""

    def __init__(self) -> None:
        self.detectors: dict[str, Detector] = {}  # the one not seen for longest is first
        self._thread = ThreadPoolExecutor(1, "detector")

    async def watch(self, stream: str, encoded: bytes, about: dict[str, Any]) -> dict[str, Any] | None:
        """Return the alert for an encoded picture, or None. `about`: `timestamp`, `frameId`. Raises `ValueError`."""
        return await self.in_thread(lambda: self.look(stream, decode(encoded), about, time.monotonic()))

    async def watch_object(self, body: object) -> dict[str, Any]:
        """Return the result of a decoded message with one frame; it names the frame. Raises `ValueError`."""
        stream, picture, about = await self.in_thread(read_object, body)
        alert = await self.in_thread(self.look, stream, picture, about, time.monotonic())
        return {"streamId": stream, **about, "alerts": [] if alert is None else [alert]}

    def look(self, stream: str, picture: np.ndarray, about: dict[str, Any], now: float) -> dict[str, Any] | None:
        """Return the alert for one decoded picture, or None. `now` in seconds: detectors of old streams are dropped."""
        detector = self.detectors.pop(stream, None) or Detector()
        self.detectors[stream] = detector
        alert = detector.look(picture, about["timestamp"] / 1000 if "timestamp" in about else now)
        detector.seen_at = now
        for name, other in list(self.detectors.items()):
            if now - other.seen_at < FORGET_S and len(self.detectors) <= MAX_STREAMS:
                break
            del self.detectors[name]
        return None if alert is None else {"type": "alert", "streamId": stream, **about, **alert}

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def close(self) -> None:
        self._thread.shutdown()


def decode(encoded: bytes) -> np.ndarray:
    """Return the decoded picture. Raises `ValueError`."""
    try:
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except (ValueError, cv2.error):
        picture = None
    if picture is None:
        raise ValueError('"frame" is not an encoded picture')
    return picture


def read_object(body: object) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Return stream, decoded picture, `timestamp` and `frameId` of a decoded message. Raises `ValueError`.

    `frame` is base64 in JSON, and bytes in MessagePack.
    """
    if not isinstance(body, dict) or not isinstance(body.get("streamId"), str) or not body["streamId"]:
        raise ValueError('expected an object with "streamId" as text')
    frame = body.get("frame")
    if not isinstance(frame, str | bytes):
        raise ValueError('expected "frame" as text, the picture in base64')
    if isinstance(frame, str):
        try:
            frame = base64.b64decode(frame, validate=True)
        except ValueError:
            raise ValueError('"frame" is not a picture in base64') from None
    if not frame:
        raise ValueError('"frame" is empty, expected an encoded picture')
    return (
        body["streamId"],
        decode(frame),
        {k: body[k] for k in ("timestamp", "frameId") if isinstance(body.get(k), int)},
    )


def listen_options(description: str | None) -> argparse.Namespace:
    """Return the options `--host` and `--port` of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8500)
    return parser.parse_args()


def fail_to_listen(port: int, exc: Exception) -> NoReturn:
    """Exit with a message when the port is in use."""
    raise SystemExit(
        f"port {port} is not available ({getattr(exc, 'strerror', None) or exc}): another program listens there, see "
        f"`ss -ltnp sport = :{port}` or `lsof -i :{port}`; give another one with --port"
    )


def serve_http(make_app: Callable[[], Any], description: str | None) -> None:
    """Serve an application of aiohttp until SIGINT or SIGTERM."""
    from aiohttp import web  # the services over other protocols do not need it

    options = listen_options(description)
    try:
        web.run_app(make_app(), host=options.host, port=options.port, access_log=None)
    except OSError as exc:
        fail_to_listen(options.port, exc)


def run(serve: Coroutine[Any, Any, None]) -> None:
    """Run a service until SIGINT or SIGTERM."""

    async def until_told() -> None:
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        tasks = [asyncio.ensure_future(serve), asyncio.ensure_future(told.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while not tasks[0].done():
            tasks[0].cancel()  # again, as a library may swallow one: asyncio.wait_for does before Python 3.12
            await asyncio.wait(tasks[:1], timeout=1)
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]

    asyncio.run(until_told())
