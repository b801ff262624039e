"""The paths `/streams…`: the list of streams, pictures, where a stream is published, and misdirected handshakes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import msgspec
from aiohttp import HttpVersion11, web

from watchout.common import metric_names
from watchout.common.bus.merged_replies import Merged
from watchout.common.bus.reply_records import StreamRow
from watchout.common.clock import now_ms
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.media.frames import FrameFault
from watchout.common.toolbox.jsontext import write_json
from watchout.common.toolbox.single_flight import SingleFlight
from watchout.gateway.client.handshake import is_upgrade, names_websocket
from watchout.gateway.context import Context
from watchout.gateway.http import queries
from watchout.gateway.http.auth import UserAuth, no_such_stream
from watchout.gateway.http.mjpeg import MJPEG_HEADERS, Mjpeg
from watchout.gateway.http.mjpeg_parts import AcceptedPictures
from watchout.gateway.http.pictures import picture_response
from watchout.gateway.http.responses import RETRY, HttpError, connection_of, json_response, missing_slots
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner
from watchout.identity import Identity


class StreamPages:
    """Handlers of `GET /streams`, `/streams/{id}/frame.jpg`, `/mjpeg`, `/where`, and the WebSocket paths.

    All but the last require a session, and raise `HttpError`, `RouterUnavailable` or `StoreUnavailable`.
    """

    def __init__(self, context: Context, auth: UserAuth) -> None:
        self._context = context
        self._auth = auth
        self._rows = SingleFlight(self._fetch_rows, context.tasks)

    async def list_streams(self, request: web.Request) -> web.Response:
        """Return the streams that the user may view or receive alerts of, or a part of them: see `queries.ListPart`."""
        part = queries.ListPart.of(request, least=1)
        viewer = await self._auth.sign_in(request)
        rows = await self._rows.result()
        if rows is None:
            raise RouterUnavailable("the router did not send the list of streams in time")
        listed, following = await self._listed(viewer, rows.reply, part)
        body: dict[str, object] = {"streams": msgspec.Raw(listed), **missing_slots(rows)}
        return json_response(body if following is None else {**body, "next": following})

    async def _listed(
        self, viewer: Identity, pages: Sequence[Sequence[StreamRow]], part: queries.ListPart | None
    ) -> tuple[bytes, str | None]:
        """Return the JSON of the list of streams that a user may view, and where the next part begins, if there is one.

        The loop gets its turn between two pages.
        """
        may_know, found, left = self._context.authorization.may_know, [], math.inf if part is None else part.limit
        last = ""
        for page in pages:
            await asyncio.sleep(0)
            if part is not None and (not page or page[-1].stream_id <= part.after):
                continue
            visible = [
                row
                for row in page
                if row.user_id is not None
                and (part is None or row.stream_id > part.after)
                and may_know(viewer, Owner(row.user_id, frozenset(row.organizations)), row.stream_id)
            ]
            shown = visible if len(visible) <= left else visible[: int(left)]
            if shown:
                found.append(write_json([_listed_stream(row) for row in shown])[1:-1])
                last = shown[-1].stream_id
            if len(shown) < len(visible):
                return b"[" + b",".join(found) + b"]", last
            left -= len(shown)
        return b"[" + b",".join(found) + b"]", None

    async def _fetch_rows(self) -> Merged[list[list[StreamRow]]] | None:
        walk = self._context.router.queries.stream_walk()
        try:
            pages = [rows async for rows in walk.pages()]
        except (RouterUnavailable, BusError):
            return None
        return Merged(pages, walk.missing)

    async def newest_picture(self, request: web.Request) -> web.Response:
        """Return the newest picture of a stream."""
        stream = request.match_info["id"]
        viewer, state = await self._auth.viewable(request, stream)
        if state.owner is None:
            raise no_such_stream()
        with self._auth.tracked(viewer) as caller:
            frame = await self._context.router.newest_frame(stream, state)
            owner = (await self._context.router.find(stream)).owner
        # The stream's owner, or the caller's permission, may have changed while the frame was awaited.
        if not self._context.authorization.may_view(self._auth.current(caller), owner, stream):
            self._auth.count_unauthorized()
            raise no_such_stream()
        if frame is None:
            raise HttpError(404, "NOT_FOUND", "there is no frame of this stream")
        try:
            return picture_response(request, frame)
        except FrameFault as fault:
            self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
            self._context.router.report_undecodable(frame, str(fault), now_ms())
            raise HttpError(404, "NOT_FOUND", "the newest frame of this stream is no picture") from None

    async def where(self, request: web.Request) -> web.Response:
        """Return on which machine a stream is published, for clients and proxies that want to be beside its camera."""
        stream = request.match_info["id"]
        await self._auth.viewable(request, stream)
        place = await self._context.router.place_of(stream)
        if place is None:
            raise HttpError(404, "NOT_FOUND", "nobody publishes this stream now")
        return json_response({"streamId": stream, "host": place.host, "url": place.url})

    async def mjpeg(self, request: web.Request) -> web.StreamResponse:
        """Send the pictures of a stream as `multipart/x-mixed-replace`, until the client disconnects."""
        max_fps = queries.number(request, "fps", 0.01, 1000)
        stream = request.match_info["id"]
        viewer, state = await self._auth.viewable(request, stream)
        if state.owner is None:
            raise no_such_stream()
        if request.method == "HEAD":  # headers alone need no subscription
            return web.StreamResponse(headers=MJPEG_HEADERS)
        # No await from here to `subscribe`: the permission was judged by a state that still holds.
        context, subscription = self._context, Subscription(stream, viewer, video=True, alerts=False, max_fps=max_fps)
        if (full := context.connections.add_socket(viewer.user_id)) is not None:
            raise HttpError(503, "TOO_MANY_CONNECTIONS", f"too many connections {full.what}", RETRY)
        try:
            connection = connection_of(request)
            accepted = AcceptedPictures.of(request.headers.getall("Accept", ()), request.headers.get("User-Agent", ""))
            response = Mjpeg(context, subscription, accepted, None if connection is None else connection.write_monitor)
            if context.hub.subscribe(subscription, response, state, asyncio.get_running_loop().time(), now_ms()):
                context.router.request_newest(stream)
            return await response.serve(request)
        finally:
            context.connections.remove_socket(viewer.user_id)

    async def upgrade(self, request: web.Request) -> web.Response:
        """Handle a request of a WebSocket path that reached aiohttp.

        Either it is no handshake: the response explains it. Or it is one on a connection that served other requests
        before: the connection is handed to the WebSocket side.
        """
        first = f"GET {request.raw_path} HTTP/{request.version.major}.{request.version.minor}"
        lines = [b"%b: %b" % header for header in request.raw_headers]
        head = b"\r\n".join([first.encode("latin-1", "replace"), *lines, b"", b""])
        connection = connection_of(request)
        if is_upgrade(head) and connection is not None:
            connection.upgrade(head)
            raise asyncio.CancelledError  # the connection is no longer aiohttp's: nobody is left to respond to
        if request.version == HttpVersion11 and names_websocket(request.headers.getall("Upgrade", [])):
            text = "the target of a WebSocket request is a path or an http URL, without a user name and without a #"
            raise HttpError(400, "BAD_REQUEST", text)
        text = (
            "this path is for WebSockets: no `Upgrade: websocket` came over HTTP/1.1; a proxy in between may have "
            "dropped it"
        )
        raise HttpError(426, "UPGRADE_REQUIRED", text, {"Upgrade": "websocket", "Connection": "Upgrade"})


def _listed_stream(row: StreamRow) -> dict[str, object]:
    """Return a stream as `GET /streams` shows it."""
    return {
        "id": row.stream_id,
        "userId": row.user_id,
        "status": row.status,
        "fps": row.fps,
        "viewers": row.viewers,
        "startedAt": row.started_at,
        "lastFrameAt": row.last_frame_at,
        **({"info": msgspec.Raw(row.info.encode())} if row.info else {}),
    }
