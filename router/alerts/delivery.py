"""Accepts alerts once, and sends them to the gateways with interest, the recent alerts and the webhook."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from watchout.common import metric_names
from watchout.common.bus.messages import AcceptedReply, AlertNotification, RaiseAlert
from watchout.common.metrics import Metrics
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay
from watchout.router.outbox import Outbox
from watchout.router.streams.registry import Streams
from watchout.router.webhook.sender import WebhookSender


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """Delivers an alert that reached the router: to gateways with viewers of the stream, to the log, and to the
    webhook.

    The router's app creates one; `MessageHandler` calls it. `epoch` is the router's, `webhook` is None where none is
    set.
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

    def accept(self, member: bytes, request: RaiseAlert, now: float, now_ms: int) -> None:
        """Deliver an alert that a member raises, unless it is a duplicate, and reply to the member.

        Args:
            member: The gateway or bridge that raises it.
            request: The alert. One that a former router had accepted carries the time of that, and viewers that
                subscribed later do not get it.
            now: The router's monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.

        """
        alert = request.alert
        at = now_ms if request.accepted_at is None else min(request.accepted_at, now_ms)
        new, json, receivers = self.ids.add(alert.stream_id, alert.id, now), b"", 0
        if new:
            json, owner = alert.to_json(), self.streams.owner(alert.stream_id)
            new = self.recent.accept(alert, at, owner=owner, term=request.term, json=json)
        if new:
            self.metrics.count(metric_names.ALERTS)
            number = self.log.add(alert, json, at, now)
            members, receivers = self.streams.alert_receivers(alert.stream_id)
            notification = AlertNotification(alert=alert, number=number, at=None if request.accepted_at is None else at)
            for receiver in members:
                if not self.replay.is_behind(receiver):
                    self.outbox.send(receiver, notification)
            if self.webhook is not None:
                self.webhook.offer(alert)
        else:
            self.metrics.count(metric_names.ALERTS_DUPLICATE)
        self.outbox.send(
            member, AcceptedReply(request=request.request, id=alert.id, duplicate=not new, receivers=receivers, at=at)
        )

    def resume(self, member: bytes, alerts_epoch: int, last_alert: int) -> None:
        """Send a gateway that joined again the alerts that it missed.

        Args:
            member: The gateway.
            alerts_epoch: Epoch of the router that numbered the last alert which the gateway has.
            last_alert: The number of that alert; it counts only if that router is this one.

        """
        if self.replay.resume(member, last_alert if alerts_epoch == self.epoch else 0):
            self._send_batch(member)

    def _send_batch(self, member: bytes) -> None:
        """Send the next batch of missed alerts, and the following one in the next turn of the event loop."""
        batch = self.replay.next_batch(member)
        for logged in batch:
            if member in self.streams.alert_receivers(logged.stream_id)[0]:
                self.metrics.count(metric_names.ALERTS_REDELIVERED)
                self.outbox.send(member, AlertNotification(alert=logged.alert, number=logged.number, at=logged.at))
        if batch:
            asyncio.get_running_loop().call_soon(self._send_batch, member)
