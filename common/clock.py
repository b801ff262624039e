"""The wall clock in the unit of the wire and of the bus."""

from __future__ import annotations

import time
from typing import Final

#: Longest time between two readings that count as one moment, in seconds, and how often it is tried.
_PAUSE_S: Final = 0.005
_READINGS: Final = 10


def now_ms() -> int:
    """Return the time in whole milliseconds since the Unix epoch.

    It follows the system's clock and may go back: measure durations with a monotonic clock.
    """
    return time.time_ns() // 1_000_000


def both() -> tuple[float, int]:
    """Return the monotonic clock in seconds, and `now_ms` at the same moment: a pause between the two is read again."""
    for _ in range(_READINGS):
        before = time.monotonic()
        wall = now_ms()
        after = time.monotonic()
        if after - before < _PAUSE_S:
            break
    return after, wall
