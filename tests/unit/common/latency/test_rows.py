"""Rows of several processes are added, and shown."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.messages import BurnRow, ClockRow, HopRow, LatencyRow
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.latency.rows import figures_of, merge_replies, merge_rows, page_of

Events = list[tuple[Hop, float]]
EVENTS = st.lists(st.tuples(st.sampled_from(Hop), st.floats(0.3, 3000)), max_size=20)


def row(events: Events, clock: ClockRow | None = None) -> LatencyRow:
    ledger = LatencyLedger(Objectives(100.0, 100.0))
    for hop, ms in events:
        ledger.add(hop, "cam", ms, 1.0)
    ledger.set_clock("cam", clock or ClockRow(unknown="none"), 1.0)
    return next(ledger.reports(1.0))


@given(EVENTS, EVENTS, EVENTS)
def test_rows_are_added_in_any_order(a: Events, b: Events, c: Events) -> None:
    one, two, three = row(a), row(b), row(c)
    left, right = merge_rows([merge_rows([one, two]), three]), merge_rows([one, merge_rows([two, three])])
    assert [hop.buckets for hop in left.hops] == [hop.buckets for hop in right.hops]
    assert left.burns == right.burns
    assert [hop.buckets for hop in left.hops] == [hop.buckets for hop in row([*a, *b, *c]).hops]


def test_the_gateway_that_knows_the_clock_is_heard_whoever_else_has_the_stream() -> None:
    known = ClockRow(3000.0, 4.0)
    merged = merge_rows([row([]), row([(Hop.ML, 20.0)], known), row([])])
    assert merged.clock == known


def test_objectives_that_differ_are_shown_by_the_strictest() -> None:
    one = LatencyRow("cam", [], [BurnRow(7, 500.0, 10, 1, 20, 2)])
    two = LatencyRow("cam", [], [BurnRow(7, 200.0, 5, 5, 5, 5)])
    assert merge_rows([one, two]).burns == [BurnRow(7, 200.0, 15, 6, 25, 7)]


def test_replies_of_several_slots_are_one_with_the_slowest_streams_first() -> None:
    slow = msgspec.structs.replace(row([(Hop.GLASS_TO_ALERT, 900.0)]), stream="slow")
    quick = msgspec.structs.replace(row([(Hop.GLASS_TO_ALERT, 30.0)]), stream="quick")
    glass = msgspec.structs.replace(row([(Hop.GLASS_TO_GLASS, 60.0)]), stream="glass")
    replies = [
        LatencyReply(total=slow, streams=[glass, quick], more=4, clocks_ms=3),
        LatencyReply(total=quick, streams=[slow], clocks_ms=250),
    ]
    merged = merge_replies(replies, 2)
    assert [each.stream for each in merged.streams] == ["slow", "quick"]
    assert (merged.more, merged.clocks_ms) == (5, 250)
    assert merged.total is not None
    assert figures_of(merged.total).hops[0].count == 2


def test_hops_of_a_later_release_are_left_out_of_what_is_shown() -> None:
    later = LatencyRow("cam", [HopRow(99, 1.0, 0, [1, 1])], [BurnRow(99, 1.0)])
    page = json.loads(msgspec.json.encode(page_of(LatencyReply(streams=[later]))))
    assert page["streams"][0] == {"streamId": "cam", "hops": [], "objectives": [], "unknown": 0, "clock": None}
