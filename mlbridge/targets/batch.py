"""Frames that are shown at about the same time go to the service together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from watchout.common.media.frames import Frame
from watchout.common.service import Tasks
from watchout.mlbridge.targets import TargetFailure

#: How long the first frame of a batch waits for others, seconds.
WAIT_S: Final = 0.005

#: What became of one frame: its alerts, or why it failed.
Outcome = list[object] | Exception
#: Asks the service for all frames of a batch; an outcome for each, in their order. Must not raise but be cancelled.
Ask = Callable[[list[Frame]], Awaitable[list[Outcome]]]


class Batches:
    """Gathers up to `most` frames and asks for them at once. A frame whose `show` is cancelled does not end a batch."""

    def __init__(self, ask: Ask, *, most: int) -> None:
        self._ask = ask
        self._most = most
        self._tasks = Tasks()
        self._gathered: list[tuple[Frame, asyncio.Future[list[object]]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def show(self, frame: Frame, *, alone: bool = False) -> list[object]:
        """The alerts of one frame, in a batch of its own when `alone`. Raises what its outcome is."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[object]] = loop.create_future()
        if alone:
            self._start([(frame, done)])
            return await done
        self._gathered.append((frame, done))
        if len(self._gathered) >= self._most:
            self._go()
        elif self._timer is None:
            self._timer = loop.call_later(WAIT_S, self._go)
        return await done

    async def close(self) -> None:
        """Give up what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()
        for _, done in self._gathered:
            done.cancel()

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [(frame, done) for frame, done in self._gathered if not done.done()]
        self._gathered = []
        if batch:
            self._start(batch)

    def _start(self, batch: list[tuple[Frame, asyncio.Future[list[object]]]]) -> None:
        task = self._tasks.start(self._run(batch), "ml batch")
        still = len(batch)

        def one_less(_: asyncio.Future[list[object]]) -> None:
            nonlocal still
            still -= 1
            if not still:
                task.cancel()  # nobody waits for it any more

        for _, done in batch:
            done.add_done_callback(one_less)

    async def _run(self, batch: list[tuple[Frame, asyncio.Future[list[object]]]]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = await self._ask([frame for frame, _ in batch])
        except Exception as exc:
            outcomes = [TargetFailure(f"unexpected {type(exc).__name__}: {exc}")] * len(batch)
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
