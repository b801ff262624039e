"""The command `python -m benchmarks`: measures watchout beside other relays."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from benchmarks import report
from benchmarks.plan import NAMES, ROUNDS, Selection
from benchmarks.repeats import with_repeats
from benchmarks.runner import SCRATCH, machine, new_results, raise_open_files, save, until_ended
from benchmarks.systems import ALL

#: What `make bench` writes; it is committed.
LATEST: Final = Path(__file__).parent / "results" / "latest.json"


@click.command()
@click.option("--quick", is_flag=True, help="One round of short runs: a look, not a figure.")
@click.option("--only", multiple=True, metavar="POINT…", type=click.Choice(NAMES), help="Only these points.")
@click.option("--systems", multiple=True, metavar="NAME…", type=click.Choice(list(ALL)), help="Only these systems.")
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Default {ROUNDS}; with --quick 1.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where the results go.")
@click.option("--no-report", is_flag=True, help="Measure and print; write no page.")
def main(
    quick: bool, only: Sequence[str], systems: Sequence[str], rounds: int | None, out: Path | None, no_report: bool
) -> None:
    """Measure watchout beside other relays, in one run and in alternation.

    After the rounds, the runs of goals that these do not decide are repeated, for at most 12 rounds in all and until
    38 minutes after the beginning.

    Everything at once, with all rounds, writes benchmarks/results/latest.json and docs/performance.md; any other run
    writes below build/bench/results, or to --out. Exit code 1: some run failed; 130: ended by a signal.
    """
    selection = Selection(tuple(only), tuple(systems), rounds or (1 if quick else ROUNDS), quick)
    taking_part = {turn.system for turn in selection.turns()}
    if not taking_part:
        raise click.UsageError(f"none of these systems runs at these points: {', '.join(systems)}")
    raise_open_files()
    raw = new_results(selection, "benchmarks", machine(taking_part))
    began = time.monotonic()
    ended = asyncio.run(until_ended(with_repeats(selection, raw, lambda: time.monotonic() - began), raw))
    whole = ended and not quick and not only and not systems and selection.rounds >= ROUNDS
    file = LATEST if whole and out is None else (out or SCRATCH) / ("quick.json" if quick else "runs.json")
    save(raw, file)
    if not ended:
        raise SystemExit(130)
    if not no_report:
        try:
            for path in report.write(file):
                click.echo(f"wrote {path}")
        except report.ReportFault as fault:
            raise click.ClickException(str(fault)) from None
    if raw["failed"]:
        raise SystemExit(1)


def spread(arguments: Sequence[str]) -> list[str]:
    """`--only a b` as `--only a --only b`, which is all that click knows."""
    spread: list[str] = []
    option: str | None = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in ("--only", "--systems") else None
        elif option is not None and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread


if __name__ == "__main__":
    main(spread(sys.argv[1:]))
