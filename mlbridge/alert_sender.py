"""Alerts from the ML service to the router: each gets an identity here and is sent until the router has it.

One at a time, so that their order is kept. While the router is away they wait, bounded; a repeated one carries the same
id, and the router tells nobody twice. What a router accepted is raised again to its successor
(`common.alerts.unconfirmed`). The picture of an alert's frame goes before the alert, over the frame sockets.
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

#: Pause after an attempt that the router did not answer.
RETRY_S: Final = 0.1
#: How long one wait for the router is; it is repeated.
WAIT_LIVE_S: Final = 5.0
#: Refused alerts in the log: so many at once, and so many per second.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2
#: Pictures of which is remembered that the router was sent them: many alerts may speak of one frame.
MAX_PICTURES_KNOWN: Final = 1_024

_log = log.get("mlbridge.alert_sender")


class Router(Protocol):
    """What the outbox needs of `common.bus.client.BusClient`."""

    @property
    def epoch(self) -> int:
        """The router's epoch."""

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait for the bond; whether it stands."""

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send a request and wait for its answer. Raises `RouterUnavailable`."""

    def send_frame(self, *parts: bytes | memoryview) -> bool:
        """Push a frame; False when the router is away."""


class AlertSender:
    """Sends alerts to the router. `max_age_s`: an alert of an older frame is marked as stale; None: none is.
    `scrub` takes secrets out of a text that came from the service.

    Its owner tells it by `joined` and `lost` how the bond with the router stands.
    """

    def __init__(
        self,
        router: Router,
        *,
        metrics: Metrics,
        queue: AlertQueue | None = None,
        cooldown_s: float = 0.0,
        max_age_s: float | None = None,
        ring: ShownFrames | None = None,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._queue = queue or AlertQueue()
        self._cooldown = Cooldown(cooldown_s)
        self._max_age_s = max_age_s
        self._ring = ring
        self._scrub = scrub
        self._accepted = UnconfirmedAlerts()
        self._again: deque[Raised] = deque()
        self._pictures_sent: OrderedDict[tuple[str, int, int | None], None] = OrderedDict()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._unlogged = 0
        self._sending = supervisor.current().keep(self._send_all, "outbox")

    def said(self, values: list[object], frame: Frame | None, age_ms: int | None = None) -> None:
        """Alerts as the ML service wrote them, and the frame that they answer, if that is known.

        `age_ms` is how old that frame was when the answer came.
        """
        read = read_alerts(values, frame, now_ms=now_ms())
        for reason in read.refused:
            self.refused(reason)
        now = time.monotonic()
        for alert, size_bytes in read.alerts:
            told = self._cooldown.take(alert, now)
            if told is None:
                continue
            if age_ms is not None and self._max_age_s is not None and age_ms > self._max_age_s * 1000:
                told = mark_stale(told, age_ms)
            self._metrics.count(metric_names.ALERTS)
            term = self._keep_picture(told.stream_id, told.frame_id, frame)
            dropped = self._queue.put(Raised(told, size_bytes, term))
            if dropped:
                self._metrics.count(metric_names.ALERTS_DROPPED, dropped)
                self._warn("an alert was dropped, too many wait for the router", waiting=len(self._queue))
            self._empty.clear()
            self._some.set()
        self._metrics.set(metric_names.ALERTS_SUPPRESSED, self._cooldown.suppressed)
        self._metrics.set(metric_names.ALERTS_REPEATED, self._cooldown.repeated)

    def joined(self) -> None:
        """A router knows this bridge: what another one accepted a moment before it ended is raised again."""
        again = self._accepted.take_other(self._router.epoch)
        if again:
            _log.info("alerts are raised again to a new router", alerts=len(again))
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN, len(again))
            self._again.extendleft(reversed(again))
            self._empty.clear()
            self._some.set()

    def lost(self) -> None:
        """The router is away. What it accepted long before that has gone out."""
        self._accepted.prune(time.monotonic())
        self._pictures_sent.clear()

    def refused(self, reason: str) -> None:
        """Count something that was to be an alert and is none."""
        self._metrics.count(metric_names.ALERTS_REFUSED)
        self._warn("an alert of the ML service was refused", reason=self._scrub(reason)[:200])

    async def close(self, timeout_s: float) -> None:
        """Give the alerts that wait `timeout_s` to reach the router."""
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
                self._some.clear()
                self._empty.set()
                await self._some.wait()
            # The bond first, then whose turn it is: a new router gets what its predecessor had before all else.
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
        """Whether the router has judged the alert."""
        epoch = self._router.epoch

        def ask(number: int) -> Message:
            if self._router.epoch != epoch:  # this one is not the first that the new router is to hear
                raise RouterUnavailable("another router came")
            return RaiseAlert(request=number, alert=raised.alert, term=raised.term, accepted_at=raised.accepted_at)

        self._send_picture(raised)
        try:
            reply = await self._router.request(ask)
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
                self.refused(f"the router: {message}")
        return True

    def _keep_picture(self, stream: str, frame_id: int | None, frame: Frame | None) -> int:
        """See to it that the ring keeps the frame of an alert; its term, 0 when it is not there."""
        if self._ring is None or frame_id is None:
            return 0
        answered = frame is not None and (frame.stream_id, frame.frame_id) == (stream, frame_id)
        found = self._ring.find(stream, frame_id, frame.term if frame is not None and answered else None)
        if found is None:
            return 0
        self._ring.keep(found)
        self._metrics.set(metric_names.ML_RING_BYTES, self._ring.bytes)
        return found.term

    def _send_picture(self, raised: Raised) -> None:
        alert = raised.alert
        key = alert.stream_id, raised.term, alert.frame_id
        if self._ring is None or not raised.term or alert.frame_id is None or key in self._pictures_sent:
            return
        found = self._ring.find(alert.stream_id, alert.frame_id, raised.term)
        if found is not None and self._router.send_frame(*found.bus_parts(FOR_ALERT)):
            self._metrics.count(metric_names.ALERT_PICTURES)
            self._pictures_sent[key] = None
            if len(self._pictures_sent) > MAX_PICTURES_KNOWN:
                self._pictures_sent.popitem(last=False)

    def _warn(self, event: str, **values: object) -> None:
        if not self._log_allowance.take(time.monotonic()):
            self._unlogged += 1
            return
        _log.warning(event, **values, not_logged_before=self._unlogged or None)
        self._unlogged = 0
