"""How well the streams are looked at: coverage of each, and latency. Pure; `now` in seconds.

The coverage of a stream is the share of seconds, of the last `WINDOW_S` between its first and its newest frame, in
which the ML service answered a frame of it in time. Answers count, not requests: so it is true of a slow service too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

#: Seconds over which coverage is told.
WINDOW_S: Final = 60
#: Answers over which latency is told.
MAX_LATENCIES: Final = 1_000

_MASK: Final = (1 << (WINDOW_S + 1)) - 1  # one more, for the second that is not over


class Coverage:
    """The coverage of one stream, in one bit a second."""

    __slots__ = ("_first", "_last", "_looks", "_newest")

    def __init__(self, now: float) -> None:
        self._first = self._last = self._newest = math.floor(now)
        self._looks = 0  # bit n: looked at in the second `_newest` - n

    def seen(self, now: float) -> None:
        """A frame of it came."""
        self._last = max(self._last, math.floor(now))

    def looked(self, now: float) -> None:
        """A frame of it was answered."""
        second = max(self._newest, math.floor(now))
        self._looks = (self._looks << min(second - self._newest, WINDOW_S + 1)) & _MASK | 1
        self._newest = second

    def share(self, now: float) -> float:
        """From 0 to 1. The second that is not over counts only while there is no other."""
        to = max(self._first, min(max(self._last, self._newest), math.floor(now) - 1))
        since = max(self._first, to - WINDOW_S + 1)
        ahead = to - self._newest
        looks = self._looks << min(ahead, WINDOW_S) if ahead >= 0 else self._looks >> -ahead
        seconds = to - since + 1
        return (looks & ((1 << seconds) - 1)).bit_count() / seconds


@dataclass(frozen=True, slots=True)
class Covered:
    """The coverage of all streams: how many they are, mean and least (1 without any), and the least covered ones."""

    streams: int
    mean: float
    least: float
    worst: list[tuple[str, float]]

    @classmethod
    def of(cls, shares: list[tuple[str, float]], most: int) -> Covered:
        """Of each stream's share; `most` rows of them are kept, the least covered first."""
        if not shares:
            return cls(0, 1.0, 1.0, [])
        rows = sorted(shares, key=lambda row: (row[1], row[0]))
        return cls(len(rows), sum(share for _, share in rows) / len(rows), rows[0][1], rows[:most])


class Latencies:
    """Latency of the newest answers, `MAX_LATENCIES` of them and no older than `WINDOW_S`."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float]] = deque(maxlen=MAX_LATENCIES)

    def add(self, latency_s: float, now: float) -> None:
        """An answer came."""
        self._rows.append((now, latency_s))

    def quantiles(self, now: float, *shares: float) -> list[float]:
        """The latency within which each share of the answers came (nearest rank); 0 without answers."""
        while self._rows and self._rows[0][0] < now - WINDOW_S:
            self._rows.popleft()
        if not self._rows:
            return [0.0] * len(shares)
        ranked = sorted(latency for _, latency in self._rows)
        return [ranked[max(0, math.ceil(share * len(ranked)) - 1)] for share in shares]
