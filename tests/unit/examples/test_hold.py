"""How the demo of three hosts ends: one that only holds its site succeeds, any other is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from examples.cluster.__main__ import Hold


async def demo(hold: Hold, *, holds: bool) -> str:
    try:
        if holds:
            await hold.wait()
        else:
            await asyncio.sleep(60)
    finally:
        for _ in range(100):  # cameras take their time to close their connections
            await asyncio.sleep(0)
    return "what was felt"


async def test_a_site_that_is_held_ends_by_itself_however_long_it_takes() -> None:
    hold = Hold()
    task = asyncio.create_task(demo(hold, holds=True))
    await asyncio.sleep(0)
    hold.end(task)
    assert await task == "what was felt"


async def test_a_demo_that_still_plays_is_cancelled() -> None:
    hold = Hold()
    task = asyncio.create_task(demo(hold, holds=False))
    await asyncio.sleep(0)
    hold.end(task)
    with pytest.raises(asyncio.CancelledError):
        await task
