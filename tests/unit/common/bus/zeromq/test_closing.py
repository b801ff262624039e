"""Who closes a frame socket also closes the connection that is just being made, at whatever step that is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from watchout.common.bus.zeromq import tls_sockets
from watchout.common.bus.zeromq.frame_connection import FrameProtocol, FrameSender
from watchout.common.bus.zeromq.frame_sockets import Binding, Dialing
from watchout.common.bus.zeromq.tls_connection import TlsFrameProtocol
from watchout.common.bus.zeromq.tls_sockets import TlsBinding
from watchout.common.settings.mesh_listen import MeshListen

WAIT_S = 30.0


def a_transport() -> mock.Mock:
    made = mock.Mock(spec=asyncio.Transport)
    made.is_closing.side_effect = lambda: made.abort.called
    return made


async def ended(client: socket.socket) -> None:
    """Wait until the other end has closed the connection, whose greeting may come before."""
    client.setblocking(False)
    async with asyncio.timeout(WAIT_S):
        while await asyncio.get_running_loop().sock_recv(client, 1024):
            pass


async def test_a_binding_closes_what_it_accepts_in_that_very_turn_and_all_others(tmp_path: Path) -> None:
    loop, closes, made = asyncio.get_running_loop(), asyncio.Event(), []

    def make(lost: Callable[[FrameProtocol], None]) -> FrameProtocol:
        made.append(FrameProtocol(b"PULL", 1024, lost=lost))
        if len(made) == 2:  # the event loop has the second connection from the next turn on, and closes first
            loop.call_soon(lambda: (binding.close(), closes.set()))
        return made[-1]

    binding = Binding(tmp_path / "in", make)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for client in (first, second):
            client.connect(str(tmp_path / "in"))
        async with asyncio.timeout(WAIT_S):
            await closes.wait()
        await ended(first)
        await ended(second)
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_dialing_that_is_closed_while_it_connects_keeps_no_connection(tls: bool) -> None:
    connecting: asyncio.Future[FrameProtocol] = asyncio.get_running_loop().create_future()

    async def connect(make: Callable[[], FrameProtocol]) -> None:
        connecting.set_result(make())
        await asyncio.Event().wait()

    def make(lost: Callable[[FrameProtocol], None]) -> FrameProtocol:
        if tls:
            return TlsFrameProtocol(1024, FrameSender(bytes), lost)
        return FrameProtocol(b"PUSH", 1024, lost=lost)

    dialing = Dialing("a member", make, connect)
    protocol = await connecting
    dialing.close()
    transport = a_transport()
    protocol.connection_made(transport)  # the event loop may be past the step at which it can be cancelled
    transport.abort.assert_called_once_with()
    transport.write.assert_not_called()


class Accepting:
    """A `TlsBinding` that accepts one connection; `next` is called in place of the wait for another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.next: Callable[[], None] = lambda: None
        given = [self.mine]

        async def accept(_: socket.socket, __: str) -> tuple[socket.socket, Any]:
            if given:
                return given.pop(), ("192.0.2.1", 7400)
            self.next()
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(tls_sockets, "next_connection", accept)
        monkeypatch.setattr(tls_sockets, "set_options", lambda _: None)
        certificates: Any = SimpleNamespace(contexts=SimpleNamespace(server=None))
        self.binding = TlsBinding(MeshListen("127.0.0.1", 0, 0, "localhost"), certificates, 1024, lambda _: None)


async def test_a_connection_between_hosts_is_closed_before_its_handshake_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepting = Accepting(monkeypatch)
    accepting.next = accepting.binding.close  # in the turn in which the task of the handshake is made
    with accepting.theirs:
        await ended(accepting.theirs)
    assert accepting.mine.fileno() == -1


async def test_a_connection_between_hosts_whose_handshake_ends_after_the_binding_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: asyncio.Future[FrameProtocol] = asyncio.get_running_loop().create_future()

    async def connect(factory: Callable[[], FrameProtocol], _: socket.socket, **__: object) -> None:
        begun.set_result(factory())
        await asyncio.Event().wait()

    taken: Callable[..., Awaitable[None]] = connect
    monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", taken)
    accepting = Accepting(monkeypatch)
    with accepting.mine, accepting.theirs:
        protocol = await begun
        accepting.binding.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert accepting.mine.fileno() != -1, "it is the transport's: its number may be another socket's by now"
        transport = a_transport()
        protocol.connection_made(transport)
    transport.abort.assert_called_once_with()
