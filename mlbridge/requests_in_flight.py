"""The requests at the endpoints of the ML service, and how much room those of streams on trial may take. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from watchout.mlbridge.failover import Failover, Turn
from watchout.mlbridge.refusals import LATE_TIMES, RESULTS_LAST_S, LatestResults

#: Streams whose last result is so old, in seconds, and of which nothing is in flight, are idle: a request of another
#: stream does not disturb what is measured of them.
IDLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class RequestInFlight:
    """One request that was sent to the ML service and has not ended. Made by the scheduler, kept in `RequestsInFlight`.

    Attributes:
        stream: the stream of its frame.
        deadline: when it is cancelled, in seconds.
        turn: the endpoint, and when it was sent.
        copy: as in `SendFrame`.
        size_bytes: size of the picture.
        retry: its stream was backed off when it was sent.
        trial: its stream was on trial when it was sent (`StreamHealth.on_trial`).
        isolated: as in `SendFrame`.
    """

    stream: str
    deadline: float
    turn: Turn
    copy: bool
    size_bytes: int
    retry: bool
    trial: bool
    isolated: bool


class RequestsInFlight:
    """All requests to the ML service in flight, by ticket. Owned by the scheduler.

    A stream is on trial when no frame of it was ever analysed, or its last request failed: its frames may be ones that
    the service never finishes. While other streams get results, those on trial may have about half of the requests in
    flight, so that they cannot hold up the others.

    Attributes:
        bytes: sizes of all pictures in flight.
        trials: requests of streams on trial.
        retry_in_flight: whether one of a backed-off stream is in flight; there is one at most.
        latest: the latest results of each endpoint.
        trial_from: no request of a stream on trial is sent before, while the limit allows only few.
    """

    def __init__(self, endpoints: Failover) -> None:
        self._endpoints = endpoints
        self._requests: OrderedDict[int, RequestInFlight] = OrderedDict()  # by deadline: all have the same timeout
        self.bytes = 0
        self.trials = 0
        self.retry_in_flight = False
        self.latest = [LatestResults() for _ in endpoints.each]
        self.trial_from = -math.inf

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, ticket: int, request: RequestInFlight) -> None:
        """Record a request that is sent now."""
        self._requests[ticket] = request
        self.bytes += request.size_bytes
        self.trials += request.trial
        self.retry_in_flight = self.retry_in_flight or request.retry

    def get(self, ticket: int) -> RequestInFlight | None:
        """Return a request, None when it ended before."""
        return self._requests.get(ticket)

    def first(self) -> tuple[int, RequestInFlight] | None:
        """Return the ticket and the request with the earliest deadline, None when nothing is in flight."""
        return next(iter(self._requests.items()), None)

    def remove(self, ticket: int) -> RequestInFlight:
        """Record that a request ended, and return it."""
        request = self._requests.pop(ticket)
        self.bytes -= request.size_bytes
        self.trials -= request.trial
        if request.retry:
            self.retry_in_flight = False
        return request

    def stuck_at(self) -> Iterator[float]:
        """For each request on trial at the endpoint in use, yield when it starts to count as never finishing."""
        if self.trials:
            in_use = self._endpoints.in_use
            latest = self.latest[in_use]
            for request in self._requests.values():
                if request.trial and request.turn.endpoint == in_use:
                    yield latest.stuck_at(request.turn.sent_at)

    def stuck(self, now: float) -> int:
        """Return how many requests count as never finishing and do not use up the limit: half of the bound at most."""
        most = self._endpoints.each[self._endpoints.in_use].limiter.bound // 2
        return min(most, sum(at <= now for at in self.stuck_at()))

    def late(self, now: float) -> int:
        """Return how many requests on trial take longer than others did and may still finish."""
        in_use = self._endpoints.in_use
        since = now - LATE_TIMES * self.latest[in_use].took_s
        return sum(
            request.trial and request.turn.endpoint == in_use and request.turn.sent_at < since
            for request in self._requests.values()
        ) - self.stuck(now)

    def trial_opens_at(self, now: float, *, retry: bool = False) -> float:
        """Return when a frame of a stream on trial may be sent, as far as room for other streams is concerned.

        While other streams get results, those on trial have half of the room, not counting requests that are stuck.
        Where that is room for one request they have half of the time. While the latency of single requests is measured
        they have none, unless the others are idle.

        Args:
            now: the current time, in seconds.
            retry: the stream is backed off; such streams have a share of their own.

        Returns:
            A time in seconds; minus infinity: now.
        """
        received_at = self.latest[self._endpoints.in_use].received.at
        others_until = received_at + RESULTS_LAST_S
        if self._endpoints.away or now >= others_until:
            return -math.inf
        limiter = self._endpoints.each[self._endpoints.in_use].limiter
        if limiter.measures(now):
            return others_until if self._requests else min(others_until, received_at + IDLE_S)
        if retry or not self.trials:
            return -math.inf if retry or limiter.limit > 3 else min(others_until, self.trial_from)
        unfinished = self.trials - self.stuck(now)
        if unfinished >= max(1, limiter.limit - 1) or self.late(now) >= max(1, limiter.limit // 2):
            return others_until
        return -math.inf if limiter.limit > 3 else min(others_until, self.trial_from)
