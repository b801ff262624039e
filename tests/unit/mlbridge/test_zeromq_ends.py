"""The sockets of the ZeroMQ target are closed although its end is cut short."""

from __future__ import annotations

import asyncio
import contextlib

from tests.kit.ports import free_port
from watchout.mlbridge.targets.zeromq import ZeroMqTarget


async def test_the_sockets_are_closed_although_the_wait_for_their_readers_is_cancelled() -> None:
    target = ZeroMqTarget(f"tcp://127.0.0.1:{free_port()}")
    await target.open(lambda _: None)
    reads = asyncio.Event()

    async def read() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):  # as a library may
                reads.set()
                await asyncio.Event().wait()
            if ends:
                return

    ends: list[str] = []
    assert target._reader is not None
    target._reader.cancel()
    await asyncio.gather(target._reader, return_exceptions=True)
    target._reader = reader = asyncio.create_task(read())
    await reads.wait()
    closing = asyncio.create_task(target.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert target._context is not None
    assert target._context.closed
    ends.append("now")
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
