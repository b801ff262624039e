"""Few file descriptors, or none left: strangers take none from a router, and who has none lives and says so."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.ml_stub import MlStub
from tests.kit.ports import free_port
from tests.kit.processes import BIN, Process, Watchout
from tests.kit.site import COMES_S, Site, cameras

pytestmark = pytest.mark.e2e

LIMIT = 64
STRANGERS = 100
#: Of a process that has nothing to do; one that spins has a core, or what others leave of it.
QUIET_CORES = 0.2


@pytest.fixture
async def site(watchout: Any) -> AsyncIterator[Site]:
    port = free_port()
    started: Watchout = watchout(
        start=False, environ={"ROUTER_LISTEN": f"tcp://127.0.0.1:{port}", "ALERT_COOLDOWN_S": "0"}
    )
    site = Site(started, port)
    site.server_key = await site.ctl("server")
    site.router = started.run("router", ["/bin/sh", "-c", f"ulimit -n {LIMIT}; exec {BIN}/watchout-router"])
    started.start("gateway")
    await asyncio.to_thread(started.wait_ready)
    yield site
    site.close()


@contextlib.asynccontextmanager
async def strangers(port: int) -> AsyncIterator[None]:
    """Many who connect and say nothing, and connect again when they are turned away."""

    async def one(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                where = f"127.0.2.{number % 10 + 1}", 0
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=where)
                try:
                    while await reader.read(1000):
                        pass
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(one(number)) for number in range(STRANGERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def quiet(process: Process) -> Iterator[None]:
    """It does not spin while the block lasts."""
    seen = psutil.Process(process.pid)
    before, began = sum(seen.cpu_times()[:2]), time.monotonic()
    yield
    assert sum(seen.cpu_times()[:2]) - before < QUIET_CORES * (time.monotonic() - began)


async def test_strangers_take_no_descriptor_that_the_router_needs(site: Site, clients: Clients) -> None:
    started, stub = site.started, MlStub()
    stub.mode = "answer"
    await stub.start()
    try:
        async with cameras(site, clients, ["cam"]):
            viewer = await clients.viewer(started.url, started.token())
            await viewer.subscribe("cam")
            bridge = site.bridge(stub, await site.new_key("ml"))

            async def flows(number: int) -> None:
                frames, asked = len(viewer.frames) + number, len(stub.requests) + number // 2
                await eventually(lambda: len(viewer.frames) >= frames and len(stub.requests) >= asked, COMES_S)

            await flows(4)
            async with strangers(int(site.address.rpartition(":")[2])):
                turned_away = "a connection was refused: there is no room for it"
                await eventually(lambda: turned_away in site.router.output, COMES_S)
                with quiet(site.router):
                    await flows(20)
                    assert psutil.Process(site.router.pid).num_fds() < LIMIT
                # What connects on this machine would end a router that has no descriptor left.
                listed = started.run("reservations", [str(BIN / "watchout-ctl"), "reservations"])
                assert await listed.ended(COMES_S) == 0, listed.output
                await flows(4)
            bridge.terminate()
            site.bridge(stub, await site.new_key("later"))
            await flows(4)
        assert site.router.running
    finally:
        await stub.stop()


def take_free_descriptors(process: Process) -> bool:
    """Let a process open nothing more; whether it could have opened something since the last call."""
    used = {int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
    free = next(number for number in itertools.count() if number not in used)
    limit, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free, most))
    return free < limit


@contextlib.asynccontextmanager
async def no_more_descriptors(*processes: Process) -> AsyncIterator[None]:
    """They can open nothing while the block lasts, also not in place of what they close at its beginning."""
    before = {process.pid: resource.prlimit(process.pid, resource.RLIMIT_NOFILE) for process in processes}
    try:
        settled = 0
        while settled < 20:
            found = [take_free_descriptors(process) for process in processes]
            settled = 0 if any(found) else settled + 1
            await asyncio.sleep(0.05)
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


async def test_gateway_and_bridge_without_any_descriptor_live_say_so_and_join_when_they_have_one(
    watchout: Any, clients: Clients
) -> None:
    stub = MlStub()
    stub.mode = "answer"
    await stub.start()
    try:
        port = free_port()
        started: Watchout = watchout(
            start=False, expected=("a task failed and goes on", "Traceback"),
            environ={"ROUTER_LISTEN": f"tcp://127.0.0.1:{port}", "ALERT_COOLDOWN_S": "0"},
        )  # fmt: skip
        site = Site(started, port)
        await site.begin()
        async with cameras(site, clients, ["cam"]):
            viewer = await clients.viewer(started.url, started.token())
            await viewer.subscribe("cam")
            bridge, gateway = site.bridge(stub, await site.new_key("ml")), started.one("gateway")
            await eventually(lambda: stub.requests, COMES_S)
            site.router.kill()
            await eventually(lambda: "router lost" in gateway.output and "router is away" in bridge.output, COMES_S)
            async with no_more_descriptors(gateway, bridge):
                site.router = started.start("router")
                with quiet(gateway), quiet(bridge):
                    for process in (gateway, bridge):
                        await eventually(
                            lambda process=process: "file descriptors are in use" in process.output, COMES_S
                        )
                    frames = len(viewer.frames)
                    await eventually(lambda: len(viewer.frames) > frames + 5, COMES_S, "who is in gets frames")
            asked, frames = len(stub.requests), len(viewer.frames)
            await eventually(lambda: len(stub.requests) > asked + 2 and len(viewer.frames) > frames + 5, COMES_S)
        assert viewer.open
        site.close()
    finally:
        await stub.stop()
