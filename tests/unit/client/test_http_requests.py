"""Requests of the Python client over HTTP: which token they have, and when another one is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from watchout.client.errors import TokenRefused
from watchout.client.http_requests import GatewayHttp
from watchout.client.tokens import TokenSource

REFUSED = (401, {}, b'{"error":{"code":"AUTH_FAILED","message":"not valid"}}')
STREAMS = (200, {}, b'{"streams":[]}')


class Gateway(GatewayHttp):
    """Takes one token; a request waits for `answers`."""

    def __init__(self, tokens: TokenSource) -> None:
        super().__init__("ws://127.0.0.1:1", tokens, 1000)
        self.takes = "t1"
        self.asked: list[str] = []
        self.answers: dict[int, asyncio.Event] = {}

    async def _request(
        self, method: str, path: str, token: str, body: bytes | None, max_bytes: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        number = len(self.asked)
        self.asked.append(token)
        answer = STREAMS if token == self.takes else REFUSED
        if number in self.answers:
            await self.answers[number].wait()
        return answer


async def test_requests_that_are_refused_one_after_the_other_ask_for_one_token() -> None:
    reasons: list[str] = []

    async def give(why: str) -> str:
        reasons.append(why)
        return f"t{len(reasons)}"

    gateway = Gateway(TokenSource(give))
    try:
        await gateway.streams()
        gateway.takes = "t2"
        late = gateway.answers[1] = asyncio.Event()
        slow = asyncio.create_task(gateway.streams())
        while len(gateway.asked) < 2:
            await asyncio.sleep(0)
        await gateway.streams()  # has t2 when the first one hears of its refusal
        late.set()
        await slow
        assert gateway.asked == ["t1", "t1", "t1", "t2", "t2"]
        assert reasons == ["connect", "rejected"]
    finally:
        await gateway.close()


async def test_a_token_that_is_no_better_is_asked_for_once_a_request() -> None:
    reasons: list[str] = []

    def give(why: str) -> str:
        reasons.append(why)
        return "bad"

    gateway = Gateway(TokenSource(give))
    try:
        with pytest.raises(TokenRefused):
            await gateway.streams()
        assert (gateway.asked, reasons) == (["bad", "bad"], ["connect", "rejected"])
    finally:
        await gateway.close()
