"""The frame mesh between two hosts is hurt while NATS is whole: frames are missed behind it, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import pytest

from tests.kit.clients import Clients, eventually, http
from tests.kit.cluster import COMES_S, FIGURES, HEALED_S, Site
from tests.kit.cluster_scenes import AlertsOfStreams, Scene, Scenes, aside, assert_one_truth, scene_of_each_slot
from watchout.common.settings.mesh_listen import mesh_listen

pytestmark = pytest.mark.e2e

#: Of frames and what answers them, what is lost. The short run has what is seen last: frames still go out.
WAYS: Final = ("both", "frames", "answers") if FIGURES else ("answers",)
RESETS: Final = 8


def rules(site: Site, lost: str, how: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    """Rules of iptables, each with the host where it holds, on the connections of host 0 to the mesh of host 1."""
    listen = mesh_listen(site[1].environ["MESH_LISTEN"])
    ports = f"{listen.first}:{listen.last}"
    here, there = site.hosts[0].address, site.hosts[1].address
    frames = (1, ("INPUT", "-p", "tcp", "-s", here, "--dport", ports, *how))
    answers = (0, ("INPUT", "-p", "tcp", "-s", there, "--sport", ports, *how))
    return {"both": [frames, answers], "frames": [frames], "answers": [answers]}[lost]


async def figure(site: Site, name: str) -> float:
    """A metric of all gateways together."""
    page = (await http(f"{site[2].url}/metrics")).body.decode()
    rows = [line for line in page.splitlines() if line.startswith(f'watchout_{name}{{process="gateway')]
    assert len(rows) == 3, rows
    return sum(float(line.rpartition(" ")[2]) for line in rows)


def behind(made: Scenes, index: int) -> Scenes:
    """The same with one of the viewers of each."""
    return Scenes([Scene(each.site, each.stream, each.camera, [each.viewers[index]]) for each in made])


@pytest.mark.parametrize("lost", WAYS)
async def test_a_cut_of_the_mesh_alone_is_noticed_costs_others_nothing_and_heals_with_the_newest_frame(
    site: Site, clients: Clients, lost: str
) -> None:
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        cut_off, others = behind(made, 0), behind(made, 1)
        async with alerts.posting(5):
            since = others.mark()
            async with contextlib.AsyncExitStack() as stack:
                for host, rule in rules(site, lost, ("-j", "DROP")):
                    await stack.enter_async_context(aside(site.hosts.hurt(site.hosts[host], rule)))

                async def noticed() -> bool:
                    return await figure(site, "mesh_links_down") >= 1

                await eventually(noticed, COMES_S, "the gateway of the camera does not notice")
                await alerts.more(3)
                await others.flows(10)
                have = [len(viewer.frames) for viewer in cut_off.viewers]
                await others.flows(10)
                assert [len(viewer.frames) for viewer in cut_off.viewers] == have, "nothing comes through the cut"
                others.assert_no_gap(f"the mesh of another host was cut ({lost})", since)
            newest = {each.stream: each.viewers[0].frame_ids[-1] for each in others}
            for each in cut_off:
                seen = len(each.viewers[0].frames)
                await eventually(lambda each=each, seen=seen: len(each.viewers[0].frames) > seen, HEALED_S)
                assert each.viewers[0].frame_ids[seen] >= newest[each.stream], "no frame from before the cut's end"
        await alerts.all_came()
        await assert_one_truth(site, made, what=f"the mesh was cut ({lost})")


async def test_a_storm_of_resets_in_the_mesh_leaves_one_link_and_loses_no_alert(site: Site, clients: Clients) -> None:
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        before = await figure(site, "mesh_links")
        async with alerts.posting(5):
            for _ in range(RESETS):
                async with contextlib.AsyncExitStack() as stack:
                    for host, rule in rules(site, "both", ("-j", "REJECT", "--reject-with", "tcp-reset")):
                        await stack.enter_async_context(aside(site.hosts.hurt(site.hosts[host], rule)))
                    await asyncio.sleep(0.1)
            await made.flows(10)

        async def whole() -> bool:
            return await figure(site, "mesh_links_down") == 0 and await figure(site, "mesh_links") <= before

        await eventually(whole, COMES_S, "one link, not one for each reset")
        await alerts.all_came()
