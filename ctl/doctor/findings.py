"""Findings of the doctor: sentences with a level, and a remedy unless all is well. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from watchout.ctl.terminal import counted, printable


class Level(enum.StrEnum):
    """Severity of a `Finding`, in ascending order: ok, warning (watchout works, with a weakness), wrong."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report. Made by `ok`, `warning` and `wrong`; shown by `ctl.doctor.findings_view`.

    No sentence is composed of a secret, and `ctl.doctor.scrubbing` removes those that came from elsewhere.

    Attributes:
        check: section of the report (`ctl.doctor.registry.SECTIONS`).
        level: how severe it is.
        says: what was found, as sentences.
        remedy: what to do: the setting, statement or command; empty where nothing is to be done.
        facts: the same as values, for ``--json``.
    """

    check: str
    level: Level
    says: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Finding and remedy on one line, printable."""
        return printable(f"{self.says} {self.remedy}".strip())

    def body(self) -> dict[str, object]:
        """Return the finding as an object for ``--json``."""
        found: dict[str, object] = {"check": self.check, "level": str(self.level), "says": printable(self.says)}
        if self.remedy:
            found["remedy"] = printable(self.remedy)
        if self.facts:
            found["facts"] = dict(self.facts)
        return found


#: Makes a finding of one level: (check, says, remedy, **facts).
MakeFinding = Callable[..., Finding]


def _maker(level: Level) -> MakeFinding:
    def make(check: str, says: str, remedy: str = "", **facts: object) -> Finding:
        return Finding(check, level, says, remedy, facts)

    return make


ok, warning, wrong = _maker(Level.OK), _maker(Level.WARNING), _maker(Level.WRONG)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the highest level of the findings; ok when there are none."""
    return max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each level, as a sentence."""
    of = {level: sum(finding.level is level for finding in findings) for level in Level}
    return f"{of[Level.WRONG]} wrong, {counted(of[Level.WARNING], 'warning')}, {of[Level.OK]} ok"
