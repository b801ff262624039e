"""Carries frames from the bus to the ML service: runs the scheduler's commands, and keeps metrics and log.

When a frame is sent is decided by `watchout.mlbridge.scheduler`; alerts are checked by `watchout.mlbridge.alerts` and
sent by `watchout.mlbridge.alert_sender`.
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
from watchout.common.media.frames import Frame, FrameFault, name_fault
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.supervisor import Alarm, Periodic
from watchout.common.tracing import spans, tracer
from watchout.mlbridge.commands import CancelRequest, ResultOutcome, SendFrame
from watchout.mlbridge.coverage import CoverageSummary, Latencies
from watchout.mlbridge.incidents import BridgeIncidents
from watchout.mlbridge.latency import BridgeLatency
from watchout.mlbridge.refusals import LOG_EVERY_S, Blame, RefusalLog
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.scheduler_metrics import write_metrics
from watchout.mlbridge.service_outage import ServiceOutage
from watchout.mlbridge.standstill import TICK_EVERY_S, Standstill
from watchout.mlbridge.targets import Target, TargetFailure, TargetTimeout, UnusableMessage, UnusableResult

#: Weight of the newest request in the smoothed latency.
LATENCY_WEIGHT: Final = 0.2
#: Streams with an undecodable frame that are remembered, so that each is reported once.
MAX_BAD_STREAMS: Final = 1_000
#: Interval at which the coverage of streams is reported to the router, in seconds.
COVERAGE_EVERY_S: Final = 2.0

_log = log.get("mlbridge.dispatcher")


class AlertHandler(Protocol):
    """Receives alerts of the ML service. In mlbridge it is `AlertSender.on_alerts`."""

    def __call__(self, values: list[object], frame: Frame | None, *, age_ms: int | None = None) -> None:
        """Handle alerts.

        Args:
            values: the alerts, decoded but not checked.
            frame: the frame of the result; None: they belong to no frame under way.
            age_ms: age of the frame when the result arrived, in ms.
        """


class Dispatcher:
    """Sends frames to the endpoints of one ML service. Created by `Bridge` and by ``watchout-ctl ml`` for dry runs.

    Args:
        targets: the clients, in the order of the scheduler's endpoints.
        scheduler: decides when a frame is sent.
        metrics: where frames, requests and failures are counted.
        on_alerts: receives the alerts of results, and those that the service sends unasked.
        on_refused: receives the reason when a result has alerts that are no list, or too many.
        report: sends a report to the routers; returns whether the one that it is for is there.
        max_age_s: age of a frame over which its result counts as stale.
        on_sent: called with each frame that is sent.
        scrub: removes secrets from a text of the service, which may echo what it received.
        latency: feeds the latency ledger; None: nothing is measured.
        incidents: remembers failures, for `watchout-ctl why`; None: nothing does.

    Attributes:
        bad_messages: messages of the bus that were no frames.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        scheduler: Scheduler[Frame],
        *,
        metrics: Metrics,
        on_alerts: AlertHandler,
        on_refused: Callable[[str], None],
        report: Callable[[BadFrame | CoverageReport], bool],
        max_age_s: float,
        on_sent: Callable[[Frame], None] | None = None,
        scrub: Callable[[str], str] = str,
        latency: BridgeLatency | None = None,
        incidents: BridgeIncidents | None = None,
    ) -> None:
        self._latency = latency
        self._targets = targets
        self._scheduler = scheduler
        self._metrics = metrics
        self._on_alerts = on_alerts
        self._on_refused = on_refused
        self._report = report
        self._max_age_s = max_age_s
        self._on_sent = on_sent
        self._scrub = scrub
        self._incidents = incidents
        if incidents is not None:
            incidents.serve(scheduler, [target.public_url for target in targets])
        self._loop = asyncio.get_running_loop()
        self._tracer = tracer.active()
        self._tasks = Tasks()
        self._requests: dict[int, tuple[asyncio.Task[None], int]] = {}
        self._alarm = Alarm(self._run_commands, "turns of the ML service")
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._outages = [ServiceOutage() for _ in targets]
        self._refusal_log = RefusalLog()
        self._refused_all_at = -math.inf
        self._backed_off: list[str] = []
        self._unusable_at = -math.inf
        self._unusable = 0
        self._latencies = Latencies()
        self._standstill = Standstill(self._loop.time())
        self._ticks: Periodic | None = None
        self._summary = CoverageSummary.of([], 0)
        self._reported_at = -math.inf
        self._reported_rows = 0
        self._in_use = 0
        self._bad_streams: OrderedDict[str, None] = OrderedDict()
        self.bad_messages = 0

    async def open(self) -> None:
        """Open the targets."""
        for target in self._targets:
            await target.open(self._on_other_alerts)
        self._ticks = supervisor.current().every(TICK_EVERY_S, self._tick, "coverage", first_s=0)

    def on_frame(self, data: bytes | memoryview) -> None:
        """Handle a frame from the bus, in the encoding of the bus."""
        if self._closed:
            return
        try:
            received = decode_frame(data)  # `from_bus` copies what the frame keeps
            frame = Frame.from_bus(received, for_viewers=False)
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
            self._on_undecodable(frame, str(fault))
            return
        self._bad_streams.pop(frame.stream_id, None)
        if self._latency is not None:
            self._latency.on_frame(frame, received.stamp)
        now = self._loop.time()
        order = (frame.term, frame.frame_id)
        came_at = self._standstill.came_at(now)
        self._scheduler.offer(frame.stream_id, order, frame, size, now, came_at=came_at, kind=frame.kind)
        self._alarm.soon()  # once for all frames that were read together

    def update_metrics(self) -> None:
        """Write the values of the scheduler, the endpoints and the coverage into the metrics."""
        p50, p99 = self._latencies.quantiles(self._loop.time(), 0.5, 0.99)
        if self._incidents is not None:
            self._incidents.note_latency(p50)
        write_metrics(
            self._metrics, self._scheduler, self._summary, latency_s=(p50, p99), backed_off=len(self._backed_off)
        )

    async def close(self, timeout_s: float) -> None:
        """Ignore further frames, wait up to `timeout_s` seconds for requests in flight, then close the targets."""
        self._closed = True
        self._scheduler.drop_waiting()
        self._run_commands()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning(
                "requests to the ML service did not end in time and are cancelled", requests=len(self._requests)
            )
            self._requests.clear()
            self._idle.set()
        self._alarm.cancel()
        if self._ticks is not None:
            self._ticks.cancel()
        await self._tasks.close()
        for target in self._targets:
            await target.close()

    def _on_undecodable(self, frame: Frame, reason: str) -> None:
        """Count a frame without a picture, and report it once for each stream, so that its publisher learns of it."""
        self._metrics.count(metric_names.FRAMES_UNDECODABLE)
        if frame.declared_opaque or frame.stream_id in self._bad_streams:
            return
        if self._report(
            BadFrame(stream=frame.stream_id, frame_id=frame.frame_id, reason=name_fault(frame.frame_id, reason)[:1024])
        ):
            self._bad_streams[frame.stream_id] = None
            if len(self._bad_streams) > MAX_BAD_STREAMS:
                del self._bad_streams[next(iter(self._bad_streams))]

    def _tick(self) -> None:
        """Notice a standstill, and report coverage every `COVERAGE_EVERY_S`."""
        now = self._loop.time()
        self._standstill.on_tick(now)
        if now - self._reported_at >= COVERAGE_EVERY_S:
            self._reported_at = now
            self._summary = CoverageSummary.of(self._scheduler.coverage(now), MAX_COVERAGE_ROWS)
            rows = [(stream, round(share, 4)) for stream, share in self._summary.worst]
            if rows or self._reported_rows:
                self._report(CoverageReport(rows=rows))
            self._reported_rows = len(rows)
            self._check_refusals(now)

    def _check_refusals(self, now: float) -> None:
        """Log when all streams are backed off: the service then expects other frames than it gets."""
        self._backed_off = self._scheduler.backed_off(now)
        refused = len(self._backed_off)
        if refused and refused == self._summary.streams and now - self._refused_all_at >= LOG_EVERY_S:
            self._refused_all_at = now
            service = self._targets[self._scheduler.endpoints.in_use].public_url
            _log.warning(
                "the ML service refuses the frames of every stream: it expects another format or size",
                service=service, streams=refused,
            )  # fmt: skip

    def _on_other_alerts(self, values: list[object]) -> None:
        """Handle alerts that belong to no frame under way, and unusable messages among them."""
        for fault in values:
            if isinstance(fault, UnusableMessage):
                self._count_unusable(fault)
        alerts = [value for value in values if not isinstance(value, UnusableMessage)]
        if alerts:
            self._on_alerts(alerts, None)

    def _count_unusable(self, reason: str) -> None:
        """Count an unusable result, and log its beginning at most every `LOG_EVERY_S`."""
        self._metrics.count(metric_names.ML_RESULTS_UNUSABLE)
        self._unusable += 1
        now = self._loop.time()
        if now - self._unusable_at >= LOG_EVERY_S:
            self._unusable_at = now
            service = self._targets[self._scheduler.endpoints.in_use].public_url
            _log.warning(
                "responses of the ML service cannot be read; their frames do not count as analysed",
                service=service, came=self._scrub(reason)[:300], answers=self._unusable,
            )  # fmt: skip
            self._unusable = 0

    def _run_commands(self) -> None:
        """Carry out what the scheduler wants done now, and set the alarm for the next time."""
        for command in self._scheduler.due(self._loop.time()):
            match command:
                case SendFrame():
                    self._start(command)
                case CancelRequest(ticket, stream, blame):
                    in_flight = self._requests.pop(ticket, None)
                    if in_flight is not None:
                        task, endpoint = in_flight
                        task.cancel()
                        self._count_failure(endpoint, stream, "no answer before the deadline", blame, timeout=True)
        in_use = self._scheduler.endpoints.in_use
        if in_use != self._in_use:
            self._in_use = in_use
            _log.warning("frames go to another ML endpoint", service=self._targets[in_use].public_url, endpoint=in_use)
        if not self._requests:
            self._idle.set()
        self._alarm.set(self._scheduler.next_at())

    def _start(self, command: SendFrame[Frame]) -> None:
        """Start the request of a command in a task of its own."""
        self._metrics.count(metric_names.ML_REQUESTS)
        if command.endpoint:
            self._metrics.count(metric_names.ML_FALLBACK_REQUESTS)
        if not command.copy and self._on_sent is not None:
            self._on_sent(command.frame)
        self._idle.clear()
        task = self._tasks.start(self._request(command), f"ml request {command.ticket}")
        self._requests[command.ticket] = task, command.endpoint

    async def _request(self, command: SendFrame[Frame]) -> None:
        """Send a frame, and pass the result on."""
        started = time.perf_counter()  # the loop's clock has a resolution of milliseconds
        if self._latency is not None and not command.copy:
            self._latency.on_asked(command.frame)
        try:
            values = await self._analyse(command)
        except AlertFault as fault:
            if self._on_result(command, started):
                self._on_refused(str(fault))
        except TargetFailure as failure:
            self._on_failure(command, failure)
        except Exception as exc:
            self._on_failure(command, TargetFailure(f"unexpected {type(exc).__name__}: {exc}", blame=Blame.UNSURE))
        else:
            age_s = self._loop.time() - command.came_at
            if self._on_result(command, started):
                if age_s > self._max_age_s:
                    self._metrics.count(metric_names.ML_RESULTS_STALE)
                if values:
                    self._on_alerts(values, command.frame, age_ms=max(0, round(age_s * 1000)))
        self._alarm.soon()

    async def _analyse(self, command: SendFrame[Frame]) -> list[object]:
        """Send a frame to its endpoint, and record the request if it is traced."""
        target = self._targets[command.endpoint]
        if self._tracer is None or command.copy:
            return await target.analyse(command.frame, isolated=command.isolated)
        start_ns, waited_s = spans.now_ns(), self._loop.time() - command.came_at
        fault = "cancelled at its deadline"
        try:
            values = await target.analyse(command.frame, isolated=command.isolated)
            fault = ""
        except (AlertFault, TargetFailure) as error:
            fault = self._scrub(str(error))[:300]
            raise
        finally:
            spans.ml_request(self._tracer, command.frame, start_ns, target.public_url, waited_s, fault)
        return values

    def _on_result(self, command: SendFrame[Frame], started: float) -> bool:
        """Record a result. Returns whether it counts."""
        now = self._loop.time()
        outcome = self._scheduler.on_result(command.ticket, now)
        if outcome is ResultOutcome.LATE:
            return False
        self._requests.pop(command.ticket, None)
        lasted = self._outages[command.endpoint].on_result(now)
        if lasted is not None:
            service = self._targets[command.endpoint].public_url
            _log.info("the ML service answers again", service=service, after_s=round(lasted, 1))
            if self._incidents is not None:
                self._incidents.back(service, lasted)
        if outcome is ResultOutcome.COPY:
            return False
        latency = time.perf_counter() - started
        self._latencies.add(latency, now)
        if self._latency is not None:
            self._latency.on_answered(command.frame, latency)
        smoothed = self._metrics.values[metric_names.ML_LATENCY_SECONDS]
        self._metrics.set(
            metric_names.ML_LATENCY_SECONDS,
            round(smoothed + LATENCY_WEIGHT * (latency - smoothed) if smoothed else latency, 6),
        )
        return True

    def _on_failure(self, command: SendFrame[Frame], failure: TargetFailure) -> None:
        """Record a failed request, unless it was cancelled before."""
        blame = self._scheduler.on_failure(command.ticket, self._loop.time(), failure.retry_after_s, failure.blame)
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
        """Count a failed request, and log it: a refused stream by its name, an outage of the service once."""
        now = self._loop.time()
        service = self._targets[endpoint].public_url
        reason = self._scrub(reason)[:200]
        if self._incidents is not None:
            self._incidents.failed(stream, reason)
        if timeout:
            self._metrics.count(metric_names.ML_TIMEOUTS)
        if blame is Blame.FRAME:
            refused = self._refusal_log.on_refusal(stream, now)
            if refused is not None:
                _log.warning(
                    "the ML service refuses the frames of a stream, which are sent less often now",
                    stream=stream, service=service, reason=reason, refused=refused,
                    streams_not_named=self._refusal_log.unnamed or None,
                )  # fmt: skip
                self._refusal_log.unnamed = 0
            return
        if not unusable:
            self._metrics.count(metric_names.ML_FAILURES)
        if blame is Blame.SERVICE and self._outages[endpoint].on_failure(now, reason):
            _log.warning("the ML service fails, video goes on", service=service, reason=reason)
            if self._incidents is not None:
                self._incidents.away(service, reason)
