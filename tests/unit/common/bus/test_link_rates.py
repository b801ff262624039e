"""What a member reports of its links: rates since the report before, those that are down first, and a bound."""

from __future__ import annotations

from watchout.common.bus.link_rates import LinkRates
from watchout.common.bus.mesh import LinkState
from watchout.common.bus.messages import MAX_LINK_ROWS, LinkReport, encode


def link(
    at: str = "unix:f-abcdefgh", sent: int = 0, size: int = 0, *, connected: bool = True, fault: str = ""
) -> LinkState:
    return LinkState(at, False, connected, sent, size, 5, 2, 77, fault)


def rows(report: LinkReport | None) -> list[tuple[float, float]]:
    assert report is not None
    return [(row.frames_per_s, row.bytes_per_s) for row in report.rows]


def test_rates_are_those_since_the_report_before() -> None:
    rates = LinkRates()
    rates.report([link(sent=100, size=5000)], 10.0)
    assert rows(rates.report([link(sent=120, size=7000)], 12.0)) == [(10.0, 1000.0)]
    assert rows(rates.report([link(sent=120, size=7000)], 14.0)) == [(0.0, 0.0)]


def test_a_link_that_was_made_anew_counts_from_nothing() -> None:
    rates = LinkRates()
    rates.report([link(sent=100, size=5000)], 10.0)
    assert rows(rates.report([link(sent=4, size=400)], 12.0)) == [(2.0, 200.0)]


def test_without_links_nothing_is_said_after_that_was_said_once() -> None:
    rates = LinkRates()
    assert rates.report([], 1.0) is None
    assert rates.report([link()], 2.0) is not None
    last = rates.report([], 3.0)
    assert last is not None
    assert last.rows == []
    assert rates.report([], 4.0) is None


def test_drops_are_told_by_reason_and_a_fault_only_of_what_is_down() -> None:
    report = LinkRates().report([link(fault="old"), link("unix:f-bbbbbbbb", connected=False, fault="x" * 900)], 1.0)
    assert report is not None
    down, up = report.rows
    assert (down.connected, up.connected) == (False, True)
    assert (len(down.fault), up.fault) == (200, "")
    assert (up.replaced, up.evicted, up.queued) == (5, 2, 77)


def test_of_very_many_links_the_important_ones_are_named_and_all_are_counted() -> None:
    rates = LinkRates()
    names = [f"unix:f-{n:08d}".translate(str.maketrans("0123456789", "abcdefghij")) for n in range(500)]
    rates.report([], 0.0)
    report = rates.report([link(at, 1, n, connected=n != 3) for n, at in enumerate(names)], 1.0)
    assert report is not None
    assert report.total == 500
    assert [row.at for row in report.rows] == [names[3], *reversed(names[501 - MAX_LINK_ROWS :])]
    assert len(encode(1, 1, report)) < 64_000
