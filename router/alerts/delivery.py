"""Accepts alerts and acknowledgements once, and sends them to gateways, the recent alerts and the webhook."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from watchout.common import clock, log, metric_names
from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    AlertNotification,
    AlertStamps,
    Interest,
    RaiseAlert,
    RefusedReply,
)
from watchout.common.metrics import Metrics
from watchout.common.tracing import spans
from watchout.common.tracing.tracer import Tracer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import IncidentMemory
from watchout.router.alerts.escalation import Escalations
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog, LoggedAlert
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay
from watchout.router.outbox import Outbox
from watchout.router.streams.registry import Streams
from watchout.router.webhook.events import acknowledged_event, alert_event

if TYPE_CHECKING:  # loaded where a webhook is set
    from watchout.router.webhook.sender import WebhookSender

#: Alerts of one stream that are sent to a gateway because its interest came after them; the newest ones, at most.
MAX_MISSED: Final = 1_000
#: What may happen to one alert many times.
_REPEATED: Final = frozenset({IncidentKind.DUPLICATE, IncidentKind.REDELIVERED})

_log: Final = log.get("router.alerts.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """Delivers each alert that reaches the router once: to the gateways with viewers or the publisher of its stream, to
    the webhook, and into the memory of recent alerts.

    `SlotRouter` creates one; `MessageHandler` calls `accept` for each `RaiseAlert`, `acknowledge` for each
    `AcknowledgeRequest`, and `resume` when a gateway has sent its snapshot. What is sent goes through `outbox`, without
    waiting; a gateway that cannot take it joins again, and gets the alerts that it missed from `replay`.

    Attributes:
        epoch: The router's epoch, which makes the numbers of its alerts unique.
        webhook: Gets every alert too; None: no `ALERT_WEBHOOK_URL` is set.
        tracer: Records the spans of alerts; None: tracing is off.
        memory: Remembers what became of each alert, for `watchout-ctl why`.
        monotonic_s: Returns the router's monotonic clock, in seconds.
    """

    epoch: int
    metrics: Metrics
    streams: Streams
    ids: AlertIds
    recent: RecentAlerts
    log: AlertLog
    replay: AlertReplay
    outbox: Outbox
    webhook: WebhookSender | None
    escalations: Escalations | None = None
    tracer: Tracer | None = None
    memory: IncidentMemory = field(default_factory=IncidentMemory)
    monotonic_s: Callable[[], float] = time.monotonic

    def accept(self, member: bytes, request: RaiseAlert, now: float, now_ms: int) -> None:
        """Deliver an alert that a member raises, unless it is a duplicate, and reply to the member.

        Args:
            member: The gateway or bridge that raises it.
            request: The alert. One that a former router had accepted carries the time of that, and viewers that
                subscribed later do not get it.
            now: The router's monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.

        """
        at = now_ms if request.accepted_at is None else min(request.accepted_at, now_ms)
        owner = self.streams.owner(request.alert.stream_id)
        receivers = self._take(
            request.alert, at, now, owner=owner, term=request.term,
            age_ms=None if request.accepted_at is None else now_ms - at,
            stamps=msgspec.structs.replace(request.stamps or AlertStamps(), accepted=at),
        )  # fmt: skip
        if receivers is None:
            self.metrics.count(metric_names.ALERTS_DUPLICATE)
            self._remember(IncidentKind.DUPLICATE, request.alert, now_ms)
        else:
            numbers = {"receivers": receivers, "frame_id": request.alert.frame_id or 0}
            self._remember(IncidentKind.ACCEPTED, request.alert, at, owner or "", numbers)
        reply = AcceptedReply(
            request=request.request, id=request.alert.id, duplicate=receivers is None, receivers=receivers or 0, at=at
        )
        self.outbox.send(member, reply)

    def acknowledge(self, member: bytes, request: AcknowledgeRequest, now: float, now_ms: int) -> None:
        """Record that a user acknowledges an alert, tell everybody who has it, and reply to the gateway.

        The first acknowledgement of an alert counts. An alert that only a former router had is accepted first.

        Args:
            member: The gateway.
            request: The alert and who acknowledges it.
            now: The router's monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.

        """
        alert = request.alert
        at = now_ms if request.accepted_at is None else min(request.accepted_at, now_ms)
        self._take(alert, at, now, owner=request.owner, term=request.term, age_ms=now_ms - at)
        given = Acknowledgement(
            user=request.user, note=request.note, at=now_ms if request.at is None else min(request.at, now_ms)
        )
        kept = self.recent.acknowledge(alert.stream_id, alert.id, given)
        if kept is None:
            text = f"alert {alert.id} of stream {alert.stream_id} is not kept any more"
            self.outbox.send(member, RefusedReply(request=request.request, code="INVALID_MESSAGE", message=text))
            return
        if kept.acknowledgement is None:
            self.metrics.count(metric_names.ALERTS_ACKNOWLEDGED)
            after = {"after_ms": max(0, given.at - kept.at)}
            self._remember(IncidentKind.ACKNOWLEDGED, alert, given.at, request.user, after)
            age_ms, repeated = now_ms - given.at, request.at is not None
            number = self.log.add(alert, kept.json, kept.at, now, given, age_ms=age_ms)
            self._notify(
                AlertNotification(
                    alert=alert, number=number, at=kept.at, acknowledgement=given, repeated=repeated,
                    age=age_ms if repeated else None,
                )
            )  # fmt: skip
            if self.webhook is not None:
                self.webhook.offer(acknowledged_event(alert, given))
            if self.escalations is not None:
                self.escalations.acknowledged(alert.stream_id, alert.id, now_ms)
        reply = AcknowledgedReply(
            request=request.request,
            acknowledgement=kept.acknowledgement or given,
            duplicate=kept.acknowledgement is not None,
        )
        self.outbox.send(member, reply)

    def _take(
        self, alert: Alert, at: int, now: float, *, owner: str | None, term: int, age_ms: int | None,
        stamps: AlertStamps | None = None,
    ) -> int | None:  # fmt: skip
        """Deliver an alert that is new here; return how many clients get it, None for one that is not new.

        `age_ms`: how long ago a former router accepted it; None: none did.
        """
        start_ns = 0 if self.tracer is None else spans.now_ns()
        if not self.ids.add(alert.stream_id, alert.id, now):
            return None
        json = alert.to_json()
        if not self.recent.accept(alert, at, owner=owner, term=term, json=json):
            return None
        self.metrics.count(metric_names.ALERTS)
        number = self.log.add(alert, json, at, now, age_ms=age_ms or 0)
        fan_out_ns = 0 if self.tracer is None else spans.now_ns()
        receivers = self._notify(
            AlertNotification(alert=alert, number=number, at=None if age_ms is None else at, age=age_ms, stamps=stamps)
        )
        if self.tracer is not None:
            spans.alert_accepted(self.tracer, alert, start_ns, fan_out_ns, receivers)
        if self.webhook is not None:
            self.webhook.offer(alert_event(alert))
        if self.escalations is not None:
            self.escalations.watch(alert, at, owner)
        return receivers

    def _notify(self, notification: AlertNotification) -> int:
        """Send a notification to the gateways that are up to date; return how many clients get it."""
        members, receivers = self.streams.alert_receivers(notification.alert.stream_id)
        for receiver in members:
            if not self.replay.is_behind(receiver):
                self.outbox.send(receiver, notification)
        return receivers

    def _remember(
        self, what: IncidentKind, alert: Alert, at: int, user: str = "", numbers: Mapping[str, float] | None = None
    ) -> None:
        """Remember what became of an alert; the same thing again soon is counted."""
        incident = Incident(
            what=what, at=at, streams=(alert.stream_id,), alert=alert.id, user=user, numbers=numbers or {}
        )
        joins = (what, alert.stream_id, alert.id) if what in _REPEATED else None
        self.memory.add(incident, joins)

    def restore_waiting(self, now: float) -> None:
        """Keep the alerts that still wait for their acknowledgement, so that they can be acknowledged after a restart.

        Args:
            now: The router's monotonic clock, in seconds.
        """
        alerts = self.escalations.alerts() if self.escalations is not None else []
        for waiting in sorted(alerts, key=lambda each: each.accepted_at):
            alert = waiting.alert
            if self.ids.add(alert.stream_id, alert.id, now):
                self.recent.accept(alert, waiting.accepted_at, owner=waiting.owner)

    def resume(self, member: bytes, alerts_epoch: int, last_alert: int) -> None:
        """Send a gateway that joined again the alerts that it missed.

        Args:
            member: The gateway.
            alerts_epoch: Epoch of the router that numbered the last alert which the gateway has.
            last_alert: The number of that alert; it counts only if that router is this one, and has had so many.

        """
        if self.replay.resume(member, last_alert if self._is_own(alerts_epoch, last_alert) else 0):
            self._send_batch(member)

    def _is_own(self, epoch: int, number: int) -> bool:
        """Return whether an alert that a gateway names is one of this router's. A number that none has is logged."""
        if epoch == self.epoch and number > self.log.last:
            _log.warning("a gateway names an alert that was never sent", number=number, expected_at_most=self.log.last)
        return epoch == self.epoch and number <= self.log.last

    def send_missed(self, member: bytes, interest: Interest) -> None:
        """Send a gateway the alerts of a stream that were accepted before its interest in them arrived here.

        A viewer gets all alerts from the moment on at which it is told that it is subscribed: that is when the router
        has replied to the look-up of the stream, and the interest follows. The gateway ignores alerts that it has.

        Args:
            member: The gateway.
            interest: Its interest. The number in it counts only for this router; of another one's viewers all alerts
                here are later, and those that a former router accepted carry that time.

        """
        if not interest.alerts_epoch or not interest.alert_viewers:
            return
        is_own = self._is_own(interest.alerts_epoch, interest.last_alert)
        after = interest.last_alert if is_own else 0
        for logged in self.log.of_stream_after(interest.stream, after, MAX_MISSED):
            self._send_again(member, logged, None if is_own else logged.at, number=0)

    def _send_again(self, member: bytes, logged: LoggedAlert, at: int | None, *, number: int) -> None:
        """Send an alert, or an acknowledgement, that was accepted before; the rest as in `AlertNotification`."""
        self.metrics.count(metric_names.ALERTS_REDELIVERED)
        if logged.acknowledgement is None:
            self._remember(IncidentKind.REDELIVERED, logged.alert, clock.now_ms())
        notification = AlertNotification(
            alert=logged.alert,
            number=number,
            at=logged.at if logged.acknowledgement is not None else at,
            acknowledgement=logged.acknowledgement,
            repeated=logged.acknowledgement is not None and at is not None,
            age=None if at is None else max(0, round((self.monotonic_s() - logged.since_s) * 1000)),
        )
        self.outbox.send(member, notification)

    def _send_batch(self, member: bytes) -> None:
        """Send the next batch of missed alerts, and the following one in the next turn of the event loop."""
        batch = self.replay.next_batch(member)
        for logged in batch:
            self.outbox.send_all(self.streams.finish(logged.stream_id))
            if member in self.streams.alert_receivers(logged.stream_id)[0]:
                self._send_again(member, logged, logged.at, number=logged.number)
        if batch:
            asyncio.get_running_loop().call_soon(self._send_batch, member)
