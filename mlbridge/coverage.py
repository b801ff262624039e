"""Coverage of streams, and latency of the ML service. Pure; times in seconds.

The coverage of a stream is the share of the last `WINDOW_S` seconds, between its first and its newest frame, in which
the ML service returned a result for a frame of it in time. Results count, not requests, so that it holds for a slow
service too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

#: Period over which coverage and latency are reported, in seconds.
WINDOW_S: Final = 60
#: Most results over which latency is reported.
MAX_LATENCIES: Final = 1_000

_MASK: Final = (1 << (WINDOW_S + 1)) - 1  # one more, for the current second


class StreamCoverage:
    """The coverage of one stream, as one bit for each second. Owned by the scheduler.

    Args:
        now: time of the stream's first frame.
    """

    __slots__ = ("_analysed", "_first", "_last", "_newest")

    def __init__(self, now: float) -> None:
        self._first = self._last = self._newest = math.floor(now)
        self._analysed = 0  # bit n: a frame was analysed in the second `_newest` - n

    def on_frame(self, now: float) -> None:
        """Record a frame of the stream."""
        self._last = max(self._last, math.floor(now))

    def on_result(self, now: float) -> None:
        """Record a result for a frame of the stream."""
        second = max(self._newest, math.floor(now))
        self._analysed = (self._analysed << min(second - self._newest, WINDOW_S + 1)) & _MASK | 1
        self._newest = second

    def share(self, now: float) -> float:
        """Return the coverage, from 0 to 1. The current second counts only while there is no other."""
        to = max(self._first, min(max(self._last, self._newest), math.floor(now) - 1))
        since = max(self._first, to - WINDOW_S + 1)
        ahead = to - self._newest
        analysed = self._analysed << min(ahead, WINDOW_S) if ahead >= 0 else self._analysed >> -ahead
        seconds = to - since + 1
        return (analysed & ((1 << seconds) - 1)).bit_count() / seconds


@dataclass(frozen=True, slots=True)
class CoverageSummary:
    """The coverage of all streams. Made by the dispatcher every few seconds.

    Attributes:
        streams: number of streams.
        mean: mean coverage, from 0 to 1; 1 without streams.
        least: least coverage; 1 without streams.
        worst: (stream, coverage) of the streams with the least coverage, lowest first.
    """

    streams: int
    mean: float
    least: float
    worst: list[tuple[str, float]]

    @classmethod
    def of(cls, shares: list[tuple[str, float]], most: int) -> CoverageSummary:
        """Summarize (stream, coverage) rows; `most`: length of `worst`."""
        if not shares:
            return cls(0, 1.0, 1.0, [])
        rows = sorted(shares, key=lambda row: (row[1], row[0]))
        return cls(len(rows), sum(share for _, share in rows) / len(rows), rows[0][1], rows[:most])


class Latencies:
    """Latencies, in seconds, of the newest results of the ML service: at most `MAX_LATENCIES`, none older than
    `WINDOW_S` seconds. Owned by the dispatcher, which reports percentiles of them as metrics.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float]] = deque(maxlen=MAX_LATENCIES)

    def add(self, latency_s: float, now: float) -> None:
        """Record the latency of a result, in seconds."""
        self._rows.append((now, latency_s))

    def quantiles(self, now: float, *shares: float) -> list[float]:
        """Return for each share (0 to 1) the latency within which it arrived, by nearest rank; 0 without results."""
        while self._rows and self._rows[0][0] < now - WINDOW_S:
            self._rows.popleft()
        if not self._rows:
            return [0.0] * len(shares)
        ranked = sorted(latency for _, latency in self._rows)
        return [ranked[max(0, math.ceil(share * len(ranked)) - 1)] for share in shares]
