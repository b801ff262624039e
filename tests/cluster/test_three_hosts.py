"""Three hosts that share the slots: what works on one machine works between machines."""

from __future__ import annotations

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
    bridge.terminate()
    await stub.stop()


async def test_frames_pictures_alerts_and_counts_are_those_of_all_hosts(
    site: Site, clients: Clients, service: MlStub
) -> None:
    token, stream = site.token(), new_name()
    async with scene(site, clients, stream, camera_at=0, viewers_at=(0, 1, 2)) as made:
        for machine in site:
            picture = await http(f"{machine.url}/streams/{stream}/frame.jpg", token=token)
            assert picture.status == 200, picture.body
            listed = (await http(f"{machine.url}/streams", token=token)).json["streams"]
            assert [row["id"] for row in listed] == [stream]
            where = (await http(f"{machine.url}/streams/{stream}/where", token=token)).json
            assert where["url"] == site[0].url

            async def counted(url: str = machine.url) -> bool:
                stats = (await http(f"{url}/stats")).json
                return (stats["totalProducers"], stats["totalVideoConsumers"]) == (1, 3)

            await eventually(counted, COMES_S)

        service.mode = "answer"
        await eventually(lambda: len(service.requests) > 3, COMES_S, "the ML service on another host is shown frames")
        alert = await made.viewers[1].find("alert", COMES_S)
        service.mode = "none"

        async def pictured() -> bool:
            picture = await http(f"{site[1].url}/alerts/{alert['id']}/frame.jpg", token=token)
            return picture.status == 200

        await eventually(pictured, COMES_S, "the picture of the alert")
        recent = (await http(f"{site[2].url}/alerts?streamId={stream}", token=token)).json["alerts"]
        assert alert["id"] in [row["id"] for row in recent]

        alerts = Alerts(site, stream)
        for _ in range(9):
            assert await alerts.post()
        await alerts.all_came(*made.viewers, made.camera)
        await made.flows()
