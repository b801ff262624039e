"""What the router keeps of its members' latencies, and how it is asked for."""

from __future__ import annotations

from watchout.common.bus.messages import HopRow, LatencyReport, LatencyRow
from watchout.common.latency.hops import Hop
from watchout.router.latencies import KEPT_S, MAX_STREAMS, MemberLatencies, latency_reply


def hop(count: int) -> HopRow:
    return HopRow(int(Hop.ML), 20.0 * count, 0, [100, count])


def row(stream: str, count: int) -> LatencyRow:
    return LatencyRow(stream, [hop(count)])


def member(*reports: LatencyReport, now: float = 1.0) -> MemberLatencies:
    made = MemberLatencies()
    for report in reports:
        made.add(report, now)
    return made


def counts(rows: list[LatencyRow]) -> dict[str, int]:
    return {row.stream: row.hops[0].buckets[1] for row in rows}


def test_rows_of_a_stream_at_several_members_are_added_and_later_rows_replace() -> None:
    one = member(LatencyReport(rows=[row("a", 9), row("b", 1)]), LatencyReport(rows=[row("a", 2)]))
    two = member(LatencyReport(rows=[row("a", 3)], total=row("", 3), since_start=[hop(30)]))
    reply = latency_reply([one, two], None, 10, 2.0)
    assert counts(reply.streams) == {"a": 5, "b": 1}
    assert reply.total is not None
    assert counts([reply.total]) == {"": 3}
    assert counts(latency_reply([one, two], "b", 10, 2.0).streams) == {"b": 1}
    assert latency_reply([one, two], "c", 10, 2.0).streams == []
    limited = latency_reply([one, two], None, 1, 2.0)
    assert (len(limited.streams), limited.more) == (1, 1)


def test_rows_of_a_member_are_bounded_and_old_ones_are_forgotten() -> None:
    kept = MemberLatencies()
    for number in range(MAX_STREAMS + 30):
        kept.add(LatencyReport(rows=[row(f"s{number}", 1)]), 1.0)
    assert len(kept.streams) == MAX_STREAMS
    assert "s0" not in kept.streams
    kept.add(LatencyReport(rows=[row("new", 1)]), 1.0 + KEPT_S)
    assert list(kept.streams) == ["new"]


def test_what_a_silent_member_told_long_ago_is_not_shown() -> None:
    old = member(LatencyReport(rows=[row("a", 9)], total=row("", 9)))
    reply = latency_reply([old], None, 10, 2.0 + KEPT_S)
    assert (reply.streams, reply.total) == ([], None)
