"""The HTTP paths of the edge protocol, on aiohttp. Asks the hub, the router and the session store; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import HttpVersion11, web

from watchout.common import log, supervisor
from watchout.common.alerts import model
from watchout.common.alerts.model import ALERT_ID, STREAM_ID, AlertFault
from watchout.common.bus.reply_records import AlertFrameRow, StreamRow
from watchout.common.clock import now_ms
from watchout.common.errors import ErrorCode, RouterUnavailable, StoreUnavailable
from watchout.common.media.frames import Frame, FrameFault
from watchout.common.toolbox.jsontext import JsonFault, read_json
from watchout.common.toolbox.single_flight import SharedCalls, SingleFlight
from watchout.gateway.authorization import Right
from watchout.gateway.budget import Budget
from watchout.gateway.client.handshake import is_upgrade, names_websocket, read_target
from watchout.gateway.client.protocol import Path
from watchout.gateway.context import Context
from watchout.gateway.error_response import SERVER
from watchout.gateway.http import queries
from watchout.gateway.http.caller import Caller
from watchout.gateway.http.conditional import entity_tag, not_modified
from watchout.gateway.http.mjpeg import MJPEG_HEADERS, Mjpeg
from watchout.gateway.http.mjpeg_parts import Taste
from watchout.gateway.http.prometheus import PublicStats, render_metrics
from watchout.gateway.http.queries import AlertQuery
from watchout.gateway.http.responses import HOLDER, AnswerSender, HttpError, address_of, json_response, listener_of
from watchout.gateway.http.webhook_requests import Replays, Signed, WebhookFault, alert_id, read_headers
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.listen.dispatch import HttpConnection
from watchout.gateway.listen.head import HeadFault, check_fields
from watchout.gateway.model import Owner, StreamState
from watchout.gateway.progress import TransferProgress
from watchout.gateway.requests import origins
from watchout.gateway.requests.sign_in import BAD_TOKEN, Sender, sign_in
from watchout.identity import Identity

#: Most bytes of a body: a list of alerts.
MAX_BODY_BYTES: Final = 2 << 20
#: A body of which nothing more comes for so long is given up.
BODY_STALLED_S: Final = 10.0
#: Bytes of bodies that are held before their signature could be checked: of one address, and of all; and of services.
MAX_ADDRESS_BODIES_BYTES: Final = 4 << 20
MAX_BODIES_BYTES: Final = 64 << 20
#: Questions for recent alerts that are under way at once, each with an answer of up to 8 MiB.
MAX_FETCHING: Final = 4
#: How long `/health` waits for each of its answers.
HEALTH_TIMEOUT_S: Final = 1.0

HELP: Final = """watchout: live camera frames and ML alerts, routed.

WebSocket
  /streams/register    a camera publishes frames and receives alerts
  /streams/subscribe   a viewer receives frames, alerts and status
HTTP
  GET  /health                     whether to send traffic here
  GET  /health/live                whether this process works
  GET  /stats                      counts over all gateways
  GET  /metrics                    the same and more, for Prometheus
  GET  /streams                    the streams that you may view
  GET  /streams/{id}/frame.jpg     the newest frame of one
  GET  /streams/{id}/mjpeg?fps=    its frames as a moving picture
  GET  /alerts?streamId=&since=    its recent alerts
  GET  /alerts/{id}/frame.jpg      the picture that one of them speaks of
  POST /alerts                     an ML service brings alerts

Sign in with "Authorization: Bearer <session token>"; on a WebSocket also with a first message
{"type":"auth","token":"..."}. `watchout-ctl token` prints a token of the embedded session store.
"""

_log = log.get("gateway.http.app")


class JsonRequestHandler(web.RequestHandler, HttpConnection):
    """aiohttp's connection, with our error bodies also for what is no HTTP."""

    __slots__ = ()

    def close(self) -> None:
        """Finish the answer that is under way, if any, and close the connection."""
        is_idle = self._waiter is not None and not self._waiter.done()
        super().close()
        if is_idle:
            self.force_close()

    def detach(self) -> bytes:
        """Let go of the connection without closing it; return what came after the last request."""
        rest, self._message_tail = self._message_tail, b""
        self.transport = None
        self.connection_lost(None)
        return rest

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say nothing of a body that could not be read: anybody can send one."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may quote what came
    ) -> web.StreamResponse:
        """A request that could not be read, or a handler that failed."""
        if isinstance(exc, ConnectionError):  # the client did not wait
            error = HttpError(status, "INTERNAL_ERROR", "the connection was lost")
        elif status >= 500:
            _log.error("a request failed", path=request.path, exc_info=exc)
            error = HttpError(status, "INTERNAL_ERROR", "the request failed here")
        else:
            error = HttpError(status, "BAD_REQUEST", "not a request that can be read")
        response = error.response()
        response.headers["Server"] = SERVER  # the signal that sets it is for requests that could be read
        response.force_close()
        return response


def make_app(context: Context) -> web.Application:
    """All HTTP paths."""
    http = _Http(context)
    app = web.Application(
        middlewares=[AnswerSender(context.metrics).send, _keep_or_close, _errors, http.check],
        client_max_size=MAX_BODY_BYTES,
    )
    app.on_response_prepare.append(http.name_server)
    app.on_response_prepare.append(http.allow_origin)
    app.router.add_get("/", http.help)
    app.router.add_get("/health", http.health)
    app.router.add_get("/health/live", http.live)
    app.router.add_get("/stats", http.stats)
    app.router.add_get("/metrics", http.metrics)
    app.router.add_get("/streams", http.streams)
    app.router.add_get("/alerts", http.recent_alerts)
    app.router.add_post("/alerts", http.post_alerts)
    for path in Path:
        app.router.add_get(str(path), http.upgrade, allow_head=False)
    app.router.add_get("/streams/{id}/frame.jpg", http.frame)
    app.router.add_get("/alerts/{id}/frame.jpg", http.alert_frame)
    app.router.add_get("/streams/{id}/mjpeg", http.mjpeg)
    return app


@web.middleware
async def _keep_or_close(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the listener when its connection is at work; strangers' connections are not kept while they are many."""
    listener = listener_of(request)
    if listener is None:
        return await handler(request)
    listener.on_request()
    response = await handler(request)
    if not listener.on_response() and not response.prepared:
        response.force_close()
    return response


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except HttpError as error:
        return error.response()
    except RouterUnavailable:
        return HttpError(503, "ROUTING_ERROR", "the router did not answer in time, try again", _RETRY).response()
    except StoreUnavailable:
        return HttpError(503, "AUTH_UNAVAILABLE", "sessions cannot be checked now, try again", _RETRY).response()
    except web.HTTPException as error:
        error.__traceback__ = None  # the request keeps the exception, whose frames would keep the request
        return _of_aiohttp(request, error).response()


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> HttpError:
    match error:
        case web.HTTPMethodNotAllowed():
            allow = ", ".join(sorted(error.allowed_methods))
            text = f"{request.method[:20]} is not allowed here, expected {allow}"
            return HttpError(405, "METHOD_NOT_ALLOWED", text, {"Allow": allow})
        case web.HTTPNotFound():
            meant = request.path.rstrip("/")
            slash = f"there is no slash at the end of {meant}"
            return HttpError(404, "NOT_FOUND", slash if meant in set(Path) else "there is no such path, see GET /")
        case web.HTTPRequestEntityTooLarge():
            return HttpError(413, "TOO_LARGE", _TOO_LARGE)
    return HttpError(error.status, "BAD_REQUEST", error.reason)


_RETRY: Final = {"Retry-After": "1"}


class _Http:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._health: SharedCalls[None, tuple[str | None, PublicStats | None]] = SharedCalls("health")
        self._stats = SingleFlight(self._ask_router, context.tasks)
        self._metrics = SingleFlight(self._ask_metrics, context.tasks)
        self._rows = SingleFlight(self._ask_rows, context.tasks)
        self._replays = Replays()
        self._bodies = Budget(MAX_ADDRESS_BODIES_BYTES, MAX_BODIES_BYTES)
        self._service_bodies = Budget(MAX_BODIES_BYTES, MAX_BODIES_BYTES)
        self._fetching = asyncio.Semaphore(MAX_FETCHING)

    @web.middleware
    async def check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """What holds for every request, whatever it asks for; and the answer to a browser's preflight."""
        try:
            check_fields(request.raw_headers, host_needed=request.version >= HttpVersion11)
        except HeadFault as fault:
            response = HttpError(fault.status, fault.code, str(fault)).response()
            response.force_close()
            return response
        asked = request.match_info.http_exception
        if (
            request.method == "OPTIONS"
            and "Origin" in request.headers
            and "Access-Control-Request-Method" in request.headers
            and isinstance(asked, web.HTTPMethodNotAllowed)
            and (methods := asked.allowed_methods & {"GET", "HEAD"})
            and request.path not in set(Path)
        ):
            headers = origins.preflight_headers(
                _only(request, "Origin"), ", ".join(sorted(methods)), self._context.settings.allowed_origins
            )
            if headers is None:
                raise HttpError(403, "ORIGIN_NOT_ALLOWED", "a page of this origin may not ask here", {"Vary": "Origin"})
            return web.Response(status=204, headers=headers)
        return await handler(request)

    async def name_server(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Say what answers, without versions."""
        response.headers["Server"] = SERVER

    async def allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let pages of allowed origins read the answer, errors too. Only services bring alerts, and those read all."""
        if (request.method, request.path) != ("POST", "/alerts") and request.method != "OPTIONS":
            listed = self._context.settings.allowed_origins
            response.headers.update(origins.cors_headers(_only(request, "Origin"), listed))

    async def help(self, _request: web.Request) -> web.Response:
        return web.Response(text=HELP)

    async def live(self, _request: web.Request) -> web.Response:
        return json_response({"status": "live"})

    async def health(self, request: web.Request) -> web.Response:
        reason, stats = await self._look()
        body: dict[str, Any] = {
            "status": "healthy" if reason is None else "unhealthy",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if reason is not None:
            body["reason"] = reason
        if stats is not None and self._may_see_stats(request):
            body["stats"] = msgspec.Raw(stats.page)
            body["metrics"] = msgspec.Raw(stats.streams)
        return json_response(body, 200 if reason is None else 503)

    async def stats(self, request: web.Request) -> web.Response:
        self._must_see_stats(request)
        stats = await self._ask_stats()
        if stats is None:
            raise RouterUnavailable("no stats")
        return json_response(msgspec.Raw(stats.page))

    async def metrics(self, request: web.Request) -> web.Response:
        self._must_see_stats(request)
        text = await self._metrics.result()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def streams(self, request: web.Request) -> web.Response:
        viewer = await self._viewer(request)
        rows = await self._rows.result()
        if rows is None:
            raise RouterUnavailable("no streams")
        found = [
            {
                "id": row.stream_id,
                "userId": row.user_id,
                "status": row.status,
                "fps": row.fps,
                "viewers": row.viewers,
                "startedAt": row.started_at,
                "lastFrameAt": row.last_frame_at,
            }
            for row in rows
            if row.user_id is not None
            and self._context.authorization.may_hear(viewer, Owner(row.user_id, frozenset(row.organizations)))
        ]
        return json_response({"streams": found})

    async def frame(self, request: web.Request) -> web.Response:
        viewer, stream, word = await self._viewable(request, request.match_info["id"], Right.VIEW)
        if word.owner is None:
            raise _no_such_stream()
        with self._waiting(viewer) as caller:
            frame = await self._context.router.newest(stream, word)
            owner = (await self._context.router.find(stream)).owner
        # The stream may have changed hands while its frame was awaited, and so may the caller's rights.
        if not self._context.authorization.may_view(_still_in(caller), owner):
            self._context.metrics.count("unauthorized_total")
            raise _no_such_stream()
        if frame is None:
            raise HttpError(404, "NOT_FOUND", "there is no frame of this stream")
        try:
            picture, codec = frame.picture, frame.codec
        except FrameFault as fault:
            self._context.metrics.count("frames_undecodable_total")
            self._context.router.undecodable(frame, str(fault), now_ms())
            raise HttpError(404, "NOT_FOUND", "the newest frame of this stream is no picture") from None
        return _picture(request, frame, picture, codec.content_type)

    async def mjpeg(self, request: web.Request) -> web.StreamResponse:
        max_fps = queries.number(request, "fps", 0.01, 1000)
        viewer, stream, word = await self._viewable(request, request.match_info["id"], Right.VIEW)
        if word.owner is None:
            raise _no_such_stream()
        if request.method == "HEAD":  # the head alone is no viewer
            return web.StreamResponse(headers=MJPEG_HEADERS)
        # From here to `watch` in one turn of the loop: the word is the last one.
        context, subscription = self._context, Subscription(stream, viewer, video=True, alerts=False, max_fps=max_fps)
        if (full := context.connections.joined(viewer.user_id)) is not None:
            raise HttpError(503, "TOO_MANY_CONNECTIONS", f"too many connections {full.what}", _RETRY)
        try:
            listener = listener_of(request)
            taste = Taste.of(request.headers.getall("Accept", ()), request.headers.get("User-Agent", ""))
            watching = Mjpeg(context, subscription, taste, None if listener is None else listener.write_monitor)
            if context.hub.subscribe(subscription, watching, word, asyncio.get_running_loop().time(), now_ms()):
                context.router.ask_newest(stream)
            return await watching.serve(request)
        finally:
            context.connections.left(viewer.user_id)

    async def recent_alerts(self, request: web.Request) -> web.Response:
        viewer = await self._viewer(request)
        query = AlertQuery.of(request)
        found = await (self._alerts_of_all(viewer, query) if query.stream is None else self._alerts_of(viewer, query))
        if query.newest_first:
            found.reverse()
        return web.Response(
            body=b'{"alerts":[' + b",".join(found) + b"]}",
            headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"},
        )

    async def _alerts_of_all(self, viewer: Identity, query: AlertQuery) -> list[bytes]:
        """Alerts of all streams that the caller may have, oldest first."""
        link, access = self._context.router, self._context.authorization
        with self._waiting(viewer) as caller:
            async with self._turn_of(viewer):
                kept = await link.alerts(
                    None,
                    since=query.since,
                    limit=query.limit,
                    severity=query.severity,
                    scope=access.alert_scope(viewer),
                )
        viewer = _still_in(caller)
        return [
            alert.json
            for alert in kept
            if access.may_hear_kept(
                viewer, alert.owner, None if alert.owner is None else Owner(alert.owner, frozenset(alert.organizations))
            )
        ]

    async def _alerts_of(self, viewer: Identity, query: AlertQuery) -> list[bytes]:
        """Alerts of one stream, oldest first."""
        link, access, stream = self._context.router, self._context.authorization, query.stream
        assert stream is not None
        with self._waiting(viewer) as caller:
            async with self._turn_of(viewer):
                kept = await link.alerts(stream, since=query.since, limit=query.limit, severity=query.severity)
                owner = (await link.find(stream)).owner
                others = kept
                if owner is None and not kept:  # a camera that went long ago may have left alerts of its user
                    others = await link.alerts(stream)
                    owner = (await link.find(stream)).owner
        viewer = _still_in(caller)  # rights are judged after the last wait
        if not access.may_hear(viewer, owner):
            self._context.metrics.count("unauthorized_total")
            raise _no_such_stream()
        if owner is None and not any(access.may_hear_kept(viewer, alert.owner, owner) for alert in others):
            raise _no_such_stream()
        return [alert.json for alert in kept if access.may_hear_kept(viewer, alert.owner, owner)]

    @contextlib.asynccontextmanager
    async def _turn_of(self, viewer: Identity) -> AsyncIterator[None]:
        """A turn to hold what the router keeps of alerts: few at once, and few of one user."""
        async with self._context.replays_of(viewer.user_id), self._fetching:
            yield

    async def alert_frame(self, request: web.Request) -> web.Response:
        viewer = await self._viewer(request)
        alert_id = request.match_info["id"]
        if not ALERT_ID.match(alert_id):
            raise HttpError(404, "NOT_FOUND", "an alert's id has 1 to 128 printable ASCII characters")
        seen = [
            each
            for each in await self._context.router.alert_frames(alert_id)
            if request.query.get("streamId") in (None, each.stream) and await self._may_view_kept(viewer, each)
        ]
        if not seen:
            self._context.metrics.count("unauthorized_total")
            raise _no_such_alert()
        kept = next((each for each in seen if each.kept), None)
        if kept is None:
            raise HttpError(404, "NO_FRAME", "no picture is kept of this alert's frame")
        known = _is_known_picture(request, entity_tag(kept.stream, kept.term, kept.frame_id))
        with self._waiting(viewer) as caller:
            frame = None if known is not None else await self._context.router.picture(kept)
            owner = (await self._context.router.find(kept.stream)).owner
        # The caller's right may have ended while the picture was awaited.
        if not self._context.authorization.may_view_kept(_still_in(caller), kept.owner, owner):
            self._context.metrics.count("unauthorized_total")
            raise _no_such_alert()
        if known is not None:
            return known
        if frame is None:
            raise HttpError(404, "NO_FRAME", "the picture of this alert's frame did not come, try again")
        return _picture(request, frame, frame.picture, frame.codec.content_type)

    async def _may_view_kept(self, viewer: Identity, kept: AlertFrameRow) -> bool:
        word = await self._context.router.find(kept.stream)
        return self._context.authorization.may_view_kept(viewer, kept.owner, word.owner)

    async def post_alerts(self, request: web.Request) -> web.Response:
        signed = self._signed(request)
        body = await self._read_body(request, verified=signed is None)
        if signed is not None:
            known = self._verify(signed, body)
            _is_known(request)
            if known is not None:
                again = [{"id": each, "duplicate": True, "receivers": 0} for each in known]
                return json_response({"accepted": again}, 202)
        try:
            value = read_json(body)
        except (JsonFault, UnicodeDecodeError) as error:
            raise HttpError(400, "INVALID_MESSAGE", f"the body is not JSON: {error}") from None
        try:
            drafts = [model.check_draft(item) async for item in _unhurried(model.split_push(value))]
            ids = _alert_ids(signed, len(drafts) if isinstance(value, list) else None)
            found = [
                model.complete(draft, alert_id=new_id, timestamp=now_ms())
                for draft, new_id in zip(drafts, ids, strict=True)
            ]
        except AlertFault as fault:
            self._context.metrics.count("alerts_refused_total")
            raise HttpError(400, "INVALID_MESSAGE", f"not one alert was taken: {fault}") from None
        if found and not self._context.service_alert_rate.take("", asyncio.get_running_loop().time(), len(found)):
            self._context.metrics.count("alerts_over_rate_total", len(found))
            rate, wait_s = (
                self._context.settings.service_alert_rate,
                self._context.service_alert_rate.wait_s(len(found)),
            )
            text = f"more than {rate:g} alerts per second came here, send them again after {wait_s:.1f} s"
            raise HttpError(429, "RATE_LIMITED", text, {"Retry-After": str(math.ceil(wait_s))})
        taken: list[dict[str, Any]] = []
        for alert in found:
            try:
                accepted = await self._context.router.raise_alert(alert)
            except RouterUnavailable:
                late = {"code": "ROUTING_ERROR", "message": "the router did not answer in time: send the others again"}
                return json_response({"accepted": taken, "error": late}, 503, _RETRY)
            taken.append({"id": accepted.id, "duplicate": accepted.duplicate, "receivers": accepted.receivers})
        if signed is not None:  # only now: what the router did not take must be processed when it comes again
            self._replays.accept(signed.id, [each["id"] for each in taken], asyncio.get_running_loop().time())
        return json_response({"accepted": taken}, 202)

    async def upgrade(self, request: web.Request) -> web.Response:
        """Only what is no upgrade comes here, or an upgrade on a connection that served other requests before."""
        first = f"GET {request.raw_path} HTTP/{request.version.major}.{request.version.minor}"
        lines = [b"%b: %b" % header for header in request.raw_headers]
        head = b"\r\n".join([first.encode("latin-1", "replace"), *lines, b"", b""])
        listener = listener_of(request)
        if is_upgrade(head) and listener is not None:
            listener.upgrade(head)
            raise asyncio.CancelledError  # the connection is no longer aiohttp's: there is nobody to answer
        if request.version == HttpVersion11 and names_websocket(request.headers.getall("Upgrade", [])):
            text = "the target of a WebSocket request is a path or an http URL, without a user name and without a #"
            raise HttpError(400, "BAD_REQUEST", text)
        text = (
            "this path is for WebSockets: no `Upgrade: websocket` came over HTTP/1.1; a proxy in between may have "
            "dropped it"
        )
        raise HttpError(426, "UPGRADE_REQUIRED", text, {"Upgrade": "websocket", "Connection": "Upgrade"})

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _signed(self, request: web.Request) -> Signed | None:
        """What the headers of a signed request say, None for one with the service token. Raises 401 otherwise."""
        settings, headers = self._context.settings, request.headers
        if settings.service_token is not None and _same(_bearer(request), settings.service_token):
            _is_known(request)
            return None
        try:
            if not settings.service_webhook_secrets:
                raise WebhookFault("no service token, and no webhook secrets are set")
            if "Content-Encoding" in headers:
                raise WebhookFault("the body is encoded: only its raw bytes can be signed")
            return read_headers(
                headers.getall("webhook-id", []),
                headers.getall("webhook-timestamp", []),
                headers.getall("webhook-signature", []),
                now_s=time.time(),
            )
        except WebhookFault as fault:
            raise self._no_service(fault) from None

    def _verify(self, signed: Signed, body: bytes) -> tuple[str, ...] | None:
        """Check a signature; the alerts of a request that was accepted before. Raises 401."""
        try:
            signed.verify(body, self._context.settings.service_webhook_secrets)
        except WebhookFault as fault:
            raise self._no_service(fault) from None
        return self._replays.accepted(signed.id, asyncio.get_running_loop().time())

    def _no_service(self, fault: WebhookFault) -> HttpError:
        self._context.metrics.count("auth_refused_total")
        _log.debug("POST /alerts refused", reason=fault.reason)
        return HttpError(401, "AUTH_FAILED", "POST /alerts wants the service token or a valid signature", _CHALLENGE)

    async def _read_body(self, request: web.Request, *, verified: bool) -> bytes:
        """The body of a request; it may be slow, as long as it comes. Raises `HttpError`."""
        if "Content-Encoding" in request.headers:
            raise HttpError(415, "INVALID_MESSAGE", "the body must not be compressed")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise HttpError(413, "TOO_LARGE", _TOO_LARGE)
        budget, key = (self._service_bodies, "service") if verified else (self._bodies, address_of(request))
        share = budget.open(key, functools.partial(_cut_off, request))
        body, chunks, loop = bytearray(), request.content.iter_any(), asyncio.get_running_loop()
        progress = TransferProgress(BODY_STALLED_S, 0, loop.time())
        try:
            while True:
                async with asyncio.timeout(BODY_STALLED_S):
                    chunk = await anext(chunks, b"")
                if not chunk:
                    return bytes(body)
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HttpError(413, "TOO_LARGE", _TOO_LARGE)
                if not share.grow(len(chunk)):
                    raise HttpError(503, "OVERLOADED", "too many bodies are under way now, try again", _RETRY)
                if not progress.keeps_up(len(body), loop.time(), waiting=True):
                    raise TimeoutError
        except TimeoutError:
            text = f"nothing more of the body came within {BODY_STALLED_S:g} s, or less than 1 kB/s over two minutes"
            raise HttpError(408, "TIMEOUT", text) from None
        except (web.RequestPayloadError, ConnectionError):
            raise HttpError(400, "BAD_REQUEST", "the body cannot be read") from None
        finally:
            share.release()

    async def _viewer(self, request: web.Request) -> Identity:
        try:
            signed_in = await sign_in(self._context, _sender(request), handshake=False)
        except ValueError as error:
            raise HttpError(400, "BAD_REQUEST", str(error)) from None
        ignored = signed_in.ignored
        if signed_in.unavailable or (ignored is not None and ignored.code is ErrorCode.AUTH_UNAVAILABLE):
            raise StoreUnavailable("the caller cannot be verified")
        if signed_in.refused:
            raise HttpError(401, "AUTH_FAILED", BAD_TOKEN, _CHALLENGE)
        if signed_in.identity is None:
            why = "" if ignored is None else f"; {ignored.reason}"
            text = f"sign in with Authorization: Bearer <session token>{why}"
            raise HttpError(401, "AUTH_REQUIRED", text, _CHALLENGE)
        _is_known(request)
        request[HOLDER] = f"user {signed_in.identity.user_id}"
        return signed_in.identity

    @contextlib.contextmanager
    def _waiting(self, viewer: Identity) -> Iterator[Caller]:
        """While something is awaited for this caller: what his session says in the end is known after it."""
        caller = Caller(viewer)
        self._context.presence.add(caller, viewer, time.time())
        try:
            yield caller
        finally:
            self._context.presence.remove(caller)

    async def _viewable(
        self, request: web.Request, stream: str, right: Right, code: int = 404
    ) -> tuple[Identity, str, StreamState]:
        """The caller, the stream and the last word on it; one without that right looks like one that is not there."""
        viewer = await self._viewer(request)
        if not STREAM_ID.match(stream):
            text = "streamId has 1 to 128 of A-Z a-z 0-9 _ . : -"
            raise HttpError(code, "INVALID_MESSAGE" if code == 400 else "NOT_FOUND", text)
        word = await self._context.router.find(stream)
        if right not in self._context.authorization.rights(viewer, word.owner):
            self._context.metrics.count("unauthorized_total")
            raise _no_such_stream()
        return viewer, stream, word

    def _may_see_stats(self, request: web.Request) -> bool:
        token = self._context.settings.stats_token
        if token is None:
            return True
        if not _same(_bearer(request), token):
            return False
        _is_known(request)
        return True

    def _must_see_stats(self, request: web.Request) -> None:
        if not self._may_see_stats(request):
            raise HttpError(401, "AUTH_FAILED", "this path wants the stats token", _CHALLENGE)

    async def _ask_router(self) -> PublicStats | None:
        try:
            return PublicStats.of(await self._context.router.stats())
        except RouterUnavailable:
            return None

    async def _ask_rows(self) -> list[StreamRow] | None:
        try:
            return await self._context.router.stream_rows()
        except RouterUnavailable:
            return None

    async def _ask_stats(self, timeout_s: float | None = None) -> PublicStats | None:
        """What the router counts; None when it does not answer in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s or self._context.settings.router_timeout_s):
                return await self._stats.result()
        return None

    async def _ask_metrics(self) -> bytes:
        stats = await self._ask_stats() if self._context.router.live else None
        counted = None if stats is None else stats.reply
        return await asyncio.to_thread(render_metrics, counted, self._context.router.metrics())

    async def _look(self) -> tuple[str | None, PublicStats | None]:
        """Why this gateway is not healthy, if so, and the stats; one look serves all who ask at the same time."""
        return await asyncio.shield(self._health.join(None, self._ask_health))

    async def _ask_health(self) -> tuple[str | None, PublicStats | None]:
        if self._context.draining:
            return "the gateway drains", None
        if self._context.connections.is_full:
            return "there is no room for more connections", None
        if stalled := supervisor.current().stalled():
            return f"periodic work has stalled: {', '.join(stalled)}", None
        if not self._context.router.live or (stats := await self._ask_stats(HEALTH_TIMEOUT_S)) is None:
            return "the router is unreachable", None
        if stats.reply.router.state != "active":
            return "the router has just begun and hears what the gateways hold", stats
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._context.authenticator.check()
        except StoreUnavailable as exc:
            return exc.public, stats
        except TimeoutError:
            return StoreUnavailable.public, stats
        return None, stats


def _sender(request: web.Request) -> Sender:
    """Who sends a request, as `gateway.requests.sign_in` wants it."""
    peer = request.transport and request.transport.get_extra_info("peername")

    def values(name: str) -> Sequence[str]:
        if name == "Host" and (target := read_target(request.raw_path)) is not None and target.host is not None:
            return [target.host]  # it counts, and not the header (RFC 9112 section 3.2.2)
        return request.headers.getall(name, ())

    return Sender(values, request.rel_url.raw_query_string, str(peer[0]) if peer else "", request.secure)


def _cut_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _is_known(request: web.Request) -> None:
    """Who sent this has shown who he is: his connection is no stranger's any more."""
    if (listener := listener_of(request)) is not None:
        listener.on_authenticated()


def _still_in(caller: Caller) -> Identity:
    """Who the caller now is. Raises 401 when his session has ended while he waited."""
    if caller.ended:
        raise HttpError(401, "AUTH_FAILED", "the session has ended, sign in again", _CHALLENGE)
    return caller.identity


def _no_such_stream() -> HttpError:
    """Of a stream that is not there, and of one that the caller has no right to."""
    return HttpError(404, "NOT_FOUND", "there is no such stream")


def _no_such_alert() -> HttpError:
    """Of an alert that is not there, and of one whose stream the caller may not view."""
    return HttpError(404, "NOT_FOUND", "there is no such alert")


def _is_known_picture(request: web.Request, tag: str) -> web.Response | None:
    """304 when the client has the picture of this tag, else None. The caller's right must be judged before it is sent.

    A picture may be kept by the client alone, and only if it is asked for anew each time.
    """
    if not not_modified(request.headers.getall("If-None-Match", ()), tag):
        return None
    return web.Response(status=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})


def _picture(request: web.Request, frame: Frame, picture: bytes, content_type: str) -> web.Response:
    """A frame's picture, or 304 when the client has it. The caller's right to it is judged by now."""
    tag = entity_tag(frame.stream_id, frame.term, frame.frame_id)
    return _is_known_picture(request, tag) or web.Response(
        body=picture,
        headers={
            "Content-Type": content_type,
            "X-Content-Type-Options": "nosniff",
            "ETag": tag,
            "Cache-Control": "private, no-cache",
            "X-Stream-Id": frame.stream_id,
            "X-Frame-Id": str(frame.frame_id),
            "X-Frame-Time": str(frame.timestamp),
        },
    )


_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_TOO_LARGE: Final = f"the body is over {MAX_BODY_BYTES} bytes"


def _alert_ids(signed: Signed | None, count: int | None) -> list[str]:
    """Ids for alerts that bring none; `count` is None for one that is not in a list."""
    if signed is None:
        return [uuid.uuid4().hex for _ in range(1 if count is None else count)]
    return [alert_id(signed.id, None)] if count is None else [alert_id(signed.id, number) for number in range(count)]


async def _unhurried(items: list[object]) -> AsyncIterator[object]:
    """Each item, with a turn for others in between: many together may take long to check."""
    for number, item in enumerate(items):
        if number:
            await asyncio.sleep(0)
        yield item


def _only(request: web.Request, name: str) -> str | None:
    """The value of a header that came once."""
    values = request.headers.getall(name, [])
    return values[0] if len(values) == 1 else None


def _same(came: str | None, token: str) -> bool:
    return came is not None and hmac.compare_digest(came.encode("utf-8", "surrogateescape"), token.encode())


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
