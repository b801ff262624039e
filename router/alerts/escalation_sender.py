"""Sends alerts that nobody acknowledged in time to the webhook, and keeps those that wait across restarts."""

from __future__ import annotations

from pathlib import Path

from watchout.common import log, metric_names
from watchout.common.alerts.model import Severity
from watchout.common.clock import now_ms
from watchout.common.home_files import ESCALATIONS_FILE
from watchout.common.metrics import Metrics
from watchout.router.alerts.escalation import Escalations
from watchout.router.record_file import RecordFile
from watchout.router.webhook.events import unacknowledged_event
from watchout.router.webhook.sender import WebhookSender

_log = log.get("router.alerts.escalation_sender")


class EscalationSender:
    """The escalations of one router with their file. Made by the router's app where they are set, and a webhook is.

    Args:
        home: The router's home.
        severity: The least severity of an alert that is escalated.
        after_s: Seconds within which it may be acknowledged.
        metrics: Counts what is escalated.
        webhook: Gets the events.
    """

    def __init__(
        self, home: Path, severity: Severity, after_s: float, metrics: Metrics, webhook: WebhookSender
    ) -> None:
        self.escalations = Escalations(severity, int(after_s * 1000))
        self._metrics = metrics
        self._webhook = webhook
        self._file = RecordFile(home / ESCALATIONS_FILE, "alerts that wait for their acknowledgement")

    def restore(self) -> None:
        """Load what waited at a former router."""
        if (bad := self.escalations.restore(self._file.load(), now_ms())) > 0:
            _log.warning("alerts that wait for their acknowledgement cannot be read", count=bad)

    async def run(self) -> None:
        """Escalate what is due, then write what changed. Runs every second.

        An event goes out before the file says so: after a crash in between it is sent again under the same id.
        """
        now = now_ms()
        for alert in self.escalations.due(now):
            self._metrics.count(metric_names.ALERTS_ESCALATED)
            _log.warning(
                "nobody acknowledged an alert", stream=alert.stream_id, alert=alert.id, severity=alert.severity
            )
            self._webhook.offer(unacknowledged_event(alert, now))
        self._metrics.set(metric_names.ALERTS_UNACKNOWLEDGED, self.escalations.waiting)
        self._file.change(self.escalations.take_changes())
        await self._file.write()

    async def close(self) -> None:
        """Write what is left and close the file."""
        self._file.change(self.escalations.take_changes())
        await self._file.close()
