"""A receiver of OTLP over HTTP: decodes what is sent, and can be slow or refuse."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Received:
    """A span as it was received; ids in hexadecimal, `parent` empty: none."""

    name: str
    service: str
    process: str
    trace: str
    span: str
    parent: str
    start_ns: int
    end_ns: int
    kind: int
    attributes: dict[str, Any]
    fault: str


@dataclass
class Receiver:
    """One receiver. `status` is its answer; while `held` is set requests are not answered."""

    url: str = ""
    status: int = 200
    spans: list[Received] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    def of_trace(self, trace: str) -> dict[str, Received]:
        """The spans of one trace, by name."""
        return {span.name: span for span in self.spans if span.trace == trace}

    async def take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )

        body = await request.read()
        self.paths.add(request.path)
        while self.held.is_set():
            await asyncio.sleep(0.05)
        if self.status != 200:
            return web.Response(status=self.status)
        assert request.content_type == "application/x-protobuf"
        message = ExportTraceServiceRequest.FromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        for group in message.resource_spans:
            resource = _plain(group.resource.attributes)
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(
                    Received(
                        span.name, resource["service.name"], resource["service.instance.id"], span.trace_id.hex(),
                        span.span_id.hex(), span.parent_span_id.hex(), span.start_time_unix_nano,
                        span.end_time_unix_nano, span.kind, _plain(span.attributes), span.status.message,
                    )
                )  # fmt: skip
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that runs during the block."""
    receiver = Receiver()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.held.clear()
        await runner.cleanup()
