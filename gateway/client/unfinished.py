"""Budget for request heads and messages that clients have begun and not finished, per user and in total.

When it is exceeded, the connections that hold the most are closed. Unauthenticated clients share a budget of their own,
so that they never displace an authenticated one.

Messages that have come and wait for their turn are in the budget, too. A gateway that is late finds many of them: it
reads less at once then (`most_to_read`), so that nobody is closed because the gateway is late.
"""

from __future__ import annotations

from typing import Final, Protocol

from watchout.common import metric_names
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.toolbox.budget import ByteBudget
from watchout.gateway.client.frame_reader import SCRATCH_BYTES

#: Bytes of unfinished heads and messages of all unauthenticated clients together.
UNAUTHENTICATED_BYTES: Final = 12 << 20
#: Bytes of a client that are read at once when half of a budget is taken. That half is for bytes that were read and
#: wait, the other for messages that have begun and whose rest has not come.
LEAST_READ_BYTES: Final = 4096
#: A connection that holds less than this is not counted.
FREE_BYTES: Final = 2048


class UnfinishedHolder(Protocol):
    """A connection with an unfinished head or message; implemented by `WebSocket` and `ConnectionDispatcher`."""

    def __hash__(self) -> int: ...

    def give_way(self) -> None:
        """Discard what is unfinished at once, and close; a WebSocket with a code that asks the client to reconnect."""


class Unfinished:
    """Bounds the memory for unfinished request heads and messages of one gateway. Made by `Context`.

    Every connection with something unfinished reports its bytes by `hold`. When a bound is exceeded, `give_way` of the
    connection with the most bytes is called, which ends it, until the rest is within the bound; each is counted.

    Args:
        settings: `UNFINISHED_BYTES_PER_USER` and `UNFINISHED_BYTES` bound authenticated clients; all others share
            `UNAUTHENTICATED_BYTES`.
        metrics: Where ended connections are counted.

    Attributes:
        is_filling: Whether `most_to_read` has to be asked before a client's bytes are read.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        whole = settings.max_message_bytes  # one message of the largest size always fits
        of_user = max(settings.unfinished_bytes_per_user, whole)
        of_all = max(settings.unfinished_bytes, of_user)
        self._users: ByteBudget[UnfinishedHolder] = ByteBudget(of_all, of_user)
        self._to_read, self._to_read_of_user = of_all // 2, of_user // 2
        self._unauthenticated: ByteBudget[UnfinishedHolder] = ByteBudget(UNAUTHENTICATED_BYTES)
        self._metrics = metrics
        self._measure()

    def most_to_read(self, user: str) -> int:
        """Return how many bytes of a client of this authenticated user may be read at once, while `is_filling`."""
        room = min(self._to_read - self._users.total_bytes, self._to_read_of_user - self._users.size_of_group(user))
        return max(room, LEAST_READ_BYTES)

    def hold(self, holder: UnfinishedHolder, user: str | None, size_bytes: int) -> None:
        """Set the bytes that a connection holds; closes others, or `holder` itself, when a budget is exceeded.

        `user`: the authenticated user whose budget it counts in; None: that of unauthenticated clients.
        """
        if user is None:
            gave_way = self._unauthenticated.hold(holder, None, size_bytes)
        else:
            self._unauthenticated.release(holder)
            gave_way = self._users.hold(holder, user, size_bytes)
        self._measure()
        for each in gave_way:
            self._metrics.count(metric_names.CLOSED_UNFINISHED)
            each.give_way()

    def release(self, holder: UnfinishedHolder) -> None:
        """Count nothing for a connection any more."""
        self._unauthenticated.release(holder)
        self._users.release(holder)
        self._measure()

    def _measure(self) -> None:
        self.is_filling = self._users.total_bytes > self._to_read_of_user - SCRATCH_BYTES

    @property
    def bytes(self) -> int:
        """Bytes that all connections hold now."""
        return self._unauthenticated.total_bytes + self._users.total_bytes
