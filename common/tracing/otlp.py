"""Sends spans over OTLP/HTTP by OpenTelemetry's own exporter, which reads its variables itself (``watchout[otel]``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from watchout.common.process import about
from watchout.common.tracing.context import TraceContext
from watchout.common.tracing.finished import Export, FinishedSpan

_KINDS: Final = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


def exporter(environ: Mapping[str, str], *, kind: str, name: str) -> Export:
    """Return the function that sends spans.

    Args:
        environ: The ``OTEL_…`` variables; the exporter reads those of this process.
        kind: ``gateway``, ``router`` or ``mlbridge``.
        name: Name of the process.

    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `Tracer` logs each outage, once
    attributes: dict[str, str | int] = {
        "service.instance.id": name,
        "service.version": about.VERSION,
        "process.pid": os.getpid(),
    }
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = f"watchout-{kind}"
    resource = Resource.create(attributes)
    scope = InstrumentationScope("watchout", about.VERSION)
    sender = OTLPSpanExporter()

    def export(spans: Sequence[FinishedSpan]) -> str:
        sent = sender.export([_readable(span, resource, scope) for span in spans])
        return "" if sent is SpanExportResult.SUCCESS else "the receiver is away or refuses them"

    return export


def _readable(span: FinishedSpan, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=_context(span.context, is_remote=False),
        parent=None if span.parent is None else _context(span.parent, is_remote=True),
        resource=resource,
        attributes=span.attributes,
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.fault) if span.fault else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=scope,
    )


def _context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(context.trace_id, context.span_id, is_remote=is_remote, trace_flags=flags)
