"""Questions to a store that is silent for a while: asked again, and the first answer counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from watchout.common.bus.nats import kv


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "ASK_AGAIN_S", 0.01)


async def test_a_question_that_nobody_answers_is_asked_again() -> None:
    asked = 0

    async def question() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            await asyncio.get_running_loop().create_future()
        return "there"

    assert await kv._ask(question) == "there"
    assert asked == 3


async def test_an_answer_that_raises_counts_and_what_was_asked_besides_ends() -> None:
    ended = 0

    async def question() -> str:
        nonlocal ended
        try:
            await asyncio.sleep(0.05)
            raise ValueError("an answer")
        except asyncio.CancelledError:
            ended += 1
            raise

    with pytest.raises(ValueError, match="an answer"):
        await kv._ask(question)
    await asyncio.sleep(0)
    assert ended > 0


async def test_without_an_answer_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "REQUEST_S", 0.1)

    async def question() -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    with pytest.raises(TimeoutError):
        await kv._ask(question)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServiceUnavailableError(), "JetStream is not there: enable `jetstream` on the NATS servers"),
        (ServiceUnavailableError(code=503, err_code=10008, description="system temporarily unavailable"), "(10008)"),
        (TimeoutError(), "the bucket b has no leader now"),
        (NoStreamResponseError(), "a new leader is being elected, it was deleted"),
        (APIError(code=400, err_code=10076, description="no"), "enable `jetstream` on the NATS servers"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(error: Exception, words: str) -> None:
    assert words in kv._sentence(error, "b")


@pytest.mark.parametrize(
    ("connected", "max_payload", "largest"),
    [
        (True, 1 << 20, kv.MAX_VALUE_BYTES),
        (True, 65536, 65536 - kv.OVERHEAD_BYTES),
        (True, 1024, 0),
        (False, 0, kv.MAX_VALUE_BYTES),  # nothing is left out of what is written when a server is there again
    ],
)
def test_the_largest_value_is_that_of_the_server(connected: bool, max_payload: int, largest: int) -> None:
    connection: Any = SimpleNamespace(connected=connected, max_payload=max_payload)
    assert kv.NatsKeyValue(connection, "things").max_value_bytes == largest
