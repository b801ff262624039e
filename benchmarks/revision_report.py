"""Writes what a comparison with a former revision found: a part of docs/performance.md, from the raw results.

`python -m benchmarks.revision_report` makes it again from the committed raw file. Other raw files get a page of their
own beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from benchmarks import figures, report
from benchmarks.figures import LOADS, POINTS, SUBJECT, Figure, Quantity, Runs
from benchmarks.plan import REVISIONS
from benchmarks.report import NONE, ratio, spread, table

RAW: Final = report.HERE / "results" / "revision.json"
BEGIN, END = "<!-- revision: generated, see benchmarks/revision_report.py -->", "<!-- end of revision -->"
FORMER: Final = REVISIONS[1]
#: What is compared where: the title of a table, its unit, its quantity and its points.
TABLES: Final[tuple[tuple[str, str, Quantity, tuple[str, ...]], ...]] = (
    ("CPU per delivered frame", "µs", figures.cpu_us, LOADS),
    ("Latency from send to receive at p99", "ms", figures.p99_ms, LOADS),
    ("Memory of all processes under load", "MiB", figures.memory_mib, LOADS),
    ("Memory of an idle connection", "kB", figures.idle_kb, ("idle",)),
)


def verdict(figure: Figure | None) -> str:
    """What the ratios of the rounds say: a change only where every round shows it."""
    if figure is None:
        return "not measured"
    if len(figure.values) < 2:
        return "one round shows nothing"
    if figure.low <= 1 <= figure.high:
        return "as before"
    return "less in every round" if figure.high < 1 else "more in every round"


def render(results: figures.Results, raw: str = "../benchmarks/results/revision.json") -> str:
    """The generated part of the page, as Markdown; `raw` is what it links to."""
    runs = Runs(results.runs, results.failed)
    parts = [report.facts(results, runs, raw)]
    for title, unit, quantity, points in TABLES:
        rows = [_row(runs, point, quantity) for point in points if runs.systems(point)]
        if rows:
            head = ("load", f"now, {unit} ", f"before, {unit} ", "ratio ", "", "delivered now ", "remarks")
            parts += [f"### {title}", table(head, rows)]
    if lost := [f"- {f.system} at {f.point}, round {f.round}: {report.line(f.why)}" for f in results.failed]:
        parts += ["### Runs that failed", "\n".join(lost)]
    return "\n\n".join(parts) + "\n"


def _row(runs: Runs, point: str, quantity: Quantity) -> tuple[str, ...]:
    change = runs.ratio(point, SUBJECT, point, FORMER, quantity)
    remarks = [
        f"{which}: {remark}"
        for which, system in (("now", SUBJECT), ("before", FORMER))
        for remark in figures.remarks(runs, point, system)
    ]
    return (
        POINTS[point],
        *(spread(runs.figure(point, system, quantity)) for system in (SUBJECT, FORMER)),
        ratio(change),
        verdict(change),
        report.delivered(runs, point, SUBJECT)[1] or NONE,
        "; ".join(remarks),
    )


def page(raw: Path = RAW) -> tuple[Path, str]:
    """The file that these raw results belong to, and what is to stand in it. Raises `report.ReportFault`."""
    try:
        results = figures.read(report.read_bytes(raw))
    except figures.ResultsFault as fault:
        raise report.ReportFault(f"{raw}: {fault}") from None
    if raw.resolve() == RAW.resolve():
        return report.PAGE, report.with_figures(report.read_bytes(report.PAGE).decode(), render(results), BEGIN, END)
    return raw.with_suffix(".md"), f"# {raw.name}\n\n{render(results, raw.name)}"


@click.command()
@click.argument("raw", type=click.Path(path_type=Path), default=RAW)
def main(raw: Path) -> None:
    """Write the part of docs/performance.md about a former revision, or a page beside another RAW file."""
    try:
        path, text = page(raw)
        report.put(path, text)
    except report.ReportFault as fault:
        raise click.ClickException(str(fault)) from None
    click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
