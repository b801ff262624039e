"""Faults of the network and of NATS on a site of three hosts: who watches feels nothing, and no alert is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.cluster import COMES_S, PATIENCE, Alerts, Scene, Site, claim, scene, site_of_hosts, told
from tests.kit.processes import SERVICE_TOKEN

pytestmark = pytest.mark.e2e

#: After a fault there is one truth again within this.
HEALED_S: Final = 5.0 * PATIENCE
#: A phone whose host was lost has its stream back on another host, from its connecting on, within this.
BACK_S: Final = 3.0 * PATIENCE
#: How long all NATS servers are away; `make test-cluster` takes 60 s.
AWAY_S: Final = float(os.environ.get("WATCHOUT_TEST_NATS_AWAY_S", "6"))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with site_of_hosts() as made:
        made.start("router:1", "gateway:0", "gateway:1", "gateway:2")
        yield made


async def claims_work(site: Site, clients: Clients, hosts: tuple[int, ...] = (0, 1, 2)) -> None:
    """A new stream can be registered at each of these hosts, and is seen at each."""
    token = site.token()
    for index in hosts:
        camera = await clients.camera(site[index].url, token)
        stream = new_name()
        await claim(camera, stream, HEALED_S)
        for other in hosts:

            async def known(url: str = site[other].url, stream: str = stream) -> bool:
                listed = await http(f"{url}/streams", token=token)
                return listed.status == 200 and stream in [row["id"] for row in listed.json["streams"]]

            await eventually(known, HEALED_S, f"host {other} knows the stream of host {index}")
        await camera.leave()


async def assert_one_truth(site: Site, made: Scene, *, at: int = 0, others: int = 0) -> None:
    """Every host says the same: the stream comes from the host of its camera; it and others have so many viewers."""
    token = site.token()

    async def same() -> bool:
        for machine in site:
            where = await http(f"{machine.url}/streams/{made.stream}/where", token=token)
            stats = await http(f"{machine.url}/stats")
            if where.status != 200 or where.json["url"] != site[at].url or stats.status != 200:
                return False
            if stats.json["totalVideoConsumers"] != len(made.viewers) + others:
                return False
        return True

    await eventually(same, HEALED_S, "every host says the same")


async def test_a_lost_host_is_felt_by_its_own_clients_only_and_its_streams_are_back_where_phones_connect(
    site: Site, clients: Clients
) -> None:
    token, lost = site.token(), new_name()
    async with scene(site, clients, new_name(), camera_at=1, viewers_at=(1, 2)) as others:
        viewer = await clients.viewer(site[1].url, token)
        await viewer.subscribe(lost, lastFrame=False)
        camera = await clients.camera(site[0].url, token)
        await camera.register(lost)
        async with camera.streaming():
            await eventually(lambda: len(viewer.frames) > 5, COMES_S)
            since = others.mark()
            site.lose(0)
        camera.cut()
        again = await clients.camera(site[2].url, token)
        began = time.monotonic()
        seen = len(viewer.frames)
        await claim(again, lost, BACK_S)
        async with again.streaming():
            await eventually(lambda: len(viewer.frames) > seen, COMES_S)
            told("a lost host's stream is seen again after", time.monotonic() - began)
            assert time.monotonic() - began < BACK_S
            await others.flows(30)
        others.assert_no_gap("longest gap of frames of others, host lost", since)
        assert viewer.frame_ids == sorted(set(viewer.frame_ids))
        await asyncio.to_thread(site.find, 0, "gateway")
        await assert_one_truth(site, others, at=1, others=1)
        await claims_work(site, clients)


@pytest.mark.parametrize("killed", [0, 1, 2])
async def test_a_killed_nats_server_costs_no_frame_and_no_alert(site: Site, clients: Clients, killed: int) -> None:
    async with scene(site, clients, new_name(), viewers_at=(1, 2)) as made:
        alerts = Alerts(site, made.stream, (0, 1, 2), SERVICE_TOKEN)
        async with alerts.posting(20):
            await eventually(lambda: len(alerts.accepted) > 10, COMES_S)
            since, before = made.mark(), len(alerts.accepted)
            site.server(killed).kill()
            await made.flows(20)
            await eventually(lambda: len(alerts.accepted) > before + 30, COMES_S, "alerts are accepted")
            made.assert_no_gap(f"longest gap of frames when NATS server {killed} was killed", since)
            site.server(killed).start()
            await asyncio.to_thread(site.wait_for_nats, site.server(killed))
        await alerts.all_came(*made.viewers, made.camera)
        await assert_one_truth(site, made)


async def test_a_rolling_restart_of_nats_with_lame_duck_costs_no_frame_and_no_alert(
    site: Site, clients: Clients
) -> None:
    async with scene(site, clients, new_name(), viewers_at=(1, 2)) as made:
        alerts = Alerts(site, made.stream, (0, 1, 2), SERVICE_TOKEN)
        async with alerts.posting(20):
            for server in site.nats.servers:
                since, before = made.mark(), len(alerts.accepted)
                server.signal(signal.SIGUSR2)
                await eventually(lambda before=before: len(alerts.accepted) > before + 30, COMES_S)
                await asyncio.to_thread(server.stop)  # it has let its clients go, and ends by itself soon
                server.start()
                await asyncio.to_thread(site.wait_for_nats, server)
                made.assert_no_gap(f"longest gap of frames when {server.name} was restarted", since)
        await alerts.all_came(*made.viewers, made.camera)
        await assert_one_truth(site, made)


async def test_without_any_nats_server_frames_flow_and_claims_are_refused_and_all_heals(
    site: Site, clients: Clients
) -> None:
    async with scene(site, clients, new_name(), viewers_at=(0, 1, 2)) as made:
        since = made.mark()
        for server in site.nats.servers:
            server.kill()
        camera = await clients.camera(site[0].url, site.token())
        await camera.send("register", clientType="mobile", streamId=new_name(), produces=["video-frame"])
        refused = await camera.find("error", COMES_S)
        assert refused["code"] == "ROUTING_ERROR"
        for machine in site:
            assert machine.get("/health/live")[0] == 200, "to restart it would help nothing"
        await asyncio.sleep(AWAY_S)
        await made.flows()
        made.assert_no_gap(f"longest gap of frames in {AWAY_S:g} s without NATS", since)
        await asyncio.to_thread(site.start_nats)
        await assert_one_truth(site, made)
        await claims_work(site, clients)
        alerts = Alerts(site, made.stream, (0, 1, 2), SERVICE_TOKEN)
        assert await alerts.post()
        await alerts.all_came(*made.viewers, made.camera)


@pytest.mark.parametrize("direction", ["both", "in", "out"])
async def test_a_partition_of_one_host_harms_nobody_else_and_heals(
    site: Site, clients: Clients, direction: str
) -> None:
    async with scene(site, clients, new_name(), viewers_at=(0, 1, 2)) as made:
        alerts = Alerts(site, made.stream, (0, 1), SERVICE_TOKEN)
        within = Scene(site, made.stream, made.camera, made.viewers[:2])
        async with alerts.posting(20):
            since = within.mark()
            with site.hosts.cut(site.hosts[2], direction):  # type: ignore[arg-type]
                before = len(alerts.accepted)
                await eventually(lambda: len(alerts.accepted) > before + 60, COMES_S, "alerts of the others")
                await within.flows(30)
                within.assert_no_gap(f"longest gap of frames of the others, host cut off ({direction})", since)
        await made.flows()
        await assert_one_truth(site, made)
        await claims_work(site, clients)
        await alerts.all_came(*made.viewers, made.camera)


async def test_lost_packets_and_a_long_way_slow_things_down_and_lose_nothing(site: Site, clients: Clients) -> None:
    async with scene(site, clients, new_name(), viewers_at=(1, 2), fps=5) as made:
        alerts = Alerts(site, made.stream, (0, 1, 2), SERVICE_TOKEN)
        with site.hosts.losing(0.05), site.hosts.delaying(0.1):
            await made.flows(20)
            for _ in range(20):
                assert await alerts.post()
            await alerts.all_came(*made.viewers, made.camera)
            await claims_work(site, clients)
        await made.flows(20)
        await assert_one_truth(site, made)
