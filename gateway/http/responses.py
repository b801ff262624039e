"""HTTP responses: JSON bodies, errors as the edge protocol defines them, and a bound on unread response bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from watchout.common import metric_names
from watchout.common.bus.merged_replies import Merged
from watchout.common.metrics import Metrics
from watchout.common.toolbox.budget import ByteBudget, Share
from watchout.common.toolbox.jsontext import write_json
from watchout.gateway.error_response import error_body
from watchout.gateway.listen.dispatch import ConnectionDispatcher

#: Most bytes of responses that clients have not read: of one user or unauthenticated address (one response may exceed
#: it), and of all.
MAX_CLIENT_BYTES: Final = 16 << 20
MAX_RESPONSES_BYTES: Final = 64 << 20

#: Key of a request under which its unread response is counted: the user, once known. Without it the address counts.
CLIENT: Final = web.RequestKey("client", str)

#: Headers of an error after which the client may try again in a second.
RETRY: Final = {"Retry-After": "1"}
#: Headers of an error 401 (RFC 9110 section 11.6.1).
CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpError(Exception):
    """An error response. Raised by request handlers; `middleware.convert_errors` sends it.

    Args:
        status: HTTP status.
        code: Error code of the edge protocol (docs/protocol.md).
        message: Explanation for the client's developer.
        headers: Further headers.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        super().__init__(message)

    def response(self) -> web.Response:
        """Return the response with the error as JSON body."""
        return json_response(error_body(self.code, self.message), self.status, self.headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a response with `body` encoded as JSON, which no cache may store."""
    return web.Response(
        body=write_json(body),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )


def missing_slots(merged: Merged[Any]) -> dict[str, object]:
    """Return the members that a body has beside those of one machine: the slots whose streams are missing in it."""
    return {"missingSlots": merged.missing} if merged.missing else {}


def connection_of(request: web.Request) -> ConnectionDispatcher | None:
    """Return the connection that a request arrived on; None in tests and after it was lost."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, ConnectionDispatcher) else None


def address_key(request: web.Request) -> str:
    """Return the key by which limits count the address that a request came from."""
    connection = connection_of(request)
    return f"address {None if connection is None else connection.address_key}"


def mark_authenticated(request: web.Request) -> None:
    """Record that the sender of a request is known: its connection no longer counts as unauthenticated."""
    if (connection := connection_of(request)) is not None:
        connection.on_authenticated()


class ResponseSender:
    """Sends responses that have a body, and counts each until the kernel has taken all of it.

    A user or address that already has `MAX_CLIENT_BYTES` of unread responses gets 503 instead. When all together
    exceed `MAX_RESPONSES_BYTES`, the oldest response of the client with the most is cut off.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._budget: ByteBudget[Share] = ByteBudget(MAX_RESPONSES_BYTES, MAX_CLIENT_BYTES)

    @web.middleware
    async def send(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The outermost middleware: the response it returns has been sent already, unless it has no body."""
        response = await handler(request)
        body = response.body if isinstance(response, web.Response) else None
        transport, connection = request.transport, connection_of(request)
        if not isinstance(body, bytes) or not body or request.method == "HEAD" or transport is None:
            return response
        share = Share(self._budget, request.get(CLIENT) or address_key(request), transport.abort)
        evicted_before = self._budget.evicted
        try:
            if not share.grow(len(body)):
                self._metrics.count(metric_names.HTTP_RESPONSES_REFUSED)
                text = "too many response bytes wait for you, read them and try again"
                return HttpError(503, "OVERLOADED", text, RETRY).response()
            self._metrics.count(metric_names.HTTP_RESPONSES_CUT, self._budget.evicted - evicted_before)
            self._metrics.set(metric_names.HTTP_RESPONSES_WAITING_BYTES, self._budget.total_bytes)
            await response.prepare(request)
            await response.write_eof()
            if connection is not None and connection.write_monitor is not None:
                await connection.write_monitor.wait_until_taken()
        except ConnectionError:
            pass  # the client disconnected or was cut off
        finally:
            share.release()
            self._metrics.set(metric_names.HTTP_RESPONSES_WAITING_BYTES, self._budget.total_bytes)
        return response
