"""Keeps what the members report of latencies, and merges it for operators. Pure; `now` in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.messages import HopRow, LatencyReport, LatencyRow
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.latency.rows import latest_first, merge_rows

#: Most streams of one member, and for how long a row is kept, in seconds: two windows of a ledger.
MAX_STREAMS: Final = 1_000
KEPT_S: Final = 600.0


@dataclass(slots=True)
class MemberLatencies:
    """What one member reported; each `Member` has one. Rows of streams are replaced by later ones.

    Attributes:
        total: of all its streams; None: it told that to another router, or nothing.
        since_start: the same since its process began, of which Prometheus is told.
        streams: by stream id, with the time of the report.
    """

    total: tuple[LatencyRow, float] | None = None
    since_start: list[HopRow] = field(default_factory=list)
    streams: OrderedDict[str, tuple[LatencyRow, float]] = field(default_factory=OrderedDict)

    def add(self, report: LatencyReport, now: float) -> None:
        """Take a report."""
        if report.total is not None:
            self.total, self.since_start = (report.total, now), report.since_start
        for row in report.rows:
            self.streams[row.stream] = row, now
            self.streams.move_to_end(row.stream)
        while self.streams:
            stream, (_, at) = next(iter(self.streams.items()))
            if len(self.streams) <= MAX_STREAMS and now - at < KEPT_S:
                break
            del self.streams[stream]


def latency_reply(
    latencies: Sequence[MemberLatencies], stream: str | None, limit: int, now: float, *, clocks_ms: int = 0
) -> LatencyReply:
    """Build the reply to ``latency``.

    Args:
        latencies: those of all members.
        stream: the stream that is asked for; None: up to `limit` of all.
        limit: most streams.
        now: the router's monotonic clock, in seconds.
        clocks_ms: how far the clock of a member is from the router's, at most.
    """
    told = [each.total for each in latencies if each.total is not None]
    totals = [row for row, at in told if now - at < KEPT_S]
    by_stream: dict[str, list[LatencyRow]] = {}
    for member in latencies:
        for row, at in member.streams.values():
            if now - at < KEPT_S and stream in (None, row.stream):
                by_stream.setdefault(row.stream, []).append(row)
    rows = latest_first([merge_rows(each) for each in by_stream.values()])
    return LatencyReply(
        total=merge_rows(totals) if totals else None,
        streams=rows[:limit],
        more=max(0, len(rows) - limit),
        clocks_ms=clocks_ms,
    )
