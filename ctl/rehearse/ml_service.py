"""The ML service of a rehearsal, a process of its own: takes its time, fails as often as asked, and raises alerts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

from watchout.ctl.rehearse.ml_alerts import alert_body

#: Largest request, in bytes.
MAX_REQUEST_BYTES: Final = 64 << 20
#: Status of a failure that is rehearsed.
FAILED: Final = 500


class MlProfile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How the ML service of a rehearsal behaves.

    Attributes:
        host: Address on which it listens.
        port: Its port; 0: any.
        latency_ms: How long each answer takes.
        failures: Share of the requests, 0 to 1, that fail with status 500.
        alert_every_s: Seconds between two alerts of a stream.
    """

    host: str = "127.0.0.1"
    port: int = 0
    latency_ms: float = 50.0
    failures: float = 0.0
    alert_every_s: float = 2.0


class MlCounts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the ML service counted; `port` is where it listens."""

    port: int
    requests: int = 0
    failed: int = 0
    alerts: int = 0


class MlService:
    """The service. `start` returns its port.

    Args:
        profile: How it behaves.
        seed: Which requests fail follows from it.
    """

    def __init__(self, profile: MlProfile, seed: int) -> None:
        self.requests = self.failed = self.alerts = 0
        self._profile = profile
        self._random = random.Random(seed)
        self._numbers: dict[str, int] = {}
        self._next: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen, and return the port."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._profile.host, self._profile.port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            stream, captured = str(body["streamId"]), int(body["timestamp"])
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": "expected JSON with streamId and timestamp"}, status=400)
        self.requests += 1
        await asyncio.sleep(self._profile.latency_ms / 1000)
        if self._random.random() < self._profile.failures:
            self.failed += 1
            return web.json_response({"error": "this failure is rehearsed"}, status=FAILED)
        return web.json_response(self._result(stream, captured, time.monotonic()))

    def _result(self, stream: str, captured: int, now: float) -> dict[str, Any]:
        """Return the result of a frame; the alert in it gets its number here, so that none is left out."""
        if now < self._next.get(stream, 0.0):
            return {"alerts": []}
        self._next[stream] = now + self._profile.alert_every_s
        number = self._numbers[stream] = self._numbers.get(stream, 0) + 1
        self.alerts += 1
        return {"alerts": [alert_body(number, captured)]}


async def _serve(profile: MlProfile, seed: int) -> None:
    service = MlService(profile, seed)
    try:
        port = await service.start()
    except OSError as error:
        print(f"{profile.host}:{profile.port} cannot be listened on: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    _say(MlCounts(port=port))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    await service.stop()
    _say(MlCounts(port=port, requests=service.requests, failed=service.failed, alerts=service.alerts))


def _say(counts: MlCounts) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(msgspec.json.encode(counts) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Run the service until stdin ends; the arguments are its profile as JSON, and the seed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(msgspec.json.decode(sys.argv[1], type=MlProfile), int(sys.argv[2])))


if __name__ == "__main__":
    main()
