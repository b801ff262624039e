"""An ML service for tests: a real HTTP server that answers as its `mode` says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import sys
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.kit.http_server import clean_up
from tests.kit.ports import free_port
from watchout.common.clock import now_ms

ALERT = {"severity": "high", "message": "a person"}


class MlStub:
    """One server on a free port. `requests` holds the bodies that came; `port` stays over `stop` and `start`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.mode = "none"
        self.answer: Any = {"alert": ALERT}
        #: Headers of answers with a status, and seconds that every answer takes.
        self.answer_headers: dict[str, str] = {}
        self.takes_s = 0.0
        #: Each so many-th answer takes as long as this; 0: none does.
        self.slow_every, self.slow_s = 0, 0.0
        #: Of each request: when it came, in ms since the epoch, its stream, its frame's id and time.
        self.looks: list[tuple[int, str, int, int]] = []
        #: Of each answer: when it went, in seconds of the loop, and its stream.
        self.answered: list[tuple[float, str]] = []
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.peers: set[Any] = set()
        self._under_way: list[tuple[web.Request, str]] = []
        self.most_under_way = 0
        self.cancelled = 0
        self.released = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def under_way(self) -> list[str]:
        """The streams of the requests that wait for an answer; whoever hung up waits for none, heard of yet or not."""
        return [stream for request, stream in self._under_way if not _hung_up(request)]

    async def start(self) -> None:
        self.port = self.port or free_port()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        await site.start()

    async def stop(self) -> None:
        if self._runner is not None:
            await clean_up(self._runner)
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.paths.append(request.path_qs)
        self.headers.append(dict(request.headers))
        self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        stream = body["streamId"]
        self.looks.append((now_ms(), stream, body["frameId"], body["timestamp"]))
        assert stream not in self.under_way, "two requests of one stream at once"
        self._under_way.append((request, stream))
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        try:
            slow = self.slow_every and not len(self.requests) % self.slow_every
            await asyncio.sleep(self.slow_s if slow else self.takes_s)
            response = await self._answer(request)
            self.answered.append((asyncio.get_running_loop().time(), stream))
            return response
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._under_way.remove((request, stream))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        match self.mode:
            case "none":
                return web.json_response({})
            case "answer":
                return web.json_response(self.answer)
            case "text":
                return web.Response(text=self.answer, content_type="application/json")
            case "status":
                return web.json_response({"alert": ALERT}, status=self.answer, headers=self.answer_headers)
            case "bare":
                return web.Response(status=self.answer)
            case "hang":
                await self.released.wait()
                return web.json_response({"alert": ALERT})
            case "drip":
                return await _drip(request)
            case "huge":
                return await _huge(request)
            case "announced":
                return web.Response(body=json.dumps({"alert": ALERT, "x": "x" * (2 << 20)}).encode())
            case "redirect":
                raise web.HTTPTemporaryRedirect("/elsewhere")
            case "gzip":
                response = web.json_response({"alert": ALERT})
                response.enable_compression(web.ContentCoding.gzip)
                return response
        raise AssertionError(self.mode)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[MlStub]:
    """An ML service that runs during the block; requests that hang are let go of at its end."""
    stub = MlStub()
    await stub.start()
    try:
        yield stub
    finally:
        stub.released.set()
        await stub.stop()


def _hung_up(request: web.Request) -> bool:
    """Whether the other end has closed the connection, whatever the loop knows of it."""
    if (transport := request.transport) is None or transport.is_closing():
        return True
    if sys.platform != "linux":
        return False
    poller = select.poll()
    poller.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poller.poll(0))


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)
    return response


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            await response.write(b"[" * (1 << 16))
        await response.write_eof()
    return response
