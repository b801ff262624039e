"""A real Prometheus scrapes real processes: each query of the dashboard has data, and a rule fires and resolves."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from tests.e2e.test_bus import House
from tests.integration.deploy.test_prometheus_files import queries
from tests.kit.clients import Clients, eventually
from tests.kit.mesh_hosts import Authority, authority
from tests.kit.ml_stub import MlStub
from tests.kit.nats_servers import NatsSite
from tests.kit.prometheus import Prometheus, prometheus
from watchout.common.metric_guide import ALL, GUIDE
from watchout.common.metric_names import DECLARED, TOTALS

pytestmark = [pytest.mark.e2e, pytest.mark.real]
COMES_S: Final = 90.0
SECRET: Final = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU2Nzg5"


@pytest.fixture
def ca() -> Iterator[Authority]:
    with authority() as made:
        yield made


@contextlib.asynccontextmanager
async def webhook() -> AsyncIterator[str]:
    """The address of a webhook that takes everything."""

    async def take(_request: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


def empty_queries(seen: Prometheus, expressions: Iterable[str]) -> list[str]:
    """Those of the dashboard's queries that have no data at this moment."""
    return [
        expression
        for expression in expressions
        if not seen.values(expression.replace("$__rate_interval", "10s").replace("$process", ".*"))
    ]


async def nothing_new() -> bool:
    """False, but not at once: Prometheus scrapes, and looks at its rules, once a second."""
    await asyncio.sleep(0.3)
    return False


def undeclared(seen: Prometheus) -> list[str]:
    """Series of watchout that are not declared, or are told of a kind of process to which they are not ascribed."""
    former = {declared.former_name for declared in DECLARED.values()}
    wrong = []
    for series in seen.ask("series", **{"match[]": '{__name__=~"watchout_.+"}'}):
        name = series["__name__"].removeprefix("watchout_")
        name = name if name in DECLARED else name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        if name in TOTALS or name in former:
            continue
        kind = next((kind for kind in ALL if series.get("process", "").startswith(kind)), None)
        if name not in GUIDE or kind not in GUIDE[name].of:
            wrong.append(f"{series}")
    return wrong


async def test_every_panel_has_data_and_a_rule_fires_while_what_it_watches_is_broken(
    watchout: Callable[..., Any], clients: Clients, ca: Authority, start_nats: Callable[..., NatsSite], tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stub, nats = MlStub(), start_nats()
        await stub.start()
        stack.push_async_callback(stub.stop)
        hook = await stack.enter_async_context(webhook())
        stub.mode = "answer"
        house = start(watchout, ca, nats, stub, hook)
        near, far = await house.add_gateway(), await house.add_gateway()
        bridge, token = house.started.start("mlbridge"), house.started.token()
        camera, viewer = await clients.camera(near, token), await clients.viewer(far, token)
        await viewer.subscribe(await camera.register())
        with prometheus(tmp_path, house.started.port) as seen:
            async with camera.streaming(10):
                await eventually(lambda: viewer.frames and stub.looks, COMES_S)
                await every_query_has_data(seen)
                assert await asyncio.to_thread(undeclared, seen) == []

                await silent(seen, "WatchoutMlServiceAway")
                await stub.stop()
                await fire(seen, "WatchoutMlServiceAway")
                await stub.start()
                await silent(seen, "WatchoutMlServiceAway")

            await camera.leave()
            await asyncio.to_thread(bridge.kill)
            await fire(seen, "WatchoutNoCameras", "WatchoutProcessAway")
            await (await clients.camera(near, token)).register()
            house.started.start("mlbridge")
            await silent(seen, "WatchoutNoCameras", "WatchoutProcessAway")

            await asyncio.to_thread(nats.servers[0].kill)
            await fire(seen, "WatchoutNatsAway", "WatchoutRouterAway")
            await asyncio.to_thread(nats.start)
            await silent(seen, "WatchoutNatsAway", "WatchoutRouterAway")


async def every_query_has_data(seen: Prometheus) -> None:
    left = [expression for _, expression in queries()]

    async def nothing_is_empty() -> bool:
        left[:] = await asyncio.to_thread(empty_queries, seen, left)
        return not left or await nothing_new()

    await eventually(nothing_is_empty, COMES_S, lambda: "\n".join(left))


async def fire(seen: Prometheus, *alerts: str) -> None:
    """Wait until these alerts fire."""

    async def do() -> bool:
        return set(alerts) <= await asyncio.to_thread(seen.firing) or await nothing_new()

    await eventually(do, COMES_S, f"nobody is told: {alerts}")


async def silent(seen: Prometheus, *alerts: str) -> None:
    """Wait until none of these alerts fires."""

    async def are() -> bool:
        return not set(alerts) & await asyncio.to_thread(seen.firing) or await nothing_new()

    await eventually(are, COMES_S, f"an alert does not end with its cause: {alerts}")


def start(watchout: Callable[..., Any], ca: Authority, nats: NatsSite, stub: MlStub, hook: str) -> House:
    """A host of a cluster, with all that a panel shows."""
    started = watchout(
        start=False,
        environ={
            "WATCHOUT_BUS": nats.url, "CLUSTER_NAME": f"t{uuid.uuid4().hex[:8]}",
            "MESH_LISTEN": "tls://127.0.0.1:0",
            "ML_SERVICE_URL": stub.url, "ML_FPS": "5", "ALERT_COOLDOWN_S": "1",
            "ALERT_WEBHOOK_URL": hook, "ALERT_WEBHOOK_SECRETS": SECRET, "ALERT_WEBHOOK_ALLOW_PRIVATE": "true",
        },
    )  # fmt: skip
    shutil.copytree(ca.home("a", "127.0.0.1"), started.home)
    started.home.chmod(0o700)
    return House(started)
