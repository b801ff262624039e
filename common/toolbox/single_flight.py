"""A question that many may ask at once and that is put once at a time, such as what ``/stats`` asks the router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from watchout.common.service import Tasks

#: Between two times there is a rest, so many times as long as the last took, and at most so long.
REST_RATIO: Final = 4
REST_S: Final = 0.25

_T = TypeVar("_T")


class SingleFlight(Generic[_T]):
    """What many may want to know at once, and is asked once at a time.

    Who comes while it is asked shares the next time with all who wait, so that no answer is older than its request.
    Between two times there is a rest, so that whoever answers has time for others however many ask. `ask` answers
    also when it fails; what it raises is logged, and raised at all who wait.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, _T]], tasks: Tasks) -> None:
        self._ask = ask
        self._tasks = tasks
        self._asking = asyncio.Lock()
        self._next: asyncio.Task[_T] | None = None
        self._rested_at = float("-inf")

    async def answer(self) -> _T:
        """What is so at a time after this call."""
        if self._next is None or self._next.done():
            self._next = self._tasks.start(self._take_turn(), "shared question")
        return await asyncio.shield(self._next)

    async def _take_turn(self) -> _T:
        loop = asyncio.get_running_loop()
        async with self._asking:
            await asyncio.sleep(self._rested_at - loop.time())
            self._next = None
            began = loop.time()
            try:
                return await self._ask()
            finally:
                ended = loop.time()
                self._rested_at = ended + min(REST_RATIO * (ended - began), REST_S)
