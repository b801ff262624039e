"""Calls that many callers share: `SingleFlight` gives the result of the next call, `SharedCalls` of the running one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, Protocol, TypeVar

from watchout.common.toolbox.futures import retrieve_exception

#: After a call comes a rest of so many times its duration, and of at most so many seconds.
REST_RATIO: Final = 4
REST_S: Final = 0.25

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class TaskStarter(Protocol):
    """Starts a coroutine in the background and logs its failure; `common.service.Tasks` is one. Called by
    `SingleFlight`.
    """

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` as a task with this name, and keep a reference to it."""


class SingleFlight(Generic[T]):
    """Runs one function for many callers, one call at a time; no caller gets a result older than its request.

    Callers that arrive during a call share the next one. After each call there is a pause of `REST_RATIO` times its
    duration, at most `REST_S` seconds, so that many callers cannot overload the router. Used for ``/stats`` and
    ``/metrics``.

    Args:
        call: The function; it takes no arguments. What it raises is raised at every caller that shared the call.
        tasks: Where the calls run.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]], tasks: TaskStarter) -> None:
        self._call = call
        self._tasks = tasks
        self._running = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._rested_at = float("-inf")

    async def result(self) -> T:
        """Return the result of a call that begins after this one of `result`."""
        if self._next is None or self._next.done():
            self._next = self._tasks.start(self._run_next(), "shared call")
        return await asyncio.shield(self._next)

    async def _run_next(self) -> T:
        loop = asyncio.get_running_loop()
        async with self._running:
            await asyncio.sleep(self._rested_at - loop.time())
            self._next = None
            began = loop.time()
            try:
                return await self._call()
            finally:
                ended = loop.time()
                self._rested_at = ended + min(REST_RATIO * (ended - began), REST_S)


class SharedCalls(Generic[K, T]):
    """Calls by key, at most one per key at a time; a caller that arrives during a call gets its result.

    A call continues when its callers are cancelled, as others may join. Used where the result of a running call is as
    good as a new one: the fetch of an issuer's keys, the introspection of a token, a health check.

    Args:
        name: Name of the tasks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: dict[K, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        """Return how many calls are under way."""
        return len(self._calls)

    def __contains__(self, key: K) -> bool:
        """Return whether a call with this key is under way."""
        task = self._calls.get(key)
        return task is not None and not task.done()

    def join(self, key: K, call: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the task of the call with this key; start one when none is under way.

        Wait for it with `asyncio.wait` or `asyncio.shield`: a caller that is cancelled must not cancel the task.
        """
        task = self._calls.get(key)
        if task is None or task.done():
            task = self._calls[key] = asyncio.get_running_loop().create_task(call(), name=self._name)
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    async def close(self) -> None:
        """Cancel all calls and wait for their end; whoever waits for one sees a cancelled task."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _end(self, key: K, task: asyncio.Task[T]) -> None:
        if self._calls.get(key) is task:
            del self._calls[key]
        retrieve_exception(task)  # every caller may have left
