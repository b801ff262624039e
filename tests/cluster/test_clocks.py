"""Hosts whose clocks are ten minutes apart are one site: nothing that is compared comes from two clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.cluster.test_routers import ROUTER_BACK_S, delete_buckets
from tests.kit.clients import Clients, eventually, http
from tests.kit.cluster import COMES_S, FIGURES, Site, site_of_hosts
from tests.kit.cluster_scenes import Alerts, AlertsOfStreams, Scenes, assert_one_truth, claims_work, scene_of_each_slot
from tests.kit.ml_stub import MlStub
from tests.kit.shifted_clock import shifted_clock

pytestmark = pytest.mark.e2e

#: Of the three hosts, in seconds.
CLOCKS = (-600, 0, 600)
#: Alerts are asked for since then: less than the clocks are apart, and longer than posting them takes.
MINUTES_AGO_S = 240


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_of_hosts() as made:
        for machine, seconds in zip(made, CLOCKS, strict=True):
            machine.environ.update(shifted_clock(seconds))
        made.start("router:0", "router:1", "router:2", "gateway:0", "gateway:1", "gateway:2")
        made.wait_whole()
        yield made


async def assert_all_of_it_is_recent(site: Site, clients: Clients, made: Scenes, alerts: AlertsOfStreams) -> None:
    """Each host gives the alerts since a while ago by its own clock, over both ways, and lists the streams."""
    token = site.token()
    for machine, seconds in zip(site, CLOCKS, strict=True):
        since = int((time.time() + seconds - MINUTES_AGO_S) * 1000)

        async def listed(url: str = machine.url) -> bool:
            found = await http(f"{url}/streams", token=token)
            rows = found.json["streams"] if found.status == 200 else []
            return {row["id"] for row in rows if row["status"] == "streaming"} >= {scene.stream for scene in made}

        await eventually(listed, COMES_S, "the streams are listed")
        for scene, posted in zip(made, alerts.each, strict=True):

            async def given(
                url: str = f"{machine.url}/alerts?streamId={scene.stream}&since={since}", posted: Alerts = posted
            ) -> bool:
                found = await http(url, token=token)
                return found.status == 200 and [row["id"] for row in found.json["alerts"]] == posted.accepted

            await eventually(given, COMES_S, "the alerts since a minute ago are given")
            late = await clients.viewer(machine.url, token)
            assert await late.subscribe(scene.stream, alertsSince=since) == "streaming"
            await eventually(
                lambda late=late, posted=posted: (
                    [m["id"] for m in late.heard if m["type"] == "alert"] == posted.accepted
                ),
                COMES_S, "the alerts since a while ago",
            )  # fmt: skip
            await late.leave()


async def test_frames_and_alerts_come_whatever_the_clocks_say_and_whoever_has_a_slot(
    site: Site, clients: Clients
) -> None:
    """Slots move from a router with one clock to another with another, backwards too, and lose their store."""
    async with scene_of_each_slot(site, clients, camera_at=2, viewers_at=(0, 1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            await alerts.more(3)
        await alerts.all_came()
        await assert_all_of_it_is_recent(site, clients, made, alerts)
        holders = await asyncio.to_thread(site.shared_slots)
        with_slots = sorted({holder.host for holder in holders.values()}, reverse=True)
        for number, host in enumerate(with_slots if FIGURES else with_slots[:1]):
            before = await asyncio.to_thread(site.shared_slots)
            since = made.mark()
            async with alerts.posting(5):
                if number == 0:
                    await delete_buckets(site)
                (killed,) = site[host].named("router")
                await asyncio.to_thread(killed.kill)
                slots = [slot for slot, holder in before.items() if holder.host == host]
                what = f"a router with a clock {CLOCKS[host]} s apart was killed"
                await claims_work(site, clients, slots=slots, within_s=ROUTER_BACK_S, what=what)
                await alerts.more(3)
            await made.flows()
            made.assert_no_gap(what, since)
            await alerts.all_came()
            await asyncio.to_thread(site[host].start, "router")
            after = await asyncio.to_thread(site.shared_slots)
            assert all(after[slot].epoch >= before[slot].epoch for slot in before), "an epoch never falls"
        await assert_one_truth(site, made, at=2, what="clocks apart by 20 minutes, routers killed")


async def test_a_bridge_whose_clock_is_wrong_gets_frames_and_brings_alerts(site: Site, clients: Clients) -> None:
    service = MlStub(site.hosts.here)
    service.mode = "answer"
    await service.start()
    bridge = site[2].start("mlbridge", {"ML_SERVICE_URL": service.url})
    try:
        async with scene_of_each_slot(site, clients, camera_at=0, viewers_at=(1,)) as made:
            for viewer in made.viewers:
                await viewer.find("alert", COMES_S)
    finally:
        await asyncio.to_thread(bridge.terminate)
        await service.stop()
