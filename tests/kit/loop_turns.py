"""Counts the turns of the running event loop, for tests of what may happen in one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Counts by turn what a test notes; made by `counted_turns`."""

    def __init__(self) -> None:
        self._number = 0
        self._noted: Counter[int] = Counter()
        self._next: asyncio.Handle | None = None

    def note(self, *_: object) -> None:
        """Count one more thing in this turn; arguments are ignored, so that it may be a callback."""
        self._noted[self._number] += 1

    @property
    def most(self) -> int:
        """The most that was noted in one turn."""
        return max(self._noted.values(), default=0)

    @property
    def total(self) -> int:
        """All that was noted."""
        return self._noted.total()

    def tick(self) -> None:
        """Begin the next turn."""
        self._number += 1
        self._next = asyncio.get_running_loop().call_soon(self.tick)

    def stop(self) -> None:
        """Count no more turns."""
        assert self._next is not None
        self._next.cancel()


@contextmanager
def counted_turns() -> Iterator[Turns]:
    """Count turns of the running loop within the block."""
    turns = Turns()
    turns.tick()
    try:
        yield turns
    finally:
        turns.stop()
