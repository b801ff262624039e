"""How errors of the client end a command."""

from __future__ import annotations

import pytest

from tests.kit.fake_gateway import TOKEN, FakeGateway, until
from watchout.client.errors import Disconnected, NotAGateway, NoToken, Refused, SessionEnded, TokenRefused, Unreachable
from watchout.ctl.client import Edge, connected, failure_of
from watchout.ctl.environment import Failure

EDGE = Edge(url="ws://gateway", token=str, max_message_bytes=1000, token_origin="it comes from here")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Refused("UNAUTHORIZED", "not\nyours"), "UNAUTHORIZED: not\\nyours"),
        (TokenRefused("AUTH_FAILED", "no such session"),
         "the token was refused (AUTH_FAILED: no such session): it comes from here"),
        (SessionEnded(4500, "the gateway closed with 4500"), "the gateway closed with 4500"),
        (Disconnected(1008, "too much \x1b[31m"), "too much \\x1b[31m"),
        (Unreachable("nothing is running"), "nothing is running"),
        (NotAGateway("is that a gateway?"), "is that a gateway?"),
        (NoToken("signed out"), "signed out"),
    ],
)  # fmt: skip
def test_an_error_is_one_printable_sentence(error: Exception, sentence: str) -> None:
    assert failure_of(error, EDGE).message == sentence  # type: ignore[arg-type]


async def test_a_token_that_cannot_be_had_ends_it_with_that_sentence(gateway: FakeGateway, unused_port: int) -> None:
    def token() -> str:
        raise Failure("there is no session store")

    for port, sentence in ((gateway.port, "there is no session store"), (unused_port, "nothing is running at ws://")):
        edge = Edge(url=f"ws://127.0.0.1:{port}", token=token, max_message_bytes=1000)
        with pytest.raises(Failure, match=sentence):
            async with connected(edge, print, print) as client, client.subscribe("cam"):
                pass


async def test_a_gateway_that_knows_no_request_ids_serves_as_well(gateway: FakeGateway) -> None:
    edge = Edge(url=gateway.url, token=lambda: TOKEN, max_message_bytes=1 << 20)
    async with connected(edge, print, print) as client:
        async with client.camera("cam", window=1) as camera:
            for _ in range(5):
                assert await camera.send(b"\xff\xd8\xff")
        async with client.subscribe("cam"):
            assert gateway.viewers[0][1]["streamId"] == "cam"
    await until(lambda: not gateway.open)
    assert len(gateway.frames) == 5
