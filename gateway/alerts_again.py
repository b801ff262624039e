"""Raises the alerts again that a former router of one slot accepted, until the new one has accepted each."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from watchout.common import log, metric_names
from watchout.common.alerts.unconfirmed import MAX_KEPT, Raised
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import (
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    Message,
    RaiseAlert,
    RefusedReply,
    Reply,
)
from watchout.common.errors import ErrorCode
from watchout.common.latency.alert_stamps import stamps_at_router
from watchout.common.metrics import Metrics

#: Most alerts to which the router has not replied yet: a new router holds `startup_hold.MAX_HELD` of all members.
MOST_UNDER_WAY: Final = 1_000
#: Pause before an alert that the router could not take then is sent again, in seconds.
RETRY_S: Final = 0.2

_log: Final = log.get("gateway.alerts_again")


class AlertsAgain:
    """The alerts and acknowledgements of one slot that are raised again; made by `AlertRequests`.

    They are sent in the order in which they were accepted, at once as far as the router is there, before anything new
    of this gateway. Past `MAX_KEPT` that wait the oldest is dropped.

    Args:
        link: The connection to the slot's router.
        metrics: Where they are counted.
        accepted: Called with the router's epoch and each alert that it has accepted.
    """

    def __init__(self, link: BusClient, metrics: Metrics, accepted: Callable[[int, Raised], None]) -> None:
        self._link = link
        self._metrics = metrics
        self._accepted = accepted
        self._numbers = itertools.count()
        #: A heap: the one that was accepted first is sent next; those of one millisecond in the order of their numbers.
        self._waiting: list[tuple[int, int, Raised]] = []
        self._under_way = 0
        #: Set while the router cannot take more.
        self._retry: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def add(self, raised: Iterable[Raised]) -> None:
        """Send these alerts, oldest first, and those that wait; called also when the router has just been joined."""
        for each in raised:
            self._metrics.count(metric_names.ALERTS_RAISED_AGAIN)
            heapq.heappush(self._waiting, (_accepted_at(each), next(self._numbers), each))
        self._send()
        if (dropped := len(self._waiting) - MAX_KEPT) > 0:
            for _ in range(dropped):
                heapq.heappop(self._waiting)
            _log.warning("alerts that a router had accepted may be lost: too many wait for the new one", alerts=dropped)

    def _send(self) -> None:
        """Send what waits, as far as the router is there and replies."""
        while self._waiting and self._under_way < MOST_UNDER_WAY and self._retry is None:
            _, number, raised = self._waiting[0]
            future = self._link.begin(partial(self._message, raised))
            if future is None:
                return
            heapq.heappop(self._waiting)
            self._under_way += 1
            future.add_done_callback(partial(self._on_reply, number, raised, self._link.epoch))

    def _message(self, raised: Raised, request: int) -> Message:
        """Return the message by which a new router learns of what a former one accepted."""
        alert, given, clock = raised.alert, raised.acknowledgement, self._link.clock
        accepted_at = None if raised.accepted_at is None else clock.to_router(raised.accepted_at)
        if given is None:
            stamps = stamps_at_router(raised.stamps, clock)
            return RaiseAlert(request=request, alert=alert, accepted_at=accepted_at, stamps=stamps)
        return AcknowledgeRequest(
            request=request, alert=alert, user=given.user, note=given.note, term=raised.term, owner=raised.owner,
            accepted_at=accepted_at, at=clock.to_router(given.at),
        )  # fmt: skip

    def _on_reply(self, number: int, raised: Raised, epoch: int, future: asyncio.Future[Reply]) -> None:
        self._under_way -= 1
        if future.cancelled():  # the process ends
            return
        reply = None if future.exception() is not None else future.result()
        if isinstance(reply, AcceptedReply | AcknowledgedReply):
            self._accepted(epoch, raised)
        elif isinstance(reply, RefusedReply) and reply.code != ErrorCode.ROUTING_ERROR:
            _log.warning("an alert that a former router had accepted was refused", alert=raised.alert.id,
                         stream=raised.alert.stream_id, reason=reply.message)  # fmt: skip
        else:
            heapq.heappush(self._waiting, (_accepted_at(raised), number, raised))
            if reply is not None and self._retry is None:  # a router that starts and has too much to decide
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._send_later)
        self._send()

    def _send_later(self) -> None:
        self._retry = None
        self._send()


def _accepted_at(raised: Raised) -> int:
    """Return when a router first accepted it, in ms of the clock here; 0: it was not told."""
    given = raised.acknowledgement
    return (raised.accepted_at if given is None else given.at) or 0
