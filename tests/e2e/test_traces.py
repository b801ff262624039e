"""An alert's life as one trace, by real processes, in a receiver that decodes OTLP; and frames while that is away."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from aiohttp import web

from tests.kit.clients import Clients, eventually, http
from tests.kit.otlp import Receiver, receiving

pytestmark = pytest.mark.e2e
COMES_S: Final = 60.0
#: A span of the ML service's own, below the request that it was told of.
SERVICES_SPAN: Final = "00f067aa0ba902b7"


class TracedService:
    """Sees something in every frame, and answers with a context of its own, as an instrumented service does."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.url = ""

    async def analyze(self, request: web.Request) -> web.Response:
        came = request.headers.get("traceparent", "")
        self.asked.append(came)
        self.bodies.append(await request.json())
        headers = {"traceparent": f"{came[:36]}{SERVICES_SPAN}-01"} if came else {}
        return web.json_response({"alert": {"severity": "high", "message": "seen"}}, headers=headers)


@pytest.fixture
async def service() -> AsyncIterator[TracedService]:
    found = TracedService()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/analyze", found.analyze)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


async def test_an_alert_is_one_trace_from_its_frame_through_the_ml_service_to_the_sockets(
    watchout: Callable[..., Any], clients: Clients, service: TracedService, receiver: Receiver
) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "200",
        "ML_SERVICE_URL": service.url, "ML_FPS": "5", "ALERT_COOLDOWN_S": "3600",
    }  # fmt: skip
    started = watchout(environ=environ)
    camera, viewer = (
        await clients.camera(started.url, started.token()),
        await clients.viewer(started.url, started.token()),
    )
    stream = await camera.register()
    await viewer.subscribe(stream)
    async with camera.streaming(10):
        alert = await viewer.find("alert", COMES_S)
    version, trace, parent, flags = alert["traceparent"].split("-")
    assert (version, parent, flags) == ("00", SERVICES_SPAN, "01"), "the service's own span is the alert's"
    names = {"frame in", "ml request", "alert accepted", "alert fan-out", "alert written"}
    await eventually(
        lambda: receiver.of_trace(trace).keys() == names, COMES_S, lambda: f"only {receiver.of_trace(trace)}"
    )
    spans = receiver.of_trace(trace)
    asked = next(came for came in service.asked if trace in came)
    assert {name: span.parent for name, span in spans.items()} == {
        "frame in": "",
        "ml request": spans["frame in"].span,
        "alert accepted": SERVICES_SPAN,
        "alert fan-out": spans["alert accepted"].span,
        "alert written": spans["alert fan-out"].span,
    }
    assert asked == f"00-{trace}-{spans['ml request'].span}-01"
    assert asked in [body["traceparent"] for body in service.bodies]
    assert [spans[name].service for name in ("frame in", "ml request", "alert accepted", "alert written")] == [
        "watchout-gateway", "watchout-mlbridge", "watchout-router", "watchout-gateway"
    ]  # fmt: skip
    for span in spans.values():
        assert span.attributes["watchout.stream"] == stream
        assert span.attributes["watchout.frame"] == alert["frameId"]
        assert span.start_ns <= span.end_ns
    assert spans["frame in"].start_ns <= spans["ml request"].start_ns <= spans["alert accepted"].start_ns
    assert spans["alert written"].attributes["watchout.sockets"] >= 1
    assert receiver.paths == {"/v1/traces"}


async def test_frames_and_alerts_go_on_while_the_receiver_takes_nothing_and_what_is_dropped_is_counted(
    watchout: Callable[..., Any], clients: Clients, service: TracedService, receiver: Receiver
) -> None:
    receiver.held.set()
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BSP_MAX_QUEUE_SIZE": "4",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        "ML_SERVICE_URL": service.url, "ML_FPS": "30", "ALERT_COOLDOWN_S": "0",
    }  # fmt: skip
    started = watchout(environ=environ)
    camera, viewer = (
        await clients.camera(started.url, started.token()),
        await clients.viewer(started.url, started.token()),
    )
    await viewer.subscribe(await camera.register())

    async def dropped() -> set[str]:
        page = (await http(f"{started.url}/metrics")).body.decode()
        found = re.findall(r'^watchout_trace_spans_dropped_total\{process="(\w+)"\} (\S+)$', page, re.MULTILINE)
        return {process for process, count in found if float(count) > 0}

    async def all_drop() -> bool:
        return await dropped() == {"gateway", "router", "mlbridge"}

    async with camera.streaming(20):
        await eventually(all_drop, COMES_S, "the queues of spans are not bounded")
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 20, COMES_S)
        await viewer.find("alert", COMES_S)
        assert receiver.spans == []
        receiver.held.clear()
        await eventually(lambda: receiver.spans, COMES_S, "spans are not sent again")


async def test_without_the_variables_neither_the_ml_service_nor_a_viewer_is_told_of_a_trace(
    watchout: Callable[..., Any], clients: Clients, service: TracedService
) -> None:
    started = watchout(environ={"ML_SERVICE_URL": service.url, "ML_FPS": "5", "ALERT_COOLDOWN_S": "0"})
    camera, viewer = (
        await clients.camera(started.url, started.token()),
        await clients.viewer(started.url, started.token()),
    )
    await viewer.subscribe(await camera.register())
    async with camera.streaming(10):
        assert "traceparent" not in await viewer.find("alert", COMES_S)
    assert set(service.asked) == {""}
    assert [body for body in service.bodies if "traceparent" in body] == []
