"""What waits for the alert webhook, and when it is tried: bounded, with backoff and jitter. Pure; `now` in seconds.

Every delivery ends in one of two ways: it was taken, or it is dead, and is then counted and stands in a short list.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.common.toolbox.bounded_queue import BoundedQueue
from watchout.common.toolbox.retry import backoff_s

#: Requests under way; after a failure one, until one is taken again.
AT_ONCE: Final = 8
#: Most alerts that wait, and most bytes of them; past either the oldest is given up.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 16 << 20
#: Pause after the first failure of a delivery; it doubles with each further one, up to the other.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
#: A `Retry-After` is obeyed up to this.
LONGEST_RETRY_AFTER_S: Final = 600.0
#: So many that were given up may stand among those that wait, beside as many again as wait.
SPARE: Final = 64
#: Dead ones that are listed.
MAX_LISTED: Final = 20


@dataclass(slots=True, eq=False)
class Delivery:
    """One alert on its way to the webhook. `offered_at` in seconds of the caller's clock."""

    webhook_id: str
    alert_id: str
    stream: str
    body: bytes
    offered_at: float
    attempts: int = 0
    over: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """A delivery that was given up; `at_ms` since the epoch."""

    alert_id: str
    stream: str
    attempts: int
    reason: str
    at_ms: int


class Deliveries:
    """All deliveries of one webhook. `chance` gives a number from 0 to 1, anew each time."""

    def __init__(
        self,
        *,
        give_up_s: float,
        chance: Callable[[], float],
        at_once: int = AT_ONCE,
        max_waiting: int = MAX_WAITING,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._give_up_s = give_up_s
        self._chance = chance
        self._at_once = at_once
        self._waiting: BoundedQueue[int, Delivery] = BoundedQueue(max_entries=max_waiting, max_bytes=max_bytes)  # by id
        self._ready: deque[Delivery] = deque()
        self._later: list[tuple[float, int, Delivery]] = []
        self._under_way: set[Delivery] = set()
        self._numbers = 0
        self._paused_until = float("-inf")
        self._failing = False
        #: The receiver said that it wants nothing any more.
        self.disabled = False
        self.sent = 0
        self.retries = 0
        self.dead = 0
        self.listed: deque[Dead] = deque(maxlen=MAX_LISTED)

    @property
    def waiting(self) -> int:
        """Deliveries that wait for their turn or their next try."""
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        """Bytes of the alerts that wait."""
        return self._waiting.bytes

    @property
    def under_way(self) -> int:
        """Requests under way."""
        return len(self._under_way)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self._under_way

    def offer(self, delivery: Delivery, now_ms: int) -> None:
        """One more alert."""
        if self.disabled:
            self._bury(delivery, "the webhook is disabled", now_ms)
            return
        self._wait(delivery)
        self._ready.append(delivery)
        while (oldest := self._waiting.pop_excess()) is not None:
            oldest.over = True
            self._bury(oldest, "too many waited", now_ms)
            self._forget_over()

    def due(self, now: float, now_ms: int) -> list[Delivery]:
        """The deliveries to be tried now; each ends with `taken`, `failed` or `refused_for_ever`."""
        while self._later and self._later[0][0] <= now:
            delivery = heapq.heappop(self._later)[2]
            if not delivery.over:
                self._ready.append(delivery)
        started: list[Delivery] = []
        while self._ready and now >= self._paused_until and len(self._under_way) < self._limit:
            delivery = self._ready.popleft()
            if delivery.over:
                continue
            self._leave(delivery)
            if now - delivery.offered_at > self._give_up_s:
                self._bury(delivery, "its time was over before its turn", now_ms)
                continue
            delivery.over = False
            delivery.attempts += 1
            self._under_way.add(delivery)
            started.append(delivery)
        return started

    def next_at(self) -> float | None:
        """When `due` has something to do, if nothing happens before; None: never."""
        if len(self._under_way) >= self._limit:
            return None
        times = [self._later[0][0]] if self._later else []
        if self._ready:
            times.append(self._paused_until)
        return max(min(times), self._paused_until) if times else None

    def taken(self, delivery: Delivery) -> None:
        """The receiver has it."""
        self._under_way.discard(delivery)
        self._failing = False
        self.sent += 1

    def failed(
        self, delivery: Delivery, reason: str, now: float, now_ms: int, *, retry_after_s: float | None = None
    ) -> None:
        """It was not taken: it is tried again later, or given up. `retry_after_s`: nothing at all before that."""
        self._under_way.discard(delivery)
        self._failing = True
        if self.disabled:
            self._bury(delivery, reason, now_ms)
            return
        retries = delivery.attempts - 1
        pause = backoff_s(retries, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S, chance=self._chance())
        if retry_after_s is not None:
            asked = min(retry_after_s, LONGEST_RETRY_AFTER_S)
            self._paused_until = max(self._paused_until, now + asked)
            pause = max(pause, asked)
        if now + pause - delivery.offered_at > self._give_up_s:
            self._bury(delivery, reason, now_ms)
            return
        self.retries += 1
        self._wait(delivery)
        self._numbers += 1
        heapq.heappush(self._later, (now + pause, self._numbers, delivery))

    def refused_for_ever(self, delivery: Delivery, reason: str, now_ms: int) -> None:
        """The receiver is gone for good (410): nothing is sent any more, all that waits is given up."""
        self._under_way.discard(delivery)
        self.disabled = True
        self._bury(delivery, reason, now_ms)
        for other in list(self._waiting):
            self._leave(other)
            self._bury(other, "the webhook is disabled", now_ms)
        self._ready.clear()
        self._later.clear()

    @property
    def _limit(self) -> int:
        return 1 if self._failing else self._at_once

    def _forget_over(self) -> None:
        """Let go of those that were given up while they waited, once they are many: their turn may be far."""
        most = 2 * len(self._waiting) + SPARE
        if len(self._ready) > most:
            self._ready = deque(each for each in self._ready if not each.over)
        if len(self._later) > most:
            self._later = [each for each in self._later if not each[2].over]
            heapq.heapify(self._later)

    def _wait(self, delivery: Delivery) -> None:
        delivery.over = False
        self._waiting.add(id(delivery), delivery, len(delivery.body))

    def _leave(self, delivery: Delivery) -> None:
        self._waiting.pop(id(delivery))
        delivery.over = True

    def _bury(self, delivery: Delivery, reason: str, now_ms: int) -> None:
        self.dead += 1
        delivery.body = b""
        self.listed.append(Dead(delivery.alert_id, delivery.stream, delivery.attempts, reason, now_ms))
