"""Frames from the bus to the ML service: runs what the scheduler says, and tells figures and log how it went.

It decides nothing about turns (`scheduler`) and nothing about alerts (`alerts`, `outbox`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from watchout.common import log, metric_names, supervisor
from watchout.common.alerts.model import STREAM_ID, AlertFault
from watchout.common.bus.frames import decode_frame
from watchout.common.bus.messages import MAX_COVERAGE_ROWS, BadFrame, CoverageReport
from watchout.common.errors import BusError
from watchout.common.media.frames import Frame, FrameFault
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.supervisor import Alarm, Periodic
from watchout.mlbridge.coverage import Covered, Latencies
from watchout.mlbridge.refusals import TOLD_EVERY_S, Blame, Telling
from watchout.mlbridge.scheduler import Answered, GiveUp, Scheduler, SendFrame
from watchout.mlbridge.targets import Target, TargetFailure, TargetTimeout, UnusableMessage, UnusableResult

#: Weight of the newest request in the smoothed latency.
LATENCY_WEIGHT: Final = 0.2
#: Streams with an undecodable frame that are remembered, so that each is told once.
MAX_BAD_STREAMS: Final = 1_000
#: How often the loop is looked at for a standstill.
WATCH_EVERY_S: Final = 0.25
#: After a standstill, what the sockets held meanwhile has been read when the loop has run for so long.
SETTLE_S: Final = 0.1
#: How often the streams' coverage is told.
COVERAGE_EVERY_S: Final = 2.0

_log = log.get("mlbridge.dispatcher")


class Said(Protocol):
    """Takes what the ML service said."""

    def __call__(self, values: list[object], frame: Frame | None, *, age_ms: int | None = None) -> None:
        """Alerts as they came, the frame that they answer, and how old it was when the answer came."""


class Standstill:
    """How long a frame may have waited unread because this process stood still. Pure; `now` in seconds.

    Frames are dated by when they are read. After a standstill (a stopped process, a starved machine) the sockets hold
    old ones: those are dated by the last time the loop was seen running, which makes them seem older, never younger.
    """

    def __init__(self, now: float) -> None:
        self._seen_at = now
        self._since = now
        self._until = -math.inf

    def look(self, now: float) -> None:
        """The loop runs."""
        if now - self._seen_at > 2 * WATCH_EVERY_S:
            self._since = self._seen_at
            self._until = now + SETTLE_S
        self._seen_at = now

    def came_at(self, now: float) -> float:
        """When a frame that is read now came, at the earliest."""
        if now - self._seen_at > 2 * WATCH_EVERY_S:
            self.look(now)
        return self._since if now < self._until else now


class Outage:
    """When the ML service's health is worth a line: once when it fails, once when it is back. Pure; `now` in seconds.

    A service that fails only now and then gets a line every `QUIET_S` at most, and so does one that fails for another
    reason than before; its failures are in the figures.
    """

    QUIET_S: Final = 10.0
    SURE_AFTER: Final = 3

    def __init__(self) -> None:
        self._row = 0
        self._since = 0.0
        self._told = False
        self._told_at = float("-inf")
        self._told_reason = ""

    def failed(self, now: float, reason: str = "") -> bool:
        """Whether this failure is to be told."""
        if not self._row:
            self._since = now
        self._row += 1
        if self._told and (reason == self._told_reason or now - self._told_at < self.QUIET_S):
            return False
        if not self._told and self._row < self.SURE_AFTER and now - self._told_at < self.QUIET_S:
            return False
        self._told_reason = reason
        self._told = True
        self._told_at = now
        return True

    def answered(self, now: float) -> float | None:
        """How long the outage lasted, when its end is to be told."""
        lasted = now - self._since if self._told else None
        self._row = 0
        self._told = False
        return lasted


class Dispatcher:
    """Feeds the endpoints of one ML service. `frame_came` takes frames as the bus brings them.

    `targets` are in the order of the scheduler's endpoints. `sent` is told each frame that goes out. `scrub` takes
    secrets out of a text that came from the service, which may echo what it was sent.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        scheduler: Scheduler[Frame],
        *,
        metrics: Metrics,
        said: Said,
        refused: Callable[[str], None],
        report: Callable[[BadFrame | CoverageReport], bool],
        max_age_s: float,
        sent: Callable[[Frame], None] | None = None,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._targets = targets
        self._scheduler = scheduler
        self._metrics = metrics
        self._said = said
        self._refused = refused
        self._report = report
        self._max_age_s = max_age_s
        self._sent = sent
        self._scrub = scrub
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._requests: dict[int, tuple[asyncio.Task[None], int]] = {}
        self._alarm = Alarm(self._turn, "turns of the ML service")
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._outages = [Outage() for _ in targets]
        self._telling = Telling()
        self._refused_all_at = -math.inf
        self._backed_off: list[str] = []
        self._unusable_at = -math.inf
        self._unusable = 0
        self._latencies = Latencies()
        self._standstill = Standstill(self._loop.time())
        self._watches: Periodic | None = None
        self._covered = Covered.of([], 0)
        self._covered_at = -math.inf
        self._told_rows = 0
        self._in_use = 0
        self._bad_streams: OrderedDict[str, None] = OrderedDict()
        self.bad_messages = 0

    async def open(self) -> None:
        """Prepare the targets."""
        for target in self._targets:
            await target.open(self._came_by_itself)
        self._watches = supervisor.current().every(WATCH_EVERY_S, self._watch, "coverage", first_s=0)

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
        self._metrics.count(metric_names.FRAMES_IN)
        self._metrics.count(metric_names.FRAMES_FROM_BUS)
        self._metrics.count(metric_names.FRAME_BYTES_IN, frame.size_bytes)
        try:
            size = len(frame.picture)
        except FrameFault as fault:
            self._undecodable(frame, str(fault))
            return
        self._bad_streams.pop(frame.stream_id, None)
        now = self._loop.time()
        order = (frame.term, frame.frame_id)
        came_at = self._standstill.came_at(now)
        self._scheduler.offer(frame.stream_id, order, frame, size, now, came_at=came_at, kind=frame.kind)
        self._turn()

    def tell_figures(self) -> None:
        """Bring the figures up to date."""
        scheduler, metrics, now = self._scheduler, self._metrics, self._loop.time()
        counts, endpoints = scheduler.counts, scheduler.endpoints
        first = endpoints.each[0]
        serving = endpoints.each[endpoints.in_use]
        p50, p99 = self._latencies.quantiles(now, 0.5, 0.99)
        for name, value in (
            (metric_names.ML_FRAMES_REPLACED, counts.replaced),
            (metric_names.ML_FRAMES_TOO_OLD, counts.too_old),
            (metric_names.ML_FRAMES_AWAY, counts.away),
            (metric_names.ML_FRAMES_OVER_BYTES, counts.over_bytes),
            (metric_names.ML_FRAMES_BACKED_OFF, counts.backed_off),
            (metric_names.ML_REFUSALS, counts.refused),
            (metric_names.ML_STREAMS_REFUSED, len(self._backed_off)),
            (metric_names.ML_IN_FLIGHT_BYTES, scheduler.in_flight_bytes),
            (metric_names.ML_FRAMES_FORGOTTEN, counts.forgotten),
            (metric_names.ML_FRAMES_WAITING, scheduler.waiting),
            (metric_names.ML_RESULTS_LATE, counts.late),
            (metric_names.ML_PROBE_COPIES, counts.copies),
            (metric_names.ML_IN_FLIGHT, scheduler.in_flight),
            (metric_names.ML_IN_FLIGHT_LIMIT, serving.limiter.limit),
            (metric_names.ML_LATENCY_P50_SECONDS, round(p50, 6)),
            (metric_names.ML_LATENCY_P99_SECONDS, round(p99, 6)),
            (metric_names.ML_BREAKER_STATE, first.breaker.state),
            (metric_names.ML_BREAKER_OPENED, first.breaker.opened),
            (metric_names.ML_ENDPOINT, endpoints.in_use),
            (metric_names.ML_STREAMS, self._covered.streams),
            (metric_names.ML_COVERAGE_MEAN, round(self._covered.mean, 4)),
            (metric_names.ML_COVERAGE_MIN, round(self._covered.least, 4)),
        ):
            metrics.set(name, float(value))
        for fallback in endpoints.each[1:]:
            metrics.set(metric_names.ML_FALLBACK_BREAKER_STATE, float(fallback.breaker.state))
            metrics.set(metric_names.ML_FALLBACK_BREAKER_OPENED, fallback.breaker.opened)

    async def close(self, timeout_s: float) -> None:
        """Take no more frames, give requests under way `timeout_s`, then let go of the targets."""
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
        self._alarm.cancel()
        if self._watches is not None:
            self._watches.cancel()
        await self._tasks.close()
        for target in self._targets:
            await target.close()

    def _undecodable(self, frame: Frame, reason: str) -> None:
        self._metrics.count(metric_names.FRAMES_UNDECODABLE)
        if frame.declared_opaque or frame.stream_id in self._bad_streams:
            return
        if self._report(BadFrame(stream=frame.stream_id, frame_id=frame.frame_id, reason=reason[:1024])):
            self._bad_streams[frame.stream_id] = None
            if len(self._bad_streams) > MAX_BAD_STREAMS:
                del self._bad_streams[next(iter(self._bad_streams))]

    def _watch(self) -> None:
        now = self._loop.time()
        self._standstill.look(now)
        if now - self._covered_at >= COVERAGE_EVERY_S:
            self._covered_at = now
            self._covered = Covered.of(self._scheduler.coverage(now), MAX_COVERAGE_ROWS)
            rows = [(stream, round(share, 4)) for stream, share in self._covered.worst]
            if rows or self._told_rows:
                self._report(CoverageReport(rows=rows))
            self._told_rows = len(rows)
            self._watch_refusals(now)

    def _watch_refusals(self, now: float) -> None:
        self._backed_off = self._scheduler.backed_off(now)
        refused = len(self._backed_off)
        if refused and refused == self._covered.streams and now - self._refused_all_at >= TOLD_EVERY_S:
            self._refused_all_at = now
            service = self._targets[self._scheduler.endpoints.in_use].public_url
            _log.warning(
                "the ML service refuses the frames of every stream: it takes other frames than it is shown",
                service=service, streams=refused,
            )  # fmt: skip

    def _came_by_itself(self, values: list[object]) -> None:
        """What a target heard that belongs to no frame under way."""
        for fault in values:
            if isinstance(fault, UnusableMessage):
                self._count_unusable(fault)
        said = [value for value in values if not isinstance(value, UnusableMessage)]
        if said:
            self._said(said, None)

    def _count_unusable(self, reason: str) -> None:
        self._metrics.count(metric_names.ML_RESULTS_UNUSABLE)
        self._unusable += 1
        now = self._loop.time()
        if now - self._unusable_at >= TOLD_EVERY_S:
            self._unusable_at = now
            service = self._targets[self._scheduler.endpoints.in_use].public_url
            _log.warning(
                "the ML service answers what is no answer; such frames do not count as looked at",
                service=service, came=self._scrub(reason)[:300], answers=self._unusable,
            )  # fmt: skip
            self._unusable = 0

    def _turn(self) -> None:
        for command in self._scheduler.due(self._loop.time()):
            match command:
                case SendFrame():
                    self._start(command)
                case GiveUp(ticket, stream, blame):
                    under_way = self._requests.pop(ticket, None)
                    if under_way is not None:
                        task, endpoint = under_way
                        task.cancel()
                        self._count_failure(endpoint, stream, "no answer before the deadline", blame, timeout=True)
        in_use = self._scheduler.endpoints.in_use
        if in_use != self._in_use:
            self._in_use = in_use
            _log.warning("frames go to another ML endpoint", service=self._targets[in_use].public_url, endpoint=in_use)
        if not self._requests:
            self._idle.set()
        self._set_timer()

    def _start(self, command: SendFrame[Frame]) -> None:
        self._metrics.count(metric_names.ML_REQUESTS)
        if command.endpoint:
            self._metrics.count(metric_names.ML_FALLBACK_REQUESTS)
        if not command.copy and self._sent is not None:
            self._sent(command.frame)
        self._idle.clear()
        task = self._tasks.start(self._ask(command), f"ml request {command.ticket}")
        self._requests[command.ticket] = task, command.endpoint

    def _set_timer(self) -> None:
        self._alarm.set(self._scheduler.next_at())

    async def _ask(self, command: SendFrame[Frame]) -> None:
        started = time.perf_counter()  # the loop's own clock counts milliseconds
        try:
            values = await self._targets[command.endpoint].analyse(command.frame, isolated=command.apart)
        except AlertFault as fault:
            if self._answered(command, started):
                self._refused(str(fault))
        except TargetFailure as failure:
            self._failed(command, failure)
        except Exception as exc:
            self._failed(command, TargetFailure(f"unexpected {type(exc).__name__}: {exc}", blame=Blame.UNSURE))
        else:
            age_s = self._loop.time() - command.came_at
            if self._answered(command, started):
                if age_s > self._max_age_s:
                    self._metrics.count(metric_names.ML_RESULTS_STALE)
                if values:
                    self._said(values, command.frame, age_ms=max(0, round(age_s * 1000)))
        self._turn()

    def _answered(self, command: SendFrame[Frame], started: float) -> bool:
        """The endpoint answered; whether the answer counts."""
        now = self._loop.time()
        answered = self._scheduler.answered(command.ticket, now)
        if answered is Answered.LATE:
            return False
        self._requests.pop(command.ticket, None)
        lasted = self._outages[command.endpoint].answered(now)
        if lasted is not None:
            service = self._targets[command.endpoint].public_url
            _log.info("the ML service answers again", service=service, after_s=round(lasted, 1))
        if answered is Answered.COPY:
            return False
        latency = time.perf_counter() - started
        self._latencies.add(latency, now)
        smoothed = self._metrics.values[metric_names.ML_LATENCY_SECONDS]
        self._metrics.set(
            metric_names.ML_LATENCY_SECONDS,
            round(smoothed + LATENCY_WEIGHT * (latency - smoothed) if smoothed else latency, 6),
        )
        return True

    def _failed(self, command: SendFrame[Frame], failure: TargetFailure) -> None:
        blame = self._scheduler.failed(command.ticket, self._loop.time(), failure.retry_after_s, failure.blame)
        if blame is None:
            return
        self._requests.pop(command.ticket, None)
        is_timeout = isinstance(failure, TargetTimeout)
        is_unusable = isinstance(failure, UnusableResult)
        if isinstance(failure, UnusableResult) and not failure.counted:
            self._count_unusable(str(failure))
        self._count_failure(
            command.endpoint, command.stream, str(failure), blame, timeout=is_timeout, unusable=is_unusable
        )

    def _count_failure(
        self, endpoint: int, stream: str, reason: str, blame: Blame, *, timeout: bool, unusable: bool = False
    ) -> None:
        """Count a failed request, and tell it: of a stream by its name, of the service once an outage."""
        now = self._loop.time()
        service = self._targets[endpoint].public_url
        reason = self._scrub(reason)[:200]
        if timeout:
            self._metrics.count(metric_names.ML_TIMEOUTS)
        if blame is Blame.FRAME:
            refused = self._telling.refused(stream, now)
            if refused is not None:
                _log.warning(
                    "the ML service refuses the frames of a stream, which is shown less often",
                    stream=stream, service=service, reason=reason, refused=refused,
                    streams_not_named=self._telling.unnamed or None,
                )  # fmt: skip
                self._telling.unnamed = 0
            return
        if not unusable:
            self._metrics.count(metric_names.ML_FAILURES)
        if blame is Blame.SERVICE and self._outages[endpoint].failed(now, reason):
            _log.warning("the ML service fails, video goes on", service=service, reason=reason)
