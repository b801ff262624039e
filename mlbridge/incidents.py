"""What a bridge remembers for `watchout-ctl why`: alerts that it raised or held back, failures; and its answer."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from watchout.common.alerts.model import Alert
from watchout.common.clock import now_ms
from watchout.common.settings import Settings
from watchout.common.why.answer import MlNow, WhyAnswer, encode_answer
from watchout.common.why.incident import MAX_REASON_CHARS, Incident, IncidentKind
from watchout.common.why.memory import MAX_KNOWN, IncidentMemory, memory_of
from watchout.mlbridge.breaker import BreakerState
from watchout.mlbridge.scheduled_stream import ScheduledStream
from watchout.mlbridge.scheduler import Scheduler

#: Words for the state of a circuit breaker.
_CIRCUIT: Final = {
    BreakerState.CLOSED: "closed", BreakerState.OPEN: "open", BreakerState.HALF_OPEN: "half-open"
}  # fmt: skip


class BridgeIncidents:
    """The bridge's part of `watchout-ctl why`. `Bridge` makes one; `Dispatcher` and `AlertSender` report to it.

    Args:
        settings: The settings of the process.
        name: The name of the process.
        memory: What is remembered; None: an empty memory with the bounds of the settings.
    """

    def __init__(self, settings: Settings, name: str, memory: IncidentMemory | None = None) -> None:
        self.memory = memory_of(settings) if memory is None else memory
        self._name = name
        self._fps = settings.ml_fps
        self._started_ms = now_ms()
        self._scheduler: Scheduler[Any] | None = None
        self._services: list[str] = []
        self._latency_s = 0.0

    def serve(self, scheduler: Scheduler[Any], services: list[str]) -> None:
        """Begin to answer about the streams of a scheduler.

        Args:
            scheduler: The scheduler.
            services: The public URL of each of its endpoints.
        """
        self._scheduler, self._services = scheduler, services

    def note_latency(self, latency_s: float) -> None:
        """Note the median latency of the ML service, in seconds."""
        self._latency_s = latency_s

    # ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def raised(self, alert: Alert, took_ms: int | None) -> None:
        """Remember an alert that goes to the router.

        Args:
            alert: The alert.
            took_ms: Age of its frame when the service had looked at it, in ms; None: it belongs to no frame.
        """
        numbers = {"frame_id": float(alert.frame_id or 0)}
        if took_ms is not None:
            numbers["took_ms"] = float(took_ms)
        held = (alert.metadata or {}).get("suppressed")
        if isinstance(held, int) and held:
            numbers["held_before"] = float(held)
        service = self._services[0 if self._scheduler is None else self._scheduler.endpoints.in_use]
        self._add(IncidentKind.RAISED, alert.stream_id, alert=alert.id, reason=service, numbers=numbers)

    def held(self, alert: Alert, cause: str) -> None:
        """Remember an alert that was held back because of an earlier one.

        Args:
            alert: The alert.
            cause: Id of the alert that began the pause.
        """
        self._add(IncidentKind.HELD, "", alert=alert.id, cause=cause, reason=alert.stream_id)
        joins = IncidentKind.HELD, alert.stream_id, cause
        self._add(IncidentKind.HELD, alert.stream_id, alert=cause, cause=cause, joins=joins)

    def lost(self, alert: Alert) -> None:
        """Remember an alert that was dropped because too many wait for the router."""
        self._add(IncidentKind.ALERT_LOST, alert.stream_id, alert=alert.id)

    def refused(self, stream: str, reason: str) -> None:
        """Remember an alert that was not valid.

        Args:
            stream: The stream of its frame; empty: unknown.
            reason: Why.
        """
        joins = IncidentKind.ALERT_REFUSED, stream, reason
        self._add(IncidentKind.ALERT_REFUSED, stream, reason=reason, joins=joins)

    # ── the service ──────────────────────────────────────────────────────────────────────────────────────────────

    def failed(self, stream: str, reason: str) -> None:
        """Remember that the service failed for a frame.

        Args:
            stream: The stream of the frame.
            reason: Why.
        """
        self._add(IncidentKind.ML_FAILED, stream, reason=reason, joins=(IncidentKind.ML_FAILED, stream, reason))

    def away(self, service: str, reason: str) -> None:
        """Remember that the service fails for all streams.

        Args:
            service: Its public URL.
            reason: Why.
        """
        self._add(IncidentKind.ML_AWAY, "", reason=f"{service}: {reason}")

    def back(self, service: str, after_s: float) -> None:
        """Remember that the service answers again.

        Args:
            service: Its public URL.
            after_s: How long it failed, in seconds.
        """
        self._add(IncidentKind.ML_BACK, "", reason=service, numbers={"seconds": round(after_s, 1)})

    def _add(
        self,
        what: IncidentKind,
        stream: str,
        *,
        alert: str = "",
        cause: str = "",
        reason: str = "",
        numbers: dict[str, float] | None = None,
        joins: tuple[str, ...] | None = None,
    ) -> None:
        incident = Incident(
            what=what, at=now_ms(), streams=(stream,) if stream else (), alert=alert, cause=cause,
            reason=reason[:MAX_REASON_CHARS], numbers=numbers or {},
        )  # fmt: skip
        self.memory.add(incident, joins)

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, about: str, now: float, process: str) -> bytes:
        """Return what this bridge knows about a subject, encoded.

        Args:
            about: A stream, user, connection, alert or address.
            now: The clock of the scheduler, in seconds.
            process: Id of this process.
        """
        at, memory = now_ms(), self.memory
        incidents = memory.about(about, at)
        known = None if self._scheduler is None else self._scheduler.stream(about)
        ml = [] if known is None else [self._ml_now(about, known, now)]
        streams = [] if self._scheduler is None else self._scheduler.names()[:MAX_KNOWN]
        return encode_answer(
            WhyAnswer(
                kind="mlbridge",
                name=self._name,
                host=socket.gethostname(),
                pid=os.getpid(),
                process=process,
                now=at,
                started_at=self._started_ms,
                since=memory.since(self._started_ms, at, about=about),
                incidents=incidents,
                of_everybody=memory.of_everybody(at),
                ml=ml,
                known=[] if ml or incidents else memory.known(at),
                known_streams=[] if ml or incidents else streams,
            )
        )

    def _ml_now(self, stream: str, known: ScheduledStream, now: float) -> MlNow:
        scheduler, counts = self._scheduler, known.counts
        assert scheduler is not None
        endpoint = scheduler.endpoints.each[scheduler.endpoints.in_use]
        return MlNow(
            stream=stream,
            service=self._services[scheduler.endpoints.in_use],
            coverage=round(known.coverage.share(now), 3),
            max_fps=self._fps,
            offered=counts.offered,
            sent=counts.sent,
            answered=counts.answered,
            failed=counts.failed,
            skipped=counts.skipped,
            waiting=int(scheduler.is_waiting(stream)),
            in_flight=scheduler.in_flight,
            in_flight_limit=int(endpoint.limiter.limit),
            latency_ms=round(self._latency_s * 1000, 1),
            circuit=_CIRCUIT[endpoint.breaker.state],
            fallback=scheduler.endpoints.in_use > 0,
            refuses=known.health.retry_at is not None,
        )
