"""Measures what viewers and cameras of this gateway get and send now, while `watchout-ctl why` waits for the answer.

Nothing is measured before somebody asks: two looks at counters that exist anyway, `MEASURED_S` apart.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from watchout.common import supervisor
from watchout.common.bus.messages import AskWhy, WhyAnswered
from watchout.common.bus.router_links import RouterLinks
from watchout.common.clock import now_ms
from watchout.common.why.answer import (
    MAX_ROWS,
    CameraNow,
    ConnectionNow,
    SocketNow,
    ViewNow,
    WhyAnswer,
    encode_answer,
)
from watchout.common.why.incident import IncidentKind
from watchout.common.why.memory import MAX_KNOWN
from watchout.gateway.client.socket import WebSocket
from watchout.gateway.context import Context
from watchout.gateway.hub.streams import LocalStream, Publication
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.why.tcp_info import TcpInfo, read_tcp_info

#: Seconds between the two looks.
MEASURED_S: Final = 2.0
#: Sockets that are looked at in one turn of the loop.
SOCKETS_PER_TURN: Final = 500
#: Subjects that are measured at once; further questions wait for one of them.
MAX_MEASURED: Final = 8


@dataclass(slots=True)
class _ViewLook:
    """A subscription at the first look."""

    socket: WebSocket | None
    subscription: Subscription
    stream: LocalStream
    arrived: int
    written: int
    camera_frames: int
    term: int
    dropped: dict[str, int]


@dataclass(slots=True)
class _CameraLook:
    """A publication at the first look."""

    socket: WebSocket
    publication: Publication
    frames: int
    limited: int


@dataclass(slots=True)
class _Look:
    """Everything that a subject names here, at the first look; TCP counts by socket."""

    at: float
    views: list[_ViewLook] = field(default_factory=list)
    cameras: list[_CameraLook] = field(default_factory=list)
    connections: list[WebSocket] = field(default_factory=list)
    tcp: dict[WebSocket, TcpInfo | None] = field(default_factory=dict)


class Measuring:
    """Answers the questions of the routers; made by `gateway.app`, called by `RouterClient`.

    Args:
        context: What the gateway's connections share.
        links: The connections to the routers.
    """

    def __init__(self, context: Context, links: RouterLinks) -> None:
        self._context = context
        self._links = links
        self._running: dict[str, asyncio.Task[bytes]] = {}
        self._room = asyncio.Semaphore(MAX_MEASURED)

    def on_ask(self, slot: int, ask: AskWhy) -> None:
        """Answer the router of a slot, after the time of the measurement.

        Args:
            slot: The slot.
            ask: Its question.
        """
        self._context.tasks.start(self._reply(slot, ask), "answer to why")

    async def _reply(self, slot: int, ask: AskWhy) -> None:
        running = self._running.get(ask.about)
        if running is None:  # several routers ask the same
            running = self._running[ask.about] = self._context.tasks.start(self.answer(ask.about), "measurement")
            running.add_done_callback(lambda _: self._running.pop(ask.about, None))
        body = await asyncio.shield(running)
        self._links.at(slot).send(WhyAnswered(request=ask.request, body=body))

    async def answer(self, about: str) -> bytes:
        """Return what this gateway knows about a subject, encoded.

        Args:
            about: A stream, user, connection, alert or address.
        """
        loop = asyncio.get_running_loop()
        async with self._room:
            first = _Look(loop.time())
            await self._look(about, first)
            if first.views or first.cameras:
                await asyncio.sleep(MEASURED_S)
        return encode_answer(self._made(about, first, loop.time() - first.at))

    # ── the first look ───────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self, about: str, look: _Look) -> None:
        for number, each in enumerate(list(self._context.sockets), 1):
            if isinstance(each, WebSocket) and not each.closing:
                with supervisor.current().guarding("question about a socket"):
                    self._look_at(about, each, look)
            if number % SOCKETS_PER_TURN == 0:
                await asyncio.sleep(0)
        for subscription in self._moving_pictures():
            stream = self._context.hub.stream(subscription.stream)
            names = subscription.stream, subscription.identity.user_id, subscription.connection
            if stream is not None and about in names:
                self._look_at_view(None, subscription, stream, look)

    def _look_at(self, about: str, websocket: WebSocket, look: _Look) -> None:
        handler = websocket.client
        if handler is None:
            return
        tally = websocket.tally
        whole = about in (handler.user_id, tally.connection, tally.address)
        publication = handler.publication
        is_camera = publication is not None and (whole or publication.stream == about)
        views = [each for each in handler.protocol.subscriptions() if whole or each.stream == about]
        if not (whole or is_camera or views) or len(look.tcp) >= MAX_ROWS:
            return
        look.tcp[websocket] = read_tcp_info(websocket.transport)
        if whole:
            look.connections.append(websocket)
        if publication is not None and is_camera:
            limited = tally.limited + handler.protocol.limited
            look.cameras.append(_CameraLook(websocket, publication, publication.meter.total, limited))
        for subscription in views:
            stream = self._context.hub.stream(subscription.stream)
            if stream is not None and subscription in stream.viewers:
                self._look_at_view(websocket, subscription, stream, look)

    def _look_at_view(
        self, websocket: WebSocket | None, subscription: Subscription, stream: LocalStream, look: _Look
    ) -> None:
        if len(look.views) < MAX_ROWS:
            look.views.append(
                _ViewLook(
                    websocket, subscription, stream, stream.arrived, subscription.frames_written(stream.arrived),
                    _camera_frames(stream), stream.term, _counts(subscription),
                )
            )  # fmt: skip

    def _moving_pictures(self) -> Iterator[Subscription]:
        yield from (each.subscription for each in list(self._context.moving_pictures))

    # ── the second look ──────────────────────────────────────────────────────────────────────────────────────────

    def _made(self, about: str, first: _Look, seconds: float) -> WhyAnswer:
        recorder, now = self._context.recorder, now_ms()
        memory = recorder.memory
        sockets = {each: _socket_now(each, before, seconds) for each, before in first.tcp.items()}
        views = [_view_now(each, sockets, seconds) for each in first.views]
        cameras = [self._camera_now(each, sockets, seconds) for each in first.cameras]
        incidents = memory.about(about, now)
        connections = [_connection_now(each) for each in first.connections]
        found = bool(views or cameras or connections or incidents)
        return WhyAnswer(
            kind="gateway",
            name=recorder.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            process=self._links.own_id,
            now=now,
            started_at=recorder.started_ms,
            since=memory.since(recorder.started_ms, now, about=about),
            closed_since=memory.since(recorder.started_ms, now, IncidentKind.CLOSED),
            incidents=incidents,
            of_everybody=memory.of_everybody(now),
            views=views,
            cameras=cameras,
            connections=connections,
            known=[] if found else memory.known(now),
            known_streams=[] if found else [stream.id for stream in islice(self._context.hub.streams, MAX_KNOWN)],
        )

    def _camera_now(self, look: _CameraLook, sockets: dict[WebSocket, SocketNow], seconds: float) -> CameraNow:
        publication, tally, settings = look.publication, look.socket.tally, self._context.settings
        handler = look.socket.client
        registration = None if handler is None else handler.protocol.registration
        frames = publication.meter.total - look.frames
        limited = tally.limited + (0 if handler is None else handler.protocol.limited)
        now, stream = sockets[look.socket], self._context.hub.stream(publication.stream)
        wanted = None if publication.demand is None else publication.demand.sent
        return CameraNow(
            connection=tally.connection,
            stream=publication.stream,
            user=publication.owner.user_id,
            address=tally.address,
            since=publication.started_at,
            seconds=round(seconds, 2),
            status="" if stream is None else stream.status,
            producing=publication.producing,
            fps=_rate(frames, seconds),
            peak_fps=round(publication.peak_fps, 1),
            frames=publication.meter.total,
            last_frame_at=publication.last_frame_at,
            window=None if registration is None else registration.window,
            demand_fps=None if wanted is None else wanted.fps,
            limited=limited,
            limited_per_s=_rate(limited - look.limited, seconds),
            message_rate=settings.message_rate,
            byte_rate=settings.byte_rate,
            frame_bytes=0.0 if frames <= 0 else round(now.received_per_s * seconds / frames),
            viewers_elsewhere=publication.viewers_elsewhere,
            socket=now,
            round_trip_ms=round(publication.camera_clock.round_trip_ms, 1),
        )


def _camera_frames(stream: LocalStream) -> int:
    """Return a count of the camera's frames: its own, or where it is elsewhere, the last frame id."""
    return stream.last_frame_id if stream.publication is None else stream.publication.meter.total


def _counts(subscription: Subscription) -> dict[str, int]:
    return {str(reason): count for reason, count in (subscription.dropped or {}).items()}


def _rate(count: float, seconds: float) -> float:
    return round(max(0.0, count) / seconds, 2) if seconds > 0 else 0.0


def _socket_now(websocket: WebSocket, before: TcpInfo | None, seconds: float) -> SocketNow:
    after = read_tcp_info(websocket.transport)
    if before is None or after is None or seconds <= 0:
        return SocketNow(blocked=websocket.is_blocked)
    return SocketNow(
        bytes_per_s=_rate(after.acked - before.acked, seconds),
        received_per_s=_rate(after.received - before.received, seconds),
        rtt_ms=round(after.rtt_s * 1000, 1),
        waits_for_peer=round(min(1.0, max(0.0, (after.receiver_limited_s - before.receiver_limited_s) / seconds)), 2),
        blocked=websocket.is_blocked,
    )


def _view_now(look: _ViewLook, sockets: dict[WebSocket, SocketNow], seconds: float) -> ViewNow:
    subscription, stream, websocket = look.subscription, look.stream, look.socket
    arrived = stream.arrived - look.arrived
    camera = _camera_frames(stream) - look.camera_frames
    if stream.term != look.term or camera < 0 or subscription.arrived_before is None:
        camera = arrived  # ids jump when a camera comes back
    written = subscription.frames_written(stream.arrived)
    dropped = {
        reason: _rate(count - look.dropped.get(reason, 0), seconds) for reason, count in _counts(subscription).items()
    }
    waiting = (0, 0) if websocket is None else websocket.messages_waiting
    return ViewNow(
        connection=subscription.connection,
        stream=subscription.stream,
        user=subscription.identity.user_id,
        address="" if websocket is None else websocket.tally.address,
        since=subscription.subscribed_ms,
        seconds=round(seconds, 2),
        video=subscription.video,
        alerts=subscription.alerts,
        format=subscription.format if websocket is not None else "mjpeg",
        max_fps=subscription.max_fps,
        window=subscription.window,
        unacknowledged=len(subscription.unacked),
        status=stream.status,
        camera_fps=_rate(max(camera, arrived), seconds),
        arrived_fps=_rate(arrived, seconds),
        fps=_rate(written - look.written, seconds),
        dropped={reason: rate for reason, rate in dropped.items() if rate},
        frames=written,
        dropped_total=_counts(subscription),
        alerts_told=subscription.alerts_told(stream.alerts_written),
        messages_waiting=waiting[0],
        bytes_waiting=waiting[1],
        socket=None if websocket is None else sockets[websocket],
    )


def _connection_now(websocket: WebSocket) -> ConnectionNow:
    handler, tally = websocket.client, websocket.tally
    return ConnectionNow(
        connection=tally.connection,
        user="" if handler is None else handler.user_id or "",
        path="" if handler is None else str(handler.protocol.path),
        address=tally.address,
        since=tally.began_ms,
        streams=tuple(tally.streams),
    )
