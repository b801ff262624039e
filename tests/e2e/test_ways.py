"""The ways of a frame and of an alert, as docs/architecture.md lists them, are those that a real run takes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.kit.calls import recorded, ways
from tests.kit.clients import JPEG, base64_of, eventually
from tests.kit.ml_stub import MlStub

FRAME, ALERT = "The way of a frame", "The way of an alert"


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    made = MlStub()
    await made.start()
    yield made
    await made.stop()


def test_each_module_is_entered_once_in_a_process() -> None:
    for process in (process for title in (FRAME, ALERT) for process in ways()[title]):
        modules = [re.sub(r"\.[A-Z]\w*\.\w+$|\.\w+$", "", name) for name in process]
        assert len(modules) == len(set(modules)), modules


async def test_a_frame_takes_the_way_of_the_page(in_one_process, clients):
    *between, bridge = ways()[FRAME]
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token = started.token()
    near, far = await clients.viewer(here, token), await clients.viewer(there, token)
    await near.subscribe("cam")
    await far.subscribe("cam")
    phone = await clients.camera(here, token)
    await phone.register("cam")
    for _ in range(2):  # the first frames of a publisher are parsed, and the router learns of the interest
        await phone.show(base64_of(JPEG))
        await near.frame()
        await far.frame()
    names = [name for process in between for name in process]
    with recorded(names) as called:
        await phone.show(base64_of(JPEG))
        await near.frame()
        await far.frame()
    assert called == names
    assert bridge


async def test_an_alert_takes_the_way_of_the_page(one_process, clients, stub):
    bridge = ways()[FRAME][-1]
    token = one_process.token()
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam", consumes=["alert"])
    phone = await clients.camera(one_process.url, token)
    await phone.register("cam")
    names = bridge + [name for process in ways()[ALERT] for name in process]
    stub.mode = "answer"
    await one_process.start_bridge(stub.url)

    async def is_joined() -> bool:
        return any(member.kind == "mlbridge" for member in (await one_process.ask()).members)

    await eventually(is_joined)
    assert not stub.looks, "the first frame that the bridge gets is one of those below"
    with recorded(names) as called:
        async with phone.streaming(10):
            await viewer.find("alert")
    assert called == names
