"""The comparison of clocks."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.ctl.doctor.clocks import clock_of_date, judge_clock
from watchout.ctl.doctor.findings import Level

NOW = datetime(2030, 1, 1, tzinfo=UTC)

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "level"),
    [
        (0, 0, OK), (2, 0, OK), (-2, 0, OK), (2.1, 0, WARNING), (-2.1, 0, WARNING), (2.9, 1, OK), (30, 0, WARNING),
        (30.1, 0, WRONG), (-30.1, 0, WRONG), (31, 1.5, WARNING), (1e9, 0.5, WRONG),
    ],
)  # fmt: skip
def test_every_difference_of_clocks(offset_s: float, uncertainty_s: float, level: Level) -> None:
    finding = judge_clock("the JWT issuer", offset_s, uncertainty_s)
    assert finding.level is level
    if level is not OK:
        assert (
            f"{abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} that of the JWT issuer" in finding.says
        )


DATE = "Tue, 01 Jan 2030 00:00:00 GMT"


@given(offset_s=st.floats(-1e6, 1e6), within_s=st.floats(0, 0.999), took_s=st.floats(0, 3))
def test_the_clock_of_a_date_is_never_further_off_than_is_said(offset_s: float, within_s: float, took_s: float) -> None:
    """Wherever in its second, and in our wait, the other clock was read."""
    read_s = NOW.timestamp() + within_s + offset_s
    for before_s in (read_s, read_s - took_s / 2, read_s - took_s):
        looked = clock_of_date(DATE, None, before_s, before_s + took_s)
        assert looked is not None
        assert abs(looked[0] - offset_s) <= looked[1] + 1e-3


def test_an_answer_out_of_a_cache_is_as_old_as_the_cache_says() -> None:
    now_s = NOW.timestamp() + 200
    looked = clock_of_date(DATE, "200", now_s, now_s)
    assert looked is not None
    assert abs(looked[0]) <= looked[1]


@pytest.mark.parametrize("date", [None, "", "now", "0", "Tue, 99 Jan 2030 00:00:00 GMT"])
def test_what_is_no_date_says_nothing(date: str | None) -> None:
    assert clock_of_date(date, None, 0, 0) is None
    assert clock_of_date(DATE, "old", 0, 0) is None
    assert math.isfinite(clock_of_date(DATE, "9" * 40, 0, 0)[0])  # type: ignore[index]
