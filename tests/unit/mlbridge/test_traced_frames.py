"""What an ML service is told of a trace, in every format, and what it may say of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from watchout.common.media.frames import Frame
from watchout.common.tracing import spans, tracer
from watchout.common.tracing.context import frame_context
from watchout.common.tracing.sampling import TraceSampler
from watchout.common.tracing.tracer import Tracer
from watchout.mlbridge.alerts import read_alerts
from watchout.mlbridge.targets.bodies import (
    frame_headers,
    json_batch,
    json_body,
    multipart_batch,
    packed_body,
    trace_headers,
)
from watchout.mlbridge.targets.redis_streams import RedisStreamsTarget
from watchout.mlbridge.targets.results import read_batch_result, read_message, read_result, traced_result

OWN = frame_context("of the service", 1, 1).traceparent
OTHER = frame_context("of the service", 1, 2).traceparent
ALERT: dict[str, Any] = {"severity": "low", "message": "m"}


def frame(number: int) -> Frame:
    return Frame("cam", number, 5, term=3, text=b'"/9j/4AAQSkZJRg=="', picture=None, codec=None)


@pytest.fixture
async def tracing() -> Iterator[Tracer]:
    made = Tracer(lambda batch: "", TraceSampler(1.0), every_s=600)
    tracer._active[:] = [made]
    yield made
    tracer.end()


async def test_each_format_tells_the_request_of_each_frame(tracing: Tracer) -> None:
    frames = [frame(1), frame(2)]
    contexts = [spans.ml_context(tracing, each) for each in frames]
    told = [context.traceparent for context in contexts if context is not None]
    assert len(set(told)) == 2
    assert json.loads(json_body(frames[0]))["traceparent"] == told[0]
    assert [each["traceparent"] for each in json.loads(json_batch(frames))["frames"]] == told
    assert msgspec.msgpack.decode(packed_body(frames[0]))["traceparent"] == told[0]
    assert frame_headers(frames[0])["traceparent"] == trace_headers(frames[0])["traceparent"] == told[0]
    assert re.findall(rb"\r\ntraceparent: (\S+)\r\n", multipart_batch(frames, "b")) == [each.encode() for each in told]


def test_without_tracing_nothing_is_told() -> None:
    assert json.loads(json_body(frame(1))).keys() == {"streamId", "frame", "timestamp", "frameId"}
    assert trace_headers(frame(1)) == {}


def test_the_context_of_the_service_goes_to_its_alerts_the_nearest_first() -> None:
    told = {"alerts": [ALERT, {**ALERT, "traceparent": OTHER}], "traceparent": OWN}
    assert [alert["traceparent"] for alert in read_result(told)] == [OWN, OTHER]  # type: ignore[index]
    assert read_result(traced_result({"alert": ALERT}, OWN)) == [{**ALERT, "traceparent": OWN}]
    assert read_result(traced_result({"alert": ALERT, "traceparent": OTHER}, OWN)) == [{**ALERT, "traceparent": OTHER}]
    (result,) = read_message({"streamId": "cam", "frameId": 1, "alert": ALERT, "traceparent": OWN})
    assert result.alerts[0]["traceparent"] == OWN  # type: ignore[index]
    found, _ = read_batch_result({"answers": [{"alert": ALERT, "traceparent": OWN}]}, [("cam", 1)])
    assert found == [[{**ALERT, "traceparent": OWN}]]


@pytest.mark.parametrize("wrong", [None, "", "00-1-2-03", OWN.upper()])
def test_what_is_no_context_is_no_part_of_a_result(wrong: str | None) -> None:
    assert traced_result({"alert": ALERT}, wrong) == {"alert": ALERT}
    assert read_result({"alert": ALERT, "traceparent": wrong}) == [ALERT]
    assert read_result({"traceparent": OWN}) == [], "a result without alerts is still one"
    assert traced_result([], OWN) == []


def test_the_id_of_an_alert_does_not_depend_on_its_trace() -> None:
    plain, traced = ({**ALERT}, {**ALERT, "traceparent": OWN})
    ((first, _),) = read_alerts([plain], frame(1), now_ms=1).alerts
    ((second, _),) = read_alerts([traced], frame(1), now_ms=1).alerts
    assert first.id == second.id
    assert second.body()["traceparent"] == OWN


async def test_a_redis_stream_has_the_context_as_a_field(tracing: Tracer) -> None:
    added: list[dict[str, Any]] = []

    async def xadd(_name: str, fields: dict[str, Any], **_options: object) -> None:
        added.append(fields)

    exchange = SimpleNamespace(
        channels=SimpleNamespace(frames="frames"), results=SimpleNamespace(on_delivered=lambda _stream: None)
    )
    await RedisStreamsTarget.send(exchange, SimpleNamespace(xadd=xadd), frame(1))  # type: ignore[arg-type]
    context = spans.ml_context(tracing, frame(1))
    assert context is not None
    assert [fields["traceparent"] for fields in added] == [context.traceparent]
