"""The verdict on ``WATCHOUT_HOME``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.doctor_report import levels, one
from watchout.ctl.doctor.checks.home import HomeFacts, judge_home
from watchout.ctl.doctor.findings import Level

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


OURS = HomeFacts(path=Path("/srv/w"), mode=0o40700, owner=7, user=7, has_own_files=True)


@pytest.mark.parametrize(
    ("home", "level", "words"),
    [
        (OURS, OK, "is private (socket paths have 18 of 103 bytes"),
        (replace(OURS, user=0), OK, "is private"),
        (replace(OURS, mode=None, has_own_files=False), OK, "does not exist yet, `watchout-gateway` creates it"),
        (replace(OURS, mode=None, writable=False, parent=Path("/srv")), WRONG, "user 7 may not create it in /srv"),
        (replace(OURS, user=8), WRONG, "belongs to user 7, and this is user 8"),
        (replace(OURS, writable=False), WRONG, "not writable"),
        (replace(OURS, writable=False, read_only=True), WRONG, "mounted read-only"),
        (replace(OURS, mode=0o40755), WARNING, "mode 0755, expected 0700. chmod 700 /srv/w"),
        (replace(OURS, mode=0o40755, has_other_files=True), WARNING, "mode 0755"),
        (replace(OURS, mode=0o40755, has_other_files=True, has_own_files=False), WRONG, "refuses to start there"),
        (replace(OURS, has_other_files=True, has_own_files=False), OK, "is private"),
    ],
)
def test_every_home(home: HomeFacts, level: Level, words: str) -> None:
    finding = one(judge_home(home))
    assert (finding.check, finding.level) == ("home", level)
    assert words in finding.sentence


@pytest.mark.parametrize(("mode", "seen"), [(0o100600, False), (0o100640, True), (0o100604, True), (None, False)])
def test_a_store_that_others_may_read_is_wrong(mode: int | None, seen: bool) -> None:
    assert levels(judge_home(replace(OURS, store_mode=mode))) == [OK] + [WRONG] * seen


@pytest.mark.parametrize(("free", "level"), [(10**6, WRONG), (10**8, WARNING), (10**10, None)])
def test_a_full_disk_is_seen(free: int, level: Level | None) -> None:
    assert levels(judge_home(replace(OURS, free_bytes=free))) == [OK] + ([level] if level else [])
