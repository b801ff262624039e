"""What `watchout-ctl doctor` and `cluster` see of real NATS servers: rights in the buckets, leases, beats."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace

from tests.kit.nats_servers import NatsSite
from watchout.common.bus.nats.connection import NatsConnection, connection_of
from watchout.common.bus.nats.kv import NatsClusterLink
from watchout.common.bus.nats.probe import look_at_bus
from watchout.common.bus.nats.site import look_at_site
from watchout.common.bus.slot_entries import Beat, Shape, SlotBeat, SlotEntry, encode
from watchout.common.settings import Settings, load

ME = "a" * 16


def of(url: str, name: str) -> Settings:
    return replace(load({"WATCHOUT_BUS": url, "CLUSTER_SLOTS": "3"}), cluster_name=name)


async def connected(connection: NatsConnection) -> None:
    async with asyncio.timeout(60):
        while not connection.connected:
            await asyncio.sleep(0.02)


async def test_a_right_that_a_router_needs_in_the_buckets_is_named_and_nothing_is_written(
    start_nats: Callable[..., NatsSite],
) -> None:
    name = f"t{secrets.token_hex(4)}"
    everything = f'"{name}.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.*"'
    narrow = f'{{ publish: [{everything}], subscribe: "{name}.>" }}'
    site = start_nats(
        1,
        f'authorization {{ users: [ {{user: "all", password: "p"}}, '
        f'{{user: "few", password: "p", permissions: {narrow}}} ] }}',
    )
    wanted = of(site.url_of("all", "p"), name)
    link = NatsClusterLink(connection := connection_of(wanted, "router"))
    await connected(connection)
    bucket = link.bucket("slots")
    revision = await bucket.compare_and_set("slot.0", encode(SlotEntry(ME, 7, "router.1", "a")), 0)
    good = await look_at_bus(wanted, [bucket.bucket])
    assert (good.denied, good.jetstream, [each.fault for each in good.buckets]) == ([], None, [None])
    few = await look_at_bus(of(site.url_of("few", "p"), name), [bucket.bucket])
    said = " ".join(few.denied)
    for what in (f"$kv.{name}-slots.", "stream.create.", "stream.update.", "stream.msg.get."):
        assert what in said
    assert (await bucket.read("slot.0")).revision == revision
    assert await bucket.compare_and_set("slot.1", b"{}", 0) == revision + 1, "nothing else was written"
    link.close()


async def test_leases_and_beats_of_a_site_are_seen_and_nothing_is_made_where_there_is_none(nats_bus: NatsSite) -> None:
    settings = of(nats_bus.url, f"t{secrets.token_hex(4)}")
    nothing = await look_at_site(settings, 0.1)
    assert (nothing.beats, nothing.leases, nothing.slots) == ({}, {}, None)
    assert nothing.fault is not None
    assert "not found" in nothing.fault
    assert (await look_at_site(settings, 0.1)).fault == nothing.fault, "the look made no bucket"
    link = NatsClusterLink(connection := connection_of(settings, "router"))
    await connected(connection)
    bucket, beats = link.bucket("slots"), link.broadcast("slots", lambda _: None)
    await bucket.compare_and_set("cluster", encode(Shape(2)), 0)
    entry = SlotEntry(ME, 7, "router.1", "a")
    revision = await bucket.compare_and_set("slot.0", encode(entry), 0)
    beat = Beat(ME, held=(SlotBeat(0, 7, revision),), name="router.1", host="a", pid=5, version="2.0", up_s=3.0)

    async def speak() -> None:
        while True:
            beats.send(encode(beat))
            await asyncio.sleep(0.05)

    speaking = asyncio.create_task(speak())
    async with asyncio.timeout(60):
        while not (found := await look_at_site(settings, 0.3)).beats:
            pass
    speaking.cancel()
    assert found.beats == {ME: beat}
    assert (found.slots, found.fault, found.denied) == (2, None, [])
    assert (found.leases[0].entry, found.leases[0].revision) == (entry, revision)
    assert found.leases[0].age_s is not None
    assert found.leases[1].entry is None
    assert [each.replicas for each in found.buckets] == [1, 0]
    beats.close()
    link.close()
