"""The threads that call the function of an ML service."""

from __future__ import annotations

import asyncio
import threading

from watchout.ml.workers import Workers


async def test_calls_share_threads_which_are_bounded_and_end() -> None:
    workers = Workers(2)
    together = threading.Barrier(2, timeout=60)
    for _ in range(3):
        first, second = await asyncio.gather(
            workers.call(lambda _: (together.wait(), threading.get_ident())[1], 0),
            workers.call(lambda _: (together.wait(), threading.get_ident())[1], 0),
        )
        assert first != second
    ours = [each for each in threading.enumerate() if each.name.startswith("watchout-ml ")]
    assert len(ours) == 2
    workers.end()
    for each in ours:
        await asyncio.to_thread(each.join, 60)
        assert not each.is_alive()
