"""Who was told that it is subscribed, or registered, gets every alert from then on, however late the router hears."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.test_nats_bus import environ_of, two_gateways
from tests.kit import relays
from tests.kit.clients import Client, Clients, eventually, http
from tests.kit.memory_transport import MemoryMemberTransport
from tests.kit.nats_servers import NatsSite
from tests.kit.one_process import OneProcess
from tests.kit.processes import SERVICE_TOKEN
from watchout.common.bus.messages import Interest, Message, PublicationState, decode_from_member

pytestmark = pytest.mark.e2e


async def two(in_one_process: Callable[..., Any]) -> OneProcess:
    """Two gateways, whose ends of the bus are in the order of their URLs."""
    started: OneProcess = await in_one_process()
    await started.start_gateway()
    await started.healthy()
    return started


def late(started: OneProcess, gateway: int, kind: type[Message]) -> MemoryMemberTransport:
    """The end of a gateway whose messages to the router wait from its next one of this kind on."""
    end = list(started.bus.members.values())[gateway]
    end.is_late = lambda message: isinstance(decode_from_member(message).body, kind)
    return end


async def post(url: str, stream: str, alert_id: str) -> None:
    body = {"id": alert_id, "streamId": stream, "severity": "low", "message": "m"}
    assert (await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status == 202


async def acknowledge(client: Client, stream: str, alert_id: str) -> None:
    await client.send("acknowledge", streamId=stream, alertId=alert_id)
    await client.find("success", event="acknowledged")


def heard(client: Client) -> list[str]:
    """The ids of the alerts that came, and of the acknowledged ones, in their order."""
    of = {"alert": "id", "alert-acknowledged": "alertId"}
    return [message[of[message["type"]]] for message in client.heard if message["type"] in of]


async def test_a_viewer_gets_each_alert_after_the_answer_once_and_none_before(in_one_process, clients: Clients):
    started = await two(in_one_process)
    near, far = started.urls
    token = started.token()
    camera = await clients.camera(near, token)
    await camera.register("cam")
    await post(near, "cam", "before")
    await post(near, "door", "elsewhere-1")
    waits = late(started, 1, Interest)
    viewer = await clients.viewer(far, token)
    await viewer.subscribe("cam")
    await eventually(lambda: waits.late)
    await post(near, "cam", "a1")
    await post(near, "door", "elsewhere-2")
    await post(near, "cam", "a2")
    await acknowledge(camera, "cam", "a1")
    other = await clients.viewer(far, token)
    await other.send("subscribe", streamId="cam", consumes=["alert"])  # its look-up waits behind the interest
    assert heard(viewer) == []
    waits.let_go()
    await other.find("success", event="subscribed")
    await post(near, "cam", "a3")
    await eventually(lambda: "a3" in heard(viewer))
    assert heard(viewer) == ["a1", "a2", "a1", "a3"], "the second one is the acknowledgement"
    await eventually(lambda: heard(other))
    assert heard(other) == ["a3"]


async def test_who_asks_for_recent_alerts_gets_each_once(in_one_process, clients: Clients):
    started = await two(in_one_process)
    near, far = started.urls
    token = started.token()
    await (await clients.camera(near, token)).register("cam")
    await post(near, "cam", "before")
    waits = late(started, 1, Interest)
    viewer = await clients.viewer(far, token)
    await viewer.send("subscribe", streamId="cam", consumes=["alert"], alertsSince=1)
    await eventually(lambda: waits.late)
    await post(near, "cam", "a1")
    waits.let_go()
    await viewer.find("success", event="subscribed")
    await post(near, "cam", "a2")
    await eventually(lambda: "a2" in heard(viewer))
    assert heard(viewer) == ["before", "a1", "a2"]


async def test_a_viewer_at_the_gateway_of_the_camera_misses_none_either(in_one_process, clients: Clients):
    started = await two(in_one_process)
    here, elsewhere = started.urls
    token = started.token()
    await (await clients.camera(here, token)).register("cam")
    await post(elsewhere, "cam", "before")
    waits = late(started, 0, Interest)
    viewer = await clients.viewer(here, token)
    await viewer.subscribe("cam")
    await eventually(lambda: waits.late)
    await post(elsewhere, "cam", "a1")
    waits.let_go()
    await post(elsewhere, "cam", "a2")
    await eventually(lambda: "a2" in heard(viewer))
    assert heard(viewer) == ["a1", "a2"]


async def test_nor_while_the_camera_moves_to_another_gateway(in_one_process, clients: Clients):
    started = await two(in_one_process)
    here, elsewhere = started.urls
    token = started.token()
    camera = await clients.camera(here, token)
    await camera.register("cam")
    waits = late(started, 0, Interest)
    viewer = await clients.viewer(here, token)
    await viewer.subscribe("cam")
    await post(elsewhere, "cam", "a1")
    await (await clients.camera(elsewhere, token)).register("cam")
    assert await camera.closed() == 4501
    await post(elsewhere, "cam", "a2")
    assert heard(viewer) == ["a1"]
    waits.let_go()
    await post(elsewhere, "cam", "a3")
    await eventually(lambda: "a3" in heard(viewer))
    assert heard(viewer) == ["a1", "a2", "a3"]


@pytest.mark.parametrize("again", [False, True], ids=["at first", "when it registers again"])
async def test_a_camera_misses_none_after_its_answer(in_one_process, clients: Clients, again: bool):
    started = await two(in_one_process)
    here, elsewhere = started.urls
    camera = await clients.camera(here, started.token())
    if again:
        await camera.register("cam")
        await post(elsewhere, "cam", "before")
    waits = late(started, 0, PublicationState)
    await camera.register("cam", consumes=["alert"])
    await eventually(lambda: waits.late)
    await post(elsewhere, "cam", "a1")
    waits.let_go()
    await post(elsewhere, "cam", "a2")
    await eventually(lambda: "a2" in heard(camera))
    assert heard(camera) == ["a1", "a2"]
    camera.cut()


async def test_an_alert_overtakes_the_interest_on_another_connection_to_nats(
    watchout: Callable[..., Any], clients: Clients, nats_bus: NatsSite
) -> None:
    """The way of one gateway to NATS stands still from the interest on, as a server that is slow makes it."""
    (server,) = nats_bus.servers
    go_on, stands = asyncio.Event(), asyncio.Event()
    go_on.set()
    holds = False

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with relays.connected(server.host, server.port) as (from_server, to_server):

            async def up() -> None:
                while data := await reader.read(65536):
                    if holds and b"interest" in data:
                        stands.set()
                        await go_on.wait()
                    to_server.write(data)
                    await to_server.drain()

            await relays.first_of(up(), relays.copy(from_server, writer))

    async with relays.Relays(carry) as relay:
        started = watchout(start=False, environ=environ_of(nats_bus.url, CLUSTER_NAME=f"t{secrets.token_hex(4)}"))
        house, near, far = await two_gateways(started, WATCHOUT_BUS=f"nats://127.0.0.1:{relay.port}")
        token = started.token()
        camera = await clients.camera(near, token)
        stream = await camera.register()
        viewer = await clients.viewer(far, token)
        go_on.clear()
        holds = True
        await viewer.subscribe(stream)
        await stands.wait()
        await post(near, stream, "a1")
        holds = False
        go_on.set()
        assert (await viewer.find("alert"))["id"] == "a1"
    assert house.figure("", "alerts_redelivered_total") == 1
