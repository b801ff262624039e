"""The router process: the pure rooms joined to the bus and the clock. Wiring only."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Final

from watchout.common import clock, log, metric_names, supervisor
from watchout.common.bus.frames import FOR_ALERT, read_frame_head
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.messages import (
    AcceptedReply,
    AlertNotification,
    BadFrame,
    Bye,
    Claim,
    CoverageReport,
    Envelope,
    FetchNewest,
    FetchPicture,
    FromMember,
    FromRouter,
    Hello,
    Interest,
    MemberHeartbeat,
    OwnerLookup,
    PublicationState,
    Query,
    QueryReply,
    RaiseAlert,
    RefusedReply,
    Rejoin,
    Release,
    ReservationEnded,
    ReservationReport,
    RouterHeartbeat,
    SnapshotEnd,
    StreamReport,
    Unreserve,
    Welcome,
    decode_from_member,
    encode,
)
from watchout.common.bus.transport import OpenRouterTransport, RouterTransport
from watchout.common.bus.transport_choice import router_transport
from watchout.common.errors import BusError
from watchout.common.home import lock_home
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.process.command import process_command
from watchout.common.service import run
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.common.toolbox.globs import Globs
from watchout.router.alerts.log import AlertBook, AlertIds, AlertLog
from watchout.router.epoch import next_epoch
from watchout.router.members import MAX_MEMBERS, Members, Verdict, may_come_from_afar
from watchout.router.queries import QueryHandler
from watchout.router.reservation_file import Change, ReservationFile
from watchout.router.streams.registry import Bridge, Send, Streams
from watchout.router.webhook.sender import WebhookSender

#: After a start, gateways of a former life get this long to tell what they hold before a new claim is decided.
SYNC_GRACE_S: Final = 1.0
#: Claims, look-ups and alerts that may wait for that.
MAX_WAITING: Final = 10_000
PRUNE_EVERY_S: Final = 10.0
#: Whose the stream ids are is written to the disk this often.
SAVE_EVERY_S: Final = 0.5
#: Alerts that a gateway which missed some is told again between two turns of the loop.
AGAIN_TURN: Final = 100
#: A member that sends nonsense is named this often.
WARN_EVERY_S: Final = 5.0

_log = log.get("router")


class Router:
    """One router's life."""

    def __init__(self, settings: Settings, transport: OpenRouterTransport | None = None) -> None:
        self._settings = settings
        self._open_transport = transport or router_transport(settings)
        self._metrics = Metrics()
        self._alert_ids = AlertIds()
        self._book = AlertBook(
            limit=settings.recent_alerts,
            minutes=settings.recent_alerts_minutes,
            max_bytes=settings.recent_alert_bytes,
        )
        self._log_of_alerts = AlertLog()
        #: Gateways that greeted and are not told live alerts yet: the number of the last that they were told, None
        #: before they said it.
        self._behind: dict[bytes, int | None] = {}
        #: Pictures of alerts' frames, as they came over the bus.
        self._pictures: HeldFrames[bytes] = HeldFrames(
            settings.alert_picture_bytes, max_age_s=settings.recent_alerts_minutes * 60
        )
        self._outlet: WebhookSender | None = None
        #: What cannot be answered before the gateways of a former life had their time; None from then on.
        self._waiting: list[tuple[bytes, Claim | OwnerLookup | RaiseAlert]] | None = None
        self._reservations: ReservationFile | None = None
        self._lock = -1
        self._bus: RouterTransport | None = None
        self._periodic: list[Periodic] = []

    async def start(self) -> None:
        """Take the lock, bind, begin to beat. Raises `StartError` beside another router."""
        self._loop = asyncio.get_running_loop()
        self._lock = lock_home(self._settings.home)
        self._started = self._ticked = self._loop.time()
        self._warned = float("-inf")
        self._epoch, had_former = next_epoch(self._settings.home, clock.now_ms())
        self._members = Members(self._epoch)
        self._streams = Streams(
            self._epoch,
            max_streams=self._settings.max_streams,
            syncing=had_former,
            reserved_s=self._settings.stream_reserved_s,
            reserved_per_user=self._settings.stream_reserved_per_user,
            reserved_max=self._settings.stream_reserved_max,
        )
        self._reservations = ReservationFile(self._settings.home, failed=self._streams.change_all)
        for name, reservation in self._reservations.load(now_ms := clock.now_ms()):
            ended_at = self._started - (now_ms - reservation.ended_at) / 1000
            self._streams.restore(name, replace(reservation, ended_at=ended_at))
        if self._settings.alert_webhook_url is not None:
            self._outlet = WebhookSender(self._settings, self._metrics)
            await self._outlet.open()
        if had_former:
            self._waiting = []
            self._loop.call_later(SYNC_GRACE_S, self._decide_waiting)
        self._bus = self._open_transport(on_control=self._control, on_frame=self._frame)
        self._queries = QueryHandler(
            settings=self._settings,
            metrics=self._metrics,
            epoch=self._epoch,
            started_at=self._started,
            members=self._members,
            streams=self._streams,
            alerts=self._book,
            pictures=self._pictures,
            reservations=self._reservations,
            bus=self._bus,
            webhook=self._outlet,
        )
        every = supervisor.current().every
        self._periodic = [
            every(HEARTBEAT_EVERY_S, self._beat, "beats"),
            every(HEARTBEAT_EVERY_S, self._let_go_of_the_silent, "silent members"),
            every(PRUNE_EVERY_S, self._prune, "pruning"),
            every(SAVE_EVERY_S, self._save_reservations, "saving of reservations"),
        ]
        _log.info("router listens", home=str(self._settings.home), epoch=self._epoch)

    async def drain(self) -> None:
        """Let the webhook take what it can; members live through a router's absence."""
        if self._outlet is not None:
            await self._outlet.drain(self._settings.drain_s)

    async def stop(self) -> None:
        """Close the bus and give up the lock."""
        for periodic in self._periodic:
            periodic.cancel()
        if self._bus is not None:
            self._bus.close()
        if self._outlet is not None:
            await self._outlet.close()
        if self._reservations is not None:
            await self._reservations.wait()
            self._save_reservations()
            await self._reservations.close()
        if self._lock >= 0:
            os.close(self._lock)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _control(self, member: bytes, data: bytes) -> None:
        try:
            envelope = decode_from_member(data)
        except BusError as exc:
            self._bad("bad message from a member", exc, member)
            self._send(member, Rejoin())
            self._forget_stranger(member)
            return
        if self._is_remote(member) and not may_come_from_afar(envelope.body):
            what = type(envelope.body).__name__
            self._bad("a remote member may not say this", BusError(f"{what}, expected what a bridge says"), member)
            self._forget_stranger(member)
            return
        match self._members.receive(member, envelope, self._loop.time()):
            case Verdict.GREETED:
                self._greeted(member, envelope)
            case Verdict.TAKE:
                self._take(member, envelope.body)
            case Verdict.REJOIN:
                self._send(member, Rejoin())
            case Verdict.IGNORE:
                self._bad("too many members, a greeting was not answered", BusError(f"{MAX_MEMBERS} members"), member)
        self._forget_stranger(member)

    def _forget_stranger(self, member: bytes) -> None:
        if self._bus is not None and self._bus.is_remote(member) and self._members.get(member) is None:
            self._bus.forget(member)

    def _is_remote(self, member: bytes) -> bool:
        return self._bus is not None and self._bus.is_remote(member)

    def _greeted(self, member: bytes, envelope: Envelope[FromMember]) -> None:
        hello = envelope.body
        assert isinstance(hello, Hello)
        known = self._members.get(member)
        assert known is not None
        carrier = "tcp" if self._is_remote(member) else "ipc"
        _log.info("member greeted", kind=hello.kind, name=hello.name, pid=hello.pid, over=carrier)
        if hello.kind == "gateway":
            self._behind[member] = None
        sends = self._streams.begin_snapshot(member)
        # The Welcome has number 0, so that what follows begins at 1.
        self._put(member, 0, Welcome(attempt=hello.attempt))
        self._send_all(sends)
        if hello.kind == "mlbridge" and hello.max_fps is not None:
            bridge = Bridge(member, hello.group, hello.max_fps, Globs(hello.streams))
            self._send_all(self._streams.bridge_joined(bridge))

    def _take(self, member: bytes, body: FromMember) -> None:  # noqa: C901 - one arm per message, no logic
        now, now_ms = self._loop.time(), clock.now_ms()
        match body:
            case MemberHeartbeat():
                known = self._members.get(member)
                if known is not None:
                    known.metrics = body.metrics
            case CoverageReport(rows=rows):
                known = self._members.get(member)
                if known is not None:
                    known.coverage = dict(rows)
            case StreamReport():
                self._streams.report(member, body)
            case PublicationState():
                self._send_all(self._streams.hold(member, body, now_ms))
            case Interest():
                self._send_all(self._streams.interest(member, body, now, now_ms))
            case SnapshotEnd():
                self._send_all(self._streams.end_snapshot(member, now, now_ms))
                if member in self._behind:
                    self._behind[member] = body.last_alert if body.alerts_epoch == self._epoch else 0
                    self._tell_missed(member)
            case Claim() | OwnerLookup() | RaiseAlert():
                if self._waiting is None:
                    self._decide(member, body)
                elif len(self._waiting) < MAX_WAITING:
                    self._waiting.append((member, body))
                else:
                    self._send(member, RefusedReply(request=body.request, code="ROUTING_ERROR", message="try again"))
            case ReservationReport():
                self._streams.reserved(body, now)
            case Release():
                self._send_all(self._streams.release(member, body, now, now_ms))
            case FetchNewest():
                self._send_all(self._streams.newest(member, body.stream))
            case FetchPicture():
                picture = self._pictures.find(body.stream, (body.term, body.frame_id))
                if picture is not None and self._bus is not None:
                    self._bus.send_frame(member, picture)
            case BadFrame():
                self._send_all(self._streams.bad_frame(body))
            case Unreserve():
                self._unreserve(member, body)
            case Query():
                reply = self._queries.reply(body, now, now_ms, syncing=self._waiting is not None)
                self._send(member, QueryReply(request=body.request, body=reply))
            case Bye():
                self._gone(member, "ended")
            case Hello():
                raise AssertionError("a greeting is no message of a greeted member")

    def _unreserve(self, member: bytes, body: Unreserve) -> None:
        found = self._streams.unreserve(body.stream)
        if found is not None:
            _log.info("an operator released the id of a stream", stream=body.stream, user=found.user)
            for each in self._members.all():
                if each.hello.kind == "gateway":
                    self._send(each.id, ReservationEnded(stream=body.stream, term=found.term))
        self._send(member, QueryReply(request=body.request, body=None if found is None else found.user))

    def _alert(self, member: bytes, body: RaiseAlert, now_ms: int) -> None:
        alert, now = body.alert, self._loop.time()
        again = body.accepted_at is not None
        at = now_ms if body.accepted_at is None else min(body.accepted_at, now_ms)
        fresh = self._alert_ids.first(alert.stream_id, alert.id, now)
        if fresh:
            json, owner = alert.to_json(), self._streams.owner(alert.stream_id)
            fresh = self._book.accept(alert, at, owner=owner, term=body.term, json=json)
        receivers = 0
        if fresh:
            self._metrics.count(metric_names.ALERTS)
            number = self._log_of_alerts.add(alert, json, at, now)
            members, receivers = self._streams.alert_receivers(alert.stream_id)
            for receiver in members:
                if receiver not in self._behind:
                    self._send(receiver, AlertNotification(alert=alert, number=number, at=at if again else None))
            if self._outlet is not None:
                self._outlet.offer(alert)
        else:
            self._metrics.count(metric_names.ALERTS_DUPLICATE)
        self._send(
            member, AcceptedReply(request=body.request, id=alert.id, duplicate=not fresh, receivers=receivers, at=at)
        )

    def _tell_missed(self, member: bytes) -> None:
        """Tell a gateway what it missed, in order and some at a time; live alerts come to it after that."""
        heard = self._behind.get(member)
        if heard is None:  # it is gone, or greets anew, or has heard all
            return
        missed = self._log_of_alerts.after(heard, AGAIN_TURN)
        if not missed:
            del self._behind[member]
            return
        for logged in missed:
            if member in self._streams.alert_receivers(logged.stream_id)[0]:
                self._metrics.count(metric_names.ALERTS_REDELIVERED)
                self._send(member, AlertNotification(alert=logged.alert, number=logged.number, at=logged.at))
        self._behind[member] = missed[-1].number
        self._loop.call_soon(self._tell_missed, member)

    def _frame(self, data: bytes) -> None:
        try:
            head = read_frame_head(data)
        except BusError as exc:
            self._bad("bad frame from a member", exc)
            return
        if head.to == FOR_ALERT:
            now = self._loop.time()
            if self._pictures.put(head.stream, (head.term, head.frame_id), data, len(data), now):
                self._metrics.count(metric_names.ALERT_PICTURES)
            return
        assert self._bus is not None
        for member in self._streams.route(head, self._loop.time()):
            if self._members.get(member) is not None:
                self._bus.send_frame(member, data)

    def _bad(self, what: str, error: BusError, member: bytes = b"") -> None:
        self._metrics.count(metric_names.BUS_BAD_MESSAGES)
        now = self._loop.time()
        if now - self._warned > WARN_EVERY_S:
            self._warned = now
            _log.warning(what, member=member.hex() or None, error=str(error))

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _beat(self) -> None:
        for member in self._members.all():
            self._send(member.id, RouterHeartbeat())

    def _let_go_of_the_silent(self) -> None:
        now = self._loop.time()
        # Time in which this process itself stood still is nobody's silence.
        self._members.excuse(now - self._ticked - HEARTBEAT_EVERY_S)
        self._ticked = now
        for member in self._members.silent(now):
            self._gone(member.id, "silent")
        if self._bus is not None:
            for remote in self._bus.revoked():
                self._gone(remote, "its key was removed")

    def _prune(self) -> None:
        now = self._loop.time()
        self._streams.prune(now)
        self._book.prune(clock.now_ms())
        self._alert_ids.prune(now)
        self._log_of_alerts.prune(now)
        self._pictures.prune(now)

    def _save_reservations(self) -> None:
        if self._reservations is None or not self._streams.changed or not self._reservations.ready(self._loop.time()):
            return
        now, now_ms, whole = self._loop.time(), clock.now_ms(), self._streams.changed_all
        changes: list[Change] = [
            (name, known and replace(known, ended_at=now_ms - (now - known.ended_at) * 1000))
            for name, known in self._streams.take_changes()
        ]
        self._reservations.save(changes, now, whole=whole)

    def _decide_waiting(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._send_all(self._streams.settle(clock.now_ms()))
        guarding = supervisor.current().guarding
        for member, body in waiting:
            with guarding("what waited for the start"):
                if self._members.get(member) is not None:
                    self._decide(member, body)

    def _decide(self, member: bytes, body: Claim | OwnerLookup | RaiseAlert) -> None:
        match body:
            case Claim():
                self._send_all(self._streams.claim(member, body, self._loop.time(), clock.now_ms()))
            case OwnerLookup():
                self._send(member, self._streams.found(body.request, body.stream))
            case RaiseAlert():
                self._alert(member, body, clock.now_ms())

    def _gone(self, member: bytes, why: str) -> None:
        known = self._members.remove(member)
        self._behind.pop(member, None)
        if self._bus is not None:
            self._bus.forget(member)
        if known is not None:
            level = _log.info if why == "ended" else _log.warning
            level("member gone", kind=known.hello.kind, name=known.hello.name, pid=known.hello.pid, why=why)
        self._send_all(self._streams.member_gone(member, self._loop.time(), clock.now_ms()))

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _send_all(self, sends: list[Send]) -> None:
        for send in sends:
            self._send(send.member, send.body)

    def _send(self, member: bytes, body: FromRouter) -> None:
        known = self._members.get(member)
        self._put(member, known.next_seq() if known is not None else 0, body)

    def _put(self, member: bytes, seq: int, body: FromRouter) -> None:
        # A message that cannot be queued leaves a hole in the numbers: the member sees it and greets again.
        assert self._bus is not None
        try:
            message = encode(self._epoch, seq, body)
        except BusError as exc:
            _log.error("a message is too large for the bus", error=str(exc))
            if not isinstance(body, QueryReply):
                return
            message = encode(
                self._epoch, seq, RefusedReply(request=body.request, code="ROUTING_ERROR", message=str(exc))
            )
        self._bus.send_control(member, message)


@process_command(
    "router", ("WATCHOUT_HOME", "ROUTER_LISTEN", "RECENT_ALERTS", "ALERT_WEBHOOK_URL", "LOG_LEVEL")
)  # fmt: skip
def main() -> None:
    """Join gateways and bridges: who publishes and watches what, and the way of frames and alerts between them.

    One for each WATCHOUT_HOME. It opens no port, unless ROUTER_LISTEN lets bridges of other machines in.
    """
    run("router", Router)
