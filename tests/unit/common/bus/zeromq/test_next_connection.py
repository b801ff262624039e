from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from watchout.common import supervisor
from watchout.common.bus.zeromq import frame_sockets


async def test_a_connection_that_cannot_be_accepted_is_tried_again_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_sockets, "ACCEPT_AGAIN_S", 0.001)
    told: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(supervisor.current(), "failed", lambda what, error: told.append((what, error)))
    loop = asyncio.get_running_loop()
    accept, short = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")] * 2

    async def sock_accept(listening: socket.socket) -> tuple[socket.socket, object]:
        if short:
            raise short.pop()
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        with socket.create_connection(listening.getsockname()) as client:
            raw, peer = await frame_sockets.next_connection(listening, "of a test")
            with raw:
                assert peer == client.getsockname()
    assert [(what, str(error)) for what, error in told] == [
        ("accepting connections of a test", "[Errno 24] Too many open files")
    ] * 2
