"""Objectives are read from options, and held against what was measured."""

from __future__ import annotations

import math
import re

import pytest

from watchout.ctl.rehearse.objectives import (
    EXIT_CODES,
    GOALS,
    Judged,
    Verdict,
    judge,
    read_objectives,
    shown,
    verdict_of,
)


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("alert-p99=500ms", "alert-p99", 500.0),
        ("glass-p99=1.5s", "glass-p99", 1500.0),
        (" sent = 95% ", "sent", 0.95),
        ("delivered=100%", "delivered", 1.0),
        ("unexplained=3", "unexplained", 3.0),
        ("memory-slope=2.5MB/h", "memory-slope", 2.5),
    ],
)
def test_a_text_is_read_in_its_unit(text: str, name: str, limit: float) -> None:
    assert read_objectives([text], {}) == {name: pytest.approx(limit)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alert-p99", "'alert-p99' is no objective, expected NAME=VALUE with one of alert-p99, glass-p99"),
        ("fast=1s", "'fast=1s' is no objective"),
        ("alert-p99=500", "alert-p99 is '500', expected a duration such as 500ms"),
        ("alert-p99=-1ms", "expected a duration"),
        ("sent=101%", "sent is '101%', expected a share"),
        ("alerts-lost=1.5", "alerts-lost is '1.5', expected a number"),
        ("memory-slope=5", "expected a slope such as 5MB/h"),
        ("sent=", "sent is '', expected a share such as 95%, or off"),
    ],
)
def test_a_wrong_text_says_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_objectives([text], {})


def test_what_is_given_wins_over_defaults_and_off_leaves_out() -> None:
    found = read_objectives(
        ["sent=50%", "unexplained=off", "sent=60%"], {"sent": 0.9, "unexplained": 0, "glass-p99": 1}
    )
    assert found == {"glass-p99": 1, "sent": pytest.approx(0.6)}


@pytest.mark.parametrize("name", GOALS)
def test_the_limit_itself_is_met_and_beyond_it_is_missed(name: str) -> None:
    worse = -0.01 if GOALS[name].at_least else 0.01

    def met(value: float | None) -> bool:
        return judge({name: 0.5}, {name: value})[0].met

    assert [met(0.5), met(0.5 - worse), met(0.5 + worse)] == [True, True, False]
    assert [met(None), met(math.nan), judge({name: 0.5}, {})[0].met] == [False, False, False]


def test_the_outcome_and_its_exit_code() -> None:
    good = Judged(name="sent", limit=0.9, measured=1.0, met=True)
    bad = Judged(name="sent", limit=0.9, measured=0.5, met=False)
    assert [verdict_of(judged, "") for judged in ([], [good], [good, bad])] == ["passed", "passed", "failed"]
    assert verdict_of([good], "too late") == verdict_of([bad], "too late") == "undecided"
    assert EXIT_CODES == {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.UNDECIDED: 3}


def test_values_for_people() -> None:
    values = {"alert-p99": 1234.0, "glass-p99": 12.3, "sent": 0.955, "alerts-lost": 3.0, "memory-slope": 1.26}
    said = [shown(name, value) for name, value in values.items()]
    assert said == ["1.23 s", "12 ms", "95.5 %", "3", "1.3 MB/h"]
    assert shown("sent", None) == "not measured"
