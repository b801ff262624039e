"""Alerts while everything that a site of three hosts has is killed in turn: each comes once, and in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from tests.kit.clients import Clients, Viewer, eventually
from tests.kit.cluster import COMES_S, FIGURES, Site
from tests.kit.cluster_leases import assert_leases_hold
from tests.kit.cluster_scenes import AlertsOfStreams, assert_one_truth, claims_work, scene_of_each_slot
from tests.kit.ml_stub import MlStub

pytestmark = pytest.mark.e2e

#: How many alerts are accepted at least, and how many of each stream are posted in a second at most.
ALERTS: Final = 10_000 if FIGURES else 300
PER_S: Final = 50 if FIGURES else 8


@pytest.fixture
async def service(site: Site) -> AsyncIterator[MlStub]:
    """An ML service that sees someone in each picture that it is shown, two of a stream a second."""
    stub = MlStub(site.hosts.here)
    stub.mode, stub.takes_s = "answer", 0.5
    await stub.start()
    yield stub
    stub.released.set()
    await stub.stop()


async def test_every_accepted_alert_comes_once_and_in_order_whatever_is_killed(
    site: Site, clients: Clients, service: MlStub
) -> None:
    bridge = {"ML_SERVICE_URL": service.url}
    await asyncio.to_thread(site[2].start, "mlbridge", bridge)

    async def kill(host: int, name: str) -> None:
        await asyncio.to_thread(site[host].one(name).kill)
        await alerts.more(5)
        await asyncio.to_thread(site[host].start, name, bridge if name == "mlbridge" else None)

    async def kill_nats(host: int) -> None:
        await asyncio.to_thread(site.server(host).kill)
        await alerts.more(5)
        await asyncio.to_thread(site.server(host).start)
        await asyncio.to_thread(site.wait_for_nats, site.server(host))

    async def lose(host: int) -> None:
        await asyncio.to_thread(site.lose, host)
        await alerts.more(5)
        await asyncio.to_thread(site.hosts.plug, site.hosts[host])
        await asyncio.to_thread(site.server(host).start)
        await asyncio.to_thread(site.wait_for_nats, site.server(host))
        for name in ("router", "gateway"):
            await asyncio.to_thread(site[host].start, name)
        await asyncio.to_thread(site[host].start, "mlbridge", bridge)

    # The subscriptions that stand all the time are at the gateways of the hosts 0 and 1.
    turns: list[tuple[str, Callable[[int], Awaitable[None]], list[int]]] = [
        ("router", lambda host: kill(host, "router"), [0, 1, 2]),
        ("NATS server", kill_nats, [1, 2, 0]),
        ("gateway", lambda host: kill(host, "gateway"), [2]),
        ("bridge", lambda host: kill(host, "mlbridge"), [2]),
        ("host", lose, [2]),
    ]
    async with scene_of_each_slot(site, clients, viewers_at=(0, 1)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(PER_S):
            for turn in itertools.count():
                for name, fault, hosts in turns:
                    host = hosts[turn % len(hosts)]
                    await fault(host)
                    print(f"killed: {name} of host {host}; {len(alerts)} alerts")
                    await asyncio.to_thread(site.wait_whole)
                if len(alerts) >= ALERTS:
                    break
        await alerts.all_came()
        for scene in made:
            for viewer in scene.viewers:

                def ids(viewer: Viewer = viewer) -> list[str]:
                    return [m["id"] for m in viewer.heard if m["type"] == "alert"]

                def seen_by_ml(ids: Callable[[], list[str]] = ids) -> bool:
                    return any(not each.startswith("post-") for each in ids())

                await eventually(seen_by_ml, COMES_S, "alerts of the ML service")
                assert len(ids()) == len(set(ids())), "an alert came twice"
        await assert_one_truth(site, made)
        await claims_work(site, clients)
    await asyncio.to_thread(site[2].one("mlbridge").terminate)
    assert_leases_hold(site)
