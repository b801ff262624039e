"""Sends the alerts of one slot to its router, one at a time, which keeps their order, each until it is accepted."""

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
from watchout.common.bus.router_clock import RouterClock
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.common.latency.alert_stamps import stamps_at_router
from watchout.common.metrics import Metrics
from watchout.mlbridge.alerts import AlertQueue
from watchout.mlbridge.latency import BridgeLatency
from watchout.mlbridge.shown_frames import ShownFrames

#: Pause after a request without a reply of the router, in seconds.
RETRY_S: Final = 0.1
#: How long the sender waits for the router at once, in seconds; it waits again after that.
WAIT_LIVE_S: Final = 5.0
#: Pictures that are remembered as sent to the router, since several alerts may name one frame.
MAX_PICTURES_SENT: Final = 1_024

_log = log.get("mlbridge.alert_lane")


class AlertRouter(Protocol):
    """The connection to a router as `AlertLane` uses it; in mlbridge it is a `common.bus.client.BusClient`.

    A Protocol of its own, so that tests can take the router's place.
    """

    @property
    def clock(self) -> RouterClock:
        """The router's clock."""

    @property
    def epoch(self) -> int:
        """The epoch of the router: higher for each router that was started later."""

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until this bridge is a member. Returns whether it is."""

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send what `make` returns for a request number, and return the reply. Raises `RouterUnavailable`."""

    def send_frame(self, *parts: bytes | memoryview) -> bool:
        """Send a frame in parts. Returns False when the router is away."""


class AlertLane:
    """The way of the alerts of one slot to its router. Made by `AlertSender`, one for each slot.

    A background task sends. While the router is away the alerts wait, and those of other slots do not.

    Args:
        slot: the slot, from 0.
        router: the connection to its router.
        queue: the alerts that wait, of all slots.
        accepted: those that a router accepted lately, of all slots.
        metrics: where alerts are counted.
        on_refused: called with the reason when the router refuses an alert.
        frames: the frames that were sent lately, for pictures of alerts; None: no pictures are sent.
        latency: feeds the latency ledger; None: nothing is measured.
    """

    def __init__(
        self,
        slot: int,
        router: AlertRouter,
        queue: AlertQueue,
        accepted: UnconfirmedAlerts,
        *,
        metrics: Metrics,
        on_refused: Callable[[str], None],
        frames: ShownFrames | None,
        latency: BridgeLatency | None = None,
    ) -> None:
        self._latency = latency
        self._slot = slot
        self._router = router
        self._queue = queue
        self._accepted = accepted
        self._metrics = metrics
        self._on_refused = on_refused
        self._frames = frames
        self._again: deque[Raised] = deque()
        self._pictures_sent: OrderedDict[tuple[str, int, int | None], None] = OrderedDict()
        self._not_empty = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        name = "alert sender" if slot == 0 else f"alert sender of slot {slot}"
        self._sending = supervisor.current().keep(self._send_all, name)

    @property
    def waiting_again(self) -> int:
        """Alerts that wait to be raised again to a new router."""
        return len(self._again)

    def wake(self) -> None:
        """Handle that the queue has an alert of this slot."""
        self._empty.clear()
        self._not_empty.set()

    def on_joined(self) -> None:
        """Handle that this bridge joined a router: send again what another router accepted shortly before it ended."""
        again = self._accepted.joined(self._slot, self._router.epoch, time.monotonic())
        if (lost := self._accepted.take_given_up(self._slot)) > 0:
            _log.warning("alerts that a router had accepted may be lost: it was away for too long", alerts=lost)
        if again:
            _log.info("alerts are raised again to a new router", alerts=len(again))
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN, len(again))
            self._again.extendleft(reversed(again))
            self.wake()

    def on_lost(self) -> None:
        """Handle that the router is away: what it accepted long before has been delivered. The next has no pictures."""
        self._accepted.missing(self._slot, time.monotonic())
        self._pictures_sent.clear()

    async def wait_empty(self) -> None:
        """Wait until all alerts of this slot are sent."""
        await self._empty.wait()

    async def close(self) -> None:
        """Stop sending."""
        self._empty.set()
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)

    async def _send_all(self) -> None:
        while True:
            if not self._again and self._queue.first(self._slot) is None:
                self._not_empty.clear()
                self._empty.set()
                await self._not_empty.wait()
            # Chosen after the wait: alerts that a former router had accepted are sent to a new router first.
            if not await self._router.wait_live(WAIT_LIVE_S):
                continue
            raised = self._again[0] if self._again else self._queue.first(self._slot)
            if raised is None:
                continue
            epoch = self._router.epoch
            if not await self._send(raised, epoch):
                if self._router.epoch == epoch:  # a new router gets what the former one accepted before it decides
                    await asyncio.sleep(RETRY_S)
            elif self._again and self._again[0] is raised:
                self._again.popleft()
            else:
                self._queue.done(raised, self._slot)

    async def _send(self, raised: Raised, epoch: int) -> bool:
        """Send one alert to the router of an epoch. Return whether it accepted or refused it; False: send it again."""

        def make(number: int) -> Message:
            if self._router.epoch != epoch:  # the new router gets other alerts first
                raise RouterUnavailable("another router came")
            at = None if raised.accepted_at is None else self._router.clock.to_router(raised.accepted_at)
            stamps = stamps_at_router(raised.stamps, self._router.clock)
            return RaiseAlert(request=number, alert=raised.alert, term=raised.term, accepted_at=at, stamps=stamps)

        self._send_picture(raised)
        try:
            reply = await self._router.request(make)
        except RouterUnavailable:
            return False
        match reply:
            case AcceptedReply() if self._router.epoch != epoch:
                return False  # it came together with a new router, to which what the former one accepted is sent again
            case AcceptedReply():
                if reply.duplicate and raised.accepted_at is None:
                    self._metrics.count(metric_names.ALERTS_DUPLICATE)
                at = raised.accepted_at or (self._router.clock.to_local(reply.at) if reply.at else None)
                if self._latency is not None and raised.accepted_at is None and not reply.duplicate:
                    self._latency.on_accepted(raised.alert, raised.stamps, at)
                self._accepted.add(replace(raised, accepted_at=at), epoch, time.monotonic(), self._slot)
                _log.debug("alert accepted", alert=raised.alert.id, stream=raised.alert.stream_id)
            case RefusedReply(code=ErrorCode.ROUTING_ERROR):
                return False
            case RefusedReply(message=message):
                self._on_refused(f"the router: {message}")
        return True

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
