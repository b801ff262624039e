"""Where the token comes from."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time

import pytest

from watchout.client.errors import NoToken
from watchout.client.tokens import TokenSource, expiry_of


def jwt(expires_at: float, **claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': expires_at, **claims})}.c2ln"


@pytest.mark.parametrize(
    "token", ["", "opaque", "a.b.c", "a.!.c", "..", f"x.{base64.urlsafe_b64encode(b'[1]').decode()}.y", jwt("soon")]
)
def test_what_is_no_jwt_with_an_end_has_no_end(token: str) -> None:
    assert expiry_of(token) is None


def test_a_jwt_says_when_it_ends() -> None:
    assert expiry_of(jwt(1_800_000_000)) == 1_800_000_000


async def test_many_connections_ask_a_callback_once() -> None:
    calls = 0

    async def callback() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return f"token-{calls}"

    source = TokenSource(callback)
    assert await asyncio.gather(*(source.get("connect", "") for _ in range(10))) == [("token-1", None)] * 10
    assert await source.get("connect", "") == ("token-1", None)
    assert await asyncio.gather(*(source.get("rejected", "token-1") for _ in range(5))) == [("token-2", None)] * 5
    assert await source.get("rejected", "token-1") == ("token-2", None), "another connection has fetched it"
    assert calls == 2


async def test_a_jwt_that_is_about_to_end_is_not_used_for_a_new_connection() -> None:
    now = 1_800_000_000.0
    tokens = iter([jwt(now + 100), jwt(now + 1000)])
    source = TokenSource(lambda: next(tokens), lambda: now)
    _, expires = await source.get("connect", "")
    assert expires == 1_800_000_100
    now += 97
    _, expires = await source.get("connect", "")
    assert expires == 1_800_001_000


async def test_a_callback_gets_the_reason_where_it_takes_one() -> None:
    reasons: list[str] = []

    def with_reason(why: str) -> str:
        reasons.append(why)
        return f"token-{len(reasons)}"

    source = TokenSource(with_reason)
    await source.get("connect", "")
    await source.get("ended", "token-1")
    assert reasons == ["connect", "ended"]
    assert await TokenSource(lambda default="kept": default).get("connect", "") == ("kept", None)


async def test_a_callback_that_blocks_does_not_stop_the_loop() -> None:
    go = threading.Event()

    def blocking() -> str:
        assert go.wait(20)
        return "token"

    task = asyncio.create_task(TokenSource(blocking).get("connect", ""))
    for _ in range(3):
        await asyncio.sleep(0)
    go.set()
    assert await task == ("token", None)


@pytest.mark.parametrize("found", [None, "", "   ", 7, "with\nline", "ümlaut"])
async def test_no_token_and_what_cannot_be_one_is_for_good(found: object) -> None:
    with pytest.raises(NoToken) as refused:
        await TokenSource(lambda: found).get("connect", "")
    assert "ümlaut" not in str(refused.value)


async def test_what_a_callback_raises_is_raised_and_the_next_request_calls_it_again() -> None:
    calls = 0

    async def callback() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OSError("no network")
        return "token"

    source = TokenSource(callback)
    for _ in range(2):
        with pytest.raises(OSError, match="no network"):
            await source.get("connect", "")
    assert await source.get("connect", "") == ("token", None)


async def test_one_that_hangs_counts_as_failed_and_is_not_called_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchout.client.tokens.CALLBACK_S", 0.01)
    calls, go = 0, asyncio.Event()

    async def hanging() -> str:
        nonlocal calls
        calls += 1
        await go.wait()
        return "late"

    source = TokenSource(hanging)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="has not returned"):
            await source.get("connect", "")
    assert calls == 1
    go.set()
    monkeypatch.setattr("watchout.client.tokens.CALLBACK_S", 20)
    assert await source.get("connect", "") == ("late", None)
    assert calls == 1
    await source.close()


async def test_closing_does_not_wait_for_a_callback() -> None:
    go = threading.Event()
    source = TokenSource(lambda: str(go.wait(20)))
    task = asyncio.create_task(source.get("connect", ""))
    await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    await asyncio.wait({task})
    await source.close()
    go.set()
    assert time.monotonic() - began < 15


def test_a_token_that_is_neither_text_nor_function_is_an_error() -> None:
    with pytest.raises(TypeError, match="expected text or a function"):
        TokenSource(7)  # type: ignore[arg-type]
