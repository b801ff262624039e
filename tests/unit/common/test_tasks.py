"""Background tasks end when they are told to, also one that lost a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from watchout.common import service
from watchout.common.service import Tasks


async def test_all_tasks_are_cancelled_and_waited_for() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = Tasks()
    for number in range(3):
        tasks.start(work(number), f"work {number}")
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == [0, 1, 2]
    await tasks.close()  # nothing is left


async def test_a_task_that_lost_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CANCEL_AGAIN_S", 0.01)
    lost = 0

    async def work() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    tasks = Tasks()
    task = tasks.start(work(), "work")
    await asyncio.sleep(0)
    closing = asyncio.create_task(tasks.close())
    await asyncio.wait((closing,), timeout=10)
    closed = closing.done()
    while not task.done():  # or the test itself would not end
        task.cancel()
        await asyncio.sleep(0)
    assert (closed, lost) == (True, 2)
