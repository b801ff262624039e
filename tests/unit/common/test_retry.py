"""Pauses between attempts, and what a Retry-After header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.retry import backoff_s, read_retry_after

#: Fri, 31 Dec 1999 23:59:00 GMT
NOW = 946_684_740.0
MOST_S = 300.0


def test_a_pause_doubles_up_to_the_longest() -> None:
    assert [backoff_s(retries, first_s=0.5, most_s=3.0) for retries in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_chance_takes_away_up_to_half_of_a_pause() -> None:
    assert [backoff_s(1, first_s=1.0, most_s=8.0, chance=chance) for chance in (0.0, 0.5, 1.0)] == [1.0, 1.5, 2.0]


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_a_pause_is_never_below_half_of_the_first_nor_over_the_longest(retries: int, chance: float) -> None:
    assert 0.25 <= backoff_s(retries, first_s=0.5, most_s=60.0, chance=chance) <= 60.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("", None), ("x", None), ("soon", None), ("-1", None), ("1.5", None), ("1e3", None),
        ("٣", None), ("²", None), ("0", 0), (" 7 ", 7), ("120", 120), ("9" * 40, MOST_S), ("9" * 70, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59), ("Fri, 31 Dec 1999 23:59:59 -0000", 59),
        ("Fri, 31 Dec 1999 23:58:00 GMT", 0), ("Sat, 01 Jan 2050 00:00:00 GMT", MOST_S),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_bounded(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text, NOW, most_s=MOST_S) == seconds


@given(st.text(max_size=70))
def test_whatever_retry_after_says_it_is_none_or_bounded(text: str) -> None:
    found = read_retry_after(text, 1e9, most_s=MOST_S)
    assert found is None or 0 <= found <= MOST_S
