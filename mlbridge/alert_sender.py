"""Takes alerts of the ML service on their way to the routers: each waits until its router has accepted it.

Alerts are sent one at a time (`watchout.mlbridge.alert_lane`), which keeps their order. While a router is away they
wait in a bounded queue. An alert that is sent again has the same id, and the router delivers no id twice. Alerts that a
router accepted shortly before it was replaced are sent to its successor (`watchout.common.alerts.unconfirmed`). The
picture of an alert's frame is sent before the alert, over the frame sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from watchout.common import log, metric_names
from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import KEEP_S, Raised, UnconfirmedAlerts
from watchout.common.bus.messages import AlertStamps
from watchout.common.bus.slots import slot_of
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame
from watchout.common.media.rate import TokenBucket
from watchout.common.metrics import Metrics
from watchout.common.tracing import spans, tracer
from watchout.mlbridge.alert_lane import AlertLane, AlertRouter
from watchout.mlbridge.alerts import AlertQueue, mark_stale, read_alerts
from watchout.mlbridge.cooldown import Cooldown
from watchout.mlbridge.incidents import BridgeIncidents
from watchout.mlbridge.latency import BridgeLatency
from watchout.mlbridge.shown_frames import ShownFrames

#: Log lines about refused and dropped alerts: this many at once, and this many per second.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2

_log = log.get("mlbridge.alert_sender")


class AlertSender:
    """Checks alerts of the ML service, holds back repeated ones, and sends the others to the router.

    Created by `Bridge`, which calls `on_joined` and `on_lost`.

    Args:
        routers: the connections to the routers, by slot.
        metrics: where alerts are counted.
        queue: alerts that wait; None: a new queue with the default bounds.
        cooldown_s: pause after an alert of a stream and kind, in seconds.
        max_age_s: age of a frame over which its alert is marked as stale, in seconds; None: none is marked.
        frames: the frames that were sent lately, for pictures of alerts; None: no pictures are sent.
        scrub: removes secrets from a text of the service.
        keep_s: how long an alert is kept for the router's successor, in seconds.
        latency: feeds the latency ledger; None: nothing is measured.
        incidents: remembers what became of alerts, for `watchout-ctl why`; None: nothing does.
    """

    def __init__(
        self,
        routers: Sequence[AlertRouter],
        *,
        metrics: Metrics,
        queue: AlertQueue | None = None,
        cooldown_s: float = 0.0,
        max_age_s: float | None = None,
        frames: ShownFrames | None = None,
        scrub: Callable[[str], str] = str,
        keep_s: float = KEEP_S,
        latency: BridgeLatency | None = None,
        incidents: BridgeIncidents | None = None,
    ) -> None:
        self._latency = latency
        self._metrics = metrics
        self._queue = queue or AlertQueue()
        self._cooldown = Cooldown(cooldown_s)
        self._max_age_s = max_age_s
        self._frames = frames
        self._scrub = scrub
        self._accepted = UnconfirmedAlerts(keep_s=keep_s)
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._unlogged = 0
        self._tracer = tracer.active()
        self._incidents = incidents
        self._lanes = [
            AlertLane(
                slot,
                router,
                self._queue,
                self._accepted,
                metrics=metrics,
                on_refused=self.on_refused,
                frames=frames,
                latency=latency,
            )
            for slot, router in enumerate(routers)
        ]

    def on_alerts(self, values: list[object], frame: Frame | None, age_ms: int | None = None) -> None:
        """Handle alerts of the ML service: check, hold back or queue each.

        Args:
            values: the alerts, decoded but not checked.
            frame: the frame of the result; None: it is not known.
            age_ms: age of that frame when the result arrived, in ms.
        """
        read = read_alerts(values, frame, now_ms=now_ms())
        for reason in read.refused:
            self.on_refused(reason, "" if frame is None else frame.stream_id)
        now = time.monotonic()
        for alert, size_bytes in read.alerts:
            alert_to_send = self._cooldown.take(alert, now)
            if alert_to_send is None:
                if self._incidents is not None and self._cooldown.held_by:
                    self._incidents.held(alert, self._cooldown.held_by)
                continue
            if age_ms is not None and self._max_age_s is not None and age_ms > self._max_age_s * 1000:
                alert_to_send = mark_stale(alert_to_send, age_ms)
            if self._tracer is not None:
                alert_to_send = spans.with_context(alert_to_send, frame, self._tracer)
            self._metrics.count(metric_names.ALERTS)
            term = self._keep_picture(alert_to_send.stream_id, alert_to_send.frame_id, frame)
            slot = slot_of(alert_to_send.stream_id, len(self._lanes))
            raised = Raised(alert_to_send, size_bytes, term, stamps=self._stamps_of(alert_to_send, frame))
            if self._incidents is not None:
                self._incidents.raised(alert_to_send, age_ms)
            dropped = self._queue.put(raised, slot)
            if dropped:
                self._metrics.count(metric_names.ALERTS_DROPPED, dropped)
                self._remember_lost()
                self._warn("an alert was dropped, too many wait for the router", waiting=len(self._queue))
            self._lanes[slot].wake()
        self._metrics.set(metric_names.ALERTS_SUPPRESSED, self._cooldown.suppressed)
        self._metrics.set(metric_names.ALERTS_REPEATED, self._cooldown.repeated)

    def on_joined(self, slot: int = 0) -> None:
        """Handle that this bridge joined the router of a slot."""
        self._lanes[slot].on_joined()

    def on_lost(self, slot: int = 0) -> None:
        """Handle that the router of a slot is away."""
        self._lanes[slot].on_lost()

    def on_refused(self, reason: str, stream: str = "") -> None:
        """Count and log an alert that is not valid.

        Args:
            reason: why.
            stream: the stream of its frame; empty: unknown.
        """
        self._metrics.count(metric_names.ALERTS_REFUSED)
        text = self._scrub(reason)[:200]
        if self._incidents is not None:
            self._incidents.refused(stream, text)
        self._warn("an alert of the ML service was refused", reason=text)

    async def close(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` seconds until all alerts are sent, then stop sending."""
        try:
            async with asyncio.timeout(timeout_s):
                for lane in self._lanes:
                    await lane.wait_empty()
        except TimeoutError:
            left = len(self._queue) + sum(lane.waiting_again for lane in self._lanes)
            _log.warning("alerts did not reach the router", alerts=left)
        for lane in self._lanes:
            await lane.close()

    def _keep_picture(self, stream: str, frame_id: int | None, frame: Frame | None) -> int:
        """Keep the frame of an alert. Returns its term, 0 when it is not available."""
        if self._frames is None or frame_id is None:
            return 0
        is_same = frame is not None and (frame.stream_id, frame.frame_id) == (stream, frame_id)
        found = self._frames.find(stream, frame_id, frame.term if frame is not None and is_same else None)
        if found is None:
            return 0
        self._frames.keep(found)
        self._metrics.set(metric_names.ML_RING_BYTES, self._frames.bytes)
        return found.term

    def _stamps_of(self, alert: Alert, frame: Frame | None) -> AlertStamps | None:
        """Return when the frame of an alert was captured and looked at; None: nothing is measured."""
        if self._latency is None:
            return None
        if frame is None or (frame.stream_id, frame.frame_id) != (alert.stream_id, alert.frame_id):
            frame = None
            if self._frames is not None and alert.frame_id is not None:
                frame = self._frames.find(alert.stream_id, alert.frame_id)
        return self._latency.stamps_of(frame)

    def _remember_lost(self) -> None:
        for lost in self._queue.dropped:
            if self._incidents is not None:
                self._incidents.lost(lost.alert)

    def _warn(self, event: str, **values: object) -> None:
        if not self._log_allowance.take(time.monotonic()):
            self._unlogged += 1
            return
        _log.warning(event, **values, not_logged_before=self._unlogged or None)
        self._unlogged = 0
