"""The main paths of frames, alerts and claims through real router, gateways and bridge, in one process.

What a client sees over real sockets; the bus between the parts is `tests.kit.memory_transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.kit.clients import DEADLINE_S, JPEG, PNG, base64_of, eventually, http
from tests.kit.ml_stub import MlStub
from tests.kit.nats_servers import tls_files
from tests.kit.one_process import OneProcess, running_in_one_process
from tests.kit.processes import SERVICE_TOKEN
from tests.kit.relays import connected
from watchout.common import clock
from watchout.gateway.listen import dispatch


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    made = MlStub()
    await made.start()
    yield made
    await made.stop()


async def test_a_frame_goes_from_a_phone_to_viewers_as_json_and_as_binary(one_process, clients):
    token = one_process.token()
    as_json = await clients.viewer(one_process.url, token)
    as_binary = await clients.viewer(one_process.url, token)
    assert await as_json.subscribe("cam") == "offline"
    await as_binary.subscribe("cam", format="binary")
    phone = await clients.camera(one_process.url, token)
    await phone.register("cam")
    await phone.show(base64_of(JPEG), timestamp=1_700_000_000_000)
    frame, binary = await as_json.frame(), await as_binary.frame()
    assert (frame["streamId"], frame["frameId"], frame["data"]) == ("cam", 1, base64_of(JPEG))
    assert (binary["streamId"], binary["frameId"], binary["picture"]) == ("cam", 1, JPEG)
    await phone.show_binary(PNG, codec=2)
    frame, binary = await as_json.frame(), await as_binary.frame()
    assert (frame["frameId"], frame["data"]) == (2, base64_of(PNG))
    assert (binary["frameId"], binary["picture"], binary["codec"]) == (2, PNG, 2)


async def test_a_frame_crosses_from_one_gateway_to_a_viewer_at_another(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token = started.token()
    viewer = await clients.viewer(there, token)
    await viewer.subscribe("cam", format="binary")
    phone = await clients.camera(here, token)
    await phone.register("cam")
    async with phone.streaming(20):
        frame = await viewer.frame()
    assert (frame["streamId"], frame["picture"]) == ("cam", JPEG)
    assert "streaming" in viewer.statuses
    assert (await http(f"{there}/streams/cam/frame.jpg", token=token)).body == JPEG


async def test_an_id_is_one_users_over_all_gateways_and_the_same_user_takes_it_over(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    ann, bob = started.token("ann"), started.token("bob")
    first = await clients.camera(here, ann)
    await first.register("cam")
    await first.show()
    stranger = await clients.camera(there, bob)
    await stranger.send("register", clientType="mobile", produces=["video-frame"], streamId="cam")
    assert (await stranger.find("error"))["code"] == "UNAUTHORIZED"
    second = await clients.camera(there, ann)
    await second.register("cam")
    await first.find("error", code="STREAM_TAKEN_OVER")
    await first.closed()
    viewer = await clients.viewer(here, ann)
    await viewer.subscribe("cam", format="binary")
    async with second.streaming(20):
        frame = await viewer.frame()
    assert frame["frameId"] > 1, "ids go on where the former publisher's ended"


async def test_an_alert_of_the_ml_service_reaches_viewer_and_phone(one_process, clients, stub):
    token = one_process.token()
    stub.mode = "answer"
    await one_process.start_bridge(stub.url)
    phone = await clients.camera(one_process.url, token)
    await phone.register("cam", consumes=["alert"])
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    async with phone.streaming(10):
        of_viewer = await viewer.find("alert")
        of_phone = await phone.find("alert")
    assert of_viewer["id"] == of_phone["id"]
    assert (of_viewer["streamId"], of_viewer["severity"], of_viewer["message"]) == ("cam", "high", "a person")
    kept = (await http(f"{one_process.url}/alerts?streamId=cam", token=token)).json
    assert of_viewer["id"] in [alert["id"] for alert in kept["alerts"]]


async def test_members_join_a_new_router_and_viewers_and_phones_notice_nothing(one_process, clients):
    token = one_process.token()
    there = await one_process.start_gateway()
    await one_process.healthy()
    phone = await clients.camera(one_process.url, token)
    await phone.register("cam")
    near, far = await clients.viewer(one_process.url, token), await clients.viewer(there, token)
    await near.subscribe("cam")
    await far.subscribe("cam")
    async with phone.streaming(20):
        await far.frame()
        await one_process.stop_router()
        assert (await http(f"{one_process.url}/health")).status == 503
        before = len(near.frames)
        await eventually(lambda: len(near.frames) > before, what="local viewers get no frames without the router")
        await one_process.start_router()
        await one_process.healthy()
        came = len(far.frames)
        await eventually(lambda: len(far.frames) > came, what="no frames after the router's return")
    assert (phone.open, near.open, far.open) == (True, True, True)
    assert (await one_process.stats())["activeStreams"] == ["cam"]


async def test_a_control_message_that_is_lost_makes_the_member_join_again(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token = started.token()
    viewer = await clients.viewer(there, token)
    assert await viewer.subscribe("cam") == "offline"
    started.bus.lose = 1
    phone = await clients.camera(here, token)
    await phone.send("register", clientType="mobile", produces=["video-frame"], streamId="cam")
    await phone.find("success")
    async with phone.streaming(20):
        await viewer.frame()
    assert started.bus.lose == 0


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_clock_that_is_set_loses_no_alert_that_the_router_repeats(
    in_one_process, clients, monkeypatch, minutes
):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token, set_by_ms = started.token(), 0
    monkeypatch.setattr(
        clock, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + set_by_ms * 10**6, monotonic=time.monotonic)
    )
    camera, viewer = await clients.camera(there, token), await clients.viewer(there, token)
    await camera.register("cam", consumes=["alert"])
    await viewer.subscribe("cam")
    member = started.gateways[1]._link.links.at(0).member_id

    async def post(id: str) -> int:
        body = {"streamId": "cam", "id": id, "severity": "low", "message": id}
        return (await http(f"{here}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status

    assert await post("before") == 202
    await viewer.find("alert", id="before")
    set_by_ms = minutes * 60_000
    started.bus.passes = lambda _router, to: to.member_id != member
    assert await post("missed") == 202
    set_by_ms *= 2
    started.bus.passes = lambda _router, _to: True
    for client in (viewer, camera):
        await client.find("alert", id="missed")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\n", b"no request\r\n\r\n"])
async def test_a_gateway_that_ends_leaves_no_connection_open_on_which_no_request_came(
    tmp_path: Path, tls: bool, begun: bytes
) -> None:
    """Browsers open some beforehand, and more of them where the machine is busy."""
    files = zip(("TLS_CERT", "TLS_KEY"), map(str, tls_files(tmp_path)), strict=True) if tls else ()
    started = OneProcess(tmp_path / "home", **dict(files))
    try:
        await started.start_router()
        _, _, port = (await started.start_gateway()).rpartition(":")
        connections = started.gateways[0]._context.connections
        async with connected("127.0.0.1", int(port)) as (reader, writer):
            writer.write(begun)
            await eventually(lambda: connections.total)
            await started.close()
            assert connections.total == 0
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), DEADLINE_S)
    finally:
        await started.close()


async def test_who_has_just_connected_is_answered_by_a_gateway_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is on its way when the gateway is told to end: a reset would turn the client away."""
    started = OneProcess(tmp_path / "home")
    try:
        await started.start_router()
        _, _, port = (await started.start_gateway()).rpartition(":")
        (gateway,) = started.gateways
        async with connected("127.0.0.1", int(port)) as (reader, writer), connected("127.0.0.1", int(port)):
            await eventually(lambda: gateway._context.connections.total == 2)
            monkeypatch.setattr(dispatch, "FIRST_REQUEST_S", DEADLINE_S)
            ending = asyncio.create_task(gateway.drain())
            await eventually(lambda: gateway._context.closed)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            assert not ending.done(), "the other one may send its request too"
            monkeypatch.setattr(dispatch, "FIRST_REQUEST_S", 0.1)
            await asyncio.wait_for(ending, DEADLINE_S)
    finally:
        await started.close()


async def test_the_coverage_of_a_stream_says_how_well_the_ml_service_sees_it(one_process, clients, stub):
    token = one_process.token()
    await one_process.start_bridge(stub.url)
    phone = await clients.camera(one_process.url, token)
    await phone.register("cam")

    async def coverage() -> float | None:
        (row,) = (await one_process.ask()).streams
        return row.coverage or None

    async with phone.streaming(10):
        assert await eventually(coverage, 30, "no coverage is reported")
    assert {look[1] for look in stub.looks} == {"cam"}


async def test_it_is_ready_in_half_a_second() -> None:
    began = time.process_time()
    async with running_in_one_process():
        pass
    assert time.process_time() - began < 1.5, "CPU time, with everything closed again"
