"""The order in which streams with a waiting frame get their turns. Pure; times in seconds."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class QueuedStream:
    """A stream's place in one queue of `TurnQueues`, ordered by `key`.

    Attributes:
        key: number of the stream's last turn in `ready` and `ready_on_trial`; a time in `later` and `retries`.
        stream: the stream id.
    """

    key: float
    stream: str


class TurnQueues:
    """Four sorted queues of the streams that have a waiting frame and no request under way. Owned by the scheduler.

    A stream is in one of them at most.

    Attributes:
        ready: streams whose frame may be sent now; the one whose last turn is longest ago is first.
        ready_on_trial: the same, for streams whose frames may be the ones that fail (`StreamHealth.on_trial`).
        later: streams that reach their frame rate's next time, or the end of a pause, at `key`.
        retries: streams that were backed off and whose pause ended at `key`.
    """

    __slots__ = ("later", "ready", "ready_on_trial", "retries")

    def __init__(self) -> None:
        self.ready: list[QueuedStream] = []
        self.ready_on_trial: list[QueuedStream] = []
        self.later: list[QueuedStream] = []
        self.retries: list[QueuedStream] = []

    def add(
        self, stream: str, *, due_at: float, retry_at: float | None, turn: int, on_trial: bool, now: float
    ) -> QueuedStream:
        """Put a stream into the queue that fits, and return its place there.

        Args:
            stream: the stream id.
            due_at: when its frame rate allows the next frame.
            retry_at: when its pause after a refusal ends; None: it is not backed off.
            turn: number of its last turn.
            on_trial: whether its frames may be the ones that fail.
            now: the current time.
        """
        at = due_at if retry_at is None else max(due_at, retry_at)
        if at > now:
            queue, place = self.later, QueuedStream(at, stream)
        elif retry_at is not None:
            queue, place = self.retries, QueuedStream(retry_at, stream)
        else:
            queue, place = self.ready_on_trial if on_trial else self.ready, QueuedStream(turn, stream)
        bisect.insort(queue, place)
        return place

    def remove(self, place: QueuedStream) -> None:
        """Take a stream out of its queue."""
        for queue in (self.ready, self.ready_on_trial, self.later, self.retries):
            at = bisect.bisect_left(queue, place)
            if at < len(queue) and queue[at] == place:
                del queue[at]
                return

    def pop_due(self, now: float) -> str | None:
        """Take the first stream out of `later` whose time is reached. Returns None when there is none."""
        return self.later.pop(0).stream if self.later and self.later[0].key <= now else None


def first_fitting(
    queue: list[QueuedStream],
    fits: Callable[[QueuedStream], bool],
    preferred: Callable[[QueuedStream], bool] | None = None,
) -> QueuedStream | None:
    """Return the first stream whose frame `fits`, of the `preferred` ones if there are any; None: none fits."""
    found = None
    for place in queue:
        if fits(place):
            if preferred is None or preferred(place):
                return place
            found = found or place
    return found
