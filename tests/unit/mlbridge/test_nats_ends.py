"""A NATS server that hangs keeps no connection of the bridge, and keeps it from no new one."""

from __future__ import annotations

import asyncio

import pytest

from tests.kit.polling import until
from tests.kit.relays import Relays
from watchout.common.media.frames import Frame
from watchout.mlbridge.targets import TargetFailure
from watchout.mlbridge.targets.nats import NatsTarget

#: More than the kernel and both ends hold.
LARGE = Frame("stream_1", 7, 1_700_000_000_000, picture=b"\xff\xd8\xff" + bytes(24 << 20))


class Server:
    """Greets, answers pings, and reads nothing more from the first frame on."""

    def __init__(self) -> None:
        self.connections = 0
        self.left = 0
        self.frame_came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":67108864,"headers":true}\r\n')
        try:
            while (line := await reader.readline()) and not line.startswith(b"PUB"):
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
            self.frame_came.set()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        finally:
            self.left += 1


async def connected(target: NatsTarget, server: Server, number: int) -> None:
    async with asyncio.timeout(30):
        await until(lambda: server.connections == number)
        assert target._reconnecting is not None
        while target._reconnecting._connection is None:
            await asyncio.sleep(0)


async def test_a_frame_that_a_server_takes_no_end_of_ends_the_connection_and_another_is_made() -> None:
    server = Server()
    async with Relays(server.serve) as relays:
        target = NatsTarget(f"nats://127.0.0.1:{relays.port}", timeout_s=60, group="", tls=None)
        await target.open(lambda _: None)
        await connected(target, server, 1)
        frame = asyncio.create_task(target.analyse(LARGE))
        async with asyncio.timeout(30):
            await server.frame_came.wait()
        frame.cancel()  # by its deadline
        await asyncio.gather(frame, return_exceptions=True)
        await connected(target, server, 2)
        await target.close()


async def test_a_connection_that_nats_py_closes_without_an_end_is_left_by_the_frame_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("watchout.mlbridge.targets.nats.REASON_S", 30.0)
    server = Server()
    async with Relays(server.serve) as relays:
        target = NatsTarget(f"nats://127.0.0.1:{relays.port}", timeout_s=60, group="", tls=None)
        await target.open(lambda _: None)
        await connected(target, server, 1)
        assert target._reconnecting is not None
        closing = (await target._reconnecting.get()).client
        frame = asyncio.create_task(target.analyse(LARGE))
        async with asyncio.timeout(30):
            await server.frame_came.wait()
        ending = asyncio.create_task(closing.close())  # as at a ping without a pong: it waits for the server
        with pytest.raises(TargetFailure):
            await frame
        await connected(target, server, 2)
        await asyncio.gather(ending, return_exceptions=True)
        await target.close()
