"""Faults of hosts, the network and NATS on a site of three hosts: who watches feels nothing, and no alert is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from typing import Final

import pytest

from tests.kit.clients import Camera, Clients, Viewer, eventually, http, new_name
from tests.kit.cluster import COMES_S, FIGURES, HEALED_S, PATIENCE, Site, told
from tests.kit.cluster_leases import OUTLIVES_S, assert_leases_hold, elected_s
from tests.kit.cluster_scenes import (
    Alerts,
    AlertsOfStreams,
    aside,
    assert_one_truth,
    claim,
    claims_work,
    scene,
    scene_of_each_slot,
    stream_of,
)
from tests.kit.hosts import Direction
from watchout.common.errors import CloseCode

pytestmark = pytest.mark.e2e

#: A phone whose host was lost has its stream back on another host, from its connecting on, within this.
BACK_S: Final = 3.0 * PATIENCE
#: Claims of a slot work again so long after its router was lost.
ROUTER_BACK_S: Final = 5.0 * PATIENCE
#: How long all NATS servers are away: longer than the longest gap that is allowed; `make test-cluster` takes 60 s.
AWAY_S: Final = float(os.environ.get("WATCHOUT_TEST_NATS_AWAY_S", "5"))
#: How long a host is cut off: longer than a lease in `make test-cluster`.
CUT_S: Final = 15.0 if FIGURES else 5.0
#: The same where it is longer than alerts are kept that a router accepted and that still has its slot.
CUT_OFF_S: Final = 45.0 if FIGURES else 5.0
#: Of faults of one kind the short run has one.
LOST: Final = ("with a slot's router", "with the leader of the leases") if FIGURES else ("with a slot's router",)
KILLED: Final = (0, 1, 2) if FIGURES else (0,)
KEPT: Final = (True, False) if FIGURES else (False,)
DIRECTIONS: Final[tuple[Direction, ...]] = ("both", "in", "out") if FIGURES else ("both",)


@pytest.mark.parametrize("which", LOST)
async def test_a_lost_host_is_felt_by_its_own_clients_only_and_its_streams_are_back_where_phones_connect(
    site: Site, clients: Clients, which: str
) -> None:
    token = site.token()
    holders = await asyncio.to_thread(site.shared_slots)
    led = await asyncio.to_thread(site.host_of_leader)
    lost = holders[0].host if which == LOST[0] else led
    assert lost is not None
    stays, back_at = (host for host in range(3) if host != lost)
    of_lost = [slot for slot, holder in holders.items() if holder.host == lost]
    of_others = [slot for slot, holder in holders.items() if holder.host != lost]
    async with scene_of_each_slot(site, clients, camera_at=stays, viewers_at=(stays, back_at)) as others:
        phones: dict[int, tuple[str, Camera, Viewer]] = {}
        for slot in (*of_lost[:1], of_others[0]):
            stream = stream_of(slot)
            viewer = await clients.viewer(site[stays].url, token)
            await viewer.subscribe(stream, lastFrame=False)
            camera = await clients.camera(site[lost].url, token)
            await claim(camera, stream, COMES_S)
            async with camera.streaming():
                await eventually(lambda viewer=viewer: len(viewer.frames) > 5, COMES_S)
            phones[slot] = stream, camera, viewer
        since = others.mark()
        await asyncio.to_thread(site.lose, lost)
        lost_at = time.monotonic()

        async def come_back(slot: int) -> None:
            stream, camera, viewer = phones[slot]
            camera.cut()
            again = await clients.camera(site[back_at].url, token)
            began = time.monotonic()
            seen = len(viewer.frames)
            await claim(again, stream, COMES_S)
            async with again.streaming():
                await eventually(lambda: len(viewer.frames) > seen, COMES_S)
                took_s = time.monotonic() - (lost_at if slot in of_lost else began)
                of_slot = "router was lost too" if slot in of_lost else "router was elsewhere"
                told(f"a stream of a host that was lost {which} is seen again, its {of_slot}", took_s)
                assert took_s < BACK_S
            assert viewer.frame_ids == sorted(set(viewer.frame_ids))

        await asyncio.gather(*map(come_back, phones))
        await others.flows(30)
        others.assert_no_gap("others, a host was lost", since)
        await asyncio.to_thread(site.find, lost, "router", "gateway")
        await assert_one_truth(site, others, at=stays, others=len(phones), what="the lost host is back")
        await claims_work(site, clients)


@pytest.mark.parametrize("killed", KILLED)
async def test_a_killed_nats_server_costs_no_frame_no_alert_and_no_lease(
    site: Site, clients: Clients, killed: int
) -> None:
    before = await asyncio.to_thread(site.shared_slots)
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            await alerts.more(2)
            since = made.mark()
            electing = asyncio.create_task(elected_s(site, killed))
            await asyncio.to_thread(site.server(killed).kill)
            await alerts.more(10)
            await made.flows(20)
            made.assert_no_gap(f"NATS server {killed} was killed", since)
            away_s = await electing
            await asyncio.to_thread(site.server(killed).start)
            await asyncio.to_thread(site.wait_for_nats, site.server(killed))
        await alerts.all_came()
        await assert_one_truth(site, made)
    after = await asyncio.to_thread(site.slots)
    assert all(after[slot].epoch >= before[slot].epoch for slot in before), "an epoch never falls"
    if away_s < OUTLIVES_S:
        led = await asyncio.to_thread(site.host_of_leader)
        moved = [slot for slot in before if after[slot] != before[slot]]
        assert all(before[slot].host == led for slot in moved), "a router lost a slot by it"


async def test_a_rolling_restart_of_nats_with_lame_duck_costs_no_frame_and_no_alert(
    site: Site, clients: Clients
) -> None:
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            for server in site.nats.servers:
                since = made.mark()
                server.signal(signal.SIGUSR2)
                await alerts.more(8)
                await asyncio.to_thread(server.stop)  # it has let its clients go, and ends by itself soon
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(site.wait_for_nats, server)
                made.assert_no_gap(f"{server.name} was restarted", since)
        await alerts.all_came()
        await assert_one_truth(site, made, what="a rolling restart of NATS")


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: "kept" if kept else "wiped")
async def test_without_any_nats_server_frames_flow_and_claims_are_refused_and_all_heals(
    site: Site, clients: Clients, kept: bool
) -> None:
    what = "all NATS servers were away" if kept else "all NATS servers were away and lost what they had stored"
    before = await asyncio.to_thread(site.slots)
    async with scene_of_each_slot(site, clients, viewers_at=(0, 1, 2)) as made:
        since = made.mark()
        for server in site.nats.servers:
            await asyncio.to_thread(server.kill)
        camera = await clients.camera(site[0].url, site.token())
        await camera.send("register", clientType="mobile", streamId=new_name(), produces=["video-frame"])
        refused = await camera.find("error", COMES_S)
        assert refused["code"] == "ROUTING_ERROR"
        for machine in site:
            assert (await http(f"{machine.url}/health/live")).status == 200, "to restart it would help nothing"
            if not kept:
                shutil.rmtree(machine.home / "nats")
        await asyncio.sleep(AWAY_S)
        await made.flows()
        made.assert_no_gap(f"{what} for {AWAY_S:g} s", since)
        await asyncio.to_thread(site.start_nats)
        await assert_one_truth(site, made, what=what)
        await claims_work(site, clients, what=what)
        alerts = AlertsOfStreams(made)
        for each in alerts.each:
            assert await each.post()
        await alerts.all_came()
    after = await asyncio.to_thread(site.slots)
    assert all(after[slot].epoch >= before[slot].epoch for slot in before), "an epoch never falls"
    assert_leases_hold(site, what)


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_a_partition_of_one_host_harms_nobody_else_and_heals(
    site: Site, clients: Clients, direction: Direction
) -> None:
    what = f"a host was cut off ({direction})"
    holders = await asyncio.to_thread(site.shared_slots)
    cut = holders[0].host
    of_cut = [slot for slot, holder in holders.items() if holder.host == cut]
    rest = [host for host in range(3) if host != cut]
    async with scene_of_each_slot(site, clients, camera_at=rest[0], viewers_at=(*rest, cut)) as made:
        alerts = AlertsOfStreams(made, rest)
        within = made.of_viewers(2)
        async with alerts.posting(5):
            since = within.mark()
            async with aside(site.hosts.cut(site.hosts[cut], direction)):
                began = time.monotonic()
                await claims_work(site, clients, rest, slots=of_cut, within_s=ROUTER_BACK_S, what=what)
                await alerts.more(5)
                await within.flows(10)
                within.assert_no_gap(what, since)
                await asyncio.sleep(max(0.0, began + CUT_S - time.monotonic()))
            await assert_one_truth(site, made, at=rest[0], what=what)
            await claims_work(site, clients, what=f"{what}, and is back")
        await made.flows()
        await alerts.all_came()
    assert_leases_hold(site, what)


async def test_alerts_that_a_cut_off_router_accepted_come_when_the_network_is_back(
    site: Site, clients: Clients
) -> None:
    """The cut-off host's gateway reaches its own router until that one's lease is over."""
    holders = await asyncio.to_thread(site.shared_slots)
    cut = holders[0].host
    rest = [host for host in range(3) if host != cut]
    async with scene_of_each_slot(site, clients, camera_at=rest[0], viewers_at=(*rest,)) as made:
        of_cut = [scene for slot, scene in enumerate(made) if holders[slot].host == cut]
        there = [Alerts(site, scene.stream, (cut,)) for scene in of_cut]
        async with aside(site.hosts.cut(site.hosts[cut], "both")):
            began = time.monotonic()
            while time.monotonic() < began + 4:
                await asyncio.gather(*(alerts.post() for alerts in there))
            await asyncio.sleep(max(0.0, began + CUT_OFF_S - time.monotonic()))
        assert all(alerts.accepted for alerts in there)
        for scene, alerts in zip(of_cut, there, strict=True):
            await alerts.all_came(*scene.viewers)


async def test_a_stream_that_moved_while_its_host_was_cut_off_has_one_holder_when_that_is_back(
    site: Site, clients: Clients
) -> None:
    token, stream = site.token(), new_name()
    async with scene(site, clients, stream, camera_at=2, viewers_at=(0, 2)) as made:
        there, left = made.viewers
        async with aside(site.hosts.cut(site.hosts[2])):
            camera = await clients.camera(site[0].url, token)
            await claim(camera, stream, COMES_S)
            async with camera.streaming(10):
                have = there.frame_ids[-1]
                await eventually(lambda: there.frame_ids[-1] > have + 5, COMES_S, "the stream goes on where it moved")
                old = left.frame_ids[-1]
                await eventually(lambda: left.frame_ids[-1] > old + 5, COMES_S, "who is cut off has the old camera")
        async with camera.streaming(10):
            assert await made.camera.closed(HEALED_S) == CloseCode.TAKEN_OVER
            await assert_one_truth(site, made, what="a stream moved while its host was cut off")
            new = there.frame_ids[-1]
            await eventually(lambda: left.frame_ids[-1] > new, COMES_S, "who was cut off has the new camera")


async def test_lost_packets_and_a_long_way_slow_things_down_and_lose_nothing(site: Site, clients: Clients) -> None:
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2), fps=5) as made:
        alerts = AlertsOfStreams(made)
        async with aside(site.hosts.losing(0.05)), aside(site.hosts.delaying(0.1)):
            await made.flows(10)
            async with alerts.posting(10):
                await alerts.more(8)
            await alerts.all_came()
            await claims_work(site, clients, what="5 % loss and 100 ms delay")
        await made.flows(10)
        await assert_one_truth(site, made, what="5 % loss and 100 ms delay")
    assert_leases_hold(site, "5 % loss and 100 ms delay")
