"""Frames go straight from the publisher's gateway to those who want them, with or without a router."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.e2e.test_bus import House, watching
from tests.kit.clients import Camera, Clients, Viewer, eventually, http
from tests.kit.ml_stub import MlStub
from tests.kit.readers import accounted, gateway_figures
from watchout.common.bus.mesh import MemberCarrier

COMES_S = 30.0


@pytest.fixture
def house(watchout: Any) -> House:
    return House(watchout(start=False))


async def pictures(camera: Camera, *viewers: Viewer, number: int = 20) -> None:
    """Show so many, each of which comes to every viewer."""
    for _ in range(number):
        await camera.show()
        for viewer in viewers:
            await viewer.frame()


async def router_comes_back(house: House) -> None:
    house.router = house.started.start("router")

    async def healthy() -> bool:
        return all([(await http(f"{url}/health")).status == 200 for _, url in house.gateways])

    await eventually(healthy, COMES_S)


@pytest.mark.e2e
async def test_no_frame_for_a_gateway_or_bridge_of_this_machine_goes_through_the_router(
    house: House, clients: Clients
) -> None:
    stub = MlStub()
    await stub.start()
    try:
        near, far = [await house.add_gateway() for _ in range(2)]
        token = house.started.token()
        camera = await clients.camera(near, token)
        stream = await camera.register()
        viewer = await watching(clients, far, token, stream)
        house.started.start("mlbridge", {"ML_SERVICE_URL": stub.url, "ML_FPS": "5"})
        await camera.show()
        await viewer.frame()
        await pictures(camera, viewer)
        async with camera.streaming(10):
            await eventually(lambda: stub.looks, COMES_S)
        await eventually(lambda: house.figure(near, "frames_to_bus_total") > 20, COMES_S)
        assert house.figure("", "frames_routed_total") == 0
        late = await clients.viewer(far, token)
        await late.subscribe(stream)
        assert (await late.frame())["frameId"] >= 21
        before = house.figure(far, "frames_repeated_total")
        for _ in range(3):  # the camera's gateway sends its newest frame again for each
            picture = await http(f"{far}/streams/{stream}/frame.jpg", token=token)
            assert (picture.status, int(picture.headers["x-frame-id"])) == (200, late.frame_ids[-1])
        await camera.show()
        for each in (viewer, late):
            await eventually(lambda each=each: each.frame_ids[-1] == late.frame_ids[0] + 1, COMES_S)
        await eventually(lambda: house.figure(far, "frames_repeated_total") >= before + 3, COMES_S)
        for each in (viewer, late):
            await each.leave()
        await eventually(lambda: house.figure(far, "video_viewers") == 0, COMES_S)  # what they missed is counted then
        figures = await gateway_figures(far)
        assert accounted(figures) == figures["frames_out_total"] == len(viewer.frames) + len(late.frames)
    finally:
        await stub.stop()


@pytest.mark.e2e
async def test_frames_between_gateways_go_on_without_a_router_and_end_when_nobody_wants_them_after_its_return(
    house: House, clients: Clients
) -> None:
    near, far = [await house.add_gateway() for _ in range(2)]
    token = house.started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    staying, leaving = [await watching(clients, far, token, stream) for _ in range(2)]
    await camera.show()
    for viewer in (staying, leaving):
        await viewer.frame()
    house.router.kill()
    await asyncio.to_thread(house.router.wait)
    await pictures(camera, staying, leaving)
    await leaving.leave()
    await router_comes_back(house)
    await pictures(camera, staying)
    assert staying.frame_ids == list(range(1, len(staying.frame_ids) + 1)), "none was lost, none came twice"
    await staying.leave()

    async def ended() -> bool:
        before = house.figure(near, "frames_to_bus_total")
        local = await watching(clients, near, token, stream)
        await pictures(camera, local, number=5)
        await local.leave()
        return house.figure(near, "frames_to_bus_total") == before

    await eventually(ended, COMES_S)
    again = await watching(clients, far, token, stream)
    await pictures(camera, again)


@pytest.mark.e2e
async def test_a_viewer_that_left_while_the_router_was_away_costs_no_frames_after_its_return(
    house: House, clients: Clients
) -> None:
    near, far = [await house.add_gateway() for _ in range(2)]
    token = house.started.token()
    camera, here = await clients.camera(near, token), await clients.viewer(near, token)
    stream = await camera.register()
    await here.subscribe(stream)
    viewer = await watching(clients, far, token, stream)
    await camera.show()
    await viewer.frame()
    house.router.kill()
    await asyncio.to_thread(house.router.wait)
    await viewer.leave()
    await pictures(camera, here)
    await router_comes_back(house)

    async def ended() -> bool:
        before = house.figure(near, "frames_to_bus_total")
        await pictures(camera, here, number=5)
        return house.figure(near, "frames_to_bus_total") == before

    await eventually(ended, COMES_S)


@pytest.mark.e2e
async def test_a_gateway_that_is_killed_is_missed_by_nobody_else_and_leaves_no_file(
    house: House, clients: Clients
) -> None:
    near, far, third = [await house.add_gateway() for _ in range(3)]
    token = house.started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    lost, staying = await watching(clients, far, token, stream), await watching(clients, third, token, stream)
    await camera.show()
    for viewer in (lost, staying):
        await viewer.frame()
    house.gateways[1][0].kill()
    await pictures(camera, staying, number=40)
    assert staying.frame_ids == list(range(1, len(staying.frame_ids) + 1))
    home = house.started.home

    def listening(path: Any) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    assert sum(map(listening, home.glob("f-*"))) == 2


async def test_members_without_an_address_exchange_frames_with_those_that_have_one(
    in_one_process: Any, clients: Clients
) -> None:
    """As processes of the former release do, during an update."""
    started = await in_one_process(gateways=2)
    former = await started.start_gateway(MemberCarrier(started.bus.open_slot))
    await started.healthy()
    token = started.token()
    for publishing in (started.urls[0], former):
        camera = await clients.camera(publishing, token)
        stream = await camera.register()
        viewers = [await clients.viewer(url, token) for url in started.urls]
        for viewer in viewers:
            await viewer.subscribe(stream)
        await camera.show()
        for viewer in viewers:
            await viewer.frame()
        routed = started.bus.router.frames_sent
        await pictures(camera, *viewers, number=5)
        # To the former one alone, or from it to both others.
        assert started.bus.router.frames_sent - routed == (10 if publishing == former else 5)
