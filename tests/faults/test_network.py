"""The network between a router and a bridge on another host: lost packets, one direction only, resets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.ml_stub import MlStub
from tests.kit.network import Host, another_host
from tests.kit.ports import free_port
from tests.kit.processes import BIN, Process
from tests.kit.site import COMES_S, Site, cameras

pytestmark = pytest.mark.e2e
#: How long a fault of the network lasts: after it was noticed.
FAULT_S = 3.0
STREAM = "cam-1"


@pytest.fixture
def host() -> Iterator[Host]:
    with another_host() as host:
        yield host


@pytest.fixture
async def site(watchout, host: Host) -> AsyncIterator[Site]:
    port = free_port()
    # The gateway serves on loopback, the router listens on the link to the other host.
    started = watchout(start=False, environ={"ROUTER_LISTEN": f"tcp://{host.here}:{port}", "ALERT_COOLDOWN_S": "0"})
    site = Site(started, port, host.here)
    await site.begin()
    yield site
    site.close()


class Scene:
    """A camera and a viewer here, a bridge there, an ML service that alerts on every frame."""

    def __init__(self, site: Site, host: Host, stub: MlStub, bridge: Process, viewer) -> None:
        self.site, self.host, self.stub, self.bridge, self.viewer = site, host, stub, bridge, viewer
        self._port = site.address.rpartition(":")[2]

    @property
    def from_router(self) -> tuple[str, ...]:
        """The beginning of a rule on what the router sends to the bridge."""
        return "INPUT", "-p", "tcp", "--sport", self._port

    @property
    def to_router(self) -> tuple[str, ...]:
        return "OUTPUT", "-p", "tcp", "--dport", self._port

    async def works(self) -> None:
        """The bridge is shown new frames, and their alerts come."""
        asked, alerts = len(self.stub.requests), len(self.alerts)
        await eventually(lambda: len(self.stub.requests) > asked + 3, COMES_S, "the service is shown new frames")
        await eventually(lambda: len(self.alerts) > alerts + 3, COMES_S, "new alerts come")

    @property
    def alerts(self) -> list[dict]:
        return [message for message in self.viewer.heard if message["type"] == "alert"]

    def assert_each_alert_once_and_in_order(self) -> None:
        frames = [alert["frameId"] for alert in self.alerts]
        assert frames == sorted(set(frames))

    async def frames_flow(self) -> None:
        """The viewer on this host gets frames, whatever is with the bridge."""
        count = len(self.viewer.frames)
        await eventually(lambda: len(self.viewer.frames) > count + 5, COMES_S)


@contextlib.asynccontextmanager
async def scene(site: Site, host: Host, clients: Clients) -> AsyncIterator[Scene]:
    stub = MlStub(host.here)
    stub.mode = "answer"
    await stub.start()
    try:
        async with cameras(site, clients, [STREAM]):
            viewer = await clients.viewer(site.started.url, site.started.token())
            await viewer.subscribe(STREAM, consumes=["alert", "video-frame"])
            bridge = site.bridge(stub, await site.new_key("ml"), within=host.within)
            made = Scene(site, host, stub, bridge, viewer)
            await made.works()
            yield made
    finally:
        await stub.stop()


async def gone(site: Site, times: int) -> None:
    """The router has noticed so often that a bridge does not answer."""

    def noticed() -> int:
        lines = site.router.output.splitlines()
        return sum("member gone" in line and "mlbridge" in line for line in lines)

    await eventually(lambda: noticed() >= times, COMES_S, "the router takes the bridge for gone")


async def test_the_bridge_works_on_through_packets_lost_now_and_then(site: Site, host: Host, clients: Clients) -> None:
    async with scene(site, host, clients) as made:
        some = ("-m", "statistic", "--mode", "random", "--probability", "0.2", "-j", "DROP")
        with host.hurt((*made.from_router, *some), (*made.to_router, *some)):
            await made.works()
            await made.frames_flow()
        await made.works()
        made.assert_each_alert_once_and_in_order()
        assert made.bridge.running


@pytest.mark.parametrize("direction", ["both", "from the router", "to the router"])
async def test_a_cut_is_noticed_harms_nobody_else_and_heals_by_itself(
    site: Site, host: Host, clients: Clients, direction: str
) -> None:
    async with scene(site, host, clients) as made:
        rules = {"both": [made.from_router, made.to_router], "from the router": [made.from_router],
                 "to the router": [made.to_router]}[direction]  # fmt: skip
        with host.hurt(*((*rule, "-j", "DROP") for rule in rules)):
            await gone(site, 1)
            await made.frames_flow()
            await asyncio.sleep(FAULT_S)
            asked = len(made.stub.requests)
            await asyncio.sleep(1.0)
            assert len(made.stub.requests) == asked, "a bridge that is cut off is shown nothing"
            await made.frames_flow()
        await made.works()
        made.assert_each_alert_once_and_in_order()
        assert made.bridge.running


async def test_a_storm_of_resets_ends_with_a_bridge_that_works(site: Site, host: Host, clients: Clients) -> None:
    async with scene(site, host, clients) as made:
        reset = ("-j", "REJECT", "--reject-with", "tcp-reset")
        for _ in range(12):
            with host.hurt((*made.from_router, *reset), (*made.to_router, *reset)):
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)
        await made.frames_flow()
        await made.works()
        made.assert_each_alert_once_and_in_order()

        assert made.bridge.running

        async def one_bridge() -> bool:
            stats = site.started.run("stats", [str(BIN / "watchout-ctl"), "stats", "--json"])
            assert await stats.ended(COMES_S) == 0
            return [member["kind"] for member in json.loads(stats.output)["members"]].count("mlbridge") == 1

        await eventually(one_bridge, COMES_S, "one bridge at the end, not one for each reset")
