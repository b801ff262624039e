"""ML services that are away, slow, refuse frames or answer nonsense: a bridge for each, of one system."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from tests.kit.clients import JPEG
from tests.kit.ml_stub import MlStub
from tests.kit.slow_link import SlowLink
from tests.rules.breakage import Shows, breaks
from tests.rules.stage import COMES_S, Kit, Stage, eventually, sending

#: Milliseconds within which an alert of the ML service is to be there.
OBJECTIVE_MS: Final = 500
#: Of a frame of the camera with an uplink of its own, and what that carries in a second when nothing is wrong.
FRAME_BYTES: Final = 20_000
FAST_BYTES_PER_S: Final = 10_000_000


class Service(MlStub):
    """An ML service that refuses the frames of one stream, if it is told to."""

    refused = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["streamId"] == self.refused:
            return web.Response(status=422, text="a picture of at least 64 pixels is expected")
        return await super()._answer(request)


@dataclass
class Services(Stage):
    """A system with a bridge for each service."""

    services: dict[str, Service] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    uplink: SlowLink | None = None

    async def bridge(self, name: str, **environ: str) -> None:
        """A bridge that gets all frames, and its service."""
        service = self.services[name] = Service()
        await service.start()
        self.stack.push_async_callback(service.stop)
        await self.start("mlbridge", name, ML_SERVICE_URL=service.url, ML_GROUP=name, ML_FPS="4", **environ)


@contextlib.asynccontextmanager
async def scene(kit: Kit) -> AsyncIterator[Services]:
    """The system, with frames that all services see."""
    async with contextlib.AsyncExitStack() as stack:
        system = kit.watchout(
            start=False, expected=("Connect call failed", "failed"),
            environ={
                "ALERT_COOLDOWN_S": "0",
                "ALERT_LATENCY_OBJECTIVE_MS": str(OBJECTIVE_MS), "LATENCY_OBJECTIVE_MS": "1000",
            },
        )  # fmt: skip
        here = Services(system, kit.clients, stack, [system.port])
        await here.start("router", "router")
        await here.start("gateway", "gateway")
        await here.bridge("away")
        second = Service()
        await second.start()
        stack.push_async_callback(second.stop)
        await here.bridge("first", ML_FALLBACK_URL=second.url)
        await here.bridge("hangs", ML_TIMEOUT_S="1")
        await here.bridge("slow", ML_TIMEOUT_S="10")
        await here.bridge("refuses")
        await here.bridge("nonsense")
        await here.bridge("late")
        await here.ready()
        here.streams = [(await here.camera()).stream for _ in range(3)]
        here.services["late"].mode = "answer"
        here.uplink = await stack.enter_async_context(SlowLink(system.port, FAST_BYTES_PER_S).running())
        far = await kit.clients.camera(f"http://127.0.0.1:{here.uplink.port}", here.token)
        await far.register()
        await stack.enter_async_context(sending(far, 2.0, JPEG + bytes(FRAME_BYTES)))
        await here.viewer(*here.streams)
        for _ in range(8):
            await here.viewer(far.stream)
        await eventually(lambda: all(service.looks for service in here.services.values()), COMES_S)
        yield here
        for service in here.services.values():
            service.released.set()


@breaks(
    "WatchoutMlServiceAway",
    how="the ML service is stopped",
    where={"process": "away"},
    shows=[Shows(("stats",), r"away +first, (half-)?open")],
)
async def away(here: Services) -> AsyncIterator[None]:
    await here.services["away"].stop()
    yield
    await here.services["away"].start()


@breaks(
    "WatchoutMlSlow", "WatchoutMlCoverageLow", how="the ML service answers no request within `ML_TIMEOUT_S`",
    where={"process": "hangs"}, shows=[Shows(("stats",), r"hangs +first, (half-)?open")],
)  # fmt: skip
async def hangs(here: Services) -> AsyncIterator[None]:
    service = here.services["hangs"]
    service.mode = "hang"
    yield
    service.mode = "none"
    service.released.set()


@breaks("WatchoutMlSlow", how="the ML service takes 2.5 s for each frame", where={"process": "slow"})
async def slow(here: Services) -> AsyncIterator[None]:
    here.services["slow"].takes_s = 2.5
    yield
    here.services["slow"].takes_s = 0.0


@breaks(
    "WatchoutMlStreamsRefused", how="the ML service answers the frames of one camera with 422",
    where={"process": "refuses"},
)  # fmt: skip
async def refuses(here: Services) -> AsyncIterator[None]:
    here.services["refuses"].refused = here.streams[0]
    yield
    here.services["refuses"].refused = ""


@breaks("WatchoutMlResultsUnusable", how="the ML service answers with a list of texts", where={"process": "nonsense"})
async def nonsense(here: Services) -> AsyncIterator[None]:
    service = here.services["nonsense"]
    service.mode, service.answer = "answer", ["a person", "a cat"]
    yield
    service.mode = "none"


@breaks(
    "WatchoutAlertsLate", "WatchoutAlertsLateSlowly",
    how=f"the ML service takes 1 s for each frame; the objective is {OBJECTIVE_MS} ms",
    shows=[Shows(("latency",), r"glass to alert +500ms +[1-9]\d+%")],
)  # fmt: skip
async def late(here: Services) -> AsyncIterator[None]:
    here.services["late"].takes_s = 1.0
    yield
    here.services["late"].takes_s = 0.0


@breaks(
    "WatchoutMlFallbackInUse", how="the first of two ML services is stopped", where={"process": "first"},
    shows=[Shows(("stats",), r"first +fallback")],
)  # fmt: skip
async def first_away(here: Services) -> AsyncIterator[None]:
    await here.services["first"].stop()
    yield
    await here.services["first"].start()


@breaks(
    "WatchoutFramesLate", how="the uplink of a camera carries a frame in 2 s; the objective is 1000 ms",
    shows=[Shows(("latency",), r"glass to glass +1000ms +[1-9]\d+%")],
)  # fmt: skip
async def slow_uplink(here: Services) -> AsyncIterator[None]:
    assert here.uplink is not None
    here.uplink.bytes_per_s = FRAME_BYTES / 2
    yield
    here.uplink.bytes_per_s = FAST_BYTES_PER_S


STEPS: Final = ((away, first_away, hangs, slow, refuses, nonsense, late, slow_uplink),)
