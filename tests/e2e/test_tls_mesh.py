"""Two hosts, each with a home of its own, joined by NATS: frames go straight between them, over TLS."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_bus import House, watching
from tests.e2e.test_frame_mesh import pictures
from tests.kit.clients import Clients, eventually
from tests.kit.mesh_hosts import Authority, authority
from tests.kit.ml_stub import MlStub
from tests.kit.nats_servers import NatsSite
from tests.kit.ports import free_port

COMES_S = 60.0


@pytest.fixture
def ca() -> Iterator[Authority]:
    with authority() as made:
        yield made


@pytest.fixture
def house(watchout: Callable[..., Any], ca: Authority, nats_bus: NatsSite) -> House:
    started = watchout(
        start=False,
        environ={
            "WATCHOUT_BUS": nats_bus.url,
            "CLUSTER_NAME": f"t{uuid.uuid4().hex[:8]}",
            "MESH_LISTEN": "tls://127.0.0.1:0",
        },
    )
    shutil.copytree(ca.home("a", "127.0.0.1"), started.home)
    started.home.chmod(0o700)
    return House(started)


def other_host(house: House, ca: Authority, name: str, address: str) -> dict[str, str]:
    """The environment of a process on another host; sessions are those of the first."""
    home = house.started.directory / name
    shutil.copytree(ca.home(name, address), home)
    home.chmod(0o700)
    store = house.started.home / "sessions.db"
    return {"WATCHOUT_HOME": str(home), "MESH_LISTEN": f"tls://{address}:0", "DATABASE_URL": f"sqlite:{store}"}


async def gateway_on(house: House, environ: dict[str, str]) -> str:
    port = free_port()
    environ = {**environ, "WATCHOUT_PORT": str(port), "HONCHO_PROCESS_NAME": f"gateway.{port}"}
    process = house.started.start("gateway", environ)
    await asyncio.to_thread(process.wait_for_output, "gateway ready", COMES_S)
    return f"http://127.0.0.1:{port}"


@pytest.mark.e2e
async def test_frames_go_straight_between_hosts_and_to_a_bridge_on_a_third(
    house: House, ca: Authority, clients: Clients
) -> None:
    stub = MlStub()
    await stub.start()
    try:
        near = await house.add_gateway()
        far_host = other_host(house, ca, "b", "127.0.0.2")
        far = await gateway_on(house, far_host)
        token = house.started.token()
        camera, back = await clients.camera(near, token), await clients.camera(far, token)
        stream, other = await camera.register(), await back.register()
        viewer, viewer_near = await watching(clients, far, token, stream), await watching(clients, near, token, other)
        beside = await gateway_on(house, far_host)
        third = await watching(clients, beside, token, other)
        ml = {**other_host(house, ca, "c", "127.0.0.3"), "ML_SERVICE_URL": stub.url, "ML_FPS": "5"}
        house.started.start("mlbridge", ml)
        await pictures(camera, viewer)
        await pictures(back, viewer_near, third)
        async with camera.streaming(10):
            await eventually(lambda: stub.looks, COMES_S)
        await eventually(lambda: house.figure(near, "frames_to_bus_total") > 20, COMES_S)
        assert house.figure("", "frames_routed_total") == 0, "no frame passes the router"
        logged = house.started.output
        assert "tls:127.0.0.2:" in logged
        assert "frames do not reach" not in logged
    finally:
        await stub.stop()


@pytest.mark.e2e
async def test_a_host_with_a_foreign_certificate_gets_no_frames_and_the_others_feel_nothing(
    house: House, ca: Authority, clients: Clients
) -> None:
    near = await house.add_gateway()
    with authority() as other:
        foreign = await gateway_on(house, other_host(house, other, "x", "127.0.0.4"))
    good = await gateway_on(house, other_host(house, ca, "b", "127.0.0.2"))
    token = house.started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    shut_out, viewer = await watching(clients, foreign, token, stream), await watching(clients, good, token, stream)
    await camera.show()
    await viewer.frame()
    await pictures(camera, viewer)

    async def said() -> bool:
        await camera.show()
        await viewer.frame()
        return "frames do not reach another host" in house.started.output

    await eventually(said, COMES_S)
    assert shut_out.frames == []
    assert Path(house.started.home / "mesh" / "ca.crt").exists()
