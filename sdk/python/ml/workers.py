"""Daemon threads that call the function of an ML service: a call that never returns cannot keep the process alive."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias

_Job: TypeAlias = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[Any], Any], Any]


class Workers:
    """Up to `most` daemon threads, started when needed and kept, because models may use thread-local state.

    Not `concurrent.futures`: the interpreter waits for its threads at exit, which a call that hangs would block.

    Args:
        most: most calls at a time; the caller begins no more.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call the function in a thread; return its result or raise its exception.

        Args:
            function: the function.
            argument: its argument.

        Raises:
            RuntimeError: the function raised `StopIteration`, `SystemExit` or the like, which must not end the service.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        if self._busy == self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, name=f"watchout-ml {self._threads}", daemon=True).start()
        self._busy += 1
        self._jobs.put((loop, result, function, argument))
        try:
            return await result
        finally:
            self._busy -= 1

    def end(self) -> None:
        """End the threads that are idle, and the others after their calls."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, result, function, argument = job
            value: Any = None
            error: Exception | None = None
            try:
                value = function(argument)
            except StopIteration as exc:  # a future accepts no StopIteration
                error = RuntimeError(f"the function raised {exc!r}")
            except Exception as exc:
                error = exc
            except BaseException as exc:
                error = RuntimeError(f"the function raised {exc!r}")
            del job, argument
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, result, value, error)
            del value, error, result


def _settle(result: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)
