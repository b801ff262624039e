"""Answers over HTTP: JSON bodies, errors as the edge protocol has them, and the bytes that wait for their readers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from watchout.common.metrics import Metrics
from watchout.gateway.budget import Budget
from watchout.gateway.listen.dispatch import ConnectionDispatcher

#: Bytes of answers that wait for their readers: of one user or stranger's address (or one answer), and of all.
MAX_HOLDER_BYTES: Final = 16 << 20
MAX_ANSWERS_BYTES: Final = 64 << 20

#: Whose an answer is, once it is known: a user; else it is its address's.
HOLDER: Final = web.RequestKey("holder", str)


class HttpError(Exception):
    """An answer with an error body."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        super().__init__(message)

    def response(self) -> web.Response:
        """The error as the edge protocol has it."""
        return json_response({"error": {"code": self.code, "message": self.message}}, self.status, self.headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A body as JSON, which nobody is to store."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )


def listener_of(request: web.Request) -> ConnectionDispatcher | None:
    """The connection that a request came on."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, ConnectionDispatcher) else None


def address_of(request: web.Request) -> str:
    """The key by which limits know the address that a request came from."""
    listener = listener_of(request)
    return f"address {None if listener is None else listener.address_key}"


class AnswerSender:
    """Sends answers with bodies, and counts each until the kernel has all of it.

    One user, or one address of strangers, holds at most `MAX_HOLDER_BYTES`: what is over is answered with 503. When all
    hold `MAX_ANSWERS_BYTES`, the oldest answer of whoever holds the most is cut off.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget = Budget(MAX_HOLDER_BYTES, MAX_ANSWERS_BYTES)

    @web.middleware
    async def send(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The outermost middleware: what it returns is sent already, unless it has no body."""
        response = await handler(request)
        body = response.body if isinstance(response, web.Response) else None
        transport, listener = request.transport, listener_of(request)
        if not isinstance(body, bytes) or not body or request.method == "HEAD" or transport is None:
            return response
        share = self._budget.open(request.get(HOLDER) or address_of(request), transport.abort)
        gave_way = self._budget.gave_way
        try:
            if not share.grow(len(body)):
                self._metrics.count("answers_refused_total")
                text = "too much that you asked for waits to be read by you, read it or try again"
                return HttpError(503, "OVERLOADED", text, {"Retry-After": "1"}).response()
            self._metrics.count("answers_cut_total", self._budget.gave_way - gave_way)
            self._metrics.set("answers_waiting_bytes", self._budget.held_bytes)
            await response.prepare(request)
            await response.write_eof()
            if listener is not None and listener.write_monitor is not None:
                await listener.write_monitor.wait_until_taken()
        except ConnectionError:
            pass  # the reader went, or was cut off
        finally:
            share.release()
            self._metrics.set("answers_waiting_bytes", self._budget.held_bytes)
        return response
