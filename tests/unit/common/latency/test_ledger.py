"""The ledger of one process: what it counts of whom, what it forgets, and what it reports."""

from __future__ import annotations

from watchout.common.bus.messages import ClockRow, LatencyRow
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import ROWS_PER_REPORT, TOLD_EVERY_S, WINDOW_S, LatencyLedger, Objectives
from watchout.common.latency.rows import histograms_of

OBJECTIVES = Objectives(glass_to_glass_ms=100.0, glass_to_alert_ms=500.0)


def ledger(max_streams: int = 500) -> LatencyLedger:
    return LatencyLedger(OBJECTIVES, max_streams=max_streams)


def counts(row: LatencyRow) -> dict[Hop, int]:
    return {hop: found.count for hop, found in histograms_of(row.hops).items()}


def total(of: LatencyLedger, now: float) -> LatencyRow:
    found = of.totals(now).total
    assert found is not None
    return found


def test_a_duration_counts_for_its_stream_and_for_all_together() -> None:
    made = ledger()
    made.add(Hop.ML, "a", 20.0, 1.0)
    made.add(Hop.ML, "b", 30.0, 1.0, times=3)
    made.add_unknown("b", 1.0)
    rows = {row.stream: row for row in made.reports(1.0)}
    assert {stream: counts(row) for stream, row in rows.items()} == {"a": {Hop.ML: 1}, "b": {Hop.ML: 3}}
    assert (counts(total(made, 1.0)), total(made, 1.0).unknown) == ({Hop.ML: 4}, 1)


def test_whole_ways_are_judged_by_their_own_objective() -> None:
    made = ledger()
    for hop in (Hop.GLASS_TO_GLASS, Hop.GLASS_TO_ALERT, Hop.ML):
        made.add(hop, "a", 300.0, 1.0, times=2)
    assert made.judged == {Hop.GLASS_TO_GLASS: (2, 2), Hop.GLASS_TO_ALERT: (2, 0)}
    burns = {burn.hop: burn for burn in total(made, 1.0).burns}
    assert (burns[Hop.GLASS_TO_GLASS].short, burns[Hop.GLASS_TO_GLASS].short_late) == (2, 2)
    assert (burns[Hop.GLASS_TO_ALERT].long, burns[Hop.GLASS_TO_ALERT].long_late) == (2, 0)


def test_of_a_stream_the_last_two_windows_are_told_and_of_all_everything_since_the_begin() -> None:
    made = ledger()
    for window in range(3):
        made.add(Hop.ML, "a", 20.0, window * WINDOW_S + 1)
    assert counts(total(made, 2 * WINDOW_S + 2)) == {Hop.ML: 2}
    assert counts(total(made, 3 * WINDOW_S + 2)) == {Hop.ML: 1}
    assert counts(total(made, 9 * WINDOW_S)) == {}
    assert histograms_of(made.since_start())[Hop.ML].count == 3


def test_a_stream_over_the_bound_counts_in_all_alone_until_another_one_is_over() -> None:
    made = ledger(max_streams=3)
    for number in range(10):
        made.add(Hop.ML, f"s{number}", 20.0, 1.0)
    assert len(made) == 3
    assert counts(total(made, 1.0)) == {Hop.ML: 10}
    made.add(Hop.ML, "later", 20.0, 3 * WINDOW_S)
    assert "later" in {row.stream for row in made.reports(3 * WINDOW_S)}
    assert len(made) <= 3


def test_many_streams_are_reported_in_turn() -> None:
    made = ledger()
    for number in range(2 * ROWS_PER_REPORT + 1):
        made.add(Hop.ML, f"s{number}", 20.0, 1.0)
    told = [[row.stream for row in made.reports(1.0 + turn * 2)] for turn in range(4)]
    assert [len(each) for each in told] == [ROWS_PER_REPORT, ROWS_PER_REPORT, 1, 0]
    assert len({stream for each in told for stream in each}) == 2 * ROWS_PER_REPORT + 1
    made.add(Hop.ML, "s7", 20.0, 8.0)
    assert [row.stream for row in made.reports(9.0 + TOLD_EVERY_S)] == ["s7"]


def test_a_new_router_is_told_every_stream() -> None:
    made = ledger()
    made.add(Hop.ML, "a", 20.0, 1.0)
    assert [row.stream for row in made.reports(1.0)] == ["a"]
    assert not list(made.reports(20.0))
    made.tell_all()
    assert [row.stream for row in made.reports(40.0)] == ["a"]


def test_what_is_known_of_a_clock_is_told_and_keeps_its_stream() -> None:
    made, clock = ledger(), ClockRow(3000.0, 5.0)
    made.set_clock("a", clock, 1.0)
    assert [row.clock for row in made.reports(1.0)] == [clock]
    made.set_clock("a", clock, 2.0)
    assert not list(made.reports(9.0)), "nothing has changed"
    made.set_clock("a", None, 9.0)
    assert not list(made.reports(9.0 + 2 * WINDOW_S))
    assert len(made) == 0
