"""What the scheduler remembers about one stream. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from watchout.common.media.rate import Sampler
from watchout.mlbridge.coverage import StreamCoverage
from watchout.mlbridge.refusals import StreamHealth
from watchout.mlbridge.turn_queues import QueuedStream

#: Orders the frames of a stream: term of the claim, then frame id.
FrameOrder = tuple[int, int]


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
        seen_at: when that frame was offered, in seconds.
        in_flight: whether a request for it is in flight.
        queued: its place in the turn queues; None: in none.
        health: its failures in a row.
    """

    __slots__ = ("counts", "coverage", "health", "in_flight", "order", "queued", "sampler", "seen_at", "turn")

    def __init__(self, max_fps: float, turn: int, now: float) -> None:
        self.sampler = Sampler(max_fps)
        self.coverage = StreamCoverage(now)
        self.counts = StreamCounts()
        self.turn = turn
        self.order: FrameOrder = (-1, -1)
        self.seen_at = now
        self.in_flight = False
        self.queued: QueuedStream | None = None
        self.health = StreamHealth()
