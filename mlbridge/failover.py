"""Chooses the endpoint for the next frame: ``ML_SERVICE_URL`` or ``ML_FALLBACK_URL``. Pure; times in seconds.

Each endpoint has its own breaker and limit. The first one with a closed breaker gets all frames; endpoints before it
get a probe whenever their breaker allows one. A busy endpoint is waited for: the fallback is for outages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from watchout.mlbridge.breaker import Breaker, BreakerState
from watchout.mlbridge.concurrency_limit import ConcurrencyLimit

#: Until the first result of an endpoint, one more request than its limit may be in flight after each such time, in
#: seconds: perhaps only the frames of some streams get no result.
FIRST_ANSWER_STEP_S: Final = 0.25


class ServiceEndpoint:
    """One endpoint of the ML service: its requests in flight, its breaker and its limit. Owned by `Failover`.

    Args:
        bound: most requests in flight (``ML_IN_FLIGHT``).
        chance: returns a random number from 0 up to 1, for the breaker's pauses.
    """

    def __init__(self, bound: int, *, chance: Callable[[], float]) -> None:
        self.breaker = Breaker(chance=chance)
        self.limiter = ConcurrencyLimit(bound)
        self.in_flight = 0
        self._first_sent_at: float | None = None  # of those under way and those that ended beside them
        self._has_results = False

    def has_room(self, now: float, aside: int = 0) -> bool:
        """Return whether one more request may be sent; `aside` requests in flight do not count against the limit."""
        steps = self._steps(now) or 0
        return self.in_flight < self.limiter.bound and self.in_flight - aside < self.limiter.limit + steps

    def room_at(self, now: float, aside: int = 0) -> float | None:
        """Return when there is room, minus infinity for now; None: not before a request ends."""
        if self.has_room(now, aside):
            return -math.inf
        if self._steps(now) is None or self.in_flight >= self.limiter.bound:
            return None
        assert self._first_sent_at is not None
        missing = self.in_flight - aside + 1 - self.limiter.limit
        return self._first_sent_at + missing * FIRST_ANSWER_STEP_S

    def on_sent(self, now: float) -> None:
        """Record that a request is sent."""
        self.in_flight += 1
        if self._first_sent_at is None:
            self._first_sent_at = now

    def on_end(self, *, has_result: bool) -> None:
        """Record that a request ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._first_sent_at = None
        self._has_results = self._has_results or has_result

    def _steps(self, now: float) -> int | None:
        if self._has_results or self._first_sent_at is None or self.breaker.state is not BreakerState.CLOSED:
            return None
        # Rounded up a little, so that there is room at the very time that `room_at` returns.
        return int((now - self._first_sent_at) / FIRST_ANSWER_STEP_S + 1e-6)


@dataclass(frozen=True, slots=True)
class Turn:
    """Permission to send one request to an endpoint. Returned by `Failover.begin`, given back when the request ends.

    Attributes:
        endpoint: number of the endpoint.
        sent_at: when the request is sent, in seconds.
        in_flight: requests in flight at the endpoint, this one included, without the `aside` ones of `Failover.begin`.
        probe: whether the request tests an endpoint whose breaker is open.
    """

    endpoint: int
    sent_at: float
    in_flight: int
    probe: bool


class Failover:
    """All endpoints, in the order in which they are preferred. Owned by the scheduler.

    Args:
        number: number of endpoints.
        bound: most requests in flight at each.
        chance: returns a random number from 0 up to 1.
    """

    def __init__(self, number: int, bound: int, *, chance: Callable[[], float]) -> None:
        self.each: Sequence[ServiceEndpoint] = tuple(ServiceEndpoint(bound, chance=chance) for _ in range(number))

    @property
    def away(self) -> bool:
        """Whether no breaker is closed: frames are dropped because the service is away."""
        return self._serving() is None

    @property
    def in_use(self) -> int:
        """Number of the endpoint that gets the frames; 0 when all are away."""
        return self._serving() or 0

    def begin(self, now: float, aside: int = 0) -> list[Turn]:
        """Take the turns of one frame.

        Args:
            now: the current time.
            aside: requests in flight at the endpoint in use that do not count against its limit.

        Returns:
            The turns; empty: no endpoint may get a frame now. The last turn is the frame's own. Those before it are
            probes of endpoints that are preferred but away. They get copies, so that a probe costs no frame.
        """
        serving = self._serving()
        if serving is None:
            for number in range(len(self.each)):
                if self._may_probe(number, now):
                    return [self._take(number, now)]
            return []
        if not self.each[serving].has_room(now, aside):
            return []
        probes = [self._take(number, now) for number in range(serving) if self._may_probe(number, now)]
        return [*probes, self._take(serving, now, aside)]

    def opens_at(self, now: float, aside: int = 0) -> float | None:
        """Return when `begin` may return turns, minus infinity for now; None: only after a request ends."""
        serving = self._serving()
        if serving is not None:
            return self.each[serving].room_at(now, aside)
        times = [
            at
            for number, endpoint in enumerate(self.each)
            if (at := endpoint.breaker.next_at()) is not None and endpoint.has_room(now)
        ]
        return min(times, default=None)

    def on_result(self, turn: Turn, now: float, *, may_measure: bool = True) -> None:
        """Handle a result before the deadline; `may_measure`: see `ConcurrencyLimit.on_result`."""
        endpoint = self.each[turn.endpoint]
        endpoint.on_end(has_result=True)
        endpoint.limiter.on_result(turn.sent_at, turn.in_flight, now, may_measure=may_measure)
        endpoint.breaker.on_result(now, probe=turn.probe)

    def on_isolated_result(self, turn: Turn, now: float) -> None:
        """Handle a result over a connection of its own, whose latency does not apply to other requests."""
        endpoint = self.each[turn.endpoint]
        endpoint.on_end(has_result=True)
        endpoint.breaker.on_result(now, probe=turn.probe)

    def on_failure(self, turn: Turn, now: float, retry_after_s: float | None = None) -> None:
        """Handle a failure or timeout that is attributed to the service."""
        endpoint = self.each[turn.endpoint]
        endpoint.on_end(has_result=False)
        endpoint.limiter.on_failure(turn.sent_at, now)
        endpoint.breaker.on_failure(turn.sent_at, now, probe=turn.probe, retry_after_s=retry_after_s)

    def on_refusal(self, turn: Turn, now: float) -> None:
        """Handle a failure that is attributed to the frame, or to another frame.

        Its latency is not used, since a refusal may take less time than an analysis. A refused probe shows that the
        endpoint responds.
        """
        endpoint = self.each[turn.endpoint]
        endpoint.on_end(has_result=False)
        if turn.probe:
            endpoint.breaker.on_result(now, probe=True)

    def _serving(self) -> int | None:
        for number, endpoint in enumerate(self.each):
            if endpoint.breaker.state is BreakerState.CLOSED:
                return number
        return None

    def _may_probe(self, number: int, now: float) -> bool:
        """Return whether a probe may be sent to this endpoint.

        Requests that were sent before the breaker opened may still be in flight. A probe needs room beside them like
        any other request; they end at their deadline at the latest.
        """
        return self.each[number].breaker.allows(now) and self.each[number].has_room(now)

    def _take(self, number: int, now: float, aside: int = 0) -> Turn:
        endpoint = self.each[number]
        endpoint.on_sent(now)
        return Turn(number, now, endpoint.in_flight - aside, endpoint.breaker.on_sent())
