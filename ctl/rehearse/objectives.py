"""Objectives of a rehearsal: read from options, and held against what was measured. Pure."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

#: Value with which an objective is left out.
OFF: Final = "off"


class Unit(enum.Enum):
    """What an objective is measured in; the value is what an error says of its form."""

    MS = "a duration such as 500ms or 1.5s"
    SHARE = "a share such as 95%"
    COUNT = "a number such as 0"
    SLOPE = "a slope such as 5MB/h"


@dataclass(frozen=True, slots=True)
class Goal:
    """A kind of objective.

    Attributes:
        unit: What it is measured in.
        at_least: Whether more is better; otherwise less is.
        says: What is measured, for people.
    """

    unit: Unit
    at_least: bool
    says: str


GOALS: Final = {
    "alert-p99": Goal(Unit.MS, False, "99 of 100 alerts were read by a client within this, from the capture on"),
    "glass-p99": Goal(Unit.MS, False, "99 of 100 frames were read by a steady viewer within this, from the capture on"),
    "sent": Goal(Unit.SHARE, True, "frames that cameras sent, of those that were due"),
    "delivered": Goal(Unit.SHARE, True, "frames that steady viewers read, of those of their streams"),
    "alerts-lost": Goal(Unit.COUNT, False, "alerts that a viewer did not get"),
    "lost-connections": Goal(Unit.COUNT, False, "connections that ended without the client's doing"),
    "unexplained": Goal(Unit.COUNT, False, "closes and dropped frames that `why` does not explain"),
    "ml-failures": Goal(Unit.SHARE, False, "requests to the ML service that failed"),
    "memory-slope": Goal(Unit.SLOPE, False, "growth of the process that grows fastest, after the warm-up"),
}
_FORMS: Final = {
    Unit.MS: re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)"),
    Unit.SHARE: re.compile(r"(\d+(?:\.\d+)?)\s*(%)"),
    Unit.COUNT: re.compile(r"(\d+)()"),
    Unit.SLOPE: re.compile(r"(\d+(?:\.\d+)?)\s*(MB/h)"),
}
_FACTORS: Final = {"ms": 1.0, "s": 1000.0, "%": 0.01, "": 1.0, "MB/h": 1.0}


class Verdict(enum.StrEnum):
    """The outcome. UNDECIDED: the load itself was the limit, so what was measured says nothing of the system."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


#: Exit code of each outcome.
EXIT_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.UNDECIDED: 3}


class Judged(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One objective with what was measured; None: nothing was, and it is missed."""

    name: str
    limit: float
    measured: float | None
    met: bool

    @property
    def wanted(self) -> str:
        """The objective as it is written."""
        return f"{'≥' if GOALS[self.name].at_least else '≤'} {shown(self.name, self.limit)}"


def read_objectives(texts: Sequence[str], defaults: Mapping[str, float]) -> dict[str, float]:
    """Return limits by name, in ms, as shares, counts, or MB per hour; those given win over the defaults.

    Args:
        texts: As ``NAME=VALUE``; the value ``off`` leaves one out.
        defaults: Limits by name.

    Raises:
        ValueError: A text is wrong; it says what came and what was expected.
    """
    limits = dict(defaults)
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in GOALS:
            raise ValueError(f"{text!r} is no objective, expected NAME=VALUE with one of {', '.join(GOALS)}")
        if value == OFF:
            limits.pop(name, None)
            continue
        unit = GOALS[name].unit
        found = _FORMS[unit].fullmatch(value)
        if found is None or (unit is Unit.SHARE and float(found[1]) > 100):
            raise ValueError(f"{name} is {value!r}, expected {unit.value}, or {OFF}")
        limits[name] = float(found[1]) * _FACTORS[found[2]]
    return {name: limits[name] for name in GOALS if name in limits}


def judge(limits: Mapping[str, float], measured: Mapping[str, float | None]) -> list[Judged]:
    """Hold what was measured against the limits. What was not measured is missed: nobody can say that it was met."""
    return [
        Judged(name=name, limit=limit, measured=value, met=_is_met(name, limit, value))
        for name, limit in limits.items()
        for value in [measured.get(name)]
    ]


def _is_met(name: str, limit: float, value: float | None) -> bool:
    if value is None or math.isnan(value):
        return False
    return value >= limit if GOALS[name].at_least else value <= limit


def verdict_of(judged: Sequence[Judged], own_limit: str) -> Verdict:
    """Return the outcome.

    Args:
        judged: The objectives.
        own_limit: Why the load itself was the limit; empty when it was not.
    """
    if own_limit:
        return Verdict.UNDECIDED
    return Verdict.PASSED if all(each.met for each in judged) else Verdict.FAILED


def shown(name: str, value: float | None) -> str:
    """Return a measured value, or a limit, of an objective for people."""
    if value is None:
        return "not measured"
    match GOALS[name].unit:
        case Unit.MS:
            return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"
        case Unit.SHARE:
            return f"{100 * value:.4g} %"
        case Unit.SLOPE:
            return f"{value:.1f} MB/h"
        case Unit.COUNT:
            return f"{value:.0f}"
