"""How much of the error budget of a latency objective is used: late ones among all, over a short and a long time. Pure.

The objective holds for `GOAL` of all: the others, one in a hundred, are the error budget. A burn of 1 has used exactly
the budget of its time, 20 is the burn of a fifth being late.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

#: Share of all that has to be in time.
GOAL: Final = 0.99
#: The two times over which the burn is told, in seconds, and the steps in which they move on.
SHORT_S: Final = 300
LONG_S: Final = 3600
STEP_S: Final = 60


@dataclass(frozen=True, slots=True)
class Burn:
    """How many there were over one of the times, and how many of them were late.

    Attributes:
        count: all.
        late: those that took longer than the objective.
    """

    count: int = 0
    late: int = 0

    def __add__(self, other: Burn) -> Burn:
        return Burn(self.count + other.count, self.late + other.late)

    @property
    def share(self) -> float | None:
        """The share of the error budget that is used, above 1 when it is overdrawn; None: there was nothing."""
        return self.late / (self.count * (1 - GOAL)) if self.count else None


class BurnMeter:
    """Counts what is in time and what is late, in steps of a minute for an hour; at most 61 steps are kept.

    Args:
        objective_ms: the longest duration that is in time, in ms.
    """

    __slots__ = ("_steps", "objective_ms")

    def __init__(self, objective_ms: float) -> None:
        self.objective_ms = objective_ms
        #: Number of the step, all in it, late ones in it; the newest last.
        self._steps: deque[list[int]] = deque(maxlen=LONG_S // STEP_S + 1)

    def add(self, ms: float, now: float, times: int = 1) -> None:
        """Count a duration in ms, so many `times`. `now` in seconds of a clock that never goes back."""
        step = int(now // STEP_S)
        if not self._steps or self._steps[-1][0] != step:
            self._steps.append([step, 0, 0])
        self._steps[-1][1] += times
        if ms > self.objective_ms:
            self._steps[-1][2] += times

    def over(self, span_s: int, now: float) -> Burn:
        """Return what was counted in the present step of a minute and those before it, `span_s` seconds in all."""
        first = int(now // STEP_S) - span_s // STEP_S + 1
        count = late = 0
        for step, all_in_it, late_in_it in reversed(self._steps):
            if step < first:
                break
            count += all_in_it
            late += late_in_it
        return Burn(count, late)
