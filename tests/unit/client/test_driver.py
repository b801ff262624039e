"""What runs a core, against a gateway on loopback."""

from __future__ import annotations

import asyncio

from tests.kit.fake_gateway import TOKEN, FakeGateway
from watchout.client import Alert, connect


async def test_a_message_that_this_client_does_not_know_ends_nothing() -> None:
    gateway = FakeGateway()
    await gateway.start()
    try:
        async with asyncio.timeout(60), connect(gateway.url, token=TOKEN) as client, client.subscribe("cam") as events:
            (socket, _), *_ = gateway.viewers
            for strange in (b"\x57\x02\x09later version", b"", "[1,2]", "not JSON"):
                await socket.send(strange)
            await gateway.tell_viewers(
                {"type": "alert", "id": "a", "streamId": "cam", "severity": "low", "message": "after"}
            )
            async for event in events:
                if isinstance(event, Alert):
                    assert event.message == "after"
                    break
            assert client.viewer().core.connection == 1
    finally:
        await gateway.stop()
