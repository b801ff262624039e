"""What clients of a gateway that ends are told, with other gateways at its port, elsewhere, and with none."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.ports import free_port
from tests.kit.processes import Watchout
from watchout.common.clock import now_ms
from watchout.common.errors import RECONNECT_NOW, RESTART

pytestmark = pytest.mark.e2e
COMES_S = 60.0


async def test_gateways_that_all_end_do_not_wait_for_each_other(watchout: Any, clients: Clients) -> None:
    """As under Ctrl-C with several gateways, and `systemctl stop watchout.target`: nobody is left to go to."""
    started: Watchout = watchout(gateways=2, environ={"DRAIN_SPREAD_S": "3600"})
    viewers = [await clients.viewer(started.url, started.token()) for _ in range(8)]
    processes = [*started.named("gateway"), started.one("router"), started.one("mlbridge")]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        assert await process.ended(COMES_S) == 0
    assert [await viewer.closed() for viewer in viewers] == [1012] * 8


async def test_a_gateway_whose_others_are_at_another_port_serves_on_while_it_says_that_it_drains(
    watchout: Any, clients: Clients
) -> None:
    """A balancer needs a moment to notice; whoever comes meanwhile is not refused. A camera is the first that goes."""
    started: Watchout = watchout(environ={"DRAIN_SPREAD_S": "3600"})
    first = started.one("gateway")
    second = started.start("gateway", {"WATCHOUT_PORT": str(free_port())})
    await asyncio.to_thread(second.wait_for_output, "router joined")
    token = started.token()
    viewers = [await clients.viewer(started.url, token) for _ in range(3)]
    camera = await clients.camera(started.url, token)
    await camera.register()
    before = [*viewers, camera]
    first.send_signal(signal.SIGTERM)

    async def drains() -> bool:
        answer = await http(f"{started.url}/health")
        if answer.status != 503 or answer.json["reason"] != "the gateway drains":
            return False
        assert answer.headers["connection"] == "close"  # a proxy that keeps connections turns to the others
        return True

    await eventually(drains, COMES_S)
    await eventually(lambda: not all(viewer.open for viewer in before), COMES_S)
    told = [viewer for viewer in before if not viewer.open]
    assert told == [camera]
    assert await camera.closed() == 1012
    assert camera.connection.close_reason == RECONNECT_NOW
    late = await clients.viewer(started.url, token)
    assert late.open
    # The other one ends: those that are left have nowhere to go, and are not kept waiting.
    assert await asyncio.to_thread(second.terminate) == 0
    assert await late.closed(COMES_S) == 1012
    assert late.connection.close_reason == RESTART
    assert await first.ended(COMES_S) == 0


async def test_of_two_gateways_at_one_port_the_other_takes_all_clients(watchout: Any, clients: Clients) -> None:
    started: Watchout = watchout(gateways=2, environ={"DRAIN_SPREAD_S": "1"})
    token = started.token()
    viewers = [await clients.viewer(started.url, token) for _ in range(12)]
    first, second = started.named("gateway")
    first.send_signal(signal.SIGTERM)
    assert await first.ended(COMES_S) == 0
    moved = [viewer for viewer in viewers if not viewer.open]
    assert all([await viewer.closed() == 1012 for viewer in moved])
    assert {viewer.connection.close_reason for viewer in moved} <= {RECONNECT_NOW}
    for _ in moved:
        again = await clients.viewer(started.url, token)
        assert again.open
    assert second.running


async def test_who_comes_back_at_another_gateway_than_the_cameras_gets_frames(watchout: Any, clients: Clients) -> None:
    """As clients come back: with the alerts since the last one that they had."""
    started: Watchout = watchout()
    port = free_port()
    second = started.start("gateway", {"WATCHOUT_PORT": str(port)})
    await asyncio.to_thread(second.wait_for_output, "router joined")
    token, stream = started.token(), new_name()
    camera = await clients.camera(started.url, token)
    viewer = await clients.viewer(f"http://127.0.0.1:{port}", token)
    await camera.register(stream)
    await viewer.subscribe(stream, alertsSince=now_ms() - 60_000)

    async def seen() -> bool:
        await camera.show()
        return len(viewer.frames) > 3

    await eventually(seen, COMES_S)
