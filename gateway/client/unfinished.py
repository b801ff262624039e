"""What clients have begun and not finished: bounded for each user and in total, and the largest gives way.

Strangers have a budget of their own, so that they never push out anybody who has signed in.
"""

from __future__ import annotations

from typing import Final, Protocol

from watchout.common import metric_names
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.toolbox.budget import ByteBudget

#: Unfinished heads and messages of all strangers together.
STRANGERS_BYTES: Final = 12 << 20
#: What one holds below this is not worth counting.
FREE_BYTES: Final = 2048


class Holder(Protocol):
    """A connection with something unfinished."""

    def __hash__(self) -> int: ...

    def give_way(self) -> None:
        """Let go of what is unfinished, at once, and end the connection with a word that says come back."""


class Unfinished:
    """The budgets of one gateway."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        whole = settings.max_message_bytes  # one message of the largest size is never too much
        of_user = max(settings.unfinished_bytes_per_user, whole)
        self._users: ByteBudget[Holder] = ByteBudget(max(settings.unfinished_bytes, of_user), of_user)
        self._strangers: ByteBudget[Holder] = ByteBudget(STRANGERS_BYTES)
        self._metrics = metrics

    def hold(self, holder: Holder, user: str | None, size_bytes: int) -> None:
        """Set what a connection holds from now on. Somebody may give way meanwhile, possibly `holder` itself."""
        if user is None:
            gave_way = self._strangers.hold(holder, None, size_bytes)
        else:
            self._strangers.release(holder)
            gave_way = self._users.hold(holder, user, size_bytes)
        for each in gave_way:
            self._metrics.count(metric_names.CLOSED_UNFINISHED)
            each.give_way()

    def release(self, holder: Holder) -> None:
        """A connection is gone."""
        self._strangers.release(holder)
        self._users.release(holder)

    @property
    def bytes(self) -> int:
        """All that is unfinished now."""
        return self._strangers.total_bytes + self._users.total_bytes
