"""Decides when a process tries to go back to the NATS server of its own host. Pure: `now` is an argument, in seconds.

A process whose own server was away uses another host's, and would be hurt by the loss of that host. It goes back when
its own server is there again and steady. A server that goes and comes is left alone for longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.retry import backoff_s

#: Pause before the first attempt to go back, in seconds: doubled with each one that fails, up to `MOST_PAUSE_S`.
FIRST_PAUSE_S: Final = 5.0
MOST_PAUSE_S: Final = 60.0
#: The own server was no good when it is lost within this time after the return, in seconds. The first pause is doubled
#: then, up to `MOST_FLAPPING_S`.
GOOD_AFTER_S: Final = 300.0
MOST_FLAPPING_S: Final = 600.0


@dataclass(slots=True)
class ReturnPlan:
    """The attempts of one connection to go back to the own host's server; kept over all its losses.

    Attributes:
        failures: Attempts that failed since the own server was lost.
        flaps: Times in a row that the own server was lost soon after the return.
    """

    failures: int = 0
    flaps: int = 0
    _there_since: float | None = None

    def there(self, now: float) -> None:
        """Note that the own server is used from now on.

        Args:
            now: Time in seconds.

        """
        self.failures = 0
        if self._there_since is None:
            self._there_since = now

    def lost(self, now: float) -> None:
        """Note that the own server is not used any more; nothing changes where it was not.

        Args:
            now: Time in seconds.

        """
        if self._there_since is not None:
            self.flaps = 0 if now - self._there_since >= GOOD_AFTER_S else self.flaps + 1
            self._there_since = None

    def failed(self) -> None:
        """Note that an attempt to go back failed: the own server is not there, not steady, or cut off."""
        self.failures += 1

    def pause_s(self, chance: float) -> float:
        """Return the seconds until the next attempt.

        Args:
            chance: A random number between 0 and 1: processes of one host do not go back together.

        """
        # The first loss is no flapping: it says nothing of the next one.
        first_s = min(MOST_FLAPPING_S, FIRST_PAUSE_S * 2.0 ** min(max(self.flaps - 1, 0), 10))
        return backoff_s(self.failures, first_s=first_s, most_s=max(MOST_PAUSE_S, first_s), chance=chance)
