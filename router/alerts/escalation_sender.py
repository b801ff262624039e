"""Sends alerts that nobody acknowledged in time to the webhook, and keeps those that wait across restarts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from watchout.common import log, metric_names
from watchout.common.alerts.model import Severity
from watchout.common.clock import now_ms
from watchout.common.metrics import Metrics
from watchout.router.alerts.escalation import Escalations
from watchout.router.record_store import RecordStore
from watchout.router.webhook.events import unacknowledged_event

if TYPE_CHECKING:  # loaded where a webhook is set
    from watchout.router.webhook.sender import WebhookSender

#: Seconds after the start in which nothing is escalated while the stored records cannot be read.
RECORDS_WAIT_S: Final = 30.0

_log = log.get("router.alerts.escalation_sender")


class EscalationSender:
    """The escalations of one slot with their store. Made by `SlotRouter` where they are set, and a webhook is.

    Args:
        store: Where they are kept; closed by the sender.
        severity: The least severity of an alert that is escalated.
        after_s: Seconds within which it may be acknowledged.
        metrics: Counts what is escalated.
        webhook: Gets the events.
    """

    def __init__(
        self, store: RecordStore, severity: Severity, after_s: float, metrics: Metrics, webhook: WebhookSender
    ) -> None:
        self.escalations = Escalations(severity, int(after_s * 1000))
        self._metrics = metrics
        self._webhook = webhook
        self._store = store
        self._began_at = time.monotonic()

    async def restore(self) -> None:
        """Load what waited at a former router."""
        if (bad := self.escalations.restore(await self._store.load(), now_ms())) > 0:
            _log.warning("alerts that wait for their acknowledgement cannot be read", count=bad)

    async def run(self) -> None:
        """Escalate what is due, then write what changed. Runs every second.

        An event goes out before the store says so: after a crash in between it is sent again under the same id. What is
        stored may say that an alert is settled: it is waited for, for `RECORDS_WAIT_S` at most.
        """
        if not self.escalations.is_restored and time.monotonic() - self._began_at < RECORDS_WAIT_S:
            return
        now = now_ms()
        for alert in self.escalations.due(now):
            self._metrics.count(metric_names.ALERTS_ESCALATED)
            _log.warning(
                "nobody acknowledged an alert", stream=alert.stream_id, alert=alert.id, severity=alert.severity
            )
            self._webhook.offer(unacknowledged_event(alert, now))
        self._metrics.set(metric_names.ALERTS_UNACKNOWLEDGED, self.escalations.waiting)
        if self.escalations.is_restored:  # a change would replace the record that is not read yet
            self._store.change(self.escalations.take_changes())
            await self._store.write()

    async def close(self) -> None:
        """Write what is left and close the store."""
        self._store.change(self.escalations.take_changes())
        await self._store.close()
