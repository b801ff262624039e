"""Decides which failures of an ML service are logged: the begin and the end of an outage. Pure; times in seconds."""

from __future__ import annotations

from typing import Final


class ServiceOutage:
    """The failures in a row of one endpoint. Owned by the dispatcher, one for each target.

    One line is logged when the service fails and one when it works again. A service that fails only now and then has a
    line every `QUIET_S` at most, and so has one that fails for another reason than before. All failures are in the
    metrics.
    """

    QUIET_S: Final = 10.0
    #: Failures in a row after which an outage is certain, and logged without regard to `QUIET_S`.
    SURE_AFTER: Final = 3

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._is_logged = False
        self._logged_at = float("-inf")
        self._logged_reason = ""

    def on_failure(self, now: float, reason: str = "") -> bool:
        """Record a failure. Returns whether it is to be logged."""
        if not self._failures:
            self._since = now
        self._failures += 1
        if self._is_logged and (reason == self._logged_reason or now - self._logged_at < self.QUIET_S):
            return False
        if not self._is_logged and self._failures < self.SURE_AFTER and now - self._logged_at < self.QUIET_S:
            return False
        self._logged_reason = reason
        self._is_logged = True
        self._logged_at = now
        return True

    def on_result(self, now: float) -> float | None:
        """Record a result. Returns the length of the outage in seconds if its end is to be logged, else None."""
        lasted = now - self._since if self._is_logged else None
        self._failures = 0
        self._is_logged = False
        return lasted
