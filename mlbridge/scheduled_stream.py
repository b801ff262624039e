"""What the scheduler remembers about one stream. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.media.rate import Sampler
from watchout.mlbridge.coverage import StreamCoverage
from watchout.mlbridge.refusals import StreamHealth
from watchout.mlbridge.turn_queues import QueuedStream

#: Orders the frames of a stream: term of the claim, then frame id.
FrameOrder = tuple[int, int]
#: A stream whose frames rise for so long, in seconds, all below the last order, goes on there. The former gateway of a
#: camera is told sooner that it is over.
LOWER_AFTER_S: Final = 10.0


@dataclass(slots=True)
class StreamCounts:
    """Counters of the frames of one stream since the scheduler knows it; as in `FrameCounts`."""

    offered: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    replaced: int = 0
    too_old: int = 0
    away: int = 0
    backed_off: int = 0
    over_bytes: int = 0
    dependent: int = 0

    @property
    def skipped(self) -> dict[str, int]:
        """The frames that were not sent, by cause, without causes of none."""
        causes = {
            "replaced": self.replaced,
            "too_old": self.too_old,
            "away": self.away,
            "backed_off": self.backed_off,
            "over_bytes": self.over_bytes,
            "dependent": self.dependent,
        }
        return {cause: count for cause, count in causes.items() if count}


class ScheduledStream:
    """What the scheduler remembers about one stream.

    Attributes:
        sampler: limits its frame rate.
        coverage: share of seconds in which the service analysed a frame of it.
        counts: what became of its frames.
        turn: number of its last turn.
        order: order of the newest frame that was offered.
        lower: the newest of the frames that came since then and were not newer; None: none.
        lower_at: when the first of those was offered, in seconds.
        seen_at: when the newest frame was offered, in seconds.
        in_flight: whether a request for it is in flight.
        queued: its place in the turn queues; None: in none.
        health: its failures in a row.
    """

    __slots__ = (
        "counts", "coverage", "health", "in_flight", "lower", "lower_at", "order", "queued", "sampler", "seen_at",
        "turn",
    )  # fmt: skip

    def __init__(self, max_fps: float, turn: int, now: float) -> None:
        self.sampler = Sampler(max_fps)
        self.coverage = StreamCoverage(now)
        self.counts = StreamCounts()
        self.turn = turn
        self.order: FrameOrder = (-1, -1)
        self.lower: FrameOrder | None = None
        self.lower_at = now
        self.seen_at = now
        self.in_flight = False
        self.queued: QueuedStream | None = None
        self.health = StreamHealth()

    def is_newer(self, order: FrameOrder, now: float) -> bool:
        """Return whether a frame that is offered now is newer than the last one, whose order it takes.

        So is one of a stream that has gone on below the last order for `LOWER_AFTER_S`, as after a frame with a number
        that no camera's gateway gave it.
        """
        if order <= self.order:
            if self.lower is None or order <= self.lower:
                if self.lower is None:
                    self.lower, self.lower_at = order, now
                return False
            self.lower = order
            if now - self.lower_at < LOWER_AFTER_S:
                return False
        self.order, self.lower = order, None
        return True
