"""The spans of a frame and of its alert, each where it happens; docs/tracing.md lists them. Pure but for the clock."""

from __future__ import annotations

import time
from typing import Final

from watchout.common.alerts.model import Alert
from watchout.common.media.frames import Frame
from watchout.common.tracing.context import TRACEPARENT, TraceContext, parse
from watchout.common.tracing.finished import FinishedSpan
from watchout.common.tracing.tracer import Tracer

FRAME_IN: Final = "frame in"
ML_REQUEST: Final = "ml request"
ALERT_ACCEPTED: Final = "alert accepted"
ALERT_FAN_OUT: Final = "alert fan-out"
ALERT_WRITTEN: Final = "alert written"

now_ns = time.time_ns


def ml_context(tracer: Tracer, frame: Frame) -> TraceContext | None:
    """Return the span of the request about a frame, which the ML service is told; None: it is not recorded."""
    begun = tracer.of_frame(frame)
    return None if begun is None else begun.child(ML_REQUEST)


def context_of(alert: Alert) -> TraceContext | None:
    """Return the context that an alert carries; None: it carries none, or one that is not recorded."""
    if TRACEPARENT.encode() not in alert.json:
        return None
    found = parse(alert.body().get(TRACEPARENT))
    return found if found is not None and found.sampled else None


def with_context(alert: Alert, frame: Frame | None, tracer: Tracer) -> Alert:
    """Return an alert of the ML service with its context: that of the service, or else of the request about its frame.

    An alert about another frame than `frame` belongs to no request.
    """
    own = parse(alert.body().get(TRACEPARENT))
    if own is not None:
        return alert
    is_about = frame is not None and (alert.stream_id, alert.frame_id) == (frame.stream_id, frame.frame_id)
    context = ml_context(tracer, frame) if frame is not None and is_about else None
    return alert if context is None else alert.changed(traceparent=context.traceparent)


def frame_in(tracer: Tracer, frame: Frame, start_ns: int) -> None:
    """Record that a gateway took a frame and sent it to other processes, since `start_ns`."""
    context = tracer.of_frame(frame)
    if context is not None:
        tracer.record(FinishedSpan(FRAME_IN, context, None, start_ns, now_ns(), "producer", _of_frame(frame)))


def ml_request(tracer: Tracer, frame: Frame, start_ns: int, service: str, waited_s: float, fault: str) -> None:
    """Record a request to the ML service, from `start_ns` on.

    Args:
        tracer: The tracer.
        frame: The frame.
        start_ns: When it was sent, in ns since the epoch.
        service: The service's URL without secrets.
        waited_s: Seconds that the frame waited for its turn.
        fault: Why there is no result; empty: there is one.

    """
    begun, context = tracer.of_frame(frame), ml_context(tracer, frame)
    if begun is not None and context is not None:
        attributes = {**_of_frame(frame), "url.full": service, "watchout.waited_ms": round(waited_s * 1000, 3)}
        tracer.record(FinishedSpan(ML_REQUEST, context, begun, start_ns, now_ns(), "client", attributes, fault))


def alert_accepted(tracer: Tracer, alert: Alert, start_ns: int, fan_out_ns: int, receivers: int) -> None:
    """Record that the router accepted an alert since `start_ns`, and sent it to the gateways since `fan_out_ns`.

    `receivers` are the clients that get it.
    """
    parent = context_of(alert)
    if parent is None:
        return
    end_ns, attributes = now_ns(), _of_alert(alert)
    accepted = parent.child(ALERT_ACCEPTED, alert.id)
    tracer.record(FinishedSpan(ALERT_ACCEPTED, accepted, parent, start_ns, end_ns, "server", attributes))
    tracer.record(
        FinishedSpan(
            ALERT_FAN_OUT, accepted.child(ALERT_FAN_OUT), accepted, fan_out_ns, end_ns, "producer",
            {**attributes, "watchout.receivers": receivers},
        )
    )  # fmt: skip


def alert_written(tracer: Tracer, alert: Alert, start_ns: int, sockets: int, gateway: str) -> None:
    """Record that a gateway handed an alert to the sockets of clients, since `start_ns`."""
    came = context_of(alert)
    if came is not None:
        fan_out = came.child(ALERT_ACCEPTED, alert.id).child(ALERT_FAN_OUT)
        attributes = {**_of_alert(alert), "watchout.sockets": sockets}
        context = fan_out.child(ALERT_WRITTEN, gateway)
        tracer.record(FinishedSpan(ALERT_WRITTEN, context, fan_out, start_ns, now_ns(), "consumer", attributes))


def _of_frame(frame: Frame) -> dict[str, str | int | float | bool]:
    return {
        "watchout.stream": frame.stream_id,
        "watchout.frame": frame.frame_id,
        "watchout.captured_ms": frame.timestamp,
        "watchout.bytes": frame.size_bytes,
    }


def _of_alert(alert: Alert) -> dict[str, str | int | float | bool]:
    found: dict[str, str | int | float | bool] = {
        "watchout.stream": alert.stream_id,
        "watchout.alert": alert.id,
        "watchout.severity": alert.severity,
    }
    return found if alert.frame_id is None else {**found, "watchout.frame": alert.frame_id}
