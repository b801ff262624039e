"""Checks that fail, and the registry of checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchout.common.settings import Settings
from watchout.ctl.doctor import checks
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.examination import run_check
from watchout.ctl.doctor.findings import Finding, Level
from watchout.ctl.doctor.registry import SECTIONS, all_checks


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (PermissionError(13, "Permission denied", "/srv/w"), "could not be made: Permission denied, /srv/w. Run it as"),
        (OSError("canary"), "This check could not be made: OSError."),
        (KeyError("canary"), "a bug in watchout-ctl, KeyError."),
        (TimeoutError("canary"), "did not end within"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", sorted({check.section for check in all_checks()}))
async def test_a_check_that_fails_is_a_sentence_and_stops_no_other(name: str, fault: Exception, words: str) -> None:
    async def check(_: Settings) -> list[Finding]:
        raise fault

    (finding,) = await run_check(Check(name, check), Settings())
    assert finding.check in SECTIONS
    assert finding.level is Level.WRONG
    assert words in finding.sentence
    assert "canary" not in finding.sentence


def test_every_module_in_the_folder_is_a_check_that_runs() -> None:
    modules = {path.stem for path in Path(checks.__file__).parent.glob("*.py")} - {"__init__"}
    assert len(all_checks()) == len(modules) >= 11


def test_no_two_modules_run_the_same_check() -> None:
    runs = [check.run for check in all_checks()]
    assert len(set(runs)) == len(runs)


def test_a_module_without_a_check_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "forgotten.py").write_text("x = 1\n")
    monkeypatch.setattr(checks, "__path__", [str(tmp_path)])
    with pytest.raises(AttributeError, match="CHECK"):
        all_checks()
