"""A bridge's scheduler between cameras and ML services that exist in virtual time only: hours take seconds."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from watchout.mlbridge.commands import CancelRequest, ResultOutcome, SendFrame
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.scheduler import Scheduler


@dataclass
class VirtualService:
    """Works on `workers` frames at once, first come first served, each for `work_s(now)` seconds.

    `fails(now)` says of a request that comes now: None, it is served; else it fails after so many seconds (infinity: it
    hangs). `retry_after_s` goes with a failure.
    """

    workers: int
    work_s: Callable[[float], float]
    fails: Callable[[float], float | None] = lambda now: None
    retry_after_s: float | None = None
    #: Streams whose frames it refuses, after the time of a look, and how that looks to the bridge.
    refuses: frozenset[str] = frozenset()
    refusal: Blame = Blame.FRAME
    #: Streams whose frames it never answers, and for how long each keeps one of its workers, seconds.
    never_answers: frozenset[str] = frozenset()
    held_s: float = 0.0
    free_at: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def ask(self, now: float, stream: str = "") -> tuple[float, bool]:
        """When the request ends, and whether with an answer; infinity: it does not end."""
        self.asked.append(now)
        after = self.fails(now)
        if after is not None:
            return now + after, False
        if not self.free_at:
            self.free_at = [0.0] * self.workers
        if stream in self.never_answers and not self.held_s:
            return float("inf"), False
        begins = max(now, heapq.heappop(self.free_at))
        if stream in self.never_answers:
            heapq.heappush(self.free_at, begins + self.held_s)
            return float("inf"), False
        ends = begins + self.work_s(begins)
        heapq.heappush(self.free_at, ends)
        return ends, True


class Simulation:
    """Cameras that send at `fps`, a scheduler, and the services."""

    def __init__(
        self,
        services: list[VirtualService],
        *,
        streams: int = 50,
        camera_fps: float = 2.0,
        max_fps: float = 2.0,
        bound: int = 16,
        max_age_s: float = 1.0,
        timeout_s: float = 5.0,
        seed: int = 1,
    ) -> None:
        self._random = random.Random(seed)
        self.services = services
        self.endpoints = Failover(len(services), bound, chance=self._random.random)
        self.scheduler: Scheduler[float] = Scheduler(
            self.endpoints, max_fps=max_fps, max_age_s=max_age_s, timeout_s=timeout_s, max_streams=1000
        )
        self.now = 0.0
        self.answers: list[tuple[float, str, float]] = []  # at, stream, age of its frame
        self.sent_ages: list[float] = []
        self.served_by: list[tuple[float, int]] = []
        self.most_in_flight = 0
        self.answered_of: defaultdict[str, int] = defaultdict(int)
        self._max_age_s = max_age_s
        self._bound = bound
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        for number in range(streams):
            self._at(self._random.random() / camera_fps, self._camera(f"s{number}", 1 / camera_fps))

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        while self.now < until:
            at = self.scheduler.next_at()
            if self._events and (at is None or self._events[0][0] <= at):
                self.now, _, happens = heapq.heappop(self._events)
                happens()
            else:
                assert at is not None
                self.now = max(self.now, at)
            self._obey()

    def coverage(self) -> list[float]:
        return [share for _, share in self.scheduler.coverage(self.now)]

    def rate(self, since: float) -> float:
        """Answers per second from then on."""
        return sum(at >= since for at, _, _ in self.answers) / (self.now - since)

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), happens))

    def _camera(self, stream: str, every: float) -> Callable[[], None]:
        numbers = itertools.count()

        def shoot() -> None:
            self.scheduler.offer(stream, (0, next(numbers)), self.now, 1, self.now)
            self._at(self.now + every * self._random.uniform(0.95, 1.05), shoot)

        return shoot

    def _obey(self) -> None:
        for command in self.scheduler.due(self.now):
            match command:
                case SendFrame():
                    self._send(command)
                case CancelRequest():
                    pass
        for endpoint in self.endpoints.each:
            assert 1 <= endpoint.limiter.limit <= self._bound
            assert endpoint.in_flight <= self._bound
        self.most_in_flight = max(self.most_in_flight, self.scheduler.in_flight)

    def _send(self, command: SendFrame[float]) -> None:
        age = self.now - command.frame
        assert age < self._max_age_s, "a frame past the limit was sent"
        assert command.came_at == command.frame
        if not command.copy:
            self.sent_ages.append(age)
            self.served_by.append((self.now, command.endpoint))
        service = self.services[command.endpoint]
        ends, answered = service.ask(self.now, command.stream)
        if ends == float("inf"):
            return

        def end() -> None:
            if answered and command.stream in service.refuses:
                self.scheduler.on_failure(command.ticket, self.now, None, service.refusal)
            elif not answered:
                self.scheduler.on_failure(command.ticket, self.now, service.retry_after_s)
            elif self.scheduler.on_result(command.ticket, self.now) is ResultOutcome.COUNTS:
                self.answers.append((self.now, command.stream, self.now - command.frame))
                self.answered_of[command.stream] += 1

        self._at(ends, end)
