"""Decides which failures of an outage are logged: its causes, each once, and its end. Pure."""

from __future__ import annotations

import math
from typing import Final

#: A new cause is logged at most this often, in seconds, however often causes alternate.
QUIET_S: Final = 10.0


class OutageLog:
    """Tracks whether a service that this process depends on is down, so that each outage is logged in a few lines.

    Its owner calls `failed` and `recovered` after each request, and logs when they return True. `now` is monotonic,
    in seconds.
    """

    def __init__(self) -> None:
        self._logged_reason: str | None = None
        self._quiet_until = -math.inf

    def failed(self, reason: str, now: float) -> bool:
        """Record a failed request; return whether to log it: the cause is new, and nothing was logged just now."""
        if reason == self._logged_reason or now < self._quiet_until:
            return False
        self._logged_reason, self._quiet_until = reason, now + QUIET_S
        return True

    def recovered(self) -> bool:
        """Record a request that succeeded; return whether to log that an outage has ended."""
        was, self._logged_reason = self._logged_reason, None
        return was is not None
