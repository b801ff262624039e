"""Three hosts that share the slots: what works on one machine works between machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.cluster import COMES_S, Site
from tests.kit.cluster_scenes import Alerts, scene
from tests.kit.ml_stub import MlStub

pytestmark = pytest.mark.e2e


@pytest.fixture
async def service(site: Site) -> AsyncIterator[MlStub]:
    """An ML service with a bridge on the third host."""
    stub = MlStub(site.hosts.here)
    await stub.start()
    bridge = site[2].start("mlbridge", {"ML_SERVICE_URL": stub.url})
    yield stub
    await asyncio.to_thread(bridge.terminate)
    await stub.stop()


async def test_frames_pictures_alerts_and_counts_are_those_of_all_hosts(
    site: Site, clients: Clients, service: MlStub
) -> None:
    token, stream = site.token(), new_name()
    async with scene(site, clients, stream, camera_at=0, viewers_at=(0, 1, 2)) as made:
        for machine in site:

            async def known(url: str = machine.url) -> bool:
                picture, listed, where, stats = [
                    await http(f"{url}{path}", token=token)
                    for path in (f"/streams/{stream}/frame.jpg", "/streams", f"/streams/{stream}/where", "/stats")
                ]
                if {picture.status, listed.status, where.status, stats.status} != {200}:
                    return False
                return (
                    [row["id"] for row in listed.json["streams"]] == [stream]
                    and where.json["url"] == site[0].url
                    and (stats.json["totalProducers"], stats.json["totalVideoConsumers"]) == (1, 3)
                )

            await eventually(known, COMES_S, "a host knows the picture, the stream, its host and the counts")

        service.mode = "answer"
        await eventually(lambda: len(service.requests) > 3, COMES_S, "the ML service on another host is shown frames")
        alert = await made.viewers[1].find("alert", COMES_S)
        service.mode = "none"

        async def pictured() -> bool:
            picture = await http(f"{site[1].url}/alerts/{alert['id']}/frame.jpg", token=token)
            return picture.status == 200

        await eventually(pictured, COMES_S, "the picture of the alert")

        async def recent() -> bool:
            found = await http(f"{site[2].url}/alerts?streamId={stream}", token=token)
            return found.status == 200 and alert["id"] in [row["id"] for row in found.json["alerts"]]

        await eventually(recent, COMES_S, "the alert is among the recent ones")

        alerts = Alerts(site, stream)
        for _ in range(9):
            assert await alerts.post()
        await alerts.all_came(*made.viewers, made.camera)
        await made.flows()
