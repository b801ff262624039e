"""Who has a frame that waits until a frame rate permits it, by time, with one timer for all of a gateway. Pure.

`now` and all other times in seconds of the loop's clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

W = TypeVar("W", bound=Hashable)

#: Entries that were replaced are removed from the heap at the latest when it has twice as many, and this many more.
_SPARE_ENTRIES: Final = 64


class RateWaiter(Protocol):
    """A socket, an HTTP response, or `Delivery` for the receivers on the bus: who gets frames at a rate.

    `Housekeeping` calls `release_waiting` at the time for which it was entered in `RateWaits`.
    """

    def __hash__(self) -> int: ...

    def release_waiting(self, now: float) -> float | None:
        """Send the frames whose rates permit them; return when the next one of those that wait is due, None: none."""


class RateWaits(Generic[W]):
    """The waiters of one gateway, by the time of their next look. Part of `Delivery`.

    A waiter is entered when a frame begins to wait, and stays until its time, however many frames replace it: so a
    steady stream costs a receiver a look or two per interval of its rate, and no timer. `Housekeeping` sets
    `on_earlier`, takes those that are due, and enters them again when a frame of theirs still waits.

    Attributes:
        on_earlier: Called with the time of the next look, when it becomes earlier.
    """

    __slots__ = ("_entered", "_heap", "_numbers", "_waiters", "on_earlier")

    def __init__(self) -> None:
        #: Time and number of the entry of each waiter, and the waiters by these numbers.
        self._entered: dict[W, tuple[float, int]] = {}
        self._waiters: dict[int, W] = {}
        #: Times with numbers; a number without a waiter was replaced or removed.
        self._heap: list[tuple[float, int]] = []
        self._numbers = 0
        self.on_earlier: Callable[[float], None] | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def enter(self, waiter: W, at: float) -> None:
        """Let a waiter look at `at`, unless it does so earlier anyway."""
        known = self._entered.get(waiter)
        if known is not None:
            if known[0] <= at:
                return
            del self._waiters[known[1]]
        self._numbers += 1
        entry = self._entered[waiter] = at, self._numbers
        self._waiters[self._numbers] = waiter
        if len(self._heap) > 2 * len(self._waiters) + _SPARE_ENTRIES:
            self._heap = [each for each in self._heap if each[1] in self._waiters]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, entry)
        if self.on_earlier is not None and self._heap[0] is entry:
            self.on_earlier(at)

    def remove(self, waiter: W) -> None:
        """Remove a waiter that has gone, if it is here."""
        entry = self._entered.pop(waiter, None)
        if entry is not None:
            del self._waiters[entry[1]]

    def take_due(self, now: float) -> list[W]:
        """Remove and return those whose time has come, in the order of their times."""
        due: list[W] = []
        while self._heap and self._heap[0][0] <= now:
            waiter = self._waiters.pop(heapq.heappop(self._heap)[1], None)
            if waiter is not None:
                del self._entered[waiter]
                due.append(waiter)
        return due

    def next_at(self) -> float | None:
        """Return the time of the next look; None: nobody waits."""
        while self._heap and self._heap[0][1] not in self._waiters:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
