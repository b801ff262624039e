"""The latency ledger of one process: a histogram for each hop, of each stream and of all together, all bounded. Pure.

Of a stream two windows are kept, the present one and the one before: what is told of it is of the last five to ten
minutes. Of all streams together there is also everything since the process began, which is what Prometheus wants.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from watchout.common.bus.messages import BurnRow, ClockRow, HopRow, LatencyReport, LatencyRow
from watchout.common.latency.histogram import Histogram, bucket_of
from watchout.common.latency.hops import WHOLE_WAYS, Hop
from watchout.common.latency.objectives import LONG_S, SHORT_S, BurnMeter

#: Length of a window in seconds.
WINDOW_S: Final = 300.0
#: Most streams of which a process keeps histograms; those of further ones count in those of all alone.
MAX_STREAMS: Final = 500
#: A stream is told again after this many seconds, if anything was counted; and so many in one report.
TOLD_EVERY_S: Final = 1.5
ROWS_PER_REPORT: Final = 50
#: What stands for all streams together: no stream has this id.
ALL: Final = ""


@dataclass(frozen=True, slots=True)
class Objectives:
    """The longest durations that are in time, in ms: from capture to a viewer, and from capture to an alert."""

    glass_to_glass_ms: float
    glass_to_alert_ms: float

    def of(self, hop: Hop) -> float:
        """Return the objective of one of the `WHOLE_WAYS`."""
        return self.glass_to_glass_ms if hop is Hop.GLASS_TO_GLASS else self.glass_to_alert_ms


class StreamLatencies:
    """The two windows of one stream, or of all together; owned by `LatencyLedger`.

    Attributes:
        unknown: frames and alerts, in these windows, of which it is not known when they were captured.
        clock: what is known of the camera's clock; None: its frames come in at another process.
        changed: whether anything was counted since the last report.
        told_at: when it was last reported, in seconds.
    """

    __slots__ = ("_began", "_now", "_then", "_unknown_then", "burns", "changed", "clock", "told_at", "unknown")

    def __init__(self, objectives: Objectives) -> None:
        self._began = float("-inf")
        self._now: dict[Hop, Histogram] = {}
        self._then: dict[Hop, Histogram] = {}
        self.burns = {hop: BurnMeter(objectives.of(hop)) for hop in WHOLE_WAYS}
        self.unknown = self._unknown_then = 0
        self.clock: ClockRow | None = None
        self.changed = False
        self.told_at = float("-inf")

    def turn(self, now: float) -> None:
        """Begin a new window when the present one is over. `now` in seconds."""
        if now - self._began < WINDOW_S:
            return
        goes_on = now - self._began < 2 * WINDOW_S
        self._then, self._unknown_then = (self._now, self.unknown) if goes_on else ({}, 0)
        self._now, self.unknown = {}, 0
        self._began = now - now % WINDOW_S

    def add(self, hop: Hop, bucket: int, ms: float, now: float, times: int) -> None:
        """Count a duration in ms, which belongs to this bucket, so many `times`. `now` in seconds."""
        self.turn(now)
        self.changed = True
        found = self._now.get(hop)
        if found is None:
            found = self._now[hop] = Histogram()
        found.add_to(bucket, ms, times)
        meter = self.burns.get(hop)
        if meter is not None:
            meter.add(ms, now, times)

    def add_unknown(self, now: float, times: int) -> None:
        """Count what has no capture time."""
        self.turn(now)
        self.changed = True
        self.unknown += times

    def is_empty(self, now: float) -> bool:
        """Whether both windows are over with nothing in them."""
        self.turn(now)
        return not self._now and not self._then and not self.unknown and not self._unknown_then

    def row(self, stream: str, now: float) -> LatencyRow:
        """Return what is told of it."""
        self.turn(now)
        merged = self._now
        if self._then:
            merged = {}
            for window in (self._then, self._now):
                for hop, found in window.items():
                    merged.setdefault(hop, Histogram()).merge(found)
        return LatencyRow(
            stream, hop_rows(merged), [burn_row(hop, meter, now) for hop, meter in self.burns.items()],
            self.unknown + self._unknown_then, self.clock,
        )  # fmt: skip


def hop_rows(histograms: dict[Hop, Histogram]) -> list[HopRow]:
    """Return histograms as they cross the bus, by hop."""
    return [
        HopRow(int(hop), round(found.sum_ms, 3), found.negative, found.pairs())
        for hop, found in sorted(histograms.items())
    ]


def burn_row(hop: Hop, meter: BurnMeter, now: float) -> BurnRow:
    """Return what is told of an objective. `now` in seconds."""
    short, long = meter.over(SHORT_S, now), meter.over(LONG_S, now)
    return BurnRow(int(hop), meter.objective_ms, short.count, short.late, long.count, long.late)


class LatencyLedger:
    """The ledger of one process; its gateway or bridge adds durations, `LatencyReporter` takes the reports.

    Args:
        objectives: what is in time.
        max_streams: most streams with histograms of their own. When a further one comes, the one whose last duration is
            the oldest gives way if it is over, else the new one counts in the sum of all alone.

    Attributes:
        judged: of each whole way, how many there were since the process began, and how many were late.
    """

    def __init__(self, objectives: Objectives, *, max_streams: int = MAX_STREAMS) -> None:
        self._objectives = objectives
        self._max_streams = max_streams
        self._all = StreamLatencies(objectives)
        self._since_start: dict[Hop, Histogram] = {}
        self.judged: dict[Hop, tuple[int, int]] = dict.fromkeys(WHOLE_WAYS, (0, 0))
        #: By stream id, the one that was counted last at the end.
        self._streams: OrderedDict[str, StreamLatencies] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, hop: Hop, stream: str, ms: float, now: float, times: int = 1) -> None:
        """Count a duration of a stream.

        Args:
            hop: the part of the way.
            stream: id of the stream.
            ms: the duration; negative when two clocks are apart by more.
            now: a clock in seconds that never goes back.
            times: how many had this duration, as when a frame is written to several viewers.
        """
        bucket = bucket_of(ms)
        self._all.add(hop, bucket, ms, now, times)
        total = self._since_start.get(hop)
        if total is None:
            total = self._since_start[hop] = Histogram()
        total.add_to(bucket, ms, times)
        if (judged := self.judged.get(hop)) is not None:
            self.judged[hop] = judged[0] + times, judged[1] + times * (ms > self._objectives.of(hop))
        if (of_stream := self._of(stream, now)) is not None:
            of_stream.add(hop, bucket, ms, now, times)

    def add_unknown(self, stream: str, now: float, times: int = 1) -> None:
        """Count frames or alerts of a stream of which it is not known when they were captured."""
        self._all.add_unknown(now, times)
        if (of_stream := self._of(stream, now)) is not None:
            of_stream.add_unknown(now, times)

    def set_clock(self, stream: str, clock: ClockRow | None, now: float) -> None:
        """Set what is known of the clock of the stream's camera; None: it is not at this gateway any more."""
        known = self._streams.get(stream)
        if known is None and clock is not None:
            known = self._of(stream, now)
        if known is not None and known.clock != clock:
            known.clock, known.changed = clock, True

    def _of(self, stream: str, now: float) -> StreamLatencies | None:
        found = self._streams.get(stream)
        if found is None:
            if len(self._streams) >= self._max_streams:
                oldest, latencies = next(iter(self._streams.items()))
                if not latencies.is_empty(now):
                    return None
                del self._streams[oldest]
            found = self._streams[stream] = StreamLatencies(self._objectives)
        else:
            self._streams.move_to_end(stream)
        return found

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────

    def since_start(self) -> list[HopRow]:
        """Return the histograms of all streams together since the process began."""
        return hop_rows(self._since_start)

    def totals(self, now: float) -> LatencyReport:
        """Return the report of all streams together, which goes to one router."""
        return LatencyReport(total=self._all.row(ALL, now), since_start=self.since_start())

    def tell_all(self) -> None:
        """Tell every stream anew, because a router is new."""
        for known in self._streams.values():
            known.changed = True

    def reports(self, now: float, before: Callable[[str], None] | None = None) -> Iterator[LatencyRow]:
        """Yield the streams that are due, those that were told the longest ago first, `ROWS_PER_REPORT` at most.

        Each counts as told. Streams of which nothing was counted for two windows are forgotten. The iteration may be
        spread over several turns of the loop: what is counted of a stream after its row is told the next time.

        Args:
            now: a clock in seconds that never goes back.
            before: called with each stream before its row is made; None: nothing is.
        """
        for stream in [each for each, known in self._streams.items() if known.is_empty(now) and known.clock is None]:
            del self._streams[stream]
        due = [
            (known.told_at, stream, known)
            for stream, known in self._streams.items()
            if known.changed and now - known.told_at >= TOLD_EVERY_S
        ]
        due.sort(key=lambda each: each[0])
        for _, stream, known in due[:ROWS_PER_REPORT]:
            if before is not None:
                before(stream)
            known.told_at, known.changed = now, False
            yield known.row(stream, now)
