"""Learns from the latency of an endpoint how many requests may be in flight there. Pure; times in seconds.

The rule is the gradient of Netflix's concurrency-limits (github.com/Netflix/concurrency-limits, ``Gradient2Limit``) and
of Envoy's adaptive concurrency filter: once a window, ``limit = limit × gradient + √limit / 2``. The gradient falls
below 1 when requests take longer than a single one does, which means that they queue. A service that works on one frame
at a time gets two or three, which keeps its full rate on fresh frames; one that works on many gets up to the bound.
A failure halves the limit, as in TCP (RFC 5681, section 3.1).

The latency of a single request is measured, as Envoy does. It is not the lowest latency so far, because pictures
differ: from time to time the limit is 1 for `ALONE` results.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final

#: The first limit, if the bound allows it.
FIRST_LIMIT: Final = 4
#: Results in one measurement of the latency of single requests; their median is used.
ALONE: Final = 3
#: Time between two measurements, in seconds, and the least time in multiples of that latency.
MEASURE_EVERY_S: Final = 30.0
MEASURE_EVERY_TURNS: Final = 100
#: Time until the first measurement when the first requests were not single ones, in seconds.
MEASURE_FIRST_S: Final = 1.0
#: Latency up to ``TOLERANCE × alone_s + SLACK_S`` does not count as queueing: latency varies by itself.
TOLERANCE: Final = 1.5
SLACK_S: Final = 0.02
#: Least factor by which one window reduces the limit.
LEAST_GRADIENT: Final = 0.25
#: Weight of a window that was faster than `alone_s`, when `alone_s` is corrected.
QUICKER_WEIGHT: Final = 0.2


class ConcurrencyLimit:
    """Learns from latencies how many requests may be in flight at one endpoint of the ML service, from 1 to `bound`.

    Owned by `ServiceEndpoint`.

    Args:
        bound: most requests in flight (``ML_IN_FLIGHT``).

    Attributes:
        alone_s: latency of a request with no other in flight, in seconds; None: not measured yet.
    """

    def __init__(self, bound: int) -> None:
        self.bound = max(1, bound)
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
        """Number of requests that may be in flight now."""
        return 1 if self._measuring else int(self._limit)

    def measures(self, now: float) -> bool:
        """Return whether single requests are being measured, or will be with the next result."""
        return self._measuring or (now >= self._measure_at > -math.inf and self.limit > 1)

    def on_result(self, sent_at: float, in_flight: int, now: float, *, may_measure: bool = True) -> None:
        """Handle a result.

        Args:
            sent_at: when the request was sent.
            in_flight: requests in flight when it was sent, itself included.
            now: the current time.
            may_measure: whether a measurement that is due may begin. It must not while a request is in flight that may
                never finish, since no other is sent before that one ends.
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

    def on_failure(self, sent_at: float, now: float) -> None:
        """Handle a failure. Failures of requests that were sent before the last change of the limit count as one."""
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
            moved = self._limit  # a limit that is not used does not grow
        self._set(moved, now)

    def _set(self, limit: float, now: float) -> None:
        before = int(self._limit)
        self._limit = max(1.0, min(float(self.bound), limit))
        if before > 1:
            self._single_since = now
        self._window.clear()
        self._window_from = now
        self._most_in_flight = 0
