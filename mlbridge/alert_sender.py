"""Sends alerts of the ML service to the router, each until the router has accepted it.

Alerts are sent one at a time, which keeps their order. While the router is away they wait in a bounded queue. An alert
that is sent again has the same id, and the router delivers no id twice. Alerts that a router accepted shortly before it
was replaced are sent to its successor (`watchout.common.alerts.unconfirmed`). The picture of an alert's frame is sent
before the alert, over the frame sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from watchout.common import log, metric_names, supervisor
from watchout.common.alerts.unconfirmed import Raised, UnconfirmedAlerts
from watchout.common.bus.frames import FOR_ALERT
from watchout.common.bus.messages import AcceptedReply, Message, RaiseAlert, RefusedReply, Reply
from watchout.common.clock import now_ms
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.common.media.frames import Frame
from watchout.common.media.rate import TokenBucket
from watchout.common.metrics import Metrics
from watchout.mlbridge.alerts import AlertQueue, mark_stale, read_alerts
from watchout.mlbridge.cooldown import Cooldown
from watchout.mlbridge.shown_frames import ShownFrames

#: Pause after a request without a reply of the router, in seconds.
RETRY_S: Final = 0.1
#: How long the sender waits for the router at once, in seconds; it waits again after that.
WAIT_LIVE_S: Final = 5.0
#: Log lines about refused and dropped alerts: this many at once, and this many per second.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2
#: Pictures that are remembered as sent to the router, since several alerts may name one frame.
MAX_PICTURES_SENT: Final = 1_024

_log = log.get("mlbridge.alert_sender")


class AlertRouter(Protocol):
    """The connection to the router as `AlertSender` uses it; in mlbridge it is a `common.bus.client.BusClient`.

    A Protocol of its own, so that tests can take the router's place.
    """

    @property
    def epoch(self) -> int:
        """The epoch of the router: higher for each router that was started later."""

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until this bridge is a member. Returns whether it is."""

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send what `make` returns for a request number, and return the reply. Raises `RouterUnavailable`."""

    def send_frame(self, *parts: bytes | memoryview) -> bool:
        """Send a frame in parts. Returns False when the router is away."""


class AlertSender:
    """Checks alerts of the ML service, holds back repeated ones, and sends the others to the router.

    Created by `Bridge`, which calls `on_joined` and `on_lost`. A background task sends.

    Args:
        router: the connection to the router.
        metrics: where alerts are counted.
        queue: alerts that wait; None: a new queue with the default bounds.
        cooldown_s: pause after an alert of a stream and kind, in seconds.
        max_age_s: age of a frame over which its alert is marked as stale, in seconds; None: none is marked.
        frames: the frames that were sent lately, for pictures of alerts; None: no pictures are sent.
        scrub: removes secrets from a text of the service.
    """

    def __init__(
        self,
        router: AlertRouter,
        *,
        metrics: Metrics,
        queue: AlertQueue | None = None,
        cooldown_s: float = 0.0,
        max_age_s: float | None = None,
        frames: ShownFrames | None = None,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._queue = queue or AlertQueue()
        self._cooldown = Cooldown(cooldown_s)
        self._max_age_s = max_age_s
        self._frames = frames
        self._scrub = scrub
        self._accepted = UnconfirmedAlerts()
        self._again: deque[Raised] = deque()
        self._pictures_sent: OrderedDict[tuple[str, int, int | None], None] = OrderedDict()
        self._not_empty = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._unlogged = 0
        self._sending = supervisor.current().keep(self._send_all, "alert sender")

    def on_alerts(self, values: list[object], frame: Frame | None, age_ms: int | None = None) -> None:
        """Handle alerts of the ML service: check, hold back or queue each.

        Args:
            values: the alerts, decoded but not checked.
            frame: the frame of the result; None: it is not known.
            age_ms: age of that frame when the result arrived, in ms.
        """
        read = read_alerts(values, frame, now_ms=now_ms())
        for reason in read.refused:
            self.on_refused(reason)
        now = time.monotonic()
        for alert, size_bytes in read.alerts:
            alert_to_send = self._cooldown.take(alert, now)
            if alert_to_send is None:
                continue
            if age_ms is not None and self._max_age_s is not None and age_ms > self._max_age_s * 1000:
                alert_to_send = mark_stale(alert_to_send, age_ms)
            self._metrics.count(metric_names.ALERTS)
            term = self._keep_picture(alert_to_send.stream_id, alert_to_send.frame_id, frame)
            dropped = self._queue.put(Raised(alert_to_send, size_bytes, term))
            if dropped:
                self._metrics.count(metric_names.ALERTS_DROPPED, dropped)
                self._warn("an alert was dropped, too many wait for the router", waiting=len(self._queue))
            self._empty.clear()
            self._not_empty.set()
        self._metrics.set(metric_names.ALERTS_SUPPRESSED, self._cooldown.suppressed)
        self._metrics.set(metric_names.ALERTS_REPEATED, self._cooldown.repeated)

    def on_joined(self) -> None:
        """Handle that this bridge joined a router: send again what another router accepted shortly before it ended."""
        again = self._accepted.take_other(self._router.epoch)
        if again:
            _log.info("alerts are raised again to a new router", alerts=len(again))
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN, len(again))
            self._again.extendleft(reversed(again))
            self._empty.clear()
            self._not_empty.set()

    def on_lost(self) -> None:
        """Handle that the router is away. Alerts that it accepted long before have been delivered."""
        self._accepted.prune(time.monotonic())
        self._pictures_sent.clear()

    def on_refused(self, reason: str) -> None:
        """Count and log an alert that is not valid."""
        self._metrics.count(metric_names.ALERTS_REFUSED)
        self._warn("an alert of the ML service was refused", reason=self._scrub(reason)[:200])

    async def close(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` seconds until all alerts are sent, then stop sending."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("alerts did not reach the router", alerts=len(self._queue) + len(self._again))
            self._empty.set()
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    async def _send_all(self) -> None:
        while True:
            if not self._again and not len(self._queue):
                self._not_empty.clear()
                self._empty.set()
                await self._not_empty.wait()
            # Chosen after the wait: alerts that a former router had accepted are sent to a new router first.
            if not await self._router.wait_live(WAIT_LIVE_S):
                continue
            raised = self._again[0] if self._again else self._queue.first()
            if raised is None:
                continue
            if not await self._send(raised):
                await asyncio.sleep(RETRY_S)
            elif self._again and self._again[0] is raised:
                self._again.popleft()
            else:
                self._queue.done(raised)

    async def _send(self, raised: Raised) -> bool:
        """Send one alert. Returns whether the router accepted or refused it; False: send it again."""
        epoch = self._router.epoch

        def make(number: int) -> Message:
            if self._router.epoch != epoch:  # the new router gets other alerts first
                raise RouterUnavailable("another router came")
            return RaiseAlert(request=number, alert=raised.alert, term=raised.term, accepted_at=raised.accepted_at)

        self._send_picture(raised)
        try:
            reply = await self._router.request(make)
        except RouterUnavailable:
            return False
        match reply:
            case AcceptedReply():
                if reply.duplicate and raised.accepted_at is None:
                    self._metrics.count(metric_names.ALERTS_DUPLICATE)
                at = raised.accepted_at or reply.at or None
                self._accepted.add(replace(raised, accepted_at=at), epoch, time.monotonic())
                _log.debug("alert accepted", alert=raised.alert.id, stream=raised.alert.stream_id)
            case RefusedReply(code=ErrorCode.ROUTING_ERROR):
                return False
            case RefusedReply(message=message):
                self.on_refused(f"the router: {message}")
        return True

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

    def _send_picture(self, raised: Raised) -> None:
        alert = raised.alert
        key = alert.stream_id, raised.term, alert.frame_id
        if self._frames is None or not raised.term or alert.frame_id is None or key in self._pictures_sent:
            return
        found = self._frames.find(alert.stream_id, alert.frame_id, raised.term)
        if found is not None and self._router.send_frame(*found.bus_parts(FOR_ALERT)):
            self._metrics.count(metric_names.ALERT_PICTURES)
            self._pictures_sent[key] = None
            if len(self._pictures_sent) > MAX_PICTURES_SENT:
                self._pictures_sent.popitem(last=False)

    def _warn(self, event: str, **values: object) -> None:
        if not self._log_allowance.take(time.monotonic()):
            self._unlogged += 1
            return
        _log.warning(event, **values, not_logged_before=self._unlogged or None)
        self._unlogged = 0
