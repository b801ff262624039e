"""Connects the hub to the router: reports and requests go up, status, alerts and frames of other gateways come down."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from watchout.common import clock, log, metric_names, supervisor
from watchout.common.alerts.model import Alert, Severity
from watchout.common.alerts.unconfirmed import Raised, UnconfirmedAlerts
from watchout.common.bus.client import BusClient
from watchout.common.bus.frames import FOR_ALERT, decode_frame
from watchout.common.bus.mesh import MemberCarrier
from watchout.common.bus.messages import (
    REPORT_CHUNK,
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    AlertNotification,
    AlertScope,
    Claim,
    ErrorForPublisher,
    FetchNewest,
    FetchPicture,
    Forward,
    FromRouter,
    GrantedReply,
    Hello,
    Message,
    OwnerLookup,
    OwnerReply,
    Query,
    RaiseAlert,
    RefusedReply,
    Release,
    Reply,
    ReservationEnded,
    Revoke,
    SendNewest,
    StatusUpdate,
)
from watchout.common.bus.reply_records import (
    AlertFrameRow,
    R,
    RecentAlertRow,
    RecentAlertsReply,
    StatsReply,
    StreamRow,
    read_reply,
)
from watchout.common.bus.transport_choice import gateway_carrier
from watchout.common.errors import BusError, ErrorCode, RouterUnavailable
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.process_name import wanted_name
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.frame_requests import FrameRequests
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.streams import DirectReceiver
from watchout.gateway.model import Owner, Place, StreamState

#: Interval of the reports of frame rates and drops to the router, in seconds.
REPORT_EVERY_S: Final = 1.0
#: A loss of the router is logged only if it lasts this many seconds.
LOST_LOGGED_AFTER_S: Final = 0.3
#: A frame of a stream that is requested at a limited rate is delayed by at most this part of the time between two of
#: them, so that frames of several streams go out together: waking the receiving process costs as much as some frames.
COALESCING_SHARE: Final = 0.1
MAX_COALESCING_DELAY_S: Final = 0.05

_log = log.get("gateway.router_client")


class RouterClient:
    """Member of the router on behalf of one `Hub`; built by `gateway.app`, asked by client handlers and HTTP requests.

    The hub works on without the router. All coroutines that ask the router raise `RouterUnavailable`, when it does not
    reply within `ROUTER_TIMEOUT_S` or refuses; the caller then tells its client to try again.

    Args:
        settings: `WATCHOUT_HOME`, `ROUTER_TIMEOUT_S` and the addresses of the bus.
        metrics: The metrics of this process, which heartbeats carry to the router.
        sockets: Returns the number of authenticated sockets.
        carrier: What carries the messages to the router and to other members; None: the one of the settings.

    Attributes:
        ending: The process drains: a lost router is not logged.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        sockets: Callable[[], int],
        carrier: MemberCarrier | None = None,
    ) -> None:
        self._settings = settings
        self._carrier = carrier or gateway_carrier(settings)
        self._authorization = Authorization(settings)
        self._sockets = sockets
        self._metrics = metrics
        self._flushing = False
        self._frame_requests = FrameRequests(settings.router_timeout_s)
        #: Alerts that the router accepted and may not have delivered yet.
        self._accepted = UnconfirmedAlerts()
        #: Epoch of the router that was last sent the reservations of streams that ended here.
        self._reserved_epoch = 0
        self.ending = False
        self._name = wanted_name(settings, "gateway")
        self.hub: Hub
        self.link: BusClient

    def start(self, hub: Hub) -> None:
        """Start to connect; `live` becomes true when the router replies. Returns at once."""
        self.hub = hub
        self._loop = asyncio.get_running_loop()
        self.link = BusClient(
            Hello(
                kind="gateway",
                name=self._name,
                pid=os.getpid(),
                release=about.version(),
                settings=about.reported_settings(self._settings),
                host=socket.gethostname() if self._settings.public_url or self._settings.bus else "",
                url=self._settings.public_url or "",
            ),
            open_transport=self._carrier.opener(0),
            request_timeout_s=self._settings.router_timeout_s,
            snapshot=self._snapshot,
            metrics=self._read_metrics,
            on_message=self._on_message,
            on_frame=self._on_frame,
            open_mesh=self._carrier.open_mesh,
            on_joined=self._on_joined,
            on_lost=self._on_lost,
        )
        self._reporter = supervisor.current().every(REPORT_EVERY_S, self._send_reports, "reports of streams")

    @property
    def live(self) -> bool:
        """Whether the router is connected."""
        return self.link.live

    async def close(self) -> None:
        """Send the remaining changes and leave the router."""
        self._reporter.cancel()
        self._flush()
        await self.link.close()

    # ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Send the changes of publications and interest, once at the end of this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def frame_to_bus(self, frame: Frame) -> None:
        """Send a frame of a publisher here to the router, which relays it to members without an address."""
        publication = self.hub.publication(frame.stream_id)
        self._push(frame.bus_parts(), coalescing_delay_s(publication.bus_fps if publication is not None else None))

    def frame_to_members(self, frame: Frame, receivers: list[DirectReceiver]) -> None:
        """Send a frame of a publisher here to other members, directly."""
        parts = frame.mesh_parts()
        for receiver in receivers:
            self.link.send_frame_to(receiver.at, parts, coalescing_delay_s(receiver.max_fps))

    def report_undecodable(self, frame: Frame, reason: str, now_ms: int) -> None:
        """Report a frame that cannot be decoded to its publisher, on whichever gateway that is."""
        message = self.hub.notices.on_undecodable(frame, reason, now_ms)
        if message is not None:
            self.link.send(message)

    def on_picture_requested(self, stream: str, now_ms: int) -> None:
        """Handle a request for the newest picture of a stream: if the last frame is none, its publisher is told."""
        message = self.hub.notices.on_picture_requested(stream, now_ms)
        if message is not None:
            self.link.send(message)

    def release(self, stream: str, term: int) -> None:
        """Give a granted claim back, because its client has left meanwhile."""
        self.link.send(Release(stream=stream, term=term))

    async def claim(
        self, stream: str, owner: Owner, *, producing: bool, floor: int, granted: bool = False, info: str = ""
    ) -> GrantedReply | RefusedReply:
        """Claim a stream for a publisher of this gateway.

        Args:
            stream: Id of the stream.
            owner: Owner of the stream, the publisher's user.
            producing: Whether the publisher sends video.
            floor: The highest frame id of the stream known here: the ids continue after it.
            granted: Whether the publisher's token permits it whoever owns the stream.
            info: What the camera says of itself, as JSON; "": nothing.
        """
        user, organizations = owner.user_id, tuple(sorted(owner.organizations))
        reply = await self.link.request(
            lambda n: Claim(
                request=n,
                stream=stream,
                user=user,
                organizations=organizations,
                producing=producing,
                floor=floor,
                granted=granted,
                info=info,
            )
        )
        if not isinstance(reply, GrantedReply | RefusedReply):
            raise unexpected(reply)
        return reply

    async def find(self, stream: str) -> StreamState:
        """Return the newest state of a stream, from this gateway when it is published here, else from the router.

        It holds only until the next await of the caller.
        """
        if self.hub.publication(stream) is not None:
            return self.hub.newest_state(stream, StreamState())
        reply = await self.link.request(lambda n: OwnerLookup(request=n, stream=stream))
        if not isinstance(reply, OwnerReply):
            raise unexpected(reply)
        owner = None if reply.user is None else Owner(reply.user, frozenset(reply.organizations))
        return self.hub.newest_state(stream, StreamState(reply.status, owner, reply.term, reply.info))

    async def place_of(self, stream: str) -> Place | None:
        """Return where a stream is published now; None: nowhere. Raises `RouterUnavailable`.

        A gateway that does not say on which machine it runs is one of this machine.
        """
        here = Place(socket.gethostname(), self._settings.public_url)
        if self.hub.publication(stream) is not None:
            return here
        reply = await self.link.request(lambda n: OwnerLookup(request=n, stream=stream, place=True))
        if not isinstance(reply, OwnerReply):
            raise unexpected(reply)
        if reply.status == "offline":
            return None
        return Place(reply.host or here.host, reply.url or None)

    async def raise_alert(self, alert: Alert) -> AcceptedReply:
        """Send an alert to the router; it has been accepted when this returns."""
        epoch = self.link.epoch
        reply = await self.link.request(lambda n: RaiseAlert(request=n, alert=alert))
        if not isinstance(reply, AcceptedReply):
            raise unexpected(reply)
        raised = Raised(alert, len(alert.to_json()), accepted_at=reply.at or None)
        self._accepted.add(raised, epoch, self._loop.time())
        return reply

    async def acknowledge(self, of: AlertFrameRow, user: str, note: str | None) -> AcknowledgedReply | RefusedReply:
        """Record that a user acknowledges an alert, a row of `alert_frames`; everybody who has it is told.

        Returns:
            Who acknowledged it, which may be somebody before; or that it is not kept any more.
        """
        if not of.json:
            raise RouterUnavailable("the router is of a release without acknowledgements")
        alert, epoch = Alert.from_json(of.json), self.link.epoch
        reply = await self.link.request(
            lambda n: AcknowledgeRequest(
                request=n, alert=alert, user=user, note=note, term=of.term, owner=of.owner, accepted_at=of.at
            )
        )
        if isinstance(reply, RefusedReply) and reply.code == ErrorCode.INVALID_MESSAGE:
            return reply
        if not isinstance(reply, AcknowledgedReply):
            raise unexpected(reply)
        if not reply.duplicate:
            given = reply.acknowledgement
            raised = Raised(alert, len(of.json) + given.size_bytes, of.term, of.at, given, of.owner)
            self._accepted.add(raised, epoch, self._loop.time())
        return reply

    async def stats(self) -> StatsReply:
        """Return the router's stats, with this gateway's latest counts. Raises `RouterUnavailable`."""
        self._send_counts()
        return await self._query(lambda n: Query(request=n, what="stats"), StatsReply)

    async def stream_rows(self) -> list[StreamRow]:
        """Return a row for each stream with a publisher, on any gateway. Raises `RouterUnavailable`."""
        self._send_counts()
        return await self._query(lambda n: Query(request=n, what="streams"), list[StreamRow])

    async def alerts(
        self,
        stream: str | None,
        *,
        since: int = 0,
        limit: int = 1000,
        severity: Severity = "low",
        scope: AlertScope | None = None,
        or_acknowledged: bool = False,
    ) -> list[RecentAlertRow]:
        """Return recent alerts of a stream (or of all within `scope`) since a time in ms, oldest first.

        With `or_acknowledged` also those that were acknowledged since.
        """
        return await self._query(
            lambda n: Query(
                request=n,
                what="alerts",
                stream=stream,
                since=since,
                limit=limit,
                severity=severity,
                scope=scope,
                or_acknowledged=or_acknowledged,
            ),
            list[RecentAlertRow],
        )

    async def alerts_since(self, stream: str, since: int) -> RecentAlertsReply:
        """Return the alerts of a stream that came, or were acknowledged, since a time in ms; and what is missing.

        A router of the former release does not say so: its alerts may be missing up to the present.
        """
        body: object = await self._query(
            lambda n: Query(
                request=n,
                what="alerts",
                stream=stream,
                since=since,
                limit=1000,
                or_acknowledged=True,
                tell_missing=True,
            ),
            object,
        )
        try:
            if not isinstance(body, list):
                return read_reply(body, RecentAlertsReply)
            alerts = read_reply(body, list[RecentAlertRow])
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None
        return RecentAlertsReply(alerts=alerts, missing_before=alerts[0].at if alerts else clock.now_ms())

    async def alert_frames(self, alert_id: str) -> list[AlertFrameRow]:
        """Return the recent alerts with this id and the frames they refer to, one for each stream."""
        return await self._query(lambda n: Query(request=n, what="alert", id=alert_id), list[AlertFrameRow])

    async def _query(self, make: Callable[[int], Query], kind: type[R]) -> R:
        try:
            return await self.link.query(make, kind)
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None

    def _send_counts(self) -> None:
        """Send the latest counts to the router, which handles messages in order: the next reply includes them."""
        self._flush()
        self._send_reports()
        self.link.send_heartbeat()

    async def stored_picture(self, of: AlertFrameRow) -> Frame | None:
        """Return the picture of an alert's frame that the router stores, None when it does not arrive in time."""
        key = of.stream, of.term, of.frame_id
        return await self._frame_requests.wait_for(
            key,
            lambda: self.link.send(FetchPicture(stream=of.stream, term=of.term, frame_id=of.frame_id)),
        )

    def request_newest(self, stream: str) -> None:
        """Request the newest frame of a stream of another gateway; if it exists, it arrives like any other frame."""
        self._flush()
        self.link.send(FetchNewest(stream=stream))

    async def newest_frame(self, stream: str, state: StreamState) -> Frame | None:
        """Return the newest picture of a stream, of this or another gateway; None: there is none.

        `state` is the result of `find` for this stream, just before.
        """
        self.on_picture_requested(stream, clock.now_ms())
        if self.hub.publication(stream) is not None or state.status == "offline":
            return self.hub.delivery.newest_frame(stream)
        frame = await self._frame_requests.wait_for(stream, lambda: self.request_newest(stream))
        return self.hub.delivery.newest_frame(stream) if frame is None else frame

    # ── down ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, body: FromRouter) -> None:
        now_ms = clock.now_ms()
        match body:
            case StatusUpdate():
                owner_known = self.hub.local_owner(body.stream) is not None
                if body.user is not None and not owner_known:
                    owner = Owner(body.user, frozenset(body.organizations))
                    for _, viewer in self._authorization.not_permitted(self.hub.viewers_of(body.stream), owner):
                        viewer.on_permission_lost(body.stream)
                self.hub.on_status(body, self._loop.time(), now_ms)
            case Forward():
                self.hub.on_forward(body, self._loop.time())
            case SendNewest():
                frame = self.hub.delivery.newest_frame(body.stream)
                publication = self.hub.publication(body.stream)
                self.on_picture_requested(body.stream, now_ms)
                if frame is not None and publication is not None and frame.term == publication.term:
                    parts = frame.bus_parts(bytes.fromhex(body.to))
                    if body.at is None:
                        self._push(parts)
                    else:
                        self.link.send_frame_to(body.at, parts)
            case Revoke():
                self.hub.revoke(body.stream, body.term)
            case AlertNotification():
                if body.acknowledgement is None:
                    self.hub.delivery.on_alert(body.alert, body.at)
                else:
                    self.hub.delivery.on_acknowledged(body.alert, body.acknowledgement, repeated=body.repeated)
            case ReservationEnded():
                self.hub.reports.on_unreserved(body)
            case ErrorForPublisher():
                self.hub.notices.on_frame_refused(body, now_ms)
            case _:
                pass

    def _on_frame(self, data: bytes) -> None:
        try:
            received = decode_frame(data)
            frame = Frame.from_bus(received)
        except BusError as exc:
            self._metrics.count(metric_names.BUS_BAD_MESSAGES)
            _log.warning("bad frame from the bus", error=str(exc))
            return
        if received.to == FOR_ALERT:
            self._frame_requests.on_frame((frame.stream_id, frame.term, frame.frame_id), frame)
            return
        self._metrics.count(metric_names.FRAMES_FROM_BUS)
        self._frame_requests.on_frame(frame.stream_id, frame)
        self.hub.delivery.on_remote_frame(frame, self._loop.time())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _push(self, parts: tuple[bytes, bytes | memoryview], coalescing_delay_s: float = 0.0) -> None:
        if not self.link.send_frame(*parts, coalescing_delay_s=coalescing_delay_s):
            self._metrics.count(metric_names.FRAMES_TO_BUS_DROPPED)

    def _flush(self) -> None:
        self._flushing = False
        now = self._loop.time()
        changes: Iterator[Message] = self.hub.reports.changes(now)
        for body in changes:
            self.link.send(body)  # discarded while the router is not connected: the snapshot follows
        self.hub.notices.send_demand(now, clock.now_ms())

    def _send_reports(self) -> None:
        if self.link.live:
            for report in self.hub.reports.stream_metrics(self._loop.time(), REPORT_CHUNK):
                self.link.send(report)

    async def _snapshot(self) -> AsyncIterator[Message]:
        for body in self.hub.reports.snapshot(self._loop.time()):
            yield body
        if (epoch := self.link.epoch) != self._reserved_epoch:
            for reservations in self.hub.reports.reservations(clock.now_ms()):
                yield reservations
            self._reserved_epoch = epoch

    def metrics(self) -> tuple[str, dict[str, float]]:
        """Return the name and the metrics of this process."""
        return self._name, self._read_metrics()

    def _read_metrics(self) -> dict[str, float]:
        self._metrics.set(metric_names.SOCKETS, self._sockets())
        for name, value in self.hub.counts().items():
            self._metrics.set(name, value)
        self._metrics.values[metric_names.FRAMES_IN] = self.hub.delivery.frames_in
        self._metrics.values[metric_names.FRAME_BYTES_IN] = self.hub.delivery.bytes_in
        self._metrics.values[metric_names.FRAMES_OUT] = self.hub.delivery.frames_out
        self._metrics.values[metric_names.FRAME_BYTES_OUT] = self.hub.delivery.frame_bytes_out
        self._metrics.values[metric_names.ALERTS_OUT] = self.hub.delivery.alerts_out
        self._metrics.values[metric_names.FRAMES_OLD_TERM] = self.hub.delivery.old_term_frames
        self._metrics.values[metric_names.NEWEST_FRAME_BYTES] = self.hub.delivery.newest_frames.total
        self._metrics.values[metric_names.NEWEST_FRAMES_EVICTED] = self.hub.delivery.newest_frames.evicted
        self._metrics.values[metric_names.FRAMES_TO_BUS] = self.link.frames_sent
        self._metrics.values[metric_names.FRAMES_DROPPED_BUS] = self.link.frames_dropped
        metrics = self._metrics.read()
        metrics[metric_names.BUS_BAD_MESSAGES] = metrics.get(metric_names.BUS_BAD_MESSAGES, 0) + self.link.bad_messages
        return metrics

    def _on_joined(self, new_epoch: bool) -> None:
        epoch = self.link.epoch
        _log.info("router joined", epoch=epoch)
        # A former router may have ended before it delivered the alerts that it accepted last.
        for raised in self._accepted.take_other(epoch) if new_epoch else ():
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN)
            self.link.send(_again(raised))
            self._accepted.add(raised, epoch, self._loop.time())

    def _on_lost(self) -> None:
        self._accepted.prune(self._loop.time())
        self._metrics.count(metric_names.ROUTER_LOST)
        self._loop.call_later(LOST_LOGGED_AFTER_S, self._log_lost)

    def _log_lost(self) -> None:
        if not self.link.live and not self.ending:
            _log.warning("router lost, local viewers go on", epoch=self.link.epoch)


def coalescing_delay_s(max_fps: float | None) -> float:
    """Return for how many seconds a frame may be delayed to be sent with others; `max_fps`: the requested rate."""
    return min(COALESCING_SHARE / max_fps, MAX_COALESCING_DELAY_S) if max_fps else 0.0


def _again(raised: Raised) -> Message:
    """Return the message by which a new router learns of what a former one accepted."""
    alert, given = raised.alert, raised.acknowledgement
    if given is None:
        return RaiseAlert(request=0, alert=alert, accepted_at=raised.accepted_at)
    return AcknowledgeRequest(
        request=0, alert=alert, user=given.user, note=given.note, term=raised.term, owner=raised.owner,
        accepted_at=raised.accepted_at, at=given.at,
    )  # fmt: skip


def unexpected(reply: Reply) -> RouterUnavailable:
    """Return the error for a reply that the router must not give.

    Args:
        reply: What came.
    """
    text = reply.message if isinstance(reply, RefusedReply) else f"answered with {type(reply).__name__}"
    return RouterUnavailable(f"the router {text}")
