"""The gateway's bond with the router: what the hub holds and wants goes up, what the router says comes down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator
from typing import Final, TypeVar

from watchout.common import clock, log, metric_names, supervisor
from watchout.common.alerts.model import Alert, Severity
from watchout.common.alerts.unconfirmed import Raised, UnconfirmedAlerts
from watchout.common.bus.client import BusClient
from watchout.common.bus.frames import FOR_ALERT, decode_frame
from watchout.common.bus.messages import (
    REPORT_CHUNK,
    AcceptedReply,
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
from watchout.common.bus.reply_records import AlertFrameRow, R, RecentAlertRow, StatsReply, StreamRow
from watchout.common.bus.transport import OpenMemberTransport
from watchout.common.bus.transport_choice import gateway_transport
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.process import about
from watchout.common.process.process_name import wanted_name
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.hub.registry import Hub
from watchout.gateway.model import Owner, StreamState

#: Streams' moving figures go to the router this often, in seconds.
REPORT_EVERY_S: Final = 1.0
#: A bond that is back sooner than this was not worth a line; nor is one that ends because all ends.
LOST_LOGGED_AFTER_S: Final = 0.3
#: HTTP requests that may wait for the newest frame of streams elsewhere.
MAX_FRAME_WAITS: Final = 1000
#: Who wants only so many frames per second of a stream gets each a tenth of their distance later at the most, so that
#: frames of several streams go together: every turn of a process that sleeps costs as much as some frames.
COALESCING_SHARE: Final = 0.1
MAX_COALESCING_DELAY_S: Final = 0.05

_log = log.get("gateway.router_client")

K = TypeVar("K", bound=Hashable)


class RouterClient:
    """Joins one hub to the router. `start` opens the sockets."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        sockets: Callable[[], int],
        transport: OpenMemberTransport | None = None,
    ) -> None:
        self._settings = settings
        self._open_transport = transport or gateway_transport(settings)
        self._authorization = Authorization(settings)
        self._sockets = sockets
        self._metrics = metrics
        self._flushing = False
        self._waits: dict[str, list[asyncio.Future[Frame]]] = {}
        self._picture_waits: dict[tuple[str, int, int], list[asyncio.Future[Frame]]] = {}
        self._waiting = 0
        self._accepted = UnconfirmedAlerts()
        #: The epoch of the router that knows all cameras that went from here.
        self._told_gone = 0
        self.ending = False
        self._name = wanted_name(settings, "gateway")
        self.hub: Hub
        self.link: BusClient

    def start(self, hub: Hub) -> None:
        """Open the bond; it stands when the router answers."""
        self.hub = hub
        self._loop = asyncio.get_running_loop()
        self.link = BusClient(
            Hello(
                kind="gateway",
                name=self._name,
                pid=os.getpid(),
                release=about.version(),
                settings=about.told(self._settings),
            ),
            open_transport=self._open_transport,
            request_timeout_s=self._settings.router_timeout_s,
            snapshot=self._snapshot,
            metrics=self._read_figures,
            on_message=self._message,
            on_frame=self._frame,
            on_joined=self._joined,
            on_lost=self._lost,
        )
        self._reporter = supervisor.current().every(REPORT_EVERY_S, self._send_reports, "reports of streams")

    @property
    def live(self) -> bool:
        """Whether the router is there."""
        return self.link.live

    async def close(self) -> None:
        """Tell what is left to tell, and end the bond."""
        self._reporter.cancel()
        self._flush()
        await self.link.close()

    # ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def woken(self) -> None:
        """Holds or interest changed: tell it at the end of this turn of the loop, once."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def frame_to_bus(self, frame: Frame) -> None:
        """Push a frame that the router asked for."""
        publication = self.hub.publication(frame.stream_id)
        self._push(frame.bus_parts(), coalescing_delay_s(publication.bus_fps if publication is not None else None))

    def undecodable(self, frame: Frame, reason: str, now_ms: int) -> None:
        """A frame could not be decoded here: its camera is told, wherever it is."""
        told = self.hub.notices.on_undecodable(frame, reason, now_ms)
        if told is not None:
            self.link.send(told)

    def picture_wanted(self, stream: str, now_ms: int) -> None:
        """The newest picture of a stream is asked for: see `Hub.picture_wanted`."""
        told = self.hub.notices.on_picture_requested(stream, now_ms)
        if told is not None:
            self.link.send(told)

    def release(self, stream: str, term: int) -> None:
        """Give back a claim that nobody waits for any more."""
        self.link.send(Release(stream=stream, term=term))

    async def claim(self, stream: str, owner: Owner, *, producing: bool, floor: int) -> GrantedReply | RefusedReply:
        """Ask for a stream. Raises `RouterUnavailable`."""
        user, organizations = owner.user_id, tuple(sorted(owner.organizations))
        reply = await self.link.request(
            lambda n: Claim(
                request=n, stream=stream, user=user, organizations=organizations, producing=producing, floor=floor
            )
        )
        if not isinstance(reply, GrantedReply | RefusedReply):
            raise _unexpected(reply)
        return reply

    async def find(self, stream: str) -> StreamState:
        """The last word on a stream, of the router or of this gateway, which alone has it of its own cameras.

        It holds in this turn of the loop; later it has to be asked for again. Raises `RouterUnavailable`.
        """
        if self.hub.publication(stream) is not None:
            return self.hub.newest_state(stream, StreamState())
        reply = await self.link.request(lambda n: OwnerLookup(request=n, stream=stream))
        if not isinstance(reply, OwnerReply):
            raise _unexpected(reply)
        owner = None if reply.user is None else Owner(reply.user, frozenset(reply.organizations))
        return self.hub.newest_state(stream, StreamState(reply.status, owner, reply.term))

    async def raise_alert(self, alert: Alert) -> AcceptedReply:
        """Hand an alert to the router. Raises `RouterUnavailable`."""
        epoch = self.link.epoch
        reply = await self.link.request(lambda n: RaiseAlert(request=n, alert=alert))
        if not isinstance(reply, AcceptedReply):
            raise _unexpected(reply)
        raised = Raised(alert, len(alert.to_json()), accepted_at=reply.at or None)
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
    ) -> list[RecentAlertRow]:
        """Recent alerts of a stream, or of all within `scope`, oldest first. Raises `RouterUnavailable`."""
        return await self._query(
            lambda n: Query(
                request=n, what="alerts", stream=stream, since=since, limit=limit, severity=severity, scope=scope
            ),
            list[RecentAlertRow],
        )

    async def alert_frames(self, alert_id: str) -> list[AlertFrameRow]:
        """The frames that recent alerts of this id refer to, one of each stream. Raises `RouterUnavailable`."""
        return await self._query(lambda n: Query(request=n, what="alert", id=alert_id), list[AlertFrameRow])

    async def _query(self, make: Callable[[int], Query], kind: type[R]) -> R:
        try:
            return await self.link.query(make, kind)
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None

    def _send_counts(self) -> None:
        """Send what is counted here to the router. It takes messages in order, so the next reply includes it."""
        self._flush()
        self._send_reports()
        self.link.send_heartbeat()

    async def picture(self, of: AlertFrameRow) -> Frame | None:
        """The picture that the router keeps of an alert's frame; None when it does not come in time."""
        key = of.stream, of.term, of.frame_id
        return await self._await_frame(
            self._picture_waits,
            key,
            lambda: self.link.send(FetchPicture(stream=of.stream, term=of.term, frame_id=of.frame_id)),
        )

    def ask_newest(self, stream: str) -> None:
        """Ask for the newest frame of a stream elsewhere; it comes like any other frame, or not."""
        self._flush()
        self.link.send(FetchNewest(stream=stream))

    async def newest(self, stream: str, word: StreamState) -> Frame | None:
        """The newest frame of a stream, from here or from elsewhere. `word` is what `find` just said of it.

        Raises `RouterUnavailable`.
        """
        self.picture_wanted(stream, clock.now_ms())
        if self.hub.publication(stream) is not None:
            return self.hub.delivery.newest_frame(stream)
        if word.status == "offline":
            return self.hub.delivery.newest_frame(stream)
        frame = await self._await_frame(self._waits, stream, lambda: self.ask_newest(stream))
        return self.hub.delivery.newest_frame(stream) if frame is None else frame

    async def _await_frame(
        self, all_waits: dict[K, list[asyncio.Future[Frame]]], key: K, ask: Callable[[], object]
    ) -> Frame | None:
        """Ask for a frame, once for all who wait for it, and wait. Raises `RouterUnavailable` when too many do."""
        if self._waiting >= MAX_FRAME_WAITS:
            raise RouterUnavailable("too many wait for frames")
        future: asyncio.Future[Frame] = self._loop.create_future()
        waits = all_waits.setdefault(key, [])
        waits.append(future)
        self._waiting += 1
        try:
            if len(waits) == 1:
                ask()
            async with asyncio.timeout(self._settings.router_timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
            waits.remove(future)
            if not waits:
                all_waits.pop(key, None)

    # ── down ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _message(self, body: FromRouter) -> None:
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
                self.picture_wanted(body.stream, now_ms)
                if frame is not None and publication is not None and frame.term == publication.term:
                    self._push(frame.bus_parts(bytes.fromhex(body.to)))
            case Revoke():
                self.hub.revoke(body.stream, body.term)
            case AlertNotification():
                self.hub.delivery.on_alert(body.alert, body.at)
            case ReservationEnded():
                self.hub.reports.on_unreserved(body)
            case ErrorForPublisher():
                self.hub.notices.on_frame_refused(body, now_ms)
            case _:
                pass

    def _frame(self, data: bytes) -> None:
        try:
            came = decode_frame(data)
            frame = Frame.from_bus(came)
        except BusError as exc:
            self._metrics.count(metric_names.BUS_BAD_MESSAGES)
            _log.warning("bad frame from the router", error=str(exc))
            return
        if came.to == FOR_ALERT:
            self._arrived(self._picture_waits.get((frame.stream_id, frame.term, frame.frame_id), ()), frame)
            return
        self._metrics.count(metric_names.FRAMES_FROM_BUS)
        self._arrived(self._waits.get(frame.stream_id, ()), frame)
        self.hub.delivery.on_remote_frame(frame, self._loop.time())

    @staticmethod
    def _arrived(waits: Iterable[asyncio.Future[Frame]], frame: Frame) -> None:
        for future in waits:
            if not future.done():
                future.set_result(frame)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _push(self, parts: tuple[bytes, bytes | memoryview], coalescing_delay_s: float = 0.0) -> None:
        if not self.link.send_frame(*parts, coalescing_delay_s=coalescing_delay_s):
            self._metrics.count(metric_names.FRAMES_TO_BUS_DROPPED)

    def _flush(self) -> None:
        self._flushing = False
        now = self._loop.time()
        changes: Iterator[Message] = self.hub.reports.changes(now)
        for body in changes:
            self.link.send(body)  # while the router is away this tells nothing; the snapshot will
        self.hub.notices.send_demand(now, clock.now_ms())

    def _send_reports(self) -> None:
        if self.link.live:
            for report in self.hub.reports.stream_metrics(self._loop.time(), REPORT_CHUNK):
                self.link.send(report)

    async def _snapshot(self) -> AsyncIterator[Message]:
        for body in self.hub.reports.snapshot(self._loop.time()):
            yield body
        if (epoch := self.link.epoch) != self._told_gone:
            for gone in self.hub.reports.reservations(clock.now_ms()):
                yield gone
            self._told_gone = epoch

    def metrics(self) -> tuple[str, dict[str, float]]:
        """This process's name and figures."""
        return self._name, self._read_figures()

    def _read_figures(self) -> dict[str, float]:
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

    def _joined(self, new_epoch: bool) -> None:
        epoch = self.link.epoch
        _log.info("router joined", epoch=epoch)
        # What another router accepted a moment before it ended may not have gone out.
        for raised in self._accepted.take_other(epoch) if new_epoch else ():
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN)
            self.link.send(RaiseAlert(request=0, alert=raised.alert, accepted_at=raised.accepted_at))
            self._accepted.add(raised, epoch, self._loop.time())

    def _lost(self) -> None:
        self._accepted.prune(self._loop.time())
        self._metrics.count(metric_names.ROUTER_LOST)
        self._loop.call_later(LOST_LOGGED_AFTER_S, self._say_lost)

    def _say_lost(self) -> None:
        if not self.link.live and not self.ending:
            _log.warning("router lost, local viewers go on", epoch=self.link.epoch)


def coalescing_delay_s(max_fps: float | None) -> float:
    """How long a frame may wait for others to go with, when no more than `max_fps` of its stream are wanted."""
    return min(COALESCING_SHARE / max_fps, MAX_COALESCING_DELAY_S) if max_fps else 0.0


def _unexpected(reply: Reply) -> RouterUnavailable:
    text = reply.message if isinstance(reply, RefusedReply) else f"answered with {type(reply).__name__}"
    return RouterUnavailable(f"the router {text}")
