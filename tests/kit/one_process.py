"""A whole watchout in the event loop of the test: real routers, `Gateway` and `Bridge` objects over `MemoryBus`.

Use it for end-to-end tests that are about what a client sees, and `tests.kit.processes` for those about processes:
signals, crashes, ZeroMQ, CPU, memory. It starts in a fraction of a second, and its parts may be looked into.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import eventually, http
from tests.kit.memory_transport import MemoryBus
from tests.kit.ports import free_port
from tests.kit.processes import SERVICE_TOKEN
from watchout.common import supervisor
from watchout.common.bus.merged_replies import merge_stats
from watchout.common.bus.mesh import MemberCarrier
from watchout.common.bus.messages import Hello, Message, Query, Rejoin, encode
from watchout.common.bus.reply_records import StatsReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.home import prepare_home
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings, load
from watchout.gateway.app import Gateway
from watchout.identity.embedded_store import mint_token
from watchout.mlbridge.app import Bridge
from watchout.router import slot_router
from watchout.router.app import Router, home_records
from watchout.router.slot_router import SlotRouter
from watchout.router.startup_hold import expected_of


class OneProcess:
    """One watchout: a home with the embedded session store, a bus, and the parts that were started.

    `environ` are settings by their environment names, for all parts. With several `slots` it is a cluster: each slot
    has a `SlotRouter` of its own, whose records are in a folder of the home.
    """

    def __init__(self, home: Path, slots: int = 1, **environ: str) -> None:
        self.home = home
        self.slots = slots
        self.bus = MemoryBus(slots)
        self.router: Router | None = None
        #: The routers of a cluster, by slot; those that were started last where a slot has several.
        self.slot_routers: dict[int, SlotRouter] = {}
        self._epoch = 0
        self.gateways: list[Gateway] = []
        self.bridges: list[Bridge] = []
        #: Where each gateway listens, in the order in which they were started.
        self.urls: list[str] = []
        self._environ = {
            "WATCHOUT_HOME": str(home), "WATCHOUT_HOST": "127.0.0.1", "SERVICE_TOKEN": SERVICE_TOKEN, **environ,
        }  # fmt: skip
        prepare_home(home)

    @property
    def url(self) -> str:
        """Where the first gateway listens."""
        return self.urls[0]

    def token(self, user: str | None = None) -> str:
        """A session token for the user of this name."""
        return mint_token(self.home / SESSION_STORE_FILE, user)

    async def start_router(self) -> None:
        """Start the router; in a cluster one for each slot that has none."""
        if self.slots > 1:
            for slot in range(self.slots):
                if slot not in self.slot_routers:
                    await self.start_slot(slot)
            return
        self.router = Router(self._settings(), self.bus.open_router)
        await self.router.start()

    async def start_slot(self, slot: int, *, epoch: int | None = None, records: str = "slot") -> SlotRouter:
        """Start a router of a slot, beside another one if there is one.

        Its epoch is above all before, or `epoch`. Its records are those of the slot's routers that were started with
        the same `records`.
        """
        folder = self.home / f"{records}-{slot}"
        had_former = folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._epoch = max(self._epoch + 1, slot_router.clock.now_ms(), epoch or 0)
        now = asyncio.get_running_loop().time()
        router = SlotRouter(
            self._settings(), slot, epoch or self._epoch, had_former, home_records(folder), self.bus.router_of(slot),
            expected=expected_of(each.reporters(now) for each in self.slot_routers.values()),
        )  # fmt: skip
        await router.start()
        self.slot_routers[slot] = router
        self.bus.routers[slot][-1].broadcast(encode(router.epoch, 0, Rejoin()))
        return router

    async def stop_slot(self, slot: int) -> None:
        """End the router of a slot, as by ``kill -9`` as far as its members can tell."""
        await self.slot_routers.pop(slot).stop()

    async def stop_router(self) -> None:
        """End the router in order, or those of all slots. Gateways and bridges stay, and join the next one."""
        if self.slots > 1:
            for slot in list(self.slot_routers):
                await self.stop_slot(slot)
            return
        router, self.router = self.router, None
        assert router is not None
        await router.drain()
        await router.stop()

    async def start_gateway(self, carrier: MemberCarrier | None = None, **environ: str) -> str:
        """Start a gateway on a port of its own; its URL."""
        port = free_port()
        gateway = Gateway(self._settings(WATCHOUT_PORT=str(port), **environ), carrier or self.bus.carrier)
        self.gateways.append(gateway)
        self.urls.append(f"http://127.0.0.1:{port}")
        await gateway.start()
        return self.urls[-1]

    async def start_bridge(self, ml_service_url: str, **environ: str) -> Bridge:
        """Start an mlbridge for the service at this address."""
        bridge = Bridge(self._settings(ML_SERVICE_URL=ml_service_url, **environ), self.bus.carrier)
        self.bridges.append(bridge)
        await bridge.start()
        return bridge

    async def healthy(self) -> None:
        """Wait until every gateway has joined the router."""
        for url in self.urls:
            await eventually(lambda url=url: _is_healthy(url), what=f"{url} is not healthy")

    async def stats(self) -> Any:
        """What ``GET /stats`` of the first gateway returns."""
        return (await http(f"{self.url}/stats")).json

    async def ask(self, within_s: float = 30.0) -> StatsReply:
        """What the router replies to ``watchout-ctl stats``; a slot without a reply in this time is missing."""
        links = RouterLinks(
            Hello(kind="ctl", name="ctl", pid=1), carrier=MemberCarrier(self.bus.open_slot, None, self.slots),
            request_timeout_s=within_s, snapshot=_nothing, metrics=dict, on_message=lambda _slot, _body: None,
        )  # fmt: skip
        links.open()
        try:
            asked = await links.ask_all(lambda _, number: Query(request=number, what="stats"), StatsReply)
            return merge_stats(asked.by_slot, asked.missing, slots=links.slots)
        finally:
            await links.close()

    async def close(self) -> None:
        """End all parts that run, in order; fails when the supervisor counted a failure."""
        parts: list[Gateway | Bridge] = [*self.gateways, *self.bridges]
        self.gateways.clear()
        self.bridges.clear()
        for part in parts:
            await part.drain()
            await part.stop()
        if self.router is not None or self.slot_routers:
            await self.stop_router()
        for _ in range(10):  # connections that were just closed give back their sockets in the loop's next turns
            await asyncio.sleep(0)
        failures = dict(supervisor.current().failures)
        assert not failures, f"work failed: {failures}"

    def _settings(self, **environ: str) -> Settings:
        return load({**self._environ, **environ})


async def _nothing(_slot: int) -> AsyncIterator[Message]:
    return
    yield


async def _is_healthy(url: str) -> bool:
    health = await http(f"{url}/health")
    return health.status == 200 and health.json["status"] == "healthy"


@contextlib.asynccontextmanager
async def running_in_one_process(*, gateways: int = 1, slots: int = 1, **environ: str) -> AsyncIterator[OneProcess]:
    """A router, or one for each of several slots, and so many gateways that serve.

    `environ` are settings by their environment names.
    """
    directory = Path(tempfile.mkdtemp(prefix="wo-"))
    started = OneProcess(directory / "home", slots, **environ)
    try:
        try:
            await started.start_router()
            await asyncio.gather(*(started.start_gateway() for _ in range(gateways)))
            await started.healthy()
            yield started
        finally:
            await started.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def one_process() -> AsyncIterator[OneProcess]:
    """A router and a gateway in this event loop, with default settings and a session store: ready in 0.1 to 0.3 s.

    With the fixture `clients`, and the plain calls of `tests.kit.clients`, a test is what it is with processes::

        async def test_a_viewer_gets_a_frame(one_process, clients):
            token = one_process.token()                            # of a user; token("bob") of another
            viewer = await clients.viewer(one_process.url, token)
            await viewer.subscribe("cam")
            camera = await clients.camera(one_process.url, token)
            await camera.register("cam")
            await camera.show()
            await viewer.frame()

    More parts: `await one_process.start_gateway()` (a URL), `start_bridge(stub.url)` with a `tests.kit.ml_stub.MlStub`,
    `stop_router()` and `start_router()`. `one_process.bus.lose = 1` loses a control message. For other settings or
    several gateways take the fixture `in_one_process`. At its end a test fails when the supervisor counted a failure.

    It needs an event loop of the test: no blocking calls (`Watchout.get`), and no `ctl` in a process of its own.
    """
    async with running_in_one_process() as started:
        yield started


@pytest.fixture
async def in_one_process() -> AsyncIterator[Callable[..., Any]]:
    """Start a watchout for one test: `await in_one_process(gateways=2, STREAM_ACCESS="authenticated")`."""
    async with contextlib.AsyncExitStack() as stack:

        def start(**options: Any) -> Any:
            made: AbstractAsyncContextManager[OneProcess] = running_in_one_process(**options)
            return stack.enter_async_context(made)

        yield start
