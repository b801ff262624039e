"""A circuit breaker: decides whether requests are sent to an endpoint at all. Pure; times in seconds.

The states are those of Nygard's *Release It!* ("Circuit Breaker"). Closed: all requests are sent. Open: none is sent
until a pause is over. Half-open: one probe is in flight; its result closes the breaker, its failure opens it again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: Failures in a row that open it. Fewer may be caused by single frames.
OPEN_AFTER: Final = 3
#: The first pause, in seconds. It doubles with each probe that fails.
FIRST_PAUSE_S: Final = 0.1
#: The longest pause, in seconds. With the next frame of a camera, a service that is back is noticed within 1 s.
LONGEST_PAUSE_S: Final = 0.5
#: Longest ``Retry-After`` (RFC 9110 section 10.2.3) of a service that is respected, in seconds.
MAX_RETRY_AFTER_S: Final = 30.0


class BreakerState(enum.IntEnum):
    """State of a circuit breaker. CLOSED: requests are sent. OPEN: none is. HALF_OPEN: one probe is in flight.

    The numbers are the values of the metric ``ml_breaker_state``.
    """

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """The circuit breaker of one endpoint of the ML service: stops requests after failures in a row, and probes the
    endpoint after a pause. Owned by `ServiceEndpoint`. Times are in seconds.

    Args:
        chance: returns a random number from 0 up to 1, by which pauses vary.

    Attributes:
        state: the current state.
        opened: how often it opened after it had been closed.
    """

    def __init__(self, *, chance: Callable[[], float]) -> None:
        self.state = BreakerState.CLOSED
        self.opened = 0
        self._chance = chance
        self._failures = 0
        self._pauses = 0
        self._opened_at = -math.inf
        self._until = -math.inf
        self._asked_until = -math.inf  # the service asked for no requests before

    def allows(self, now: float) -> bool:
        """Return whether a request may be sent: any when closed, one probe when the pause is over."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return now >= self._until
        return False

    def next_at(self) -> float | None:
        """Return when a probe is allowed; None: requests are allowed now, or a probe is in flight."""
        return self._until if self.state is BreakerState.OPEN else None

    def on_sent(self) -> bool:
        """Record that a request is sent. Returns whether it is the probe."""
        if self.state is BreakerState.CLOSED:
            return False
        assert self.state is BreakerState.OPEN, "one probe at a time"
        self.state = BreakerState.HALF_OPEN
        return True

    def on_result(self, now: float, *, probe: bool) -> None:
        """Handle a result before the deadline.

        The result of a request that was sent before the breaker opened closes it too, unless a probe is in flight,
        which then decides, or the service asked for a pause.
        """
        self._failures = 0
        if probe or (self.state is BreakerState.OPEN and now >= self._asked_until):
            self.state = BreakerState.CLOSED
            self._pauses = 0

    def on_failure(self, sent_at: float, now: float, *, probe: bool, retry_after_s: float | None = None) -> None:
        """Handle a failed request.

        A request that was sent before the breaker last opened belongs to an outage that was counted.

        Args:
            sent_at: when it was sent.
            now: the current time.
            probe: whether it was the probe.
            retry_after_s: pause that the service asked for, in seconds.
        """
        asked_s = min(retry_after_s, MAX_RETRY_AFTER_S) if retry_after_s is not None and retry_after_s > 0 else 0.0
        if asked_s:
            self._asked_until = max(self._asked_until, now + asked_s)
        if not probe and sent_at >= self._opened_at:
            self._failures += 1
        if probe or (self.state is BreakerState.CLOSED and (asked_s or self._failures >= OPEN_AFTER)):
            self.opened += not probe
            self.state = BreakerState.OPEN
            self._opened_at = now
            self._failures = 0
            pause = backoff_s(self._pauses, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S, chance=1 - self._chance())
            self._pauses += 1
            self._until = max(now + pause, self._asked_until)
        elif self.state is BreakerState.OPEN:
            self._until = max(self._until, self._asked_until)
