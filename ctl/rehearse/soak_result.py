"""The result of a soak as data and as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from watchout.ctl.rehearse.growth import Growth, verdict_of_all
from watchout.ctl.rehearse.objectives import Verdict

#: What growth is called in the report, by its verdict.
_SIGNS: Final = {Verdict.PASSED: "ok    ", Verdict.FAILED: "GROWS ", Verdict.UNDECIDED: "?     "}


class Soak(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a soak found.

    Attributes:
        growth: Each quantity of each process.
        acts: How often each of the acts was done.
        faults: What went wrong of them, in sentences with how often.
    """

    growth: list[Growth]
    acts: dict[str, int]
    faults: dict[str, int]


def soak_verdict(of_load: Verdict, soak: Soak) -> Verdict:
    """Return the outcome of a soak: that of the load and of all growth. What surely grows has failed in any case.

    Args:
        of_load: The outcome of the load without it.
        soak: What was found.
    """
    verdicts = {of_load, verdict_of_all(soak.growth)}
    if soak.faults:
        verdicts.add(Verdict.FAILED)
    return next(each for each in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED) if each in verdicts)


def grown(soak: Soak) -> list[Growth]:
    """Return what surely grows."""
    return [each for each in soak.growth if each.verdict is Verdict.FAILED]


def soak_lines(soak: Soak) -> Iterator[str]:
    """Yield the lines of the report."""
    acts = ", ".join(f"{name} {count}" for name, count in soak.acts.items())
    yield f"soak              {acts or 'nothing was done'}"
    yield from (f"  {count} × {text}" for text, count in soak.faults.items())
    yield ""
    yield f"{'':<6} {'process':<26}{'':<12}{'first':>9}{'last':>9}  growth an hour"
    for each in soak.growth:
        yield (
            f"{_SIGNS[each.verdict]} {f'{each.process} ({each.pid})':<26}{each.quantity:<12}{each.first:>9.4g}"
            f"{each.last:>9.4g}  {growth_text(each)}"
        )


def growth_text(growth: Growth) -> str:
    """Return a slope with its error and its limit."""
    unit = f" {growth.unit}" if growth.unit else ""
    if growth.slope is None:
        return f"too few samples, at most {growth.limit:g}{unit}"
    return f"{growth.slope.per_hour:+.2f} ± {growth.slope.error:.2f}{unit}, at most {growth.limit:g}{unit}"
