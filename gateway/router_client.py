"""Connects the hub to the routers: reports and requests go up, status, alerts and frames of others come down."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

from watchout.common import clock, log, metric_names, supervisor
from watchout.common.alerts.model import Alert
from watchout.common.bus.frames import FOR_ALERT, decode_frame
from watchout.common.bus.mesh import MemberCarrier
from watchout.common.bus.messages import (
    LATENCY_LEVEL,
    REPORT_CHUNK,
    AlertNotification,
    AlertStamps,
    AskWhy,
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
    RefusedReply,
    Release,
    ReservationEnded,
    Revoke,
    SendNewest,
    StatusUpdate,
)
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.transport_choice import gateway_carrier
from watchout.common.errors import BusError
from watchout.common.latency.alert_stamps import stamps_here
from watchout.common.latency.ledger import LatencyLedger
from watchout.common.latency.reporter import LatencyReporter, objectives_of
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.process_name import member_name
from watchout.common.settings import Settings
from watchout.common.tracing import spans, tracer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import IncidentMemory
from watchout.gateway import fastpath
from watchout.gateway.alert_requests import AlertRequests, unexpected
from watchout.gateway.authorization import Authorization
from watchout.gateway.frame_requests import FrameRequests
from watchout.gateway.hub.delivery import STAMP_EVERY_S
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.streams import DirectReceiver
from watchout.gateway.latency.recorder import COUNTERS, LatencyRecorder
from watchout.gateway.model import Owner, Place, StreamState
from watchout.gateway.router_queries import RouterQueries
from watchout.gateway.router_times import accepted_here, acknowledgement_here, by_routers_clock

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
    """Member of the bus on behalf of one `Hub`; built by `gateway.app`, asked by client handlers and HTTP requests.

    A stream belongs to the router of its slot, on one machine to the only one. The hub works on without it. All
    coroutines that ask the router raise `RouterUnavailable`, when it does not reply within `ROUTER_TIMEOUT_S` or
    refuses; the caller then tells its client to try again.

    Args:
        settings: `WATCHOUT_HOME`, `ROUTER_TIMEOUT_S` and the addresses of the bus.
        metrics: The metrics of this process, which heartbeats carry to the router.
        sockets: Returns the number of authenticated sockets.
        memory: Remembers, for `watchout-ctl why`, when a router was lost; None: for nobody.
        carrier: What carries the messages to the router and to other members; None: the one of the settings.

    Attributes:
        ending: The process drains: a lost router is not logged.
        on_ask: Answers a question of `watchout-ctl why` to the router of a slot.
        links: The connections to the routers, one for each slot.
        latency: Feeds the latency ledger of this gateway.
        queries: What the routers know of more than one stream.
        alert_requests: Alerts and acknowledgements of clients here.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        sockets: Callable[[], int],
        memory: IncidentMemory | None = None,
        carrier: MemberCarrier | None = None,
    ) -> None:
        self._settings = settings
        self._authorization = Authorization(settings)
        self._sockets = sockets
        self._memory = IncidentMemory() if memory is None else memory
        self._metrics = metrics
        self._flushing = False
        self._frame_requests = FrameRequests(settings.router_timeout_s)
        self.latency = LatencyRecorder(LatencyLedger(objectives_of(settings)))
        #: By slot: epoch of the router that was last sent the reservations of streams that ended here.
        self._reserved_epochs: dict[int, int] = {}
        #: Slots whose router was lost, and has not come back.
        self._lost: set[int] = set()
        self.ending = False
        self.on_ask: Callable[[int, AskWhy], object] = lambda _slot, _ask: None
        self._name = member_name(settings, "gateway")
        self._tracer = tracer.active()
        self._reported = about.reported_settings(settings)
        self.hub: Hub
        self.links = RouterLinks(
            Hello(
                kind="gateway",
                name=self._name,
                pid=os.getpid(),
                release=about.VERSION,
                settings=self._reported,
                host=socket.gethostname() if settings.public_url or settings.bus else "",
                url=settings.public_url or "",
            ),
            carrier=carrier or gateway_carrier(settings),
            request_timeout_s=settings.router_timeout_s,
            snapshot=self._snapshot,
            metrics=self._read_metrics,
            on_message=self._on_message,
            on_frame=self._on_frame,
            on_joined=self._on_joined,
            on_lost=self._on_lost,
        )
        self.queries = RouterQueries(self.links, self._send_counts)
        self._latency_reporter = LatencyReporter(self.links, self.latency.ledger, before=self._update_clock)
        self.alert_requests = AlertRequests(self.links, metrics, self.latency)

    def start(self, hub: Hub) -> None:
        """Start to connect; `live` becomes true when a router replies. Returns at once."""
        self.hub = hub
        self._loop = asyncio.get_running_loop()
        self.links.open()
        self._reporter = supervisor.current().every(REPORT_EVERY_S, self._send_reports, "reports of streams")
        self._latency_reporter.start()

    @property
    def live(self) -> bool:
        """Whether a router is connected, of whichever slot."""
        return self.links.live

    async def close(self) -> None:
        """Send the remaining changes and leave the router."""
        self._reporter.cancel()
        self._latency_reporter.stop()
        self._flush()
        await self.links.close()

    @property
    def own_id(self) -> str:
        """The id of this gateway in the routers' replies."""
        return self.links.own_id

    def report_settings(self) -> None:
        """Tell the routers the present settings when this gateway joins them the next time."""
        self._reported.clear()
        self._reported.update(about.reported_settings(self._settings))

    def send_metrics(self) -> None:
        """Send the routers this gateway's metrics now."""
        self.links.send_heartbeats()

    # ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Send the changes of publications and interest, once at the end of this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def frame_to_bus(self, frame: Frame) -> None:
        """Send a frame of a publisher here to the router, which relays it to members without an address."""
        start_ns = 0 if self._tracer is None else spans.now_ns()
        publication, link = self.hub.publication(frame.stream_id), self.links.of(frame.stream_id)
        stamp = self.latency.stamp_of(frame, link.clock) if link.level >= LATENCY_LEVEL else b""
        self._push(
            frame.stream_id,
            frame.bus_parts(stamp=stamp),
            coalescing_delay_s(publication.bus_fps if publication is not None else None),
        )
        if self._tracer is not None:
            spans.frame_in(self._tracer, frame, start_ns)

    def frame_to_members(self, frame: Frame, receivers: list[DirectReceiver]) -> None:
        """Send a frame of a publisher here to other members, directly; with its stamps to those that are due some."""
        start_ns = 0 if self._tracer is None else spans.now_ns()
        parts = stamped = frame.mesh_parts()
        now = 0.0
        if frame.stamps is not None:
            now = self._loop.time()
            stamped = frame.mesh_parts(self.latency.stamp_of(frame, self.links.of(frame.stream_id).clock))
        for receiver in receivers:
            delay_s = 0.0 if receiver.max_fps is None else coalescing_delay_s(receiver.max_fps)
            if now < receiver.stamp_at or frame.stamps is None:
                self.links.send_frame_to(receiver.at, parts, delay_s)
            else:
                receiver.stamp_at = now + STAMP_EVERY_S
                self.links.send_frame_to(receiver.at, stamped, delay_s)
        if self._tracer is not None:
            spans.frame_in(self._tracer, frame, start_ns)

    def report_undecodable(self, frame: Frame, reason: str, now_ms: int) -> None:
        """Report a frame that cannot be decoded to its publisher, on whichever gateway that is."""
        message = self.hub.notices.on_undecodable(frame, reason, now_ms)
        if message is not None:
            self.links.of(message.stream).send(message)

    def on_picture_requested(self, stream: str, now_ms: int) -> None:
        """Handle a request for the newest picture of a stream: if the last frame is none, its publisher is told."""
        message = self.hub.notices.on_picture_requested(stream, now_ms)
        if message is not None:
            self.links.of(stream).send(message)

    def release(self, stream: str, term: int) -> None:
        """Give a granted claim back, because its client has left meanwhile."""
        self.links.of(stream).send(Release(stream=stream, term=term))

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
        reply = await self.links.of(stream).request(
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
        reply = await self.links.of(stream).request(lambda n: OwnerLookup(request=n, stream=stream))
        if not isinstance(reply, OwnerReply):
            raise unexpected(reply)
        owner = None if reply.user is None else Owner(reply.user, frozenset(reply.organizations))
        newest = self.hub.newest_state(stream, StreamState(reply.status, owner, reply.term, reply.info))
        if not reply.alerts_epoch:  # a router of the former release
            return newest
        return dataclasses.replace(newest, alerts_after=(reply.alerts_epoch, reply.last_alert))

    async def place_of(self, stream: str) -> Place | None:
        """Return where a stream is published now; None: nowhere. Raises `RouterUnavailable`.

        A gateway that does not say on which machine it runs is one of this machine.
        """
        here = Place(socket.gethostname(), self._settings.public_url)
        if self.hub.publication(stream) is not None:
            return here
        reply = await self.links.of(stream).request(lambda n: OwnerLookup(request=n, stream=stream, place=True))
        if not isinstance(reply, OwnerReply):
            raise unexpected(reply)
        if reply.status == "offline":
            return None
        return Place(reply.host or here.host, reply.url or None)

    def _send_counts(self) -> None:
        """Send the latest counts to the routers, which handle messages in order: the next replies include them."""
        self._flush()
        self._send_reports()
        self.links.send_heartbeats()

    async def stored_picture(self, of: AlertFrameRow) -> Frame | None:
        """Return the picture of an alert's frame that the router stores, None when it does not arrive in time."""
        key = of.stream, of.term, of.frame_id
        return await self._frame_requests.wait_for(
            key,
            lambda: self.links.of(of.stream).send(FetchPicture(stream=of.stream, term=of.term, frame_id=of.frame_id)),
        )

    def request_newest(self, stream: str) -> None:
        """Request the newest frame of a stream of another gateway; if it exists, it arrives like any other frame."""
        self._flush()
        self.links.of(stream).send(FetchNewest(stream=stream))

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

    def _on_message(self, slot: int, body: FromRouter) -> None:
        now_ms = clock.now_ms()
        match body:
            case AskWhy():
                self.on_ask(slot, body)
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
                        self._push(body.stream, parts)
                    else:
                        self.links.send_frame_to(body.at, parts, 0.0)
            case Revoke():
                alerts_after = (body.alerts_epoch, body.last_alert) if body.alerts_epoch else None
                self.hub.revoke(body.stream, body.term, alerts_after)
            case AlertNotification():
                times = self.links.at(slot).clock
                accepted_s = accepted_here(body, times, self._loop.time(), now_ms)
                if body.acknowledgement is None:
                    self._on_alert(body.alert, accepted_s, stamps_here(body.stamps, times))
                else:
                    given = acknowledgement_here(body.acknowledgement, times)
                    self.hub.delivery.on_acknowledged(body.alert, given, self._loop.time(), accepted_s=accepted_s)
            case ReservationEnded():
                self.hub.reports.on_unreserved(body)
            case ErrorForPublisher():
                self.hub.notices.on_frame_refused(body, now_ms)
            case _:
                pass

    def _on_alert(self, alert: Alert, accepted_s: float | None, stamps: AlertStamps | None) -> None:
        start_ns, before = 0 if self._tracer is None else spans.now_ns(), self.hub.delivery.alerts_out
        self.hub.delivery.on_alert(alert, self._loop.time(), accepted_s=accepted_s, stamps=stamps)
        if self._tracer is not None:
            sockets = self.hub.delivery.alerts_out - before
            spans.alert_written(self._tracer, alert, start_ns, sockets, self._name)

    def _on_frame(self, data: bytes | memoryview) -> None:
        read = fastpath.remote
        if read is not None and (made := read(data)) is not None:
            frame = Frame.of_message(*made)
        else:
            try:
                received = decode_frame(bytes(data))
                frame = Frame.from_bus(received)
            except BusError as exc:
                self._metrics.count(metric_names.BUS_BAD_MESSAGES)
                _log.warning("bad frame from the bus", error=str(exc))
                return
            if received.to == FOR_ALERT:
                self._frame_requests.on_frame((frame.stream_id, frame.term, frame.frame_id), frame)
                return
            if received.stamp:
                self.latency.on_stamp(frame, received.stamp, self.links.of(frame.stream_id).clock)
        self._metrics.count(metric_names.FRAMES_FROM_BUS)
        self._frame_requests.on_frame(frame.stream_id, frame)
        self.hub.delivery.on_remote_frame(frame, self._loop.time())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _push(self, stream: str, parts: tuple[bytes, bytes | memoryview], coalescing_delay_s: float = 0.0) -> None:
        if not self.links.of(stream).send_frame(*parts, coalescing_delay_s=coalescing_delay_s):
            self._metrics.count(metric_names.FRAMES_TO_BUS_DROPPED)

    def _flush(self) -> None:
        self._flushing = False
        now = self._loop.time()
        for body in self.hub.reports.changes(now):
            link = self.links.of(body.stream)
            link.send(by_routers_clock(body, link.clock))  # discarded while its router is away: the snapshot follows
        self.hub.notices.send_demand(now, clock.now_ms())

    def _send_reports(self) -> None:
        for link in self.links.all():
            if link.live:
                own = self.links.streams_of(link.slot)
                for report in self.hub.reports.stream_metrics(self._loop.time(), REPORT_CHUNK, own):
                    link.send(by_routers_clock(report, link.clock))

    async def _snapshot(self, slot: int) -> AsyncIterator[Message]:
        own, link = self.links.streams_of(slot), self.links.at(slot)
        for body in self.hub.reports.snapshot(self._loop.time(), own):
            yield by_routers_clock(body, link.clock)
        if (epoch := link.epoch) != self._reserved_epochs.get(slot):
            for reservations in self.hub.reports.reservations(clock.now_ms(), own):
                yield reservations
            self._reserved_epochs[slot] = epoch

    @property
    def name(self) -> str:
        """The name under which this process joins the routers."""
        return self._name

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
        self._metrics.values[metric_names.FRAMES_REPEATED] = self.hub.delivery.repeated_frames
        self._metrics.values[metric_names.FRAME_IDS_RESTARTED] = self.hub.delivery.restarted_streams
        for hop, (all_in_all, late) in self.latency.ledger.judged.items():
            counted, counted_late = COUNTERS[hop]
            self._metrics.values[counted], self._metrics.values[counted_late] = all_in_all, late
        self._metrics.values[metric_names.NEWEST_FRAME_BYTES] = self.hub.delivery.newest_frames.total
        self._metrics.values[metric_names.NEWEST_FRAMES_EVICTED] = self.hub.delivery.newest_frames.evicted
        self._metrics.values[metric_names.FRAMES_TO_BUS] = self.links.frames_sent
        self._metrics.values[metric_names.FRAMES_DROPPED_BUS] = self.links.frames_dropped
        self._metrics.values.update(self.links.mesh_figures())
        metrics = self._metrics.read()
        metrics[metric_names.BUS_BAD_MESSAGES] = metrics.get(metric_names.BUS_BAD_MESSAGES, 0) + self.links.bad_messages
        return metrics

    def _on_joined(self, slot: int, new_epoch: bool) -> None:  # noqa: ARG002 - what `RouterLinks` calls it with
        if slot in self._lost:
            self._lost.discard(slot)
            self._remember(IncidentKind.ROUTER_JOINED, slot)
        _log.info("router joined", epoch=self.links.at(slot).epoch, **self.links.where(slot))
        self.alert_requests.on_joined(slot)
        self._latency_reporter.tell_all()

    def _update_clock(self, stream: str) -> None:
        self.latency.update_clock(stream, self.hub.publication(stream))

    def _on_lost(self, slot: int) -> None:
        self.alert_requests.on_lost(slot)
        self._metrics.count(metric_names.ROUTER_LOST)
        self._lost.add(slot)
        self._remember(IncidentKind.ROUTER_LOST, slot)
        self._loop.call_later(LOST_LOGGED_AFTER_S, self._log_lost, slot)

    def _remember(self, what: IncidentKind, slot: int) -> None:
        where = f"slot {slot}" if self.links.slots > 1 else ""
        self._memory.add(Incident(what=what, at=clock.now_ms(), reason=where))

    def _log_lost(self, slot: int) -> None:
        link = self.links.at(slot)
        if not link.live and not self.ending:
            _log.warning("router lost, local viewers go on", epoch=link.epoch, **self.links.where(slot))


def coalescing_delay_s(max_fps: float | None) -> float:
    """Return for how many seconds a frame may be delayed to be sent with others; `max_fps`: the requested rate."""
    return min(COALESCING_SHARE / max_fps, MAX_COALESCING_DELAY_S) if max_fps else 0.0
