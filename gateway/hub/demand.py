"""Decides when a publisher is sent a changed ``demand``: how many viewers want its frames, and at which rate. Pure.

A demand that rises is sent at once, so that a viewer sees the next picture. A demand that falls is sent only after it
stayed lower for a while, and rises of one that is not 0 are limited in rate: viewers reload pages, and gateways rejoin
the router.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: A lower demand is sent after it stayed lower for this many seconds.
FALL_DELAY_S: Final = 1.0
#: Least time between two demands that are sent, in seconds.
MIN_INTERVAL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """What all viewers of a stream want together; made by `combine` for the demand of its publisher.

    `viewers` is their number, `fps` the highest rate that one of them wants, in frames per second; 0: none.
    """

    viewers: int
    fps: float


def combine(viewers: int, rates: Iterable[float | None], unlimited_fps: float) -> Wanted:
    """Combine the highest rates of all viewers in frames per second; `unlimited_fps` stands for None (every frame)."""
    return Wanted(viewers, max((unlimited_fps if rate is None else rate for rate in rates), default=0.0))


class Demand:
    """The demand that one publisher was last sent. Created at register when the publisher consumes ``demand``.

    `PublisherNotices` calls `take` whenever the demand may have changed, and again later while it is not `is_current`.
    """

    __slots__ = ("_lower_since", "_sent", "_sent_at")

    def __init__(self) -> None:
        self._sent: Wanted | None = None
        self._sent_at = float("-inf")
        self._lower_since: float | None = None

    @property
    def sent(self) -> Wanted | None:
        """The demand that the publisher was last sent; None: none yet."""
        return self._sent

    def is_current(self, wanted: Wanted) -> bool:
        """Return whether the publisher was last sent exactly this demand."""
        return wanted == self._sent

    def take(self, wanted: Wanted, now: float) -> bool:
        """Return whether `wanted` is to be sent at `now` (seconds); it is then recorded as sent."""
        if self.is_current(wanted):
            self._lower_since = None
            return False
        if self._sent is not None and wanted.fps <= self._sent.fps and wanted.viewers <= self._sent.viewers:
            if self._lower_since is None:
                self._lower_since = now
            if now - self._lower_since < FALL_DELAY_S:
                return False
        elif now - self._sent_at < MIN_INTERVAL_S and not self._rises_from_nothing(wanted):
            return False
        self._sent, self._sent_at, self._lower_since = wanted, now, None
        return True

    def _rises_from_nothing(self, wanted: Wanted) -> bool:
        """Whether the first viewer came: it waits for a picture. The fall before it took `FALL_DELAY_S`."""
        return self._sent is not None and self._sent.fps == 0 < wanted.fps
