"""Collects frames that are sent within a few milliseconds of each other into one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from watchout.common.media.frames import Frame
from watchout.common.service import Tasks
from watchout.mlbridge.targets.target import TargetFailure

#: How long the first frame of a batch waits for others, in seconds.
WAIT_S: Final = 0.005

#: The result for one frame of a batch: its alerts, or the exception that `FrameBatcher.analyse` raises.
BatchOutcome = list[object] | Exception
#: Sends a batch and returns one outcome for each frame, in the same order. Must not raise.
SendBatch = Callable[[list[Frame]], Awaitable[list[BatchOutcome]]]


class FrameBatcher:
    """Collects up to `max_frames` frames and sends them together. Used by `HttpTarget` when ``ML_BATCH`` is over 1.

    A batch is sent when it is full, or `WAIT_S` seconds after its first frame. Each caller of `analyse` gets the result
    of its own frame. A frame whose caller is cancelled stays in its batch; a batch is cancelled when the callers of all
    its frames are.

    Args:
        send: sends one batch and returns an outcome for each frame; a failure of one frame is such an outcome, and is
            raised to the caller of that frame alone.
        max_frames: most frames in a batch.
    """

    def __init__(self, send: SendBatch, *, max_frames: int) -> None:
        self._send = send
        self._max_frames = max_frames
        self._tasks = Tasks()
        self._gathered: list[tuple[Frame, asyncio.Future[list[object]]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def analyse(self, frame: Frame, *, alone: bool = False) -> list[object]:
        """Send one frame with the next batch and wait for its result.

        Args:
            frame: the frame.
            alone: send it at once, in a batch of its own.

        Returns:
            The alerts of this frame.

        Raises:
            Exception: the one that `send` returned for this frame; `TargetFailure` when `send` itself raised.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[object]] = loop.create_future()
        if alone:
            self._start([(frame, result)])
            return await result
        self._gathered.append((frame, result))
        if len(self._gathered) >= self._max_frames:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(WAIT_S, self._flush)
        return await result

    async def close(self) -> None:
        """Cancel the batches under way, and the frames that wait for one."""
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()
        for _, result in self._gathered:
            result.cancel()

    def _flush(self) -> None:
        """Send what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [(frame, result) for frame, result in self._gathered if not result.done()]
        self._gathered = []
        if batch:
            self._start(batch)

    def _start(self, batch: list[tuple[Frame, asyncio.Future[list[object]]]]) -> None:
        task = self._tasks.start(self._run(batch), "ml batch")
        pending = len(batch)

        def on_done(_: asyncio.Future[list[object]]) -> None:
            nonlocal pending
            pending -= 1
            if not pending:
                task.cancel()  # no caller waits for it any more

        for _, result in batch:
            result.add_done_callback(on_done)

    async def _run(self, batch: list[tuple[Frame, asyncio.Future[list[object]]]]) -> None:
        outcomes: list[BatchOutcome]
        try:
            outcomes = await self._send([frame for frame, _ in batch])
        except Exception as exc:
            outcomes = [TargetFailure(f"unexpected {type(exc).__name__}: {exc}")] * len(batch)
        for (_, result), outcome in zip(batch, outcomes, strict=True):
            if result.done():
                continue
            if isinstance(outcome, Exception):
                result.set_exception(outcome)
            else:
                result.set_result(outcome)
