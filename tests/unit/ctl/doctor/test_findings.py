"""Findings: their order, and how they are shown."""

from __future__ import annotations

from watchout.ctl.doctor.findings import Level, ok, summary, warning, worst, wrong


def test_the_worst_finding_decides() -> None:
    assert worst([]) is Level.OK
    assert worst([ok("a", "A."), warning("a", "A."), ok("a", "A.")]) is Level.WARNING
    assert worst([warning("a", "A."), wrong("a", "A."), ok("a", "A.")]) is Level.WRONG


def test_the_summary_counts_each_level() -> None:
    assert summary([ok("a", "A."), warning("a", "A."), ok("a", "A.")]) == "0 wrong, 1 warning, 2 ok"
    assert summary([]) == "0 wrong, 0 warnings, 0 ok"


def test_a_finding_is_one_line_whatever_is_in_it() -> None:
    finding = wrong("store", "It says \x1b[2J\nno.", "Do\rso.")
    assert finding.sentence == "It says \\x1b[2J\\nno. Do\\rso."
    assert finding.body() == {
        "check": "store",
        "level": "wrong",
        "says": "It says \\x1b[2J\\nno.",
        "remedy": "Do\\rso.",
    }
    assert ok("a", "A.", days=3).body() == {"check": "a", "level": "ok", "says": "A.", "facts": {"days": 3}}
