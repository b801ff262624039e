"""Budget for request heads and messages that clients have begun and not finished, per user and in total.

When it is exceeded, the connections that hold the most are closed. Unauthenticated clients share a budget of their own,
so that they never displace an authenticated one.
"""

from __future__ import annotations

from typing import Final, Protocol

from watchout.common import metric_names
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.toolbox.budget import ByteBudget

#: Bytes of unfinished heads and messages of all unauthenticated clients together.
UNAUTHENTICATED_BYTES: Final = 12 << 20
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
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        whole = settings.max_message_bytes  # one message of the largest size always fits
        of_user = max(settings.unfinished_bytes_per_user, whole)
        self._users: ByteBudget[UnfinishedHolder] = ByteBudget(max(settings.unfinished_bytes, of_user), of_user)
        self._unauthenticated: ByteBudget[UnfinishedHolder] = ByteBudget(UNAUTHENTICATED_BYTES)
        self._metrics = metrics

    def hold(self, holder: UnfinishedHolder, user: str | None, size_bytes: int) -> None:
        """Set the bytes that a connection holds; closes others, or `holder` itself, when a budget is exceeded.

        `user`: the authenticated user whose budget it counts in; None: that of unauthenticated clients.
        """
        if user is None:
            gave_way = self._unauthenticated.hold(holder, None, size_bytes)
        else:
            self._unauthenticated.release(holder)
            gave_way = self._users.hold(holder, user, size_bytes)
        for each in gave_way:
            self._metrics.count(metric_names.CLOSED_UNFINISHED)
            each.give_way()

    def release(self, holder: UnfinishedHolder) -> None:
        """Count nothing for a connection any more."""
        self._unauthenticated.release(holder)
        self._users.release(holder)

    @property
    def bytes(self) -> int:
        """Bytes that all connections hold now."""
        return self._unauthenticated.total_bytes + self._users.total_bytes
