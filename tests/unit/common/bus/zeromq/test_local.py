"""The router's end on one machine takes control messages of local members only."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from tests.kit.clients import eventually
from watchout.common import supervisor
from watchout.common.bus.zeromq.local import CONTROL_SOCKET, LocalMemberTransport, LocalRouterTransport
from watchout.common.process import descriptors


class Router:
    """A router's end, and what arrived there."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.arrived: list[tuple[bytes, bytes]] = []
        self.transport = LocalRouterTransport(
            home,
            max_message_bytes=1 << 20,
            on_control=lambda member, message: self.arrived.append((member, message)),
            on_frame=lambda _: None,
        )

    def send_as(self, routing_id: bytes, *parts: bytes) -> None:
        """Send one message with libzmq, as a process does that knows nothing of the bus."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 30_000)
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
            socket.connect(f"ipc://{self.home / 'control'}")
            socket.send_multipart(parts)


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    with tempfile.TemporaryDirectory(prefix="wo-") as home:
        made = Router(Path(home))
        yield made
        made.transport.close()


async def test_a_message_of_a_local_member_arrives(router: Router) -> None:
    router.send_as(b"\x01member1", b"hello")
    await eventually(lambda: router.arrived == [(b"\x01member1", b"hello")])
    assert router.transport.malformed == 0


@pytest.mark.parametrize(
    ("routing_id", "parts"),
    [
        pytest.param(b"\x80member1", (b"hello",), id="the id of a remote member"),
        pytest.param(b"\x01short", (b"hello",), id="an id of another length"),
        pytest.param(b"\x01member1", (b"hello", b"again"), id="two parts"),
    ],
)
async def test_anything_else_is_counted_and_dropped(
    router: Router, routing_id: bytes, parts: tuple[bytes, ...]
) -> None:
    router.send_as(routing_id, *parts)
    await eventually(lambda: router.transport.malformed)
    assert router.arrived == []


async def test_a_member_whose_connection_is_never_greeted_connects_anew() -> None:
    """What listens first takes the connection and says nothing: a router that hangs."""
    with tempfile.TemporaryDirectory(prefix="wo-") as folder, socket.socket(socket.AF_UNIX) as silent:
        home = Path(folder)
        silent.bind(os.fspath(home / CONTROL_SOCKET))
        silent.listen()
        silent.setblocking(False)
        member = LocalMemberTransport(home, max_message_bytes=1000, on_control=lambda _: None)
        taken, _ = await asyncio.get_running_loop().sock_accept(silent)
        router = Router(home)
        try:
            with taken:
                await eventually(lambda: member.send_control(b"hello"), 20, "the member waits for who is silent")
        finally:
            member.close()
            router.transport.close()


async def test_while_descriptors_are_short_nobody_new_comes_in_and_who_is_in_goes_on(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [LocalMemberTransport(router.home, max_message_bytes=1000, on_control=lambda _: None) for _ in range(2)]
    early, late = members
    try:
        await eventually(lambda: early.send_control(b"in"))
        await eventually(lambda: len(router.arrived) == 1)
        late.close()
        monkeypatch.setattr(descriptors, "count_open", descriptors.limit)
        members[1] = late = LocalMemberTransport(router.home, max_message_bytes=1000, on_control=lambda _: None)
        await eventually(lambda: supervisor.current().failures["accepting processes of this machine"] > 1)
        assert early.send_control(b"still in")
        await eventually(lambda: len(router.arrived) == 2)
        monkeypatch.undo()
        await eventually(lambda: late.send_control(b"in too"))
        await eventually(lambda: router.arrived[-1][1] == b"in too")
    finally:
        for member in members:
            member.close()
