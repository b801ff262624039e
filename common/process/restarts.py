"""When a kept process is started again, and when not. Pure; `now` in seconds.

A process that was killed or crashed starts again: at once the first time, then after growing pauses while it ends soon
after each start. What asks for a person ends: a wrong setting (exit code 2), and a first start that did not succeed.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: A process that lived so long since its last start was well: the pauses begin anew.
STEADY_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
#: So many ends, each soon after a start, are called a loop.
LOOP: Final = 3
#: Carries from a keeper, and from the process, what a new keeper has to know (`common.process.kept`).
STATE_VARIABLE: Final = "WATCHOUT_KEEPER_STATE"
#: Messages between the two, one byte each; `EXIT` is followed by the code.
READY: Final = b"R"
EXIT: Final = b"X"
END: Final = b"E"
#: Exit code of a process whose settings are wrong: it would be so again.
WRONG_SETTINGS: Final = 2


@dataclass(frozen=True, slots=True)
class Again:
    """Start it again after so many seconds; `says` is for the log."""

    after_s: float
    says: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not: end with this exit code; `says` is for the log, empty when the process has said it all itself."""

    code: int
    says: str


class Restarts:
    """The ends of one kept process. `own` is one of watchout's, any other program's exit codes are its decisions."""

    def __init__(self, name: str, *, own: bool) -> None:
        self._name = name
        self._own = own
        self._started_at = 0.0
        self._ever_ready = False
        #: Times of ends that came soon after a start.
        self._quick: deque[float] = deque(maxlen=100)

    def started(self, now: float) -> None:
        """It was started."""
        self._started_at = now

    def ready(self) -> None:
        """It said that it serves."""
        self._ever_ready = True

    def ended(self, now: float, code: int | None) -> Again | Stop:
        """It ended without being told to: with an exit code, by a signal (negative), or nobody knows how (None)."""
        if code is not None and code >= 0:
            if not self._own or code == WRONG_SETTINGS:
                return Stop(code, "")
            if code and not self._ever_ready:
                return Stop(code, f"{self._name} could not start, and is not tried again")
        if now - self._started_at >= STEADY_S:
            self._quick.clear()
        else:
            self._quick.append(now)
        quick = len(self._quick)
        pause_s = 0.0 if quick < 2 else backoff_s(quick - 2, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S)
        how = _how(code)
        if quick < LOOP:
            return Again(pause_s, f"{self._name} ended {how} and is started again")
        within_s = self._quick[-1] - self._quick[0]
        return Again(
            pause_s,
            f"{self._name} ended {how}, {quick} times within {within_s:.0f} s, each time soon after its start (see its "
            f"lines above); it is started again in {pause_s:g} s",
        )


def _how(code: int | None) -> str:
    if code is None:
        return "unexpectedly"
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
