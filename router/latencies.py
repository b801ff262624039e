"""Keeps what the members report of latencies, and merges it for operators. Pure; `now` in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watchout.common.bus.messages import HopRow, LatencyReport, LatencyRow
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.latency.rows import latest_first, merge_rows

if TYPE_CHECKING:
    from watchout.router.members import Member

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


def latency_reply(members: Iterable[Member], stream: str | None, limit: int, now: float) -> LatencyReply:
    """Build the reply to ``latency``.

    Args:
        members: all members.
        stream: the stream that is asked for; None: up to `limit` of all.
        limit: most streams.
        now: the router's monotonic clock, in seconds.
    """
    everybody = list(members)
    totals = [each.latencies.total for each in everybody if each.latencies.total is not None]
    by_stream: dict[str, list[LatencyRow]] = {}
    for member in everybody:
        for row, at in member.latencies.streams.values():
            if now - at < KEPT_S and stream in (None, row.stream):
                by_stream.setdefault(row.stream, []).append(row)
    rows = latest_first([merge_rows(each) for each in by_stream.values()])
    apart = [abs(each.clock.apart_ms) for each in everybody if each.clock.apart_ms is not None]
    return LatencyReply(
        total=merge_rows([row for row, at in totals if now - at < KEPT_S]) if totals else None,
        streams=rows[:limit],
        more=max(0, len(rows) - limit),
        clocks_ms=max(apart, default=0),
    )
