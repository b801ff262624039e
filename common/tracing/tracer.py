"""Records spans of this process and hands them to an exporter in a thread of its own; off unless OTLP is configured.

Nothing waits for the exporter. Spans wait in a bounded queue; those that find it full, and those of a batch that could
not be sent, are dropped and counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from watchout.common import log
from watchout.common.media.frames import Frame
from watchout.common.toolbox.outage import OutageLog
from watchout.common.tracing.context import TraceContext, frame_context, frame_trace
from watchout.common.tracing.finished import Export, FinishedSpan
from watchout.common.tracing.sampling import TraceSampler

#: The variables of OpenTelemetry that name where traces go; one of them switches tracing on.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Seconds at the end of the process for what still waits.
LAST_EXPORT_S: Final = 0.5

_log = log.get("common.tracing.tracer")


class Tracer:
    """Records the spans of one process; `begin` makes it.

    Args:
        export: Called in the thread.
        sampler: Which traces are recorded.
        max_waiting: Most spans that wait.
        batch: Most spans in one call of `export`.
        every_s: Seconds between two calls, unless a batch is full.

    Attributes:
        exported: Spans that were sent.
        dropped: Spans that were not: the queue was full, or they could not be sent.
    """

    def __init__(
        self, export: Export, sampler: TraceSampler, *, max_waiting: int = 2048, batch: int = 512, every_s: float = 5.0
    ) -> None:
        self._export = export
        self._sampler = sampler
        self._max_waiting, self._batch, self._every_s = max_waiting, min(batch, max_waiting), every_s
        self._waiting: deque[FinishedSpan] = deque()
        self._loop = asyncio.get_running_loop()
        self._outage = OutageLog()
        self._wake = threading.Event()
        self._ending = False
        self.exported = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="exporter of traces", daemon=True)
        self._thread.start()

    def of_frame(self, frame: Frame) -> TraceContext | None:
        """Return the first span of a frame's trace; None: it is not recorded."""
        of = frame.stream_id, frame.term, frame.frame_id
        return frame_context(*of) if self._sampler.takes(frame_trace(*of)) else None

    def record(self, span: FinishedSpan) -> None:
        """Queue a span; drop it when too many wait."""
        if len(self._waiting) >= self._max_waiting:
            self.dropped += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= self._batch:
            self._wake.set()

    def close(self, timeout_s: float = LAST_EXPORT_S) -> None:
        """Send what waits, for `timeout_s` seconds at most, and end."""
        self._ending = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._every_s)
            self._wake.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))])

    def _send(self, spans: list[FinishedSpan]) -> None:
        try:
            fault = self._export(spans)
        except Exception as error:  # whatever a library does, frames go on
            fault = f"{type(error).__name__}: {error}"
        if fault:
            self.dropped += len(spans)
        else:
            self.exported += len(spans)
        if not self._ending and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._log_outage, fault)

    def _log_outage(self, fault: str) -> None:
        if not fault:
            if self._outage.recovered():
                _log.info("traces are sent again", dropped=self.dropped)
        elif self._outage.failed(fault, self._loop.time()):
            _log.warning("traces cannot be sent, all else goes on", reason=fault)


#: The tracer of this process; empty: tracing is off.
_active: Final[list[Tracer]] = []


def active() -> Tracer | None:
    """Return the tracer of this process; None: tracing is off."""
    return _active[0] if _active else None


def begin(environ: Mapping[str, str], *, kind: str, name: str) -> Tracer | None:
    """Start tracing, if the environment says where traces go; else do and load nothing. Called once, in the loop.

    Args:
        environ: The ``OTEL_…`` variables.
        kind: ``gateway``, ``router`` or ``mlbridge``.
        name: Name of the process.

    """
    is_off = (
        not any(environ.get(each) for each in ENDPOINTS)
        or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"
    )
    if is_off:
        return None
    try:
        from watchout.common.tracing.otlp import exporter
    except ImportError as error:
        _log.warning("no traces: OpenTelemetry is not installed (pip install 'watchout[otel]')", reason=str(error))
        return None
    sampler = TraceSampler.of(environ)
    try:
        export = exporter(environ, kind=kind, name=name)
    except Exception as error:  # a variable that the library does not take
        _log.warning("no traces: the exporter cannot be used", reason=f"{type(error).__name__}: {error}")
        return None
    if sampler.fault:
        _log.warning("all traces are recorded", reason=sampler.fault)
    tracer = Tracer(
        export,
        sampler,
        max_waiting=_positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        batch=_positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
        every_s=_positive(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
    )
    _active[:] = [tracer]
    to = urlsplit(next(environ[each] for each in ENDPOINTS if environ.get(each)))
    _log.info("traces are sent", to=f"{to.scheme}://{to.netloc.rpartition('@')[2]}{to.path}")
    return tracer


def end() -> None:
    """Send what waits, and switch tracing off."""
    if _active:
        _active.pop().close()


def counted() -> tuple[int, int] | None:
    """Return how many spans were sent and dropped; None: tracing is off."""
    return (_active[0].exported, _active[0].dropped) if _active else None


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a whole number over 0 of the environment; the default in place of anything else."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 1_000_000):
        _log.warning("a variable of OpenTelemetry is ignored", name=name, came=text[:50], expected="1 to 1000000")
        return default
    return int(text)
