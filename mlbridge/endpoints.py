"""Which endpoint of the ML service gets the next frame: the first, or the one to fall back on. Pure; `now` in seconds.

Each endpoint has its own breaker and limiter. The first whose breaker is closed gets all; an endpoint in front of it
gets a probe whenever its breaker allows one. One that is merely busy is waited for: the next is for outages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from watchout.mlbridge.breaker import Breaker, BreakerState
from watchout.mlbridge.limiter import Limiter


class Endpoint:
    """One endpoint: what is under way there, and what is known of its health."""

    def __init__(self, bound: int, *, chance: Callable[[], float]) -> None:
        self.breaker = Breaker(chance=chance)
        self.limiter = Limiter(bound)
        self.in_flight = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A request at an endpoint, one of `in_flight` there; the end of a `probe` says whether the endpoint is back."""

    endpoint: int
    sent_at: float
    in_flight: int
    probe: bool


class Endpoints:
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

    def begin(self, now: float) -> list[Turn]:
        """Take the turns of one frame; none: no endpoint may get a frame now.

        The last turn is the frame's own. Those before it are probes of endpoints that are preferred but away: they get
        a copy, so that a probe costs no look while another endpoint serves.
        """
        serving = self._serving()
        if serving is None:
            for number in range(len(self.each)):
                if self._may_probe(number, now):
                    return [self._take(number, now)]
            return []
        if not self._has_room(serving):
            return []
        probes = [self._take(number, now) for number in range(serving) if self._may_probe(number, now)]
        return [*probes, self._take(serving, now)]

    def opens_at(self) -> float | None:
        """When `begin` may give a turn, minus infinity for now; None: only after an answer or a failure."""
        serving = self._serving()
        if serving is not None:
            return -math.inf if self._has_room(serving) else None
        times = [
            at
            for number, endpoint in enumerate(self.each)
            if (at := endpoint.breaker.next_at()) is not None and self._has_room(number)
        ]
        return min(times, default=None)

    def answered(self, turn: Turn, now: float) -> None:
        """The request of this turn was answered in time."""
        endpoint = self.each[turn.endpoint]
        endpoint.in_flight -= 1
        endpoint.limiter.answered(turn.sent_at, turn.in_flight, now)
        endpoint.breaker.answered(now, probe=turn.probe)

    def failed(self, turn: Turn, now: float, retry_after_s: float | None = None) -> None:
        """It failed, or its deadline is past."""
        endpoint = self.each[turn.endpoint]
        endpoint.in_flight -= 1
        endpoint.limiter.failed(turn.sent_at, now)
        endpoint.breaker.failed(turn.sent_at, now, probe=turn.probe, retry_after_s=retry_after_s)

    def refused(self, turn: Turn, now: float) -> None:
        """It failed for what its frame is, or because of another frame: the endpoint is there, and no slower for it.

        Its latency tells nothing, as a refusal may take less than a look. As a probe it shows that somebody answers.
        """
        endpoint = self.each[turn.endpoint]
        endpoint.in_flight -= 1
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
        return self.each[number].breaker.allows(now) and self._has_room(number)

    def _has_room(self, number: int) -> bool:
        endpoint = self.each[number]
        return endpoint.in_flight < endpoint.limiter.limit

    def _take(self, number: int, now: float) -> Turn:
        endpoint = self.each[number]
        endpoint.in_flight += 1
        return Turn(number, now, endpoint.in_flight, endpoint.breaker.sent())
