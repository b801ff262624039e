"""The queue of alerts for the webhook, and the schedule of attempts, with back-off and jitter. Pure; `now` in seconds.

Every delivery ends in one of two ways: the receiver accepts it, or it is given up ("dead"), counted and listed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.common.bus.reply_records import DeadAlertRow
from watchout.common.toolbox.bounded_queue import BoundedQueue
from watchout.common.toolbox.retry import backoff_s

#: Requests in flight at most; after a failure one, until the receiver accepts an alert again.
AT_ONCE: Final = 8
#: Alerts that wait at most, and their bytes; past either the oldest is given up.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 16 << 20
#: Seconds of pause after the first failure of a delivery; the pause doubles with each further one, up to the longest.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
#: Longest `Retry-After` that is obeyed, in seconds.
LONGEST_RETRY_AFTER_S: Final = 600.0
#: Given-up deliveries that may stay in the schedule, beyond the number of those that wait, before they are removed.
SPARE: Final = 64
#: Dead deliveries that are listed, the latest ones.
MAX_LISTED: Final = 20


@dataclass(slots=True, eq=False)
class WebhookDelivery:
    """One alert for the webhook; created by `WebhookSender.offer`, owned by `Deliveries`.

    `offered_at` is in seconds of the caller's clock, `attempts` counts requests. `over`: the delivery is not in the
    queue, because a request is in flight or the delivery was given up.
    """

    webhook_id: str
    alert_id: str
    stream: str
    body: bytes
    offered_at: float
    attempts: int = 0
    over: bool = False


class Deliveries:
    """All deliveries of one webhook. Created and driven by `WebhookSender`: `due` starts attempts, each ends in a call.

    Args:
        give_up_s: Seconds after which an alert is not tried any more.
        chance: Returns a new random number from 0 to 1, for the jitter.
        at_once: Requests in flight at most.
        max_waiting: Alerts that wait at most.
        max_bytes: Bytes of those at most; a single alert may exceed it.

    """

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
        self._waiting: BoundedQueue[int, WebhookDelivery] = BoundedQueue(
            max_entries=max_waiting, max_bytes=max_bytes
        )  # by id
        self._ready: deque[WebhookDelivery] = deque()
        self._later: list[tuple[float, int, WebhookDelivery]] = []
        self._under_way: set[WebhookDelivery] = set()
        self._numbers = 0
        self._paused_until = float("-inf")
        self._failing = False
        #: Set once the receiver responded with 410: nothing is sent any more.
        self.disabled = False
        self.sent = 0
        self.retries = 0
        self.dead = 0
        self.listed: deque[DeadAlertRow] = deque(maxlen=MAX_LISTED)

    @property
    def waiting(self) -> int:
        """Deliveries that wait for their first or next attempt."""
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        """Bytes of the alerts that wait."""
        return self._waiting.bytes

    @property
    def under_way(self) -> int:
        """Requests in flight."""
        return len(self._under_way)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._waiting and not self._under_way

    def offer(self, delivery: WebhookDelivery, now_ms: int) -> None:
        """Queue an alert; past a bound the oldest waiting one is given up. `now_ms` since the epoch."""
        if self.disabled:
            self._bury(delivery, "the webhook is disabled", now_ms)
            return
        self._wait(delivery)
        self._ready.append(delivery)
        while (oldest := self._waiting.pop_excess()) is not None:
            oldest.over = True
            self._bury(oldest, "too many waited", now_ms)
            self._forget_over()

    def due(self, now: float, now_ms: int) -> list[WebhookDelivery]:
        """Start and return the deliveries to attempt now; each ends with `accepted`, `failed` or `gone`."""
        while self._later and self._later[0][0] <= now:
            delivery = heapq.heappop(self._later)[2]
            if not delivery.over:
                self._ready.append(delivery)
        started: list[WebhookDelivery] = []
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
        """Return when `due` has to be called next, unless something happens before; None: not at all."""
        if len(self._under_way) >= self._limit:
            return None
        times = [self._later[0][0]] if self._later else []
        if self._ready:
            times.append(self._paused_until)
        return max(min(times), self._paused_until) if times else None

    def accepted(self, delivery: WebhookDelivery) -> None:
        """End an attempt: the receiver has the alert."""
        self._under_way.discard(delivery)
        self._failing = False
        self.sent += 1

    def failed(
        self, delivery: WebhookDelivery, reason: str, now: float, now_ms: int, *, retry_after_s: float | None = None
    ) -> None:
        """End an attempt that failed: schedule the next one, or give the delivery up.

        Args:
            delivery: The delivery.
            reason: Why it failed, for the list of dead ones.
            now: Seconds of the caller's clock.
            now_ms: The same moment in ms since the epoch.
            retry_after_s: Seconds for which the receiver asked to send nothing at all, at most `LONGEST_RETRY_AFTER_S`.

        """
        self._under_way.discard(delivery)
        self._failing = True
        if self.disabled:
            self._bury(delivery, reason, now_ms)
            return
        retries = delivery.attempts - 1
        pause = backoff_s(retries, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S, chance=self._chance())
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + retry_after_s)
            pause = max(pause, retry_after_s)
        if now + pause - delivery.offered_at > self._give_up_s:
            self._bury(delivery, reason, now_ms)
            return
        self.retries += 1
        self._wait(delivery)
        self._numbers += 1
        heapq.heappush(self._later, (now + pause, self._numbers, delivery))

    def gone(self, delivery: WebhookDelivery, reason: str, now_ms: int) -> None:
        """End an attempt to which the receiver responded with 410: disable the webhook, give up all that waits."""
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
        """Remove given-up deliveries from the schedule once they are many: their time may be far away."""
        most = 2 * len(self._waiting) + SPARE
        if len(self._ready) > most:
            self._ready = deque(each for each in self._ready if not each.over)
        if len(self._later) > most:
            self._later = [each for each in self._later if not each[2].over]
            heapq.heapify(self._later)

    def _wait(self, delivery: WebhookDelivery) -> None:
        delivery.over = False
        self._waiting.add(id(delivery), delivery, len(delivery.body))

    def _leave(self, delivery: WebhookDelivery) -> None:
        self._waiting.pop(id(delivery))
        delivery.over = True

    def _bury(self, delivery: WebhookDelivery, reason: str, now_ms: int) -> None:
        self.dead += 1
        delivery.body = b""
        self.listed.append(
            DeadAlertRow(
                alert_id=delivery.alert_id,
                stream_id=delivery.stream,
                attempts=delivery.attempts,
                reason=reason,
                at=now_ms,
            )
        )
