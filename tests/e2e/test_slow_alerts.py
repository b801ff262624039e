"""Tens of thousands of alerts to viewers that are slower: all of them in order, or 4400, and never a gap."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.kit.processes import Watchout
from tests.kit.readers import COMES_S, Closed, Reader, gateway_figures
from watchout.common.alerts.model import Alert
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import Hello, Message, RaiseAlert
from watchout.common.bus.transport_choice import local_member

pytestmark = pytest.mark.e2e

MIB: Final = 1 << 20
#: More than the lane of an alert viewer and the buffers of the kernel hold. `make test-thorough` has 100 000.
WHOLE: Final = int(os.environ.get("WATCHOUT_TEST_ALERTS", "30000"))
#: A viewer that reads too little is closed before it has so many.
MOST: Final = 100_000
CHUNK: Final = 500


async def _nothing() -> AsyncIterator[Message]:
    return
    yield


@contextlib.asynccontextmanager
async def ml_side(started: Watchout) -> AsyncIterator[BusClient]:
    """A bridge that brings alerts as fast as the router takes them."""
    link = BusClient(
        Hello(kind="mlbridge", name="bridge-of-the-tests", pid=os.getpid()),
        open_transport=local_member(started.home, MIB), request_timeout_s=COMES_S, snapshot=_nothing, metrics=dict,
        on_message=lambda _: None,
    )  # fmt: skip
    try:
        assert await link.wait_live(COMES_S)
        yield link
    finally:
        await link.close()


async def bring(link: BusClient, stream: str, first: int) -> None:
    """One chunk of alerts, numbered in their messages; returns when the router has them all."""

    def raised(request: int, number: int) -> RaiseAlert:
        alert = Alert(id=f"{stream}-{number}", stream_id=stream, severity="low", message=str(number), timestamp=0)
        return RaiseAlert(request=request, alert=alert)

    for number in range(first, first + CHUNK - 1):
        assert link.send(raised(0, number))
    await link.request(lambda request: raised(request, first + CHUNK - 1))


async def alerts_read(reader: Reader, number: int) -> list[int]:
    """The numbers of so many alerts as they come."""
    return [int((await reader.message())["message"]) for _ in range(number)]


async def test_every_alert_reaches_a_slow_viewer_in_order_where_its_queue_has_room(watchout, clients):
    started = watchout(environ={"ALERT_QUEUE_MESSAGES": str(WHOLE), "ALERT_QUEUE_BYTES": str(64 * MIB)})
    token = started.token()
    good = await clients.viewer(started.url, token)
    await good.subscribe("cam")
    slow = await Reader.watch(started.port, token, "cam", receive_buffer=4096)
    slow.bytes_per_s = 20_000  # far too little to have it all before the last one is brought, on any machine
    async with slow, ml_side(started) as link:
        reading = asyncio.create_task(alerts_read(slow, WHOLE))
        for first in range(0, WHOLE, CHUNK):
            await bring(link, "cam", first)
            await good.find("alert", message=str(first + CHUNK - 1), timeout_s=COMES_S)
        assert not reading.done()
        slow.bytes_per_s = None
        async with asyncio.timeout(3 * COMES_S):
            assert await reading == list(range(WHOLE))
    assert [int(m["message"]) for m in good.heard if m["type"] == "alert"] == list(range(WHOLE))
    assert (await gateway_figures(started.url)).get("closed_slow_total", 0) == 0


@pytest.mark.parametrize("bytes_per_s", [0, 1_000, 50_000])
async def test_of_100_000_alerts_a_viewer_that_falls_too_far_behind_gets_the_first_ones_and_4400(
    watchout, clients, bytes_per_s
):
    started = watchout()
    token = started.token()
    good = await clients.viewer(started.url, token)
    await good.subscribe("cam")
    slow = await Reader.watch(started.port, token, "cam", receive_buffer=4096)
    slow.bytes_per_s = bytes_per_s
    heard: list[dict[str, Any]] = []

    async def read() -> int | None:
        try:
            while True:
                heard.append(await slow.message(3 * COMES_S))
        except Closed as closed:
            return closed.code

    async with slow, ml_side(started) as link:
        reading = asyncio.create_task(read()) if bytes_per_s else None
        brought = 0
        while "its outbound queue is full" not in started.one("gateway").output:
            assert brought < MOST, "100 000 alerts wait for a viewer that does not take them"
            await bring(link, "cam", brought)
            brought += CHUNK
            await good.find("alert", message=str(brought - 1), timeout_s=COMES_S)
        slow.bytes_per_s = None
        assert await (reading or asyncio.create_task(read())) == 4400
        assert heard.pop()["code"] == "SLOW_CONSUMER"
        assert [int(message["message"]) for message in heard] == list(range(len(heard)))
        await bring(link, "cam", brought)
        await good.find("alert", message=str(brought + CHUNK - 1), timeout_s=COMES_S)
    assert [int(m["message"]) for m in good.heard if m["type"] == "alert"] == list(range(brought + CHUNK))
    assert (await gateway_figures(started.url))["closed_slow_total"] == 1
