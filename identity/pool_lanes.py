"""Divides a store's connections between sign-ins and re-checks, so that a flood of sign-ins cannot delay re-checks."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator
from typing import Final


class PoolLane(enum.Enum):
    """What a query of the session store is for; `DatabaseStore` names it at each turn that it takes from `PoolLanes`.

    LOOKUP: a client signs in. RECHECK: the sessions of connections that are authenticated already are looked up again.
    """

    LOOKUP = "lookup"
    RECHECK = "recheck"


_OTHER: Final = {PoolLane.LOOKUP: PoolLane.RECHECK, PoolLane.RECHECK: PoolLane.LOOKUP}


class PoolLanes:
    """Lets as many queries run as the store has connections, in the order of their calls within each lane.

    One lane never holds all connections, unless there is only one: the last one is kept for the other lane. When both
    lanes wait for the same connection they get it in turn, so that with one connection a re-check waits for at most
    one look-up. `DatabaseStore` takes a turn for each query.

    Args:
        connections: How many queries may run at the same time.
    """

    def __init__(self, connections: int) -> None:
        self._free = connections
        self._most = max(1, connections - 1)
        self._taken = dict.fromkeys(PoolLane, 0)
        self._waiting: dict[PoolLane, dict[asyncio.Future[None], None]] = {lane: {} for lane in PoolLane}
        self._last = PoolLane.LOOKUP

    @contextlib.asynccontextmanager
    async def take(self, lane: PoolLane) -> AsyncIterator[None]:
        """Wait for a turn in this lane and hold it for the block. It has no deadline; the caller sets one."""
        waiting = self._waiting[lane]
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[turn] = None
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn in waiting:  # cancelled before it had its turn
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
                    if not turn.cancelled():  # a cancelled one removes itself in `take`
                        return lane, turn
        return None
