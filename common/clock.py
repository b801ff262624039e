"""The wall clock in the unit of the wire and of the bus."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the time in whole milliseconds since the Unix epoch.

    It follows the system's clock and may go back: measure durations with a monotonic clock.
    """
    return time.time_ns() // 1_000_000
