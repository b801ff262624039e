"""A site whose routers share the streams over real NATS: processes of all kinds, one router of which is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.e2e.test_bus import House
from tests.e2e.test_ctl_cluster import cluster
from tests.e2e.test_slots import CAMS, SLOTS, alerts_of, post_alert
from tests.kit.clients import Clients, Viewer, eventually, http
from tests.kit.nats_servers import NatsSite
from tests.kit.prefork import run_forked
from tests.kit.processes import BIN, REPOSITORY, Watchout

pytestmark = pytest.mark.e2e

COMES_S: Final = 60.0
#: The slots are shared within this: a router that did not take a slot that it was given gets none for a minute.
SHARED_S: Final = 180.0


async def asked(started: Watchout) -> Any:
    """What `watchout-ctl stats` is told, once any router answers in time."""

    async def answered() -> Any:
        command = [str(BIN / "watchout-ctl"), "stats", "--json"]
        told = await asyncio.to_thread(run_forked, REPOSITORY, command, started.environ)
        return None if told.returncode else json.loads(told.stdout)

    return await eventually(answered, COMES_S, "no router answers")


def routers_of(found: Any) -> list[Any]:
    """The router processes of all hosts in what `watchout-ctl cluster --json` prints."""
    return [one for host in found["hosts"] for one in host["processes"] if one["kind"] == "router"]


async def whole_site(started: Watchout) -> Any:
    """What `watchout-ctl cluster` tells of the site, once nothing is missing and frames flow; None before."""
    code, text = await cluster(started, "--json")
    if code:
        return None
    found = json.loads(text)
    # A slot on its way from one router to the other is told by both for a moment, and its cameras by none.
    told_once = sorted(slot for one in routers_of(found) for slot in one["slots"]) == list(range(SLOTS))
    cameras = sum(slot["cameras"] for slot in found["slots"])
    flows = found["links"] and found["links"][0]["framesPerS"] > 0
    return found if told_once and cameras == len(CAMS) and flows else None


async def test_streams_of_all_slots_outlive_a_router_that_is_killed(
    watchout: Any, clients: Clients, start_nats: Callable[..., NatsSite]
) -> None:
    site = start_nats()
    environ = {
        "WATCHOUT_BUS": site.url,
        "CLUSTER_SLOTS": str(SLOTS),
        "CLUSTER_NAME": f"t{secrets.token_hex(4)}",
        "MESSAGE_RATE": "1000",
        "ROUTER_TIMEOUT_S": "3",
    }
    started = watchout(start=False, environ=environ)
    house = House(started)
    second = started.start("router")
    near, far = await house.add_gateway(), await house.add_gateway()
    token = started.token()

    async def whole() -> bool:
        return all([(await http(f"{url}/health")).json["status"] == "healthy" for url in (far, near)])

    await eventually(whole, COMES_S, "a slot has no router")
    viewers: dict[str, Viewer] = {}
    accepted: dict[str, list[str]] = {stream: [] for stream in CAMS}
    over = False

    async def raise_alerts(stream: str) -> None:
        refused = False
        while refused or not over:  # one that was refused is posted again: a router may have accepted it all the same
            name = f"{stream}-{len(accepted[stream])}"
            refused = await post_alert(near, stream, name) != 202
            if not refused:
                accepted[stream].append(name)
            await asyncio.sleep(0.05)

    async with contextlib.AsyncExitStack() as stack:
        for stream in CAMS:
            camera = await clients.camera(near, token)
            await camera.register(stream)
            viewers[stream] = await clients.viewer(far, token)
            await viewers[stream].subscribe(stream)
            await stack.enter_async_context(camera.streaming(10))
            await viewers[stream].frame()

        async def all_active() -> bool:
            stats = await http(f"{far}/stats")
            return stats.status == 200 and stats.json["activeStreams"] == sorted(CAMS)

        await eventually(all_active, COMES_S, "a stream is not active")
        raising = [asyncio.create_task(raise_alerts(stream)) for stream in CAMS]
        await eventually(lambda: all(len(names) > 3 for names in accepted.values()), COMES_S)

        async def slots_of_second() -> set[int]:
            routers = (await asked(started))["routers"]
            pids = {each["router"]["pid"] for each in routers}
            return (
                {each["slot"] for each in routers if each["router"]["pid"] == second.pid} if len(pids) == 2 else set()
            )

        await eventually(slots_of_second, SHARED_S, "the second router has no slot, or all of them")

        found = await eventually(lambda: whole_site(started), COMES_S, "the site is not whole")
        assert [slot["state"] for slot in found["slots"]] == ["served"] * SLOTS
        assert len(found["hosts"]) == 1
        assert {one["pid"] for one in routers_of(found)} == {house.router.pid, second.pid}
        taken_over = await eventually(slots_of_second, COMES_S, "the second router has no slot any more")
        assert [server["fault"] for server in found["nats"]["servers"]] == [""]
        assert [bucket["fault"] for bucket in found["nats"]["buckets"]] == ["", ""]
        second.kill()
        before = {stream: len(viewer.frames) for stream, viewer in viewers.items()}
        await eventually(lambda: all(len(v.frames) > before[s] + 5 for s, v in viewers.items()), COMES_S)

        async def by_the_first() -> bool:
            routers = (await asked(started))["routers"]
            return {(each["slot"], each["router"]["pid"]) for each in routers} == {
                (slot, house.router.pid) for slot in range(SLOTS)
            }

        await eventually(by_the_first, COMES_S, "nobody takes the slots")
        await eventually(whole, COMES_S, "gateways miss a slot")
        for slot in taken_over:
            fresh = await clients.camera(far, token)
            await fresh.register(f"fresh-of-{CAMS[slot]}")
        seen = {stream: len(names) for stream, names in accepted.items()}
        await eventually(lambda: all(len(accepted[s]) > seen[s] + 3 for s in CAMS), COMES_S)
        over = True
        await asyncio.gather(*raising)
    for stream, viewer in viewers.items():
        await eventually(lambda s=stream, v=viewer: len(alerts_of(v)) >= len(accepted[s]), COMES_S)
        assert alerts_of(viewer) == accepted[stream]
        assert viewer.frame_ids == sorted(set(viewer.frame_ids))

    async def told_all() -> bool:
        stats = await asked(started)
        kinds = sorted(member["kind"] for member in stats["members"])  # a command that ended may be told once more
        return ([each["slot"] for each in stats["routers"]], kinds) == (
            list(range(SLOTS)), ["ctl", "gateway", "gateway"],
        )  # fmt: skip

    await eventually(told_all, COMES_S, "not each slot, or not each process once")
    assert "member joined" in house.router.output
    assert re.search(r"over\W+nats", house.router.output)
    assert not re.search(r"over\W+ipc", house.router.output)
    house.router.kill()

    async def nobody() -> Any:
        code, text = await cluster(started, "--json")
        found = json.loads(text)
        missing = code == 1 and all(slot["state"] == "missing" for slot in found["slots"])
        return found if missing and found["slots"][0]["leaseAgeS"] is not None else None

    found = await eventually(nobody, COMES_S, "the command does not say that nobody is there")
    for slot in range(SLOTS):
        assert any(sentence.startswith(f"Slot {slot} has no router") for sentence in found["missing"])
