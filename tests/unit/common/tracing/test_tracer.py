"""The tracer: off without its variables, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from watchout.common.alerts.model import Alert
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.tracing import spans, tracer
from watchout.common.tracing.context import frame_context
from watchout.common.tracing.finished import FinishedSpan
from watchout.common.tracing.sampling import TraceSampler
from watchout.common.tracing.tracer import Tracer

COMES_S = 30.0


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    yield
    tracer.end()


def frame(number: int = 1) -> Frame:
    return Frame("cam", number, 5, term=3, text=b'"aGVsbG8="', picture=None, codec=None)


def span(number: int) -> FinishedSpan:
    return FinishedSpan("x", frame_context("cam", 1, number), None, 1, 2)


async def came(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, COMES_S)


class Exporter:
    """Blocks in its first call until it is let go, then answers with `fault`."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.began, self.go, self.done = threading.Event(), threading.Event(), threading.Event()
        self.batches: list[list[FinishedSpan]] = []

    def __call__(self, batch: Sequence[FinishedSpan]) -> str:
        self.began.set()
        assert self.go.wait(COMES_S)
        self.batches.append(list(batch))
        self.done.set()
        return self.fault


@pytest.mark.parametrize("fault", ["", "away", "raises"])
async def test_the_queue_is_bounded_and_each_span_is_sent_or_counted_as_dropped(fault: str) -> None:
    exporter = Exporter(fault)

    def export(batch: Sequence[FinishedSpan]) -> str:
        answer = exporter(batch)
        if answer == "raises":
            raise RuntimeError(answer)
        return answer

    tracing = Tracer(export, TraceSampler(1.0), max_waiting=4, batch=2, every_s=600)
    for number in range(2):
        tracing.record(span(number))
    await came(exporter.began)  # two are under way, and it does not come back
    for number in range(10):
        tracing.record(span(number))
    assert tracing.dropped == 6
    exporter.go.set()
    await asyncio.to_thread(tracing.close, COMES_S)
    assert [len(batch) for batch in exporter.batches] == [2, 2, 2]
    assert (tracing.exported, tracing.dropped) == ((0, 12) if fault else (6, 6))


async def test_the_end_of_a_process_does_not_wait_for_a_receiver_that_hangs() -> None:
    exporter = Exporter()
    tracing = Tracer(exporter, TraceSampler(1.0), every_s=600)
    tracing.record(span(1))
    closing = asyncio.create_task(asyncio.to_thread(tracing.close, 0.01))
    await came(exporter.began)
    await asyncio.wait_for(closing, COMES_S)
    assert not exporter.done.is_set()
    exporter.go.set()
    await came(exporter.done)


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}],
)  # fmt: skip
async def test_tracing_is_off_unless_the_environment_says_where_traces_go(environ: dict[str, str]) -> None:
    assert tracer.begin(environ, kind="gateway", name="gateway") is None
    assert tracer.active() is None
    assert "trace_spans_sent_total" not in Metrics().read()


async def test_with_an_endpoint_it_is_on_and_counted() -> None:
    pytest.importorskip("opentelemetry.sdk")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    assert tracer.begin(environ, kind="gateway", name="gateway") is tracer.active() is not None
    read = Metrics().read()
    assert (read["trace_spans_sent_total"], read["trace_spans_dropped_total"]) == (0, 0)


async def test_an_alert_has_the_context_of_the_service_or_of_the_request_about_its_frame() -> None:
    tracing = Tracer(Exporter(), TraceSampler(1.0), every_s=600)
    alert = Alert(id="a", stream_id="cam", severity="low", message="m", timestamp=1, frame_id=1)
    context = spans.ml_context(tracing, frame())
    assert context is not None
    assert spans.context_of(spans.with_context(alert, frame(), tracing)) == context
    theirs = alert.changed(traceparent=frame_context("x", 1, 1).traceparent)
    assert spans.with_context(theirs, frame(), tracing) == theirs
    assert spans.with_context(alert, frame(2), tracing) == alert, "it is about another frame"
    assert spans.with_context(alert, None, tracing) == alert
    silent = Tracer(Exporter(), TraceSampler(0.0), every_s=600)
    assert spans.with_context(alert, frame(), silent) == alert, "the frame is not traced"
    assert spans.context_of(alert.changed(traceparent=theirs.body()["traceparent"][:-1] + "0")) is None
    for each in (tracing, silent):
        each.close(COMES_S)
