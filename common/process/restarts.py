"""Decides whether and when a process that ended is started again. Pure; `now` in seconds.

A process that was killed or crashed is started again: at once the first time, then after growing pauses while it ends
soon after each start. It is not started again where a person must act: after invalid settings (exit code 2), and when
its first start failed.
"""

from __future__ import annotations

import signal
from collections import deque
from typing import Final, NamedTuple

from watchout.common.toolbox.retry import backoff_s

#: Seconds of life after which a process counts as healthy: the pauses start from the beginning.
STEADY_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
#: Number of ends soon after a start from which they are reported as a loop.
LOOP: Final = 3
#: Variable with the state that a keeper passes to its process, and the process to a new keeper, as JSON.
STATE_VARIABLE: Final = "WATCHOUT_KEEPER_STATE"
#: Messages between keeper and process, one byte each: the process serves; it exits with the code in the next byte; it
#: shall end.
READY: Final = b"R"
EXIT: Final = b"X"
END: Final = b"E"
#: Exit code of a process with invalid settings: another start would end the same way.
WRONG_SETTINGS: Final = 2


class StartAgain(NamedTuple):
    """Decision of `Restarts`: the keeper starts the process again after `after_s` seconds. `says` is the sentence to
    log.
    """

    after_s: float
    says: str


class Stop(NamedTuple):
    """Decision of `Restarts`: the keeper ends, with this exit code.

    `says` is the sentence to log; empty when the process has logged the cause itself.
    """

    code: int
    says: str


class Restarts:
    """Decides whether a process that ended is started again, and when. A `Keeper` has one.

    Args:
        name: the process's name in sentences.
        own: whether it is a process of watchout. The exit codes of other programs are their own decision: they are
            started again only after a signal.
    """

    def __init__(self, name: str, *, own: bool) -> None:
        self._name = name
        self._own = own
        self._started_at = 0.0
        self._ever_ready = False
        #: Times of the ends that came soon after a start.
        self._quick: deque[float] = deque(maxlen=100)

    def started(self, now: float) -> None:
        """Record a start."""
        self._started_at = now

    def ready(self) -> None:
        """Record that the process reported that it serves."""
        self._ever_ready = True

    def ended(self, now: float, code: int | None) -> StartAgain | Stop:
        """Record an unrequested end, and return the verdict.

        `code` is the exit code, negative for a signal, None if unknown.
        """
        if code is not None and code >= 0:
            if not self._own or code == WRONG_SETTINGS:
                return Stop(code, "")
            if code and not self._ever_ready:
                return Stop(code, f"{self._name} could not start, and is not started again")
        if now - self._started_at >= STEADY_S:
            self._quick.clear()
        else:
            self._quick.append(now)
        quick = len(self._quick)
        pause_s = 0.0 if quick < 2 else backoff_s(quick - 2, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S)
        how = _how(code)
        if quick < LOOP:
            return StartAgain(pause_s, f"{self._name} ended {how} and is started again")
        within_s = self._quick[-1] - self._quick[0]
        return StartAgain(
            pause_s,
            f"{self._name} ended {how}, {quick} times within {within_s:.0f} s, each time soon after its start (see its "
            f"lines above); it is started again in {pause_s:g} s",
        )


def _how(code: int | None) -> str:
    """Return how a process ended, as part of a sentence."""
    if code is None:
        return "unexpectedly"
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
