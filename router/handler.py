"""Handles the messages and frames that the router receives: checks the sender, and calls the part that each is for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from watchout.common import clock, log, metric_names, supervisor
from watchout.common.bus.frames import FOR_ALERT, read_frame_head
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.messages import (
    AcknowledgeRequest,
    BadFrame,
    Bye,
    Claim,
    CoverageReport,
    CreateShare,
    EndShare,
    FetchNewest,
    FetchPicture,
    FromMember,
    Hello,
    Interest,
    LatencyReport,
    LinkReport,
    MemberHeartbeat,
    OwnerLookup,
    OwnerReply,
    PublicationState,
    Query,
    QueryReply,
    RaiseAlert,
    RefusedReply,
    Rejoin,
    Release,
    ReservationEnded,
    ReservationReport,
    Revoke,
    SlotsDiffer,
    SnapshotEnd,
    StreamReport,
    Unreserve,
    WhyAnswered,
    decode_from_member,
)
from watchout.common.bus.messages.fields import EXCEEDABLE_EPOCH
from watchout.common.bus.transport import RouterTransport
from watchout.common.errors import BusError
from watchout.common.media.held_frames import HeldFrames
from watchout.common.metrics import Metrics
from watchout.common.process import garbage
from watchout.common.toolbox.globs import Globs
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.incidents import RouterIncidents
from watchout.router.inquiries import Inquiries
from watchout.router.members import MAX_MEMBERS, Members, MessageVerdict, may_be_remote
from watchout.router.outbox import Outbox
from watchout.router.queries import QueryHandler
from watchout.router.shares.handler import ShareHandler
from watchout.router.startup_hold import REPORTED_S, SYNC_GRACE_S, AboutShares, HeldRequest, StartupHold
from watchout.router.streams.registry import Streams
from watchout.router.streams.stream import BridgeRecord, Send

#: Seconds between two warnings about malformed or refused messages.
WARN_EVERY_S: Final = 5.0
#: Seconds between two warnings about processes with another number of slots.
SLOTS_EVERY_S: Final = 60.0
#: Seconds that what is due for many streams may take in one turn of the event loop, and streams between two looks at
#: the clock.
TURN_S: Final = 0.005
STREAMS_AT_ONCE: Final = 10
#: Held requests that are decided when one more is held after their release: so they become fewer, however many come.
HELD_FOR_EACH: Final = 2

_log: Final = log.get("router.handler")


@dataclass(slots=True, kw_only=True)
class MessageHandler:
    """Handles all messages that the router receives from its members. `SlotRouter` creates one for the transport.

    `pictures` are encoded frames that alerts refer to, by stream and (term, frame id). `checked_at` is when
    `drop_silent_members` ran last, in seconds of the loop's clock. `on_later_epoch` is called in place of all else when
    a member knows a later epoch than this router's; None: no later router can be. While `has_lease` returns False all
    that comes is ignored: another router may have the slot. `slots` is the number of
    slots, 0: there is no cluster.
    """

    metrics: Metrics
    members: Members
    streams: Streams
    alerts: AlertDelivery
    shares: ShareHandler
    pictures: HeldFrames[bytes]
    hold: StartupHold
    outbox: Outbox
    incidents: RouterIncidents
    loop: asyncio.AbstractEventLoop
    checked_at: float
    on_later_epoch: Callable[[int], None] | None = None
    has_lease: Callable[[], bool] | None = None
    slots: int = 0
    bus: RouterTransport = field(init=False)
    queries: QueryHandler = field(init=False)
    inquiries: Inquiries = field(default_factory=Inquiries, init=False)
    _warned_at: float = field(default=float("-inf"), init=False)
    _warned_of_slots_at: float = field(default=float("-inf"), init=False)
    _next_turn: asyncio.Handle | None = field(default=None, init=False)
    _end_of_startup: asyncio.TimerHandle | None = field(default=None, init=False)
    _has_records: bool = field(default=False, init=False)

    def attach(self, bus: RouterTransport, queries: QueryHandler) -> None:
        """Set the open transport, and the part that reads its counters, before the first message."""
        self.bus = bus
        self.queries = queries
        self.outbox.attach(bus)

    # ── control messages ─────────────────────────────────────────────────────────────────────────────────────────

    def on_control(self, member: bytes, data: bytes) -> None:
        """Handle a control message: count one that is malformed or not allowed, ask to rejoin after a gap."""
        if self.has_lease is not None and not self.has_lease():
            return
        try:
            envelope = decode_from_member(data)
        except BusError as exc:
            self._on_bad_message("bad message from a member", exc, member)
            self.outbox.send(member, Rejoin())
            self._forget_if_unknown(member)
            return
        if self.on_later_epoch is not None and envelope.epoch > self.members.epoch:
            if envelope.epoch < EXCEEDABLE_EPOCH:
                self.on_later_epoch(envelope.epoch)
            else:
                error = BusError(f"epoch {envelope.epoch}, expected below {EXCEEDABLE_EPOCH}")
                self._on_bad_message(
                    "a member knows an epoch that no router can exceed, it has to forget it", error, member
                )
            return
        if self.bus.is_remote(member) and not may_be_remote(envelope.body):
            error = BusError(f"{type(envelope.body).__name__}, expected what a bridge sends")
            self._on_bad_message("a remote member may not send this", error, member)
            self._forget_if_unknown(member)
            return
        if self.slots and isinstance(envelope.body, Hello) and envelope.body.slots not in (0, self.slots):
            self._turn_away(member, envelope.body)
            return
        match self.members.receive(member, envelope, self.loop.time()):
            case MessageVerdict.GREETED:
                assert isinstance(envelope.body, Hello)
                self._on_hello(member, envelope.body)
            case MessageVerdict.HANDLE:
                self._on_message(member, envelope.body)
                garbage.worked()
            case MessageVerdict.REJOIN:
                self.outbox.send(member, Rejoin())
            case MessageVerdict.IGNORE:
                error = BusError(f"{MAX_MEMBERS} members")
                self._on_bad_message("too many members, a greeting was ignored", error, member)
        self._forget_if_unknown(member)

    def _turn_away(self, member: bytes, hello: Hello) -> None:
        """Do not let a process join that finds other routers for its streams: two would grant the same one."""
        now = self.loop.time()
        self.members.turn_away(hello, now)
        self.outbox.send(member, SlotsDiffer(attempt=hello.attempt, slots=self.slots))
        turned_away = self.members.turned_away_lately(now)
        if turned_away and now - self._warned_of_slots_at > SLOTS_EVERY_S:
            self._warned_of_slots_at = now
            _log.warning(
                f"processes with another CLUSTER_SLOTS than {self.slots} may not join",
                processes=", ".join(f"{each.hello.name} ({each.hello.slots} slots)" for each in turned_away[:10]),
                number=len(turned_away),
            )

    def _forget_if_unknown(self, member: bytes) -> None:
        """Let the transport forget a remote peer that is not a member, so that it costs nothing."""
        if self.bus.is_remote(member) and self.members.get(member) is None:
            self.bus.forget(member)

    def _on_hello(self, member: bytes, hello: Hello) -> None:
        """Welcome a member that joins, and give a bridge its share of the streams."""
        over = "tcp" if self.bus.is_remote(member) else self.bus.over
        _log.info("member joined", kind=hello.kind, name=hello.name, pid=hello.pid, over=over)
        if hello.kind == "gateway":
            self.alerts.replay.begin(member)
        self.streams.begin_snapshot(member, hello.frames_at)
        self.outbox.welcome(member, hello.attempt)
        if hello.kind == "mlbridge" and hello.max_fps is not None:
            self.streams.add_bridge(BridgeRecord(member, hello.group, hello.max_fps, Globs(hello.streams)))
        self._continue()

    def _on_message(self, member: bytes, body: FromMember) -> None:  # noqa: C901 - one arm per message, no logic
        """Handle a message of a member."""
        now, now_ms, send_all = self.loop.time(), clock.now_ms(), self.outbox.send_all
        self._finish(body)
        match body:
            case MemberHeartbeat(metrics=metrics, now=told_ms):
                self.members.set_metrics(member, metrics, told_ms, now_ms)
            case LinkReport():
                self.members.set_links(member, body, now)
            case LatencyReport():
                self.members.set_latencies(member, body, now)
            case CoverageReport(rows=rows):
                self.members.set_coverage(member, dict(rows))
            case StreamReport():
                self.streams.report(member, body)
            case PublicationState(term=term) if term > self.streams.highest_term:
                self._on_impossible_term(member, body)
            case PublicationState():
                send_all(map(self._with_last_alert, self.streams.set_publication(member, body, now_ms)))
            case Interest():
                send_all(self.streams.set_interest(member, body, now, now_ms))
                self.alerts.send_missed(member, body)
            case SnapshotEnd():
                self.streams.end_snapshot(member, now, now_ms)
                if (known := self.members.get(member)) and self.hold.reported(known.hello.process):
                    self._end_startup_soon()
                self._continue()
                self.alerts.resume(member, body.alerts_epoch, body.last_alert)
            case (
                Claim() | OwnerLookup() | RaiseAlert() | AcknowledgeRequest()
                | CreateShare() | EndShare() | Query(what="shares")
            ):  # fmt: skip
                if not self.hold.syncing or (self._has_records and isinstance(body, AboutShares)):
                    self._decide(member, body)
                elif not self.hold.is_full:
                    self.hold.hold(member, body)
                    self._decide_held(HELD_FOR_EACH)
                else:
                    self._refuse(member, body.request, "try again")
            case ReservationReport():
                if refused := self.streams.add_reported_reservations(body, now):
                    error = BusError(f"{refused}, expected at most {self.streams.highest_term}")
                    self._on_bad_message("a reservation of a gateway is not taken over", error, member)
            case Release():
                self.incidents.on_release(body, now_ms)
                send_all(self.streams.release(member, body, now, now_ms))
            case FetchNewest():
                send_all(self.streams.fetch_newest(member, body.stream))
            case FetchPicture():
                picture = self.pictures.find(body.stream, (body.term, body.frame_id))
                if picture is not None and (known := self.members.get(member)) is not None:
                    self.bus.send_frame(member, picture, known.hello.frames_at)
            case BadFrame():
                send_all(self.streams.report_bad_frame(body))
            case Unreserve() | Query(what="reservations") if not self._has_records:
                self._refuse(member, body.request, "the reservations are not loaded yet, try again")
            case Unreserve():
                self._unreserve(member, body)
            case WhyAnswered(request=request, body=answer):
                send_all(self.inquiries.on_answer(member, request, answer))
            case Query(what="why", request=request, about=about):
                own = self.incidents.answer(about, now, now_ms)
                send_all(self.inquiries.ask(member, request, about, self.members.all(), own, now))
            case Query():
                self._answer(member, body)
            case Bye():
                self._remove(member, "ended")
            case Hello():
                raise AssertionError("`Members.receive` does not return HANDLE for a greeting")
            case _:
                assert_never(body)

    def _on_impossible_term(self, member: bytes, state: PublicationState) -> None:
        """Refuse a publication with a term that no router can have granted: all later grants would be above it.

        The message may have changed on its way: the gateway reports what it has anew. If it has that term, as of a
        grant that changed, it ends the publication.
        """
        error = BusError(f"term {state.term} of {state.stream}, expected at most {self.streams.highest_term}")
        self._on_bad_message("bad message from a member", error, member)
        if self.streams.is_reporting(member):
            revoke = Send(member, Revoke(stream=state.stream, term=state.term))
            self.outbox.send_all([self._with_last_alert(revoke)])
        else:
            self.outbox.send(member, Rejoin())

    def _decide(self, member: bytes, body: HeldRequest) -> None:
        """Handle a request that depends on which streams have a publisher, or on the shares."""
        now, now_ms = self.loop.time(), clock.now_ms()
        match body:
            case Claim():
                before = self.streams.get(body.stream)
                former = None if before is None else before.gateway
                sends = self.streams.claim(member, body, now, now_ms)
                self.incidents.on_claim(member, body, former, sends, now_ms)
                self.outbox.send_all(map(self._with_last_alert, sends))
            case OwnerLookup():
                self.outbox.send(member, self._look_up_owner(body))
            case RaiseAlert():
                self.alerts.recent.completeness.observe(*clock.both())
                self.alerts.accept(member, body, now, now_ms)
            case AcknowledgeRequest():
                self.alerts.acknowledge(member, body, now, now_ms)
            case CreateShare() | EndShare() | Query() if not self._has_records:  # one that is not known may be stored
                self._refuse(member, body.request, "the shares are not loaded yet, try again")
            case CreateShare():
                self.shares.create(member, body, now_ms)
            case EndShare():
                self.shares.end(member, body)
            case Query():
                self._answer(member, body)

    def _refuse(self, member: bytes, request: int, message: str) -> None:
        self.outbox.send(member, RefusedReply(request=request, code="ROUTING_ERROR", message=message))

    def _answer(self, member: bytes, query: Query) -> None:
        self.alerts.recent.completeness.observe(*clock.both())
        reply = self.queries.reply(query, self.loop.time(), clock.now_ms(), syncing=self.hold.syncing)
        self.outbox.send(member, QueryReply(request=query.request, body=reply))

    def _with_last_alert(self, send: Send) -> Send:
        """Add the number of the last alert to a `Revoke`: from now on the gateway gets only those that it wants."""
        if not isinstance(send.body, Revoke):
            return send
        last_alert = self.alerts.log.last
        return Send(
            send.member, msgspec.structs.replace(send.body, alerts_epoch=self.alerts.epoch, last_alert=last_alert)
        )

    def _look_up_owner(self, body: OwnerLookup) -> OwnerReply | RefusedReply:
        """Return the owner of a stream and the last alert, or on request where its publisher's gateway said it is."""
        reply = self.streams.look_up_owner(body.request, body.stream)
        if not isinstance(reply, OwnerReply):
            return reply
        if not body.place:
            last_alert = self.alerts.log.last
            return msgspec.structs.replace(reply, alerts_epoch=self.alerts.epoch, last_alert=last_alert)
        stream = self.streams.get(body.stream)
        gateway = None if stream is None else self.members.get(stream.gateway or b"")
        if gateway is None:
            return reply
        return msgspec.structs.replace(reply, host=gateway.hello.host, url=gateway.hello.url)

    def _unreserve(self, member: bytes, body: Unreserve) -> None:
        """End the reservation of a stream id for an operator, and let all gateways forget it too."""
        found = self.streams.unreserve(body.stream)
        if found is not None:
            _log.info("an operator released the id of a stream", stream=body.stream, user=found.user)
            for each in self.members.all():
                if each.hello.kind == "gateway":
                    self.outbox.send(each.id, ReservationEnded(stream=body.stream, term=found.term))
        self.outbox.send(member, QueryReply(request=body.request, body=None if found is None else found.user))

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame(self, data: bytes) -> None:
        """Forward a frame to the members that want it now, or keep it when it is the picture of an alert."""
        try:
            head = read_frame_head(data)
        except BusError as exc:
            self._on_bad_message("bad frame from a member", exc)
            return
        if head.to == FOR_ALERT:
            now = self.loop.time()
            if self.pictures.put(head.stream, (head.term, head.frame_id), data, len(data), now):
                self.metrics.count(metric_names.ALERT_PICTURES)
            return
        for member in self.streams.route(head, self.loop.time()):
            if (known := self.members.get(member)) is not None:
                self.bus.send_frame(member, data, known.hello.frames_at)

    def _on_bad_message(self, what: str, error: BusError, member: bytes = b"") -> None:
        """Count a malformed or refused message, and log it unless one was logged within `WARN_EVERY_S`."""
        self.metrics.count(metric_names.BUS_BAD_MESSAGES)
        now = self.loop.time()
        if now - self._warned_at > WARN_EVERY_S:
            self._warned_at = now
            _log.warning(what, member=member.hex() or None, error=str(error))

    # ── timers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def send_heartbeats(self) -> None:
        """Send every member a heartbeat, and the replies that waited for answers. Runs every `HEARTBEAT_EVERY_S`."""
        for member in self.members.all():
            self.outbox.heartbeat(member.id)
        self.outbox.send_all(self.inquiries.due(self.loop.time()))

    def drop_silent_members(self) -> None:
        """Remove members that sent nothing for too long, or whose key was removed. Runs every `HEARTBEAT_EVERY_S`.

        Time in which this process itself did not run does not count: the members' messages wait to be read.
        """
        now = self.loop.time()
        self.members.excuse(now - self.checked_at - HEARTBEAT_EVERY_S)
        self.checked_at = now
        for member in self.members.silent(now):
            self.members.remember_lost(member, now)
            self._remove(member.id, "silent")
        for remote in self.bus.revoked():
            self._remove(remote, "its key was removed")

    def begin_startup(self) -> None:
        """Hold requests from now on, for `SYNC_GRACE_S` at most."""
        self._end_of_startup = self.loop.call_later(SYNC_GRACE_S, self.end_startup)

    def records_loaded(self) -> None:
        """Go on with what is stored of this slot, which is loaded now."""
        self._has_records = True
        self.alerts.restore_waiting(self.loop.time())
        for member, body in self.hold.take_about_shares():
            with supervisor.current().guarding("what waited for the stored shares"):
                if self.members.get(member) is not None:
                    self._decide(member, body)
        if self.hold.loaded():
            self._end_startup_soon()
        self._continue()

    def _end_startup_soon(self) -> None:
        """End the startup after `REPORTED_S`, unless it ends before: nothing more is awaited."""
        end = self._end_of_startup
        if end is not None and not self.hold.is_released and end.when() > self.loop.time() + REPORTED_S:
            end.cancel()
            self._end_of_startup = self.loop.call_later(REPORTED_S, self.end_startup)

    def end_startup(self) -> None:
        """Declare streams without a publisher offline, and decide the held requests, both in parts. Runs once."""
        self.hold.release()
        self.streams.settle(clock.now_ms())
        self._continue()

    def _decide_held(self, limit: int) -> None:
        """Decide up to `limit` of the requests that were held, if they are released."""
        for _ in range(limit):
            if (held := self.hold.take()) is None:
                return
            member, body = held
            with supervisor.current().guarding("what waited for the start"):
                # An alert is delivered whoever raised it: nobody else may know of it any more.
                if self.members.get(member) is not None or isinstance(body, RaiseAlert | AcknowledgeRequest):
                    self._finish(body)
                    self._decide(member, body)

    # ── work in parts ────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, body: FromMember) -> None:
        """Do what is due for the streams that a message is about, before it is handled."""
        if self.streams.is_unfinished:
            for stream in streams_of(body):
                self.outbox.send_all(self.streams.finish(stream))

    def _continue(self) -> None:
        """See to it that what is due is done, a part in each turn of the event loop."""
        if self._next_turn is None and self._is_due:
            self._next_turn = self.loop.call_soon(self._turn)

    @property
    def _is_due(self) -> bool:
        return self._has_released or self.streams.is_unfinished

    @property
    def _has_released(self) -> bool:
        return self.hold.syncing and self.hold.is_released

    def _turn(self) -> None:
        """Do a part of what is due: the requests that members wait for first."""
        self._next_turn = None
        until = time.monotonic() + TURN_S  # the loop's own clock stands still within a turn
        try:
            while self._is_due:
                if self._has_released:
                    self._decide_held(STREAMS_AT_ONCE)
                else:
                    self.outbox.send_all(self.streams.finish_some(STREAMS_AT_ONCE))
                garbage.worked(STREAMS_AT_ONCE)
                if time.monotonic() > until:
                    return
        finally:  # what is due for other streams is done, whatever failed
            self._continue()

    def close(self) -> None:
        """Do nothing more of what is due: the router ends."""
        for due in (self._next_turn, self._end_of_startup):
            if due is not None:
                due.cancel()
        self._end_of_startup = None

    def _remove(self, member: bytes, why: str) -> None:
        """Forget a member that ended or was lost; its streams go offline."""
        known = self.members.remove(member)
        self.alerts.replay.forget(member)
        self.bus.forget(member)
        if known is not None:
            level = _log.info if why == "ended" else _log.warning
            level("member gone", kind=known.hello.kind, name=known.hello.name, pid=known.hello.pid, why=why)
            self.incidents.on_member_gone(known, why, clock.now_ms())
            self.outbox.send_all(self.inquiries.on_lost(member))
        self.streams.remove_member(member, self.loop.time(), clock.now_ms())
        self._continue()


def streams_of(body: FromMember) -> Iterator[str]:
    """Yield the streams that a message is about: what is due for them has to be done before it is handled.

    A `StreamReport` is about none: its counters change nothing about a stream that ends or gets other routes.
    """
    match body:
        case RaiseAlert(alert=alert) | AcknowledgeRequest(alert=alert):
            yield alert.stream_id
        case ReservationReport(rows=rows):
            for name, *_ in rows:
                yield name
        case Query(about=about) if about:
            yield about
        case StreamReport():
            return
        case _:
            if (stream := getattr(body, "stream", None)) is not None:
                yield stream
