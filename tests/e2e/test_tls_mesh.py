"""Two hosts, each with a home of its own, joined by NATS: frames go straight between them, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.test_bus import House, watching
from tests.e2e.test_frame_mesh import pictures
from tests.kit.clients import Clients, eventually
from tests.kit.mesh_hosts import Authority, authority, files
from tests.kit.ml_stub import MlStub
from tests.kit.nats_servers import NatsSite
from tests.kit.ports import free_port
from tests.kit.processes import JOINED, Process

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


def over_tls(gateway: Process, address: str) -> list[object]:
    """The connections of others to a gateway's port of the frame mesh."""
    (port,) = map(int, re.findall(rf"tls:{re.escape(address)}:(\d+)/", gateway.output))
    found = psutil.Process(gateway.pid).net_connections("tcp")
    return [each for each in found if each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED]


async def gateway_on(house: House, environ: dict[str, str]) -> str:
    port = free_port()
    environ = {**environ, "WATCHOUT_PORT": str(port), "HONCHO_PROCESS_NAME": f"gateway.{port}"}
    process = house.started.start("gateway", environ)
    for text in ("gateway ready", JOINED["gateway"]):
        await asyncio.to_thread(process.wait_for_output, text, COMES_S)
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
        beside, process = await gateway_on(house, far_host), house.started.processes[-1]
        third = await watching(clients, beside, token, other)
        ml = {**other_host(house, ca, "c", "127.0.0.3"), "ML_SERVICE_URL": stub.url, "ML_FPS": "5"}
        house.started.start("mlbridge", ml)
        await pictures(camera, viewer)
        await pictures(back, viewer_near, third)
        assert over_tls(process, "127.0.0.2") == [], "a gateway of its own home sends to its socket"
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
@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_host_with_a_foreign_certificate_gets_no_frames_and_the_others_feel_nothing(
    house: House, ca: Authority, clients: Clients, wrong: str
) -> None:
    near = await house.add_gateway()
    if wrong == "authority":
        with authority() as other:
            environ = other_host(house, other, "x", "127.0.0.4")
    else:  # a certificate of the cluster, but another host's
        environ = other_host(house, ca, "x", "127.0.0.9") | {"MESH_LISTEN": "tls://127.0.0.4:0"}
    foreign = await gateway_on(house, environ)
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


def stranger(home: Path | None = None) -> ssl.SSLContext:
    """Who takes any certificate, and shows that of a home, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if home is not None:
        context.load_cert_chain(files(home).cert, files(home).key)
    return context


@pytest.mark.e2e
async def test_strangers_at_the_port_are_refused_and_bounded_and_a_new_certificate_is_shown_without_a_restart(
    house: House, ca: Authority, clients: Clients
) -> None:
    near = await house.add_gateway()
    (port,) = map(int, re.findall(r"tls:127\.0\.0\.1:(\d+)/", house.gateways[0][0].output))
    far = await gateway_on(house, other_host(house, ca, "b", "127.0.0.2"))
    token = house.started.token()
    camera = await clients.camera(far, token)
    viewer = await watching(clients, near, token, await camera.register())

    async def greeting(home: Path | None = None) -> bytes:
        """What the port says to somebody with the certificate of a home, or without."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=stranger(home))
            try:
                async with asyncio.timeout(COMES_S):
                    return await reader.read(64)
            finally:
                writer.transport.abort()
        return b""

    with authority() as other:
        for home in (None, other.home("x", "127.0.0.3")):
            assert await greeting(home) == b"", "no certificate of the cluster: not a word of the frame socket"
    assert await greeting(ca.home("d", "127.0.0.3")) != b""
    await eventually(lambda: house.figure(near, "mesh_refused_total") == 2, COMES_S)

    async def bounded() -> bool:
        """Whether of 24 who say nothing 8 are closed at once, long before the time for a handshake."""
        began = time.monotonic()
        silent = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.3", 0)) for _ in range(24)]
        try:
            while (closed := sum(reader.at_eof() for reader, _ in silent)) < 8:
                await asyncio.sleep(0.02)
            await pictures(camera, viewer)
            return closed == 8 and time.monotonic() - began < 4
        finally:
            for _, writer in silent:
                writer.transport.abort()

    await eventually(bounded, COMES_S, "those that exceed the bound are closed, and nobody else")

    def shown() -> bytes:
        return ssl.get_server_certificate(("127.0.0.1", port)).encode()

    new = ca.home("a", "127.0.0.1")
    assert await asyncio.to_thread(shown) != files(new).cert.read_bytes()
    for fresh, used in zip(
        (files(new).key, files(new).cert), (files(house.started.home).key, files(house.started.home).cert), strict=True
    ):
        shutil.copy(fresh, used)

    async def renewed() -> bool:
        return await asyncio.to_thread(shown) == files(new).cert.read_bytes()

    await eventually(renewed, COMES_S, "the new certificate is shown")
    await pictures(camera, viewer)
