"""Frames from the bus to the ML service: runs what the scheduler says, and tells figures and log how it went.

It decides nothing about turns (`scheduler`) and nothing about alerts (`alerts`, `outbox`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from common import log
from common.alerts import STREAM_ID, AlertFault
from common.errors import BusError
from common.frames import Frame, FrameFault
from common.messages import BadFrame, decode_frame
from common.metrics import Figures
from common.service import Tasks
from mlbridge.scheduler import GiveUp, Scheduler, SendFrame
from mlbridge.targets import Target, TargetFailure, TargetTimeout

#: Weight of the newest request in the smoothed latency.
LATENCY_WEIGHT: Final = 0.2
#: Streams with an undecodable frame that are remembered, so that each is told once.
MAX_BAD_STREAMS: Final = 1_000

_log = log.get("mlbridge.feed")

#: Takes what the ML service said: alerts as they came, and the frame that they answer.
Said = Callable[[list[object], Frame | None], None]


class Outage:
    """When the ML service's health is worth a line: once when it fails, once when it is back. Pure; `now` in seconds.

    A service that fails only now and then gets a line every `QUIET_S` at most; its failures are in the figures.
    """

    QUIET_S: Final = 10.0
    SURE_AFTER: Final = 3

    def __init__(self) -> None:
        self._row = 0
        self._since = 0.0
        self._told = False
        self._told_at = float("-inf")

    def failed(self, now: float) -> bool:
        """Whether this failure is to be told."""
        if not self._row:
            self._since = now
        self._row += 1
        if self._told or (self._row < self.SURE_AFTER and now - self._told_at < self.QUIET_S):
            return False
        self._told = True
        self._told_at = now
        return True

    def answered(self, now: float) -> float | None:
        """How long the outage lasted, when its end is to be told."""
        lasted = now - self._since if self._told else None
        self._row = 0
        self._told = False
        return lasted


class Feed:
    """Feeds one target. `frame_came` takes frames as the bus brings them."""

    def __init__(
        self,
        target: Target,
        scheduler: Scheduler[Frame],
        *,
        figures: Figures,
        said: Said,
        refused: Callable[[str], None],
        report: Callable[[BadFrame], bool],
    ) -> None:
        self._target = target
        self._scheduler = scheduler
        self._figures = figures
        self._said = said
        self._refused = refused
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._outage = Outage()
        self._bad_streams: dict[str, None] = {}
        self.bad_messages = 0

    async def open(self) -> None:
        """Prepare the target."""
        await self._target.open(lambda values: self._said(values, None))

    def frame_came(self, data: bytes) -> None:
        """A frame from the bus."""
        if self._closed:
            return
        try:
            frame = Frame.from_bus(decode_frame(data))
        except BusError:
            self.bad_messages += 1
            return
        if not STREAM_ID.match(frame.stream_id):
            self.bad_messages += 1
            return
        self._figures.count("frames_in_total")
        self._figures.count("frames_from_bus_total")
        self._figures.count("frame_bytes_in_total", frame.size_bytes)
        try:
            size = len(frame.picture)
        except FrameFault as fault:
            self._undecodable(frame, str(fault))
            return
        self._bad_streams.pop(frame.stream_id, None)
        self._scheduler.offer(frame.stream_id, (frame.term, frame.frame_id), frame, size, self._loop.time())
        self._turn()

    async def close(self, timeout_s: float) -> None:
        """Take no more frames, give requests under way `timeout_s`, then let go of the target."""
        self._closed = True
        self._scheduler.clear()
        self._turn()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("requests to the ML service were cut off", requests=len(self._requests))
            self._requests.clear()
            self._idle.set()
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()
        await self._target.close()

    def _undecodable(self, frame: Frame, reason: str) -> None:
        self._figures.count("frames_undecodable_total")
        if frame.stream_id in self._bad_streams:
            return
        if self._report(BadFrame(stream=frame.stream_id, frame_id=frame.frame_id, reason=reason[:1024])):
            self._bad_streams[frame.stream_id] = None
            if len(self._bad_streams) > MAX_BAD_STREAMS:
                del self._bad_streams[next(iter(self._bad_streams))]

    def _turn(self) -> None:
        for command in self._scheduler.due(self._loop.time()):
            match command:
                case SendFrame(ticket, _, frame, _):
                    self._figures.count("ml_requests_total")
                    self._idle.clear()
                    self._requests[ticket] = self._tasks.start(self._ask(ticket, frame), f"ml request {ticket}")
                case GiveUp(ticket):
                    task = self._requests.pop(ticket, None)
                    if task is not None:
                        task.cancel()
                    self._count_failure("no answer before the deadline", timeout=True)
        counts = self._scheduler.counts
        self._figures.set("ml_frames_replaced_total", counts.replaced + counts.dropped)
        self._figures.set("ml_in_flight", self._scheduler.in_flight)
        if not self._requests:
            self._idle.set()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._scheduler.next_at()
        if at is not None:
            self._timer = self._loop.call_at(at, self._turn)

    async def _ask(self, ticket: int, frame: Frame) -> None:
        started = time.perf_counter()
        try:
            values = await self._target.show(frame)
        except AlertFault as fault:
            if self._answered(ticket, started):
                self._refused(str(fault))
        except TargetFailure as failure:
            self._failed(ticket, str(failure), timeout=isinstance(failure, TargetTimeout))
        except Exception as exc:
            self._failed(ticket, f"unexpected {type(exc).__name__}: {exc}", timeout=False)
        else:
            if self._answered(ticket, started) and values:
                self._said(values, frame)
        self._turn()

    def _answered(self, ticket: int, started: float) -> bool:
        now = self._loop.time()
        if not self._scheduler.answered(ticket, now):
            return False
        self._requests.pop(ticket, None)
        latency = time.perf_counter() - started
        smoothed = self._figures.values["ml_latency_seconds"]
        self._figures.set(
            "ml_latency_seconds", round(smoothed + LATENCY_WEIGHT * (latency - smoothed) if smoothed else latency, 6)
        )
        lasted = self._outage.answered(now)
        if lasted is not None:
            _log.info("the ML service answers again", service=self._target.shown_as, after_s=round(lasted, 1))
        return True

    def _failed(self, ticket: int, reason: str, *, timeout: bool) -> None:
        if self._scheduler.failed(ticket, self._loop.time()):
            self._requests.pop(ticket, None)
            self._count_failure(reason, timeout=timeout)

    def _count_failure(self, reason: str, *, timeout: bool) -> None:
        self._figures.count("ml_failures_total")
        if timeout:
            self._figures.count("ml_timeouts_total")
        if self._outage.failed(self._loop.time()):
            _log.warning("the ML service fails, video goes on", service=self._target.shown_as, reason=reason[:200])
