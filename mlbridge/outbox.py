"""Alerts from the ML service to the router: each gets an identity here and is sent until the router has it.

One at a time, so that their order is kept. While the router is away they wait, bounded; a repeated one carries the
same id, and the router tells nobody twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from common import log
from common.alerts import Alert
from common.errors import ErrorCode, RouterUnavailable
from common.frames import Frame
from common.link import Reply
from common.messages import Accepted, Message, RaiseAlert, Refused
from common.metrics import Figures
from common.pacing import TokenBucket
from common.service import Tasks
from mlbridge.alerts import AlertQueue, read_alerts

#: Pause after an attempt that the router did not answer.
RETRY_S: Final = 0.1
#: How long one wait for the router is; it is repeated.
WAIT_LIVE_S: Final = 5.0
#: Refused alerts in the log: so many at once, and so many per second.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2

_log = log.get("mlbridge.outbox")


class Router(Protocol):
    """What the outbox needs of `common.link.Link`."""

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait for the bond; whether it stands."""

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send a request and wait for its answer. Raises `RouterUnavailable`."""


class Outbox:
    """Sends alerts to the router."""

    def __init__(self, router: Router, *, figures: Figures, queue: AlertQueue | None = None) -> None:
        self._router = router
        self._figures = figures
        self._queue = queue or AlertQueue()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._unlogged = 0
        self._tasks = Tasks()
        self._tasks.start(self._send_all(), "outbox")

    def said(self, values: list[object], frame: Frame | None) -> None:
        """Alerts as the ML service wrote them, and the frame that they answer, if that is known."""
        read = read_alerts(values, frame, new_id=lambda: uuid.uuid4().hex, now_ms=time.time_ns() // 1_000_000)
        for reason in read.refused:
            self.refused(reason)
        for alert, size_bytes in read.alerts:
            self._figures.count("alerts_total")
            dropped = self._queue.put(alert, size_bytes)
            if dropped:
                self._figures.count("alerts_dropped_total", dropped)
                self._warn("an alert was dropped, too many wait for the router", waiting=len(self._queue))
            self._empty.clear()
            self._some.set()

    def refused(self, reason: str) -> None:
        """Count something that was to be an alert and is none."""
        self._figures.count("alerts_refused_total")
        self._warn("an alert of the ML service was refused", reason=reason[:200])

    async def close(self, timeout_s: float) -> None:
        """Give the alerts that wait `timeout_s` to reach the router."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("alerts did not reach the router", alerts=len(self._queue))
            self._empty.set()
        await self._tasks.close()

    async def _send_all(self) -> None:
        while True:
            alert = self._queue.first()
            if alert is None:
                self._some.clear()
                self._empty.set()
                await self._some.wait()
            elif await self._send(alert):
                self._queue.done(alert)
            else:
                await asyncio.sleep(RETRY_S)

    async def _send(self, alert: Alert) -> bool:
        """Whether the router has judged the alert."""
        if not await self._router.wait_live(WAIT_LIVE_S):
            return False
        try:
            reply = await self._router.request(lambda number: RaiseAlert(request=number, alert=alert))
        except RouterUnavailable:
            return False
        match reply:
            case Accepted(duplicate=True):
                self._figures.count("alerts_duplicate_total")
            case Refused(code=ErrorCode.ROUTING_ERROR):
                return False
            case Refused(message=message):
                self.refused(f"the router: {message}")
        return True

    def _warn(self, event: str, **values: object) -> None:
        if not self._log_allowance.take(time.monotonic()):
            self._unlogged += 1
            return
        _log.warning(event, **values, not_logged_before=self._unlogged or None)
        self._unlogged = 0
