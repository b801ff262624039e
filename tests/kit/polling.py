"""Waiting for a condition, in place of waiting for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until the condition holds; fails when it does not in time."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout_s
    while not condition():
        assert loop.time() < give_up_at, f"not true within {timeout_s:g} s"
        await asyncio.sleep(0.005)
