"""How many requests may be under way at one endpoint, learned from its latency. Pure; times in seconds.

The rule is the gradient of Netflix's concurrency-limits (github.com/Netflix/concurrency-limits, ``Gradient2Limit``) and
of Envoy's adaptive concurrency filter: once a window, ``limit = limit × gradient + √limit / 2``. The gradient falls
below 1 when requests take longer than they do alone, which means that they queue. A service that works on one frame at
a time so gets two or three, keeps its full rate, and answers fresh frames; one that works on many gets up to the bound.
A failure halves the limit, as in TCP (RFC 5681, section 3.1).

What a request takes *alone* is measured, as Envoy does, and is not the lowest latency seen, because pictures differ:
from time to time the limit is 1 for `ALONE` answers.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final

#: Where it begins, if the bound allows.
FIRST_LIMIT: Final = 4
#: Answers that a measurement of the latency alone takes; their median counts.
ALONE: Final = 3
#: It is measured again after so long, and not sooner than after `MEASURE_EVERY_TURNS` times what it takes.
MEASURE_EVERY_S: Final = 30.0
MEASURE_EVERY_TURNS: Final = 100
#: When the first answers had others beside them, it is measured so soon.
MEASURE_FIRST_S: Final = 1.0
#: Latency up to ``TOLERANCE × alone + SLACK_S`` is no queue: it varies by itself, and milliseconds matter to nobody.
TOLERANCE: Final = 1.5
SLACK_S: Final = 0.02
#: One window leaves the limit at least this share of itself.
LEAST_GRADIENT: Final = 0.25
#: Weight of a window that was quicker than the latency alone.
QUICKER_WEIGHT: Final = 0.2


class ConcurrencyLimit:
    """The limit of one endpoint; always from 1 to `bound`."""

    def __init__(self, bound: int) -> None:
        self.bound = max(1, bound)
        #: What a request takes with no other beside it; None: not known yet.
        self.alone_s: float | None = None
        self._limit = float(min(self.bound, FIRST_LIMIT))
        self._single_since = -math.inf
        self._measuring = False
        self._measure_at = -math.inf
        self._alone: deque[float] = deque(maxlen=ALONE)
        self._window: list[float] = []
        self._window_from = -math.inf
        self._most_in_flight = 0

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return 1 if self._measuring else int(self._limit)

    def measures(self, now: float) -> bool:
        """Whether the latency alone is being measured, or is to be as soon as an answer allows it."""
        return self._measuring or (now >= self._measure_at > -math.inf and self.limit > 1)

    def answered(self, sent_at: float, in_flight: int, now: float, *, may_measure: bool = True) -> None:
        """An answer came; `in_flight` is how many were under way when it was sent, itself included.

        `may_measure`: whether a measurement of the latency alone may begin now if it is due. It should not while a
        request is under way that may never be answered, as nothing else is sent until that one ends.
        """
        latency = max(0.0, now - sent_at)
        # The very first was sent before those beside it.
        if in_flight == 1 and (not self._alone or (self.limit == 1 and sent_at >= self._single_since)):
            self._took_alone(latency, now)
        if sent_at >= self._window_from and not self._measuring:
            self._window.append(latency)
            self._most_in_flight = max(self._most_in_flight, in_flight)
            if len(self._window) >= self.limit:
                self._move(statistics.fmean(self._window), now)
        if self._measure_at == -math.inf:
            self._measure_at = now + MEASURE_FIRST_S
        elif may_measure and now >= self._measure_at and self.limit > 1:
            self._measuring = True
            self._single_since = now
            self._alone.clear()

    def failed(self, sent_at: float, now: float) -> None:
        """A request failed. All that were sent before the last change count as one."""
        self._measure_at = max(self._measure_at, now + MEASURE_EVERY_S) if self._measuring else self._measure_at
        self._measuring = False
        if sent_at >= self._window_from:
            self._set(self._limit / 2, now)

    def _took_alone(self, latency: float, now: float) -> None:
        self._alone.append(latency)
        self.alone_s = statistics.median(self._alone)
        self._measure_at = now + max(MEASURE_EVERY_S, MEASURE_EVERY_TURNS * self.alone_s)
        if self._measuring and len(self._alone) >= ALONE:
            self._measuring = False
            self._set(self._limit, now)

    def _move(self, latency: float, now: float) -> None:
        gradient = 1.0
        if self.alone_s is not None and latency > 0:
            if latency < self.alone_s:
                self.alone_s += QUICKER_WEIGHT * (latency - self.alone_s)
            gradient = max(LEAST_GRADIENT, min(1.0, (TOLERANCE * self.alone_s + SLACK_S) / latency))
        moved = self._limit * gradient + math.sqrt(self._limit) / 2
        if moved > self._limit and 2 * self._most_in_flight < self._limit:
            moved = self._limit  # what was not made use of does not grow
        self._set(moved, now)

    def _set(self, limit: float, now: float) -> None:
        before = int(self._limit)
        self._limit = max(1.0, min(float(self.bound), limit))
        if before > 1:
            self._single_since = now
        self._window.clear()
        self._window_from = now
        self._most_in_flight = 0
