"""Routers of a site of three hosts are killed, stopped, and lose their store: running streams feel nothing."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import nats
import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.cluster import COMES_S, OPERATOR, PATIENCE, Site
from tests.kit.cluster_leases import assert_leases_hold
from tests.kit.cluster_scenes import AlertsOfStreams, assert_one_truth, claims_work, scene_of_each_slot

pytestmark = pytest.mark.e2e

#: Claims of a slot work again so long after its router was lost.
ROUTER_BACK_S: Final = 5.0 * PATIENCE


async def test_a_killed_router_costs_no_frame_and_no_alert_and_its_slots_are_taken(
    site: Site, clients: Clients
) -> None:
    holders = await asyncio.to_thread(site.shared_slots)
    killed = holders[0].process
    slots = [slot for slot, holder in holders.items() if holder.process is killed]
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            await alerts.more(2)
            since = made.mark()
            await asyncio.to_thread(killed.kill)
            await claims_work(site, clients, slots=slots, within_s=ROUTER_BACK_S, what="a router was killed")
            await made.flows(10)
            await alerts.more(3)
            made.assert_no_gap("a router was killed", since)
        await alerts.all_came()
        await asyncio.to_thread(site[holders[0].host].start, "router")
        await asyncio.to_thread(site.shared_slots)
        await assert_one_truth(site, made)
        await made.flows()
    assert_leases_hold(site)


async def test_a_router_that_was_stopped_and_has_a_successor_says_nothing_that_counts(
    site: Site, clients: Clients
) -> None:
    """SIGSTOP makes two live routers of one slot for a moment: it wakes as one that has the slot."""
    holders = await asyncio.to_thread(site.shared_slots)
    slot, old = next((slot, holder.process) for slot, holder in holders.items())
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            since = made.mark()
            await asyncio.to_thread(old.pause)

            async def taken() -> bool:
                found = await asyncio.to_thread(site.told_slots)
                return slot in found and found[slot].epoch > holders[slot].epoch

            await eventually(taken, COMES_S, "nobody takes the slot")
            said = len(old.lines)
            old.resume()
            await eventually(lambda: "slot given up" in "".join(old.lines[said:]), COMES_S, "it gives its slots up")
            await alerts.more(5)
            await made.flows(20)
            made.assert_no_gap("a router was stopped, and went on", since)
        await alerts.all_came()
        await assert_one_truth(site, made)
        await claims_work(site, clients, what="a router was stopped, and went on")


async def test_deleted_buckets_are_made_anew_and_nothing_is_felt(site: Site, clients: Clients) -> None:
    before = await asyncio.to_thread(site.slots)
    async with scene_of_each_slot(site, clients, viewers_at=(1, 2)) as made:
        alerts = AlertsOfStreams(made)
        async with alerts.posting(5):
            since = made.mark()
            await delete_buckets(site)
            await alerts.more(10)
            await made.flows(20)
            made.assert_no_gap("the buckets were deleted", since)
        await alerts.all_came()
        await assert_one_truth(site, made, what="the buckets were deleted")
        await claims_work(site, clients, what="the buckets were deleted")
    after = await asyncio.to_thread(site.slots)
    assert all(after[slot].epoch >= before[slot].epoch for slot in before), "an epoch never falls"
    assert_leases_hold(site, "the buckets were deleted")


async def delete_buckets(site: Site) -> None:
    """Delete what routers store, as an operator can by mistake."""
    files = site.operator_files()
    context = ssl.create_default_context(cafile=files["ca"])
    context.load_cert_chain(files["cert"], files["key"])
    url = f"tls://{site.hosts[0].address}:4222"
    client = await nats.connect(url, tls=context, user=OPERATOR, password=OPERATOR, connect_timeout=COMES_S)
    try:
        for bucket in ("slots", "records"):
            assert await client.jetstream(timeout=COMES_S).delete_stream(f"KV_watchout-{bucket}")
    finally:
        await client.close()
