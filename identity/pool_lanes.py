"""Turns at a store's connections: who is here already is looked at again without waiting for strangers."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator
from typing import Final


class PoolLane(enum.Enum):
    """What a query is for: somebody who wants in, or those who are in and may have to go."""

    LOOKUP = "lookup"
    RECHECK = "recheck"


_OTHER: Final = {PoolLane.LOOKUP: PoolLane.RECHECK, PoolLane.RECHECK: PoolLane.LOOKUP}


class PoolLanes:
    """At most `at_once` turns are taken, each lane in the order of asking.

    The last free one is for the lane that has none. Where both lanes wait for one, they have it alternately: with one
    connection, a re-check waits for one look-up at most.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._most = max(1, at_once - 1)
        self._taken = dict.fromkeys(PoolLane, 0)
        self._waiting: dict[PoolLane, dict[asyncio.Future[None], None]] = {lane: {} for lane in PoolLane}
        self._last = PoolLane.LOOKUP

    @contextlib.asynccontextmanager
    async def take(self, lane: PoolLane) -> AsyncIterator[None]:
        """Hold a turn of this lane; waits for it without a bound of its own."""
        waiting = self._waiting[lane]
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[turn] = None
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn in waiting:  # whoever waited has left
                del waiting[turn]
            else:
                self._taken[lane] -= 1
                self._free += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while (found := self._next()) is not None:
            lane, turn = found
            del self._waiting[lane][turn]
            self._taken[lane] += 1
            self._free -= 1
            self._last = lane
            turn.set_result(None)

    def _next(self) -> tuple[PoolLane, asyncio.Future[None]] | None:
        if not self._free:
            return None
        for lane in (_OTHER[self._last], self._last):
            if self._taken[lane] < self._most:
                for turn in self._waiting[lane]:
                    if not turn.cancelled():  # its task is about to take it out
                        return lane, turn
        return None
