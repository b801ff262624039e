"""Paths and helpers of the tests of PROTOCOL.md."""

from __future__ import annotations

from typing import Any

from tests.kit.clients import eventually, http, now_ms
from tests.kit.processes import SERVICE_TOKEN

STATS_TOKEN = "stats-token-of-the-tests"
REGISTER = "/streams/register"
SUBSCRIBE = "/streams/subscribe"
MIB = 1 << 20


async def push(url: str, body: Any, token: str | None = SERVICE_TOKEN) -> list[dict[str, Any]]:
    """An alert, or a list of them, from the ML side."""
    answer = await http(f"{url}/alerts", method="POST", token=token, body=body)
    assert 200 <= answer.status < 300, answer
    return list(answer.json.get("accepted", []))


async def a_later_ms() -> int:
    """A time after everything so far and before everything that comes."""
    mark = now_ms() + 1
    await eventually(lambda: now_ms() >= mark)
    return mark
