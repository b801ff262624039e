"""A thread with an event loop of its own, in which `frames` and `Camera` run their connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

_log: Final = logging.getLogger("watchout.client")

#: Seconds that closing waits for the thread.
JOIN_S: Final = 10.0

T = TypeVar("T")


class Background:
    """A thread with an event loop that runs one coroutine, and further ones beside it, until it is closed.

    Made by `frames` and `Camera`, whose callers have no event loop.

    Args:
        work: the coroutine function that the thread runs; its end, or its exception, is reported to `on_end`.
        on_end: called in the thread with the exception, or None.
        name: name of the thread.
    """

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, None]], on_end: Callable[[BaseException | None], None], name: str
    ) -> None:
        self._work = work
        self._on_end = on_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._started.wait()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the thread's loop; does nothing when that has ended."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def submit(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine in the thread's loop; return its result, or raise what it raises.

        Args:
            work: the coroutine.
            timeout_s: seconds to wait for it.

        Raises:
            TimeoutError: the coroutine has not ended in time; it is cancelled.
            RuntimeError: the thread has ended, or the caller runs in it and would wait for itself.
        """
        assert self._loop is not None
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback in the thread cannot wait for that thread: do it in another thread")
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
            raise RuntimeError("the thread has ended")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel the coroutine, and wait for the thread."""
        self._closing = True
        self.call(self._cancel)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as exc:
            error = exc
        finally:
            self._started.set()
            self._on_end(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._started.set()
        if not self._closing:
            await self._work()


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run coroutines beside each other until the first ends; cancel the others, and raise what that one raised."""
    tasks = [asyncio.create_task(work, name="watchout") for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
