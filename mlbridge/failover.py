"""Which endpoint of the ML service gets the next frame: the first, or the one to fall back on. Pure; `now` in seconds.

Each endpoint has its own breaker and limiter. The first whose breaker is closed gets all; an endpoint in front of it
gets a probe whenever its breaker allows one. One that is merely busy is waited for: the next is for outages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from watchout.mlbridge.breaker import Breaker, BreakerState
from watchout.mlbridge.concurrency_limit import ConcurrencyLimit

#: While an endpoint has answered nothing at all, one more request than its limit may be under way after each such time:
#: the frames that it does not answer may be those of some streams only, seconds.
FIRST_ANSWER_STEP_S: Final = 0.25


class Endpoint:
    """One endpoint: what is under way there, and what is known of its health."""

    def __init__(self, bound: int, *, chance: Callable[[], float]) -> None:
        self.breaker = Breaker(chance=chance)
        self.limiter = ConcurrencyLimit(bound)
        self.in_flight = 0
        self._first_sent_at: float | None = None  # of those under way and those that ended beside them
        self._has_answered = False

    def has_room(self, now: float, aside: int = 0) -> bool:
        """Whether one more request may be under way here; `aside` of those that are do not count against the limit."""
        steps = self._steps(now) or 0
        return self.in_flight < self.limiter.bound and self.in_flight - aside < self.limiter.limit + steps

    def room_at(self, now: float, aside: int = 0) -> float | None:
        """When there is room, minus infinity: now; None: not before a request ends."""
        if self.has_room(now, aside):
            return -math.inf
        if self._steps(now) is None or self.in_flight >= self.limiter.bound:
            return None
        assert self._first_sent_at is not None
        missing = self.in_flight - aside + 1 - self.limiter.limit
        return self._first_sent_at + missing * FIRST_ANSWER_STEP_S

    def began(self, now: float) -> None:
        """A request goes out."""
        self.in_flight += 1
        if self._first_sent_at is None:
            self._first_sent_at = now

    def ended(self, *, answered: bool) -> None:
        """A request ended, with an answer or without."""
        self.in_flight -= 1
        if not self.in_flight:
            self._first_sent_at = None
        self._has_answered = self._has_answered or answered

    def _steps(self, now: float) -> int | None:
        if self._has_answered or self._first_sent_at is None or self.breaker.state is not BreakerState.CLOSED:
            return None
        # Rounded up a little, so that there is room at the very time that `room_at` tells.
        return int((now - self._first_sent_at) / FIRST_ANSWER_STEP_S + 1e-6)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request at an endpoint, one of `in_flight` there, those aside left out.

    The end of a `probe` says whether the endpoint is back.
    """

    endpoint: int
    sent_at: float
    in_flight: int
    probe: bool


class Failover:
    """All endpoints, in the order in which they are preferred."""

    def __init__(self, number: int, bound: int, *, chance: Callable[[], float]) -> None:
        self.each: Sequence[Endpoint] = tuple(Endpoint(bound, chance=chance) for _ in range(number))

    @property
    def away(self) -> bool:
        """Whether no breaker is closed: frames are let go for the service's sake."""
        return self._serving() is None

    @property
    def in_use(self) -> int:
        """The endpoint that gets the frames; the first when all are away."""
        return self._serving() or 0

    def begin(self, now: float, aside: int = 0) -> list[Turn]:
        """Take the turns of one frame; none: no endpoint may get a frame now.

        The last turn is the frame's own. Those before it are probes of endpoints that are preferred but away: they get
        a copy, so that a probe costs no look while another endpoint serves. `aside`: requests at the endpoint in use
        that do not count against its limit.
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
        """When `begin` may give a turn, minus infinity for now; None: only after an answer or a failure."""
        serving = self._serving()
        if serving is not None:
            return self.each[serving].room_at(now, aside)
        times = [
            at
            for number, endpoint in enumerate(self.each)
            if (at := endpoint.breaker.next_at()) is not None and endpoint.has_room(now)
        ]
        return min(times, default=None)

    def answered(self, turn: Turn, now: float, *, may_measure: bool = True) -> None:
        """The request of this turn was answered in time; `may_measure`: see `ConcurrencyLimit.answered`."""
        endpoint = self.each[turn.endpoint]
        endpoint.ended(answered=True)
        endpoint.limiter.answered(turn.sent_at, turn.in_flight, now, may_measure=may_measure)
        endpoint.breaker.answered(now, probe=turn.probe)

    def answered_apart(self, turn: Turn, now: float) -> None:
        """It was answered, over a connection of its own: what that took tells nothing of the others."""
        endpoint = self.each[turn.endpoint]
        endpoint.ended(answered=True)
        endpoint.breaker.answered(now, probe=turn.probe)

    def failed(self, turn: Turn, now: float, retry_after_s: float | None = None) -> None:
        """It failed, or its deadline is past."""
        endpoint = self.each[turn.endpoint]
        endpoint.ended(answered=False)
        endpoint.limiter.failed(turn.sent_at, now)
        endpoint.breaker.failed(turn.sent_at, now, probe=turn.probe, retry_after_s=retry_after_s)

    def refused(self, turn: Turn, now: float) -> None:
        """It failed for what its frame is, or because of another frame: the endpoint is there, and no slower for it.

        Its latency tells nothing, as a refusal may take less than a look. As a probe it shows that somebody answers.
        """
        endpoint = self.each[turn.endpoint]
        endpoint.ended(answered=False)
        if turn.probe:
            endpoint.breaker.answered(now, probe=True)

    def _serving(self) -> int | None:
        for number, endpoint in enumerate(self.each):
            if endpoint.breaker.state is BreakerState.CLOSED:
                return number
        return None

    def _may_probe(self, number: int, now: float) -> bool:
        """Whether a probe may go there.

        Requests sent before the breaker opened may still be under way; a probe needs room beside them like any other
        request. They end by their deadline at the latest.
        """
        return self.each[number].breaker.allows(now) and self.each[number].has_room(now)

    def _take(self, number: int, now: float, aside: int = 0) -> Turn:
        endpoint = self.each[number]
        endpoint.began(now)
        return Turn(number, now, endpoint.in_flight - aside, endpoint.breaker.sent())
