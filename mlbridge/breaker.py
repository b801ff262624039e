"""Whether an endpoint is asked at all: a circuit breaker. Pure; `now` in seconds, chance comes from the caller.

The states and their names are those of Nygard's *Release It!* ("Circuit Breaker"). Closed: all goes through. Open:
nothing does until a pause is over. Half-open: one probe is under way; its answer closes, its failure opens again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: Failures in a row that open it. Fewer may be the frame's fault and not the service's.
OPEN_AFTER: Final = 3
#: The first pause; it doubles with each probe that fails.
FIRST_PAUSE_S: Final = 0.1
#: The longest pause. With it, and with a camera's next frame, a service that is back is noticed within 1 s.
LONGEST_PAUSE_S: Final = 0.5
#: A service's own word on when to come back (``Retry-After``, RFC 9110 10.2.3) is obeyed up to here.
MAX_RETRY_AFTER_S: Final = 30.0


class BreakerState(enum.IntEnum):
    """The number is the figure's."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """The breaker of one endpoint. `chance` gives a number from 0 up to 1."""

    def __init__(self, *, chance: Callable[[], float]) -> None:
        self.state = BreakerState.CLOSED
        #: How often it opened after it had been closed.
        self.opened = 0
        self._chance = chance
        self._failures = 0
        self._pauses = 0
        self._opened_at = -math.inf
        self._until = -math.inf
        self._told_until = -math.inf

    def allows(self, now: float) -> bool:
        """Whether a request may go: any when closed, one probe when the pause is over."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return now >= self._until
        return False

    def next_at(self) -> float | None:
        """When it will allow a probe; None: it allows already, or waits for the probe's end."""
        return self._until if self.state is BreakerState.OPEN else None

    def sent(self) -> bool:
        """A request goes; whether it is the probe."""
        if self.state is BreakerState.CLOSED:
            return False
        assert self.state is BreakerState.OPEN, "one probe at a time"
        self.state = BreakerState.HALF_OPEN
        return True

    def answered(self, now: float, *, probe: bool) -> None:
        """A request was answered in time.

        One that was sent before it opened proves the service too, and closes it, unless a probe is under way, which
        then decides, or the service had asked for time.
        """
        self._failures = 0
        if probe or (self.state is BreakerState.OPEN and now >= self._told_until):
            self.state = BreakerState.CLOSED
            self._pauses = 0

    def failed(self, sent_at: float, now: float, *, probe: bool, retry_after_s: float | None = None) -> None:
        """A request failed or passed its deadline; `retry_after_s` is the service's own word.

        One that was sent before it last opened is part of an outage that has been judged.
        """
        told = min(retry_after_s, MAX_RETRY_AFTER_S) if retry_after_s is not None and retry_after_s > 0 else 0.0
        if told:
            self._told_until = max(self._told_until, now + told)
        if not probe and sent_at >= self._opened_at:
            self._failures += 1
        if probe or (self.state is BreakerState.CLOSED and (told or self._failures >= OPEN_AFTER)):
            self.opened += not probe
            self.state = BreakerState.OPEN
            self._opened_at = now
            self._failures = 0
            pause = backoff_s(self._pauses, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S, chance=1 - self._chance())
            self._pauses += 1
            self._until = max(now + pause, self._told_until)
        elif self.state is BreakerState.OPEN:
            self._until = max(self._until, self._told_until)
