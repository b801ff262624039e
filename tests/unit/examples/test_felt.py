"""What the demo of three hosts counts: gaps, alerts and claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.cluster.felt import AlertBook, Arrivals, Claims


@pytest.mark.parametrize(
    ("at", "since", "now", "gap"),
    [
        ([], 10.0, 13.0, 3.0),
        ([9.9, 10.1, 10.2], 10.0, 10.3, 0.2),
        ([9.0, 12.0, 12.1], 10.0, 12.2, 3.0),
        ([9.9, 10.0, 10.1], 10.0, 14.1, 4.0),
        ([1.0, 5.0, 9.9, 10.0, 10.1], 9.95, 10.1, 0.1),
    ],
    ids=["none came", "those since then", "the one before counts", "one that lasts counts", "former gaps do not"],
)
def test_the_longest_gap(at: list[float], since: float, now: float, gap: float) -> None:
    assert Arrivals("v", at).longest_gap(since, now) == pytest.approx(gap)


@given(st.lists(st.integers(0, 100)), st.integers(0, 100))
def test_no_gap_is_longer_than_the_time_since_the_frame_before(at: list[int], since: int) -> None:
    arrivals = Arrivals("v", [float(each) for each in sorted(at)])
    before = max((each for each in at if each <= since), default=since)
    assert 0 <= arrivals.longest_gap(since, 100.0) <= 100 - before


def test_the_rate_is_that_of_the_time_asked_for() -> None:
    assert Arrivals("v", [1.0, 2.1, 2.2, 2.3]).rate(2.0, 4.0) == 1.5
    assert Arrivals("v").rate(2.0, 2.0) == 0.0


def test_a_claim_lasts_from_its_first_attempt_on_and_one_that_waits_counts() -> None:
    claims = Claims(0)
    claims.began(1.0)
    claims.granted(1.1)
    claims.began(2.0)
    assert claims.longest(0.0, 5.0) == 3.0
    assert claims.longest(4.0, 5.0) == 1.0, "what it waited before is another part's"
    assert not claims.works(1.05), "it began before"
    claims.granted(6.0)
    assert claims.longest(0.0, 9.0) == 4.0
    assert claims.longest(6.5, 9.0) == 0.0
    assert claims.works(2.0)


def test_an_alert_is_lost_when_one_of_them_did_not_get_it_and_twice_when_one_got_it_twice() -> None:
    book = AlertBook()
    for number in range(4):
        book.accept(f"a{number}")
    for receiver in ("x", "y"):
        for alert in ("a0", "a1", "a3"):
            book.arrive(receiver, alert)
    book.arrive("y", "a2")
    book.arrive("y", "a2")
    assert (book.lost(["x", "y"]), book.twice()) == (1, 1)
    assert book.lost(["y"]) == 0
    assert book.lost(["x"], since=3) == 0
    assert book.twice(since=3) == 0
    assert book.lost(["z"]) == 4, "nothing came to it"
