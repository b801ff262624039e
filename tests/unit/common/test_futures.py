"""Futures and tasks that nobody awaits."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from watchout.common.toolbox.futures import in_background, retrieve_exception


@pytest.mark.parametrize("is_retrieved", [True, False])
async def test_an_exception_that_was_retrieved_is_not_logged(is_retrieved: bool) -> None:
    logged: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: logged.append(context))
    future: asyncio.Future[None] | None = loop.create_future()
    assert future is not None
    future.set_exception(ValueError("nobody awaits this"))
    if is_retrieved:
        retrieve_exception(future)
    future = None
    gc.collect()
    assert len(logged) == (0 if is_retrieved else 1)


async def test_a_future_that_is_pending_or_cancelled_is_left_as_it_is() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    retrieve_exception(future)
    assert not future.done()
    future.cancel()
    retrieve_exception(future)
    assert future.cancelled()


async def test_what_runs_in_the_background_is_not_collected_and_its_failure_is_not_logged() -> None:
    logged: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: logged.append(context))
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        ended.append("it ran")
        raise ValueError("nobody awaits this")

    in_background(fails())
    while not ended:
        gc.collect()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []
