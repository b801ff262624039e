"""The paths `/alerts…`: recent alerts and their pictures for users, and `POST /alerts` for ML services."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import web

from watchout.common import metric_names
from watchout.common.alerts import model
from watchout.common.alerts.acknowledgement import acknowledged_json
from watchout.common.alerts.model import ALERT_ID, STREAM_ID, AlertFault, AlertFields
from watchout.common.bus.merged_replies import Merged
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.clock import now_ms
from watchout.common.errors import RouterUnavailable
from watchout.common.toolbox.json_words import fault_in_words
from watchout.common.toolbox.jsontext import JsonFault, read_json
from watchout.gateway.context import Context
from watchout.gateway.http.auth import ServiceAuth, UserAuth, no_such_stream
from watchout.gateway.http.bodies import BodyReader
from watchout.gateway.http.conditional import entity_tag
from watchout.gateway.http.pictures import not_modified_response, picture_response
from watchout.gateway.http.queries import AlertQuery
from watchout.gateway.http.responses import RETRY, HttpError, json_response
from watchout.gateway.http.webhook_requests import Signed, alert_id
from watchout.gateway.model import Owner
from watchout.identity import Identity

#: Most requests for recent alerts under way at once; each may get a reply of up to 8 MiB from the router.
MAX_FETCHES: Final = 4


class AlertPages:
    """Handlers of `GET /alerts` and `/alerts/{id}/frame.jpg`, for users.

    They raise `HttpError`, `RouterUnavailable` or `StoreUnavailable`.
    """

    def __init__(self, context: Context, auth: UserAuth) -> None:
        self._context = context
        self._auth = auth
        self._fetches = asyncio.Semaphore(MAX_FETCHES)

    async def recent(self, request: web.Request) -> web.Response:
        """Return recent alerts of one stream, or of all that the user may receive."""
        viewer = await self._auth.sign_in(request)
        query = AlertQuery.of(request)
        if query.stream is None:
            found = await self._of_all(viewer, query)
        else:
            found = Merged(await self._of_stream(viewer, query))
        alerts = found.reply
        if query.newest_first:
            alerts.reverse()
        missing = b"" if not found.missing else b',"missingSlots":' + msgspec.json.encode(found.missing)
        return web.Response(
            body=b'{"alerts":[' + b",".join(alerts) + b"]" + missing + b"}",
            headers={"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"},
        )

    async def _of_all(self, viewer: Identity, query: AlertQuery) -> Merged[list[bytes]]:
        """Return the JSON of alerts of all streams that the user may receive, oldest first."""
        router, authorization = self._context.router, self._context.authorization
        with self._auth.tracked(viewer) as caller:
            async with self._turn_of(viewer):
                stored = await router.queries.alerts(
                    since=query.since,
                    limit=query.limit,
                    severity=query.severity,
                    scope=authorization.alert_scope(viewer),
                )
        viewer = self._auth.current(caller)
        alerts = [
            acknowledged_json(alert.json, alert.acknowledgement)
            for alert in stored.reply
            if authorization.may_receive_stored_alert(
                viewer,
                alert.owner,
                None if alert.owner is None else Owner(alert.owner, frozenset(alert.organizations)),
                "" if viewer.grants is None else model.Alert.from_json(alert.json).stream_id,
            )
        ]
        return Merged(alerts, stored.missing)

    async def _of_stream(self, viewer: Identity, query: AlertQuery) -> list[bytes]:
        """Return the JSON of alerts of one stream, oldest first."""
        router, authorization, stream = self._context.router, self._context.authorization, query.stream
        assert stream is not None
        with self._auth.tracked(viewer) as caller:
            async with self._turn_of(viewer):
                stored = await router.queries.alerts_of(
                    stream, since=query.since, limit=query.limit, severity=query.severity
                )
                owner = (await router.find(stream)).owner
                of_any_time = stored
                if owner is None and not stored:  # older alerts tell whether the user once owned the stream
                    of_any_time = await router.queries.alerts_of(stream)
                    owner = (await router.find(stream)).owner
        viewer = self._auth.current(caller)  # permissions are judged after the last await
        if not authorization.may_receive_alerts(viewer, owner, stream):
            self._auth.count_unauthorized()
            raise no_such_stream()
        if owner is None and not any(
            authorization.may_receive_stored_alert(viewer, each.owner, owner, stream) for each in of_any_time
        ):
            raise no_such_stream()
        return [
            acknowledged_json(alert.json, alert.acknowledgement)
            for alert in stored
            if authorization.may_receive_stored_alert(viewer, alert.owner, owner, stream)
        ]

    @contextlib.asynccontextmanager
    async def _turn_of(self, viewer: Identity) -> AsyncIterator[None]:
        """Wait for a turn to fetch alerts: `MAX_FETCHES` at once, fewer of one user."""
        async with self._context.replays_of(viewer.user_id), self._fetches:
            yield

    async def picture(self, request: web.Request) -> web.Response:
        """Return the picture of the frame that an alert refers to."""
        viewer = await self._auth.sign_in(request)
        wanted_id = request.match_info["id"]
        if not ALERT_ID.match(wanted_id):
            raise HttpError(404, "NOT_FOUND", "an alert's id has 1 to 128 printable ASCII characters")
        visible = [
            each
            for each in await self._context.router.queries.alert_frames(wanted_id, _one_stream(request))
            if request.query.get("streamId") in (None, each.stream) and await self._may_view(viewer, each)
        ]
        if not visible:
            self._auth.count_unauthorized()
            raise _no_such_alert()
        stored = next((each for each in visible if each.kept), None)
        if stored is None:
            raise HttpError(404, "NO_FRAME", "no picture is kept of this alert's frame")
        unchanged = not_modified_response(request, entity_tag(stored.stream, stored.term, stored.frame_id))
        with self._auth.tracked(viewer) as caller:
            frame = None if unchanged is not None else await self._context.router.stored_picture(stored)
            owner = (await self._context.router.find(stored.stream)).owner
        # The caller's permission may have ended while the picture was awaited.
        if not self._context.authorization.may_view_stored_picture(
            self._auth.current(caller), stored.owner, owner, stored.stream
        ):
            self._auth.count_unauthorized()
            raise _no_such_alert()
        if unchanged is not None:
            return unchanged
        if frame is None:
            raise HttpError(404, "NO_FRAME", "the picture of this alert's frame did not come, try again")
        return picture_response(request, frame)

    async def _may_view(self, viewer: Identity, frame: AlertFrameRow) -> bool:
        state = await self._context.router.find(frame.stream)
        return self._context.authorization.may_view_stored_picture(viewer, frame.owner, state.owner, frame.stream)


class AlertIntake:
    """Handler of `POST /alerts`, by which ML services send alerts. Raises `HttpError`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._auth = ServiceAuth(context)
        self._bodies = BodyReader()

    async def post(self, request: web.Request) -> web.Response:
        """Take the alerts of a request to the router; all of them are checked before the first is taken."""
        signed = self._auth.check_headers(request)
        body = await self._bodies.read(request, verified=signed is None)
        if signed is not None and (known := self._auth.verify(request, signed, body)) is not None:
            repeated = [{"id": each, "duplicate": True, "receivers": 0} for each in known]
            return json_response({"accepted": repeated}, 202)
        alerts = await self._read_alerts(signed, body)
        self._check_rate(len(alerts))
        latency = self._context.router.latency
        stamped = [(alert, latency.stamps_of(alert)) for alert in alerts]
        accepted: list[dict[str, Any]] = []
        for alert, stamps in stamped:
            try:
                reply = await self._context.router.alert_requests.raise_alert(alert, stamps)
            except RouterUnavailable:
                late = {"code": "ROUTING_ERROR", "message": "the router did not answer in time: send the others again"}
                return json_response({"accepted": accepted, "error": late}, 503, RETRY)
            accepted.append({"id": reply.id, "duplicate": reply.duplicate, "receivers": reply.receivers})
        if signed is not None:
            self._auth.accept(signed, [each["id"] for each in accepted])
        return json_response({"accepted": accepted}, 202)

    async def _read_alerts(self, signed: Signed | None, body: bytes) -> list[model.Alert]:
        try:
            value = read_json(body)
        except (JsonFault, UnicodeDecodeError) as error:
            raise HttpError(400, "INVALID_MESSAGE", f"the body is not JSON: {error}") from None
        try:
            drafts = [model.check_draft(item) async for item in _cooperatively(model.alerts_of_message(value))]
            ids = _new_ids(signed, len(drafts) if isinstance(value, list) else None)
            return [
                model.complete(draft, alert_id=new_id, timestamp=now_ms())
                for draft, new_id in zip(drafts, ids, strict=True)
            ]
        except AlertFault as fault:
            self._context.metrics.count(metric_names.ALERTS_REFUSED)
            raise HttpError(
                400, "INVALID_MESSAGE", f"not one alert was taken: {fault_in_words(str(fault), AlertFields)}"
            ) from None

    def _check_rate(self, count: int) -> None:
        """Count alerts against `SERVICE_ALERT_RATE`. Raises `HttpError` 429."""
        rates = self._context.service_alert_rate
        if not count or rates.take("", asyncio.get_running_loop().time(), count):
            return
        self._context.metrics.count(metric_names.ALERTS_OVER_RATE, count)
        rate, wait_s = self._context.settings.service_alert_rate, rates.wait_s(count)
        text = f"more than {rate:g} alerts per second came here, send them again after {wait_s:.1f} s"
        raise HttpError(429, "RATE_LIMITED", text, {"Retry-After": str(math.ceil(wait_s))})


def _one_stream(request: web.Request) -> str | None:
    """Return the stream that a request names, if it is one."""
    stream = request.query.get("streamId")
    return stream if stream is not None and STREAM_ID.match(stream) else None


def _no_such_alert() -> HttpError:
    """Return the error for an alert that does not exist, and for one whose stream the user may not view."""
    return HttpError(404, "NOT_FOUND", "there is no such alert")


def _new_ids(signed: Signed | None, count: int | None) -> list[str]:
    """Return ids for the alerts of a request, for those that have none; `count` None: one that is not in a list.

    A signed request that is repeated gets the same ids again.
    """
    if signed is None:
        return [uuid.uuid4().hex for _ in range(1 if count is None else count)]
    return [alert_id(signed.id, None)] if count is None else [alert_id(signed.id, number) for number in range(count)]


async def _cooperatively(items: list[object]) -> AsyncIterator[object]:
    """Yield each item, with a turn of the event loop in between: checking many alerts takes long."""
    for number, item in enumerate(items):
        if number:
            await asyncio.sleep(0)
        yield item
