"""The verdict on the operating system's limits."""

from __future__ import annotations

import pytest

from tests.kit.doctor_report import levels
from watchout.ctl.doctor.findings import Level
from watchout.ctl.doctor.limits import judge_backlog, judge_open_files

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


@pytest.mark.parametrize(
    ("limit", "level", "words"),
    [
        (-1, OK, "any number of files"),
        (20_128, OK, "may open 20128 files"),
        (20_127, WARNING, "Raise it to 20128"),
        (1024, WARNING, "enough for some 896 connections"),
        (64, WARNING, "some 0 connections"),
    ],
)
def test_every_bound_of_open_files(limit: int, level: Level, words: str) -> None:
    finding = judge_open_files(limit, "The gateway (process 7)", 20_000)
    assert finding.level is level
    assert words in finding.sentence


@pytest.mark.parametrize(("bound", "seen"), [(128, True), (1024, True), (4095, True), (4096, False)])
def test_a_short_queue_of_the_kernel_is_a_warning(bound: int, seen: bool) -> None:
    assert levels(judge_backlog(bound)) == [WARNING] * seen
