"""What is worth sending: what a camera that asked for ``demand`` is told, and when. Pure; `now` in seconds.

A demand that rises is told at once, so that a viewer sees the next picture. One that falls is told after a moment, and
none more often than that: viewers reload their pages, and gateways their bond with the router.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: How long a demand must have been lower before it is told.
FALLS_AFTER_S: Final = 1.0
#: The least time between two demands that are told.
TELL_EVERY_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many watch a stream, and how many frames per second somebody wants; 0: nobody wants any."""

    viewers: int
    fps: float


NOTHING: Final = Wanted(0, 0.0)


def wanted(viewers: int, rates: Iterable[float | None], unlimited_fps: float) -> Wanted:
    """What those want together whose highest rates these are; None: as many as there are, which is `unlimited_fps`."""
    return Wanted(viewers, max((unlimited_fps if rate is None else rate for rate in rates), default=0.0))


class Demand:
    """What one camera was told."""

    __slots__ = ("_lower_since", "_told", "_told_at")

    def __init__(self) -> None:
        self._told: Wanted | None = None
        self._told_at = float("-inf")
        self._lower_since: float | None = None

    def settled(self, now_is: Wanted) -> bool:
        """Whether the camera knows this already."""
        return now_is == self._told

    def tell(self, now_is: Wanted, now: float) -> bool:
        """Whether this is to be told now; it then counts as told. Ask again in a while when it is not `settled`."""
        if self.settled(now_is):
            self._lower_since = None
            return False
        if self._told is not None and now_is.fps <= self._told.fps and now_is.viewers <= self._told.viewers:
            if self._lower_since is None:
                self._lower_since = now
            if now - self._lower_since < FALLS_AFTER_S:
                return False
        elif now - self._told_at < TELL_EVERY_S:
            return False
        self._told, self._told_at, self._lower_since = now_is, now, None
        return True
