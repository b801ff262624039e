"""Calls the function of an ML service: a bounded number at a time, in threads, alone or in batches."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from watchout.common.media.arrays import PictureFault
from watchout.ml.results import ResultFault, alerts_of, results_of_batch
from watchout.ml.shown_frame import Frame
from watchout.ml.workers import Workers

_log: Final = logging.getLogger("watchout.ml")

#: Frames that wait for the function for each call at a time; more are answered with 503.
WAITING_PER_CALL: Final = 16
#: Seconds between two tracebacks of the same kind of error in the log.
LOG_EVERY_S: Final = 10.0


class Busy(Exception):
    """Too many frames wait for the function. The response is 503 with Retry-After."""


class FunctionFault(Exception):
    """The function raised an exception or returned no result; the text says which. The response is 500."""


class FunctionCalls:
    """Calls the function of an ML service in threads. Created in the running loop.

    Args:
        look: the function; its argument is a frame, or with `batch` a list of frames.
        concurrency: most calls at a time; 1 for models that are not thread-safe.
        batch: most frames in one call; None: each call gets one frame, not a list.
        batch_wait_s: how long a frame waits for others of its batch, in seconds.

    Attributes:
        frames: number of frames that were analysed.
        failures: number of frames for which the function failed.
        alerts: number of alerts that it returned.
        last_fault: text of the last failure; empty: none.
        busy_s: duration of all calls together, in seconds.
    """

    def __init__(self, look: Callable[..., Any], *, concurrency: int, batch: int | None, batch_wait_s: float) -> None:
        self.frames = self.failures = self.alerts = 0
        self.last_fault = ""
        self.busy_s = 0.0
        self._look = look
        self._is_async = inspect.iscoroutinefunction(look)
        self._concurrency = concurrency
        self._batch = batch
        self._batch_wait_s = batch_wait_s
        self._waiting: deque[tuple[Frame, asyncio.Future[Any]]] = deque()
        self._free = concurrency
        self._workers = Workers(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: dict[str, float] = {}

    async def look(self, frame: Frame) -> list[dict[str, Any]]:
        """Return the alerts of a frame.

        Raises:
            Busy: too many frames wait.
            PictureFault: the function could not decode the picture.
            FunctionFault: the function failed.
        """
        if len(self._waiting) >= WAITING_PER_CALL * self._concurrency * (self._batch or 1):
            raise Busy(f"{len(self._waiting)} frames wait for the model")
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((frame, result))
        self._begin_calls()
        try:
            found: list[dict[str, Any]] = await result
        except asyncio.CancelledError:
            self._waiting = deque(each for each in self._waiting if each[1] is not result)
            raise
        return found

    async def close(self, timeout_s: float) -> None:
        """Wait for the running calls; frames that wait are not analysed, nor are those of calls that take longer.

        Args:
            timeout_s: seconds to wait.
        """
        while self._waiting:
            _, result = self._waiting.popleft()
            if not result.done():
                result.set_exception(Busy("the service is ending"))
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        self._workers.end()

    def _begin_calls(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            first = [self._waiting.popleft()] if self._batch is None else []
            task = asyncio.get_running_loop().create_task(self._call_next(first), name="watchout ml call")
            self._tasks.add(task)
            task.add_done_callback(self._on_called)
            if self._batch is not None:
                return  # the next frames may go with these

    def _on_called(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call failed because of an error of this library", exc_info=error)
        self._begin_calls()

    async def _call_next(self, taken: list[tuple[Frame, asyncio.Future[Any]]]) -> None:
        if self._batch is not None:
            if len(self._waiting) < self._batch:
                await asyncio.sleep(self._batch_wait_s)
            taken = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        if not taken:
            return
        frames = [frame for frame, _ in taken]
        began = time.monotonic()
        try:
            value = await self._call(frames if self._batch is not None else frames[0])
            results = [value] if self._batch is None else results_of_batch(value, len(frames))
        except PictureFault as fault:
            self._finish(taken, fault)
        except ResultFault as fault:
            self._finish(taken, self._failed(fault))
        except Exception as exc:
            self._finish(taken, self._failed(exc))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # this task itself
                self._finish(taken, Busy("the service is ending"))
                raise
            self._finish(taken, self._failed(RuntimeError("a task that the function waited for was cancelled")))
        else:
            for (_, waiter), each in zip(taken, results, strict=True):
                self._finish_one(waiter, each)
        finally:
            self.busy_s += time.monotonic() - began

    async def _call(self, argument: Any) -> Any:
        if self._is_async:
            return await self._look(argument)
        value = await self._workers.call(self._look, argument)
        # An object whose `__call__` is a coroutine function does not look like one.
        return await value if inspect.isawaitable(value) else value

    def _finish_one(self, waiter: asyncio.Future[Any], result: object) -> None:
        try:
            alerts = alerts_of(result)
        except ResultFault as fault:
            self.failures += 1
            error = self._failed(fault)
            if not waiter.done():
                waiter.set_exception(error)
            return
        self.frames += 1
        self.alerts += len(alerts)
        if not waiter.done():
            waiter.set_result(alerts)

    def _finish(self, taken: list[tuple[Frame, asyncio.Future[Any]]], error: Exception) -> None:
        if not isinstance(error, PictureFault):
            self.failures += len(taken)
        for _, waiter in taken:
            if not waiter.done():
                waiter.set_exception(error)

    def _failed(self, exc: Exception) -> FunctionFault:
        """Return the failure for the response; log its traceback, but not too often."""
        text = str(exc) if isinstance(exc, ResultFault) else f"{type(exc).__name__}: {exc}"
        self.last_fault = text[:500]
        kind, now = type(exc).__name__, time.monotonic()
        if now - self._logged.get(kind, float("-inf")) >= LOG_EVERY_S:
            self._logged[kind] = now
            _log.error("the function failed; the service goes on: %s", self.last_fault, exc_info=exc)
        return FunctionFault(self.last_fault)
