"""Where frames to the router go, and what a member says of the alerts that it has when it joins again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.kit.clients import eventually
from tests.kit.memory_transport import MemoryBus, MemoryRouterTransport
from watchout.common.alerts.model import Alert
from watchout.common.bus import client as client_module
from watchout.common.bus.client import BusClient
from watchout.common.bus.frames import FOR_ALERT, BusFrame
from watchout.common.bus.messages import (
    AlertNotification,
    Claim,
    FromRouter,
    GrantedReply,
    Hello,
    Message,
    Rejoin,
    Release,
    ReservationEnded,
    SnapshotEnd,
    StatusUpdate,
    Welcome,
    decode_from_member,
    encode,
)
from watchout.common.bus.messages.fields import TERM_ROOM


async def nothing() -> AsyncIterator[Message]:
    for message in ():
        yield message


@pytest.mark.parametrize("over_mesh", [False, True])
async def test_frames_for_the_router_go_where_its_welcome_says(over_mesh: bool) -> None:
    bus = MemoryBus()
    over_transport: list[bytes] = []
    at_mesh: list[bytes] = []
    mesh = bus.open_mesh(on_frame=at_mesh.append)

    def answer(member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        if isinstance(body, Hello):
            welcome = Welcome(attempt=body.attempt, frames_at=mesh.address if over_mesh else None)
            router.send_control(member, encode(5, 0, welcome))

    router: MemoryRouterTransport = bus.open_router(on_control=answer, on_frame=over_transport.append)
    own = bus.open_mesh(on_frame=print)
    client = BusClient(
        Hello(kind="mlbridge", name="b", pid=1), open_transport=bus.open_member, mesh=own,
        request_timeout_s=30, snapshot=nothing, metrics=dict, on_message=print, on_frame=print,
    )  # fmt: skip
    assert await client.wait_live(30)
    picture = BusFrame("cam", 1, 1, 1, 1, 1, b"picture", to=FOR_ALERT).encode()
    assert client.send_frame(picture[:20], picture[20:])
    await eventually(lambda: at_mesh or over_transport)
    assert (at_mesh, over_transport) == (([picture], []) if over_mesh else ([], [picture]))
    assert client.frames_sent + own.frames_sent == 1
    await client.close()
    own.close()
    mesh.close()
    router.close()


async def test_alerts_that_were_missed_of_one_stream_say_nothing_of_those_of_others() -> None:
    """A gateway that is being told what it missed may be told later ones of one stream before, and then join again."""
    bus = MemoryBus()
    ends: list[SnapshotEnd] = []

    def answer(member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        if isinstance(body, Hello):
            router.send_control(member, encode(5, 0, Welcome(attempt=body.attempt)))
        elif isinstance(body, SnapshotEnd):
            ends.append(body)
            alert = Alert(id="a", stream_id="cam", severity="low", message="m", timestamp=1)
            for seq, number in enumerate((3, 0), 1):
                router.send_control(member, encode(5, seq, AlertNotification(alert=alert, number=number)))
            if len(ends) == 1:
                router.send_control(member, encode(5, 3, Rejoin()))

    router: MemoryRouterTransport = bus.open_router(on_control=answer, on_frame=print)
    client = BusClient(
        Hello(kind="gateway", name="g", pid=1), open_transport=bus.open_member,
        request_timeout_s=30, snapshot=nothing, metrics=dict, on_message=print,
    )  # fmt: skip
    await eventually(lambda: len(ends) == 2)
    assert [(each.alerts_epoch, each.last_alert) for each in ends] == [(0, 0), (5, 3)]
    await client.close()
    router.close()


async def test_a_grant_that_comes_in_the_turn_in_which_its_request_is_cancelled_is_given_back() -> None:
    bus, released = MemoryBus(), []

    def answer(member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        if isinstance(body, Hello):
            router.send_control(member, encode(5, 0, Welcome(attempt=body.attempt)))
        elif isinstance(body, Claim):
            grant = GrantedReply(request=body.request, stream=body.stream, term=3, first_frame_id=1)
            router.send_control(member, encode(5, 1, grant))
            asyncio.get_running_loop().call_soon(request.cancel)
        elif isinstance(body, Release):
            released.append((body.stream, body.term))

    router: MemoryRouterTransport = bus.open_router(on_control=answer, on_frame=print)
    client = BusClient(
        Hello(kind="gateway", name="g", pid=1), open_transport=bus.open_member,
        request_timeout_s=30, snapshot=nothing, metrics=dict, on_message=print,
    )  # fmt: skip
    request = asyncio.create_task(client.request(lambda number: Claim(request=number, stream="cam", user="ann")))
    await asyncio.gather(request, return_exceptions=True)
    assert request.cancelled()
    await eventually(lambda: released == [("cam", 3)])
    await client.close()
    router.close()


async def test_each_message_of_the_router_counts_as_work_for_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    monkeypatch.setattr(client_module.garbage, "worked", lambda count=1: pieces.append(count))
    bus = MemoryBus()

    def answer(member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        if isinstance(body, Hello):
            router.send_control(member, encode(5, 0, Welcome(attempt=body.attempt)))
            for seq in range(1, 4):
                router.send_control(member, encode(5, seq, ReservationEnded(stream="cam", term=1)))

    router: MemoryRouterTransport = bus.open_router(on_control=answer, on_frame=print)
    client = BusClient(
        Hello(kind="mlbridge", name="b", pid=1), open_transport=bus.open_member, mesh=None,
        request_timeout_s=30, snapshot=nothing, metrics=dict, on_message=print, on_frame=print,
    )  # fmt: skip
    await eventually(lambda: len(pieces) >= 4)
    await client.close()
    router.close()


async def test_a_term_that_no_router_of_the_epoch_can_have_granted_is_not_taken_over(
    capfd: pytest.CaptureFixture[str],
) -> None:
    bus, seen = MemoryBus(), list[FromRouter]()
    false = (5 << 20) + 2 * TERM_ROOM

    def answer(member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        if isinstance(body, Hello):
            router.send_control(member, encode(5, 0, Welcome(attempt=body.attempt)))
        elif isinstance(body, Claim):
            news: tuple[FromRouter, ...] = (
                GrantedReply(request=body.request, stream="cam", term=false, first_frame_id=1),
                StatusUpdate(stream="cam", status="online", timestamp=1, term=2**63 - 1),
                StatusUpdate(stream="cam", status="online", timestamp=1, term=false - 1),
                GrantedReply(request=body.request, stream="cam", term=6, first_frame_id=1),
            )
            for seq, each in enumerate(news, 1):
                router.send_control(member, encode(5, seq, each))

    router: MemoryRouterTransport = bus.open_router(on_control=answer, on_frame=print)
    client = BusClient(
        Hello(kind="gateway", name="g", pid=1), open_transport=bus.open_member,
        request_timeout_s=30, snapshot=nothing, metrics=dict, on_message=seen.append,
    )  # fmt: skip
    reply = await client.request(lambda number: Claim(request=number, stream="cam", user="ann"))
    assert isinstance(reply, GrantedReply)
    assert reply.term == 6
    assert [each.term for each in seen if isinstance(each, StatusUpdate)] == [false - 1]
    assert client.bad_messages == 2
    said = capfd.readouterr().out
    assert said.count("bad message from the router") == 1, "one line for all within 5 s"
    assert f"GrantedReply with term {false}, expected below {false}" in said
    await client.close()
    router.close()
