"""Which gateways missed alerts while they were not joined, and the alerts to send them again. Pure."""

from __future__ import annotations

from typing import Final

from watchout.router.alerts.log import AlertLog, LoggedAlert

#: Alerts sent again to one gateway between two turns of the event loop.
BATCH: Final = 100


class AlertReplay:
    """Keeps track of the gateways that joined and may have missed alerts, and of what to send each of them again.

    `AlertDelivery` calls `begin` when a gateway joins, `resume` when it has reported the number of its last alert, and
    then sends each `next_batch` until one is empty. Meanwhile `is_behind` is true, and new alerts are not sent to that
    gateway directly: they come in a batch, so that it gets all alerts in their order. Alerts that `AlertLog` no longer
    keeps are lost to it.

    Args:
        log: The latest alerts, by number.
    """

    def __init__(self, log: AlertLog) -> None:
        self._log = log
        #: Number of the last alert that a gateway has, by member id; None: not reported yet.
        self._last: dict[bytes, int | None] = {}

    def begin(self, member: bytes) -> None:
        """A gateway joined: withhold alerts until it has reported the last one that it has, at `resume`."""
        self._last[member] = None

    def resume(self, member: bytes, last: int) -> bool:
        """Record the last alert that a gateway has, 0 for none of this router's. Return whether `begin` came before."""
        if member not in self._last:
            return False
        self._last[member] = last
        return True

    def is_behind(self, member: bytes) -> bool:
        """Whether live alerts are withheld from this member; it gets them from `next_batch`."""
        return member in self._last

    def forget(self, member: bytes) -> None:
        """Forget a member that is gone."""
        self._last.pop(member, None)

    def next_batch(self, member: bytes) -> list[LoggedAlert]:
        """Return the next alerts for a gateway, in order, `BATCH` at most.

        An empty list ends the replay: the gateway has all alerts, is gone, or has joined anew.
        """
        last = self._last.get(member)
        if last is None:
            return []
        batch = self._log.after(last, BATCH)
        if batch:
            self._last[member] = batch[-1].number
        else:
            del self._last[member]
        return batch
