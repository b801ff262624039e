"""Writes what a benchmark found: the generated part of docs/performance.md and its plot, from the raw results.

`python -m benchmarks.report` makes both again from the committed raw files; the same results give the same bytes.
Other raw files than those get a page of their own beside them, so that a quick look never changes the docs.
"""

from __future__ import annotations

import html
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from benchmarks import figures
from benchmarks.figures import (
    ALERT_LOADS,
    FLOOR_C,
    FLOOR_UVLOOP,
    LOADS,
    MORE_LOADS,
    PEERS,
    POINTS,
    SUBJECT,
    SYSTEMS,
    TLS_LOADS,
    WRITTEN,
    Figure,
    Runs,
)
from benchmarks.goals import GOALS, Goal, Verdict, judge
from benchmarks.load.model import CIPHER
from benchmarks.micro import Micro, render_markdown

HERE: Final = Path(__file__).parent
RAW: Final = HERE / "results" / "latest.json"
#: The results of `python -m benchmarks.micro`, beside the raw ones.
MICRO: Final = "micro.json"
PAGE: Final = HERE.parent / "docs" / "performance.md"
PLOT: Final = HERE.parent / "docs" / "performance.svg"
BEGIN, END = "<!-- figures: generated, see benchmarks/report.py -->", "<!-- end of figures -->"
MAX_RAW_BYTES: Final = 64 * 2**20
MAX_REASON: Final = 300
NONE: Final = "–"


class ReportFault(Exception):
    """The page cannot be written; the text says why."""


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def number(value: float) -> str:
    """Three digits that count, and never an exponent."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", " ").replace("-", "−")
    return f"{value:.{1 if size >= 10 else 2 if size >= 0.1 else 3}f}".replace("-", "−")


def spread(figure: Figure | None, write: Callable[[float], str] = number) -> str:
    """The median, and between brackets the least and the greatest of the rounds; ≈ before what is noisy."""
    if figure is None:
        return NONE
    text = write(figure.median)
    if figure.low == figure.high:
        return text
    return f"{'≈ ' if figure.noisy else ''}{text} ({write(figure.low)} to {write(figure.high)})"


def ratio(figure: Figure | None) -> str:
    """A ratio as `spread` writes it, with two digits behind the point, as bounds have."""
    return spread(figure, "{:.2f}".format)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned when their heads end with a space."""
    rule = ["---:" if cell.endswith(" ") else "---" for cell in head]
    lines = [[cell.strip() for cell in head], rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _name(system: str) -> str:
    return SYSTEMS.get(system, system)


def _shown(system: str) -> str:
    return f"**{_name(system)}**" if system == SUBJECT else _name(system)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def render(
    results: figures.Results,
    micro: Micro | None = None,
    *,
    raw: str = "../benchmarks/results/latest.json",
    drawing: str = "performance.svg",
) -> str:
    """The generated part of the page, as Markdown; `raw` and `drawing` are what it links to."""
    runs = Runs(results.runs, results.failed)
    parts = [
        facts(results, runs, raw),
        "### Goals",
        _goals(runs),
        f"![{_TITLE}]({drawing})",
        "### CPU per delivered frame",
        _cpu(runs),
        "### Latency from send to receive",
        _latency(runs),
        "### Memory",
        _memory(runs),
    ]
    if written := _written(runs):
        parts += ["### The JSON of cameras", written]
    if secured := _tls(runs):
        parts += ["### TLS", secured]
    if pairs := _pairs(runs):
        parts += ["### watchout against itself", pairs]
    if shares := _processes(runs):
        parts += ["### CPU by process of watchout", shares]
    if micro is not None:
        parts += ["### Hot functions", render_markdown(micro)]
    if results.points:
        rows = [(f"`{n}`", p.what, number(p.warmup_s), number(p.duration_s)) for n, p in results.points.items()]
        parts += ["### Points", table(("point", "load", "warm-up in s ", "measured s "), rows)]
    lost = [f"- {_name(system)}: {line(why)}" for system, why in results.missing.items()]
    lost += [f"- {_name(f.system)} at {f.point}, round {f.round}: {line(f.why)}" for f in results.failed]
    if lost:
        parts += ["### Not measured", "\n".join(lost)]
    return "\n\n".join(parts) + "\n"


def line(text: str) -> str:
    """Any text on one line, and not endless."""
    line = " ".join(text.split()).replace("<", "&lt;")
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}…"


def facts(results: figures.Results, runs: Runs, raw: str) -> str:
    rounds = len({run.round for run in runs.all})
    counted = "1 round" if rounds == 1 else f"{rounds} rounds"
    lines = [
        f"Command: `{results.command}`, begun {results.began}, {counted}. Raw results: [{Path(raw).name}]({raw}).",
        "",
        table(("machine", ""), [(str(k).replace("_", " "), _cell(v)) for k, v in results.machine.items()]),
    ]
    if results.quick:
        lines += ["", "**This was a quick run**: short, with few rounds. It shows that all works; it proves no ratio."]
    if wrong := [run for run in runs.all if not run.valid]:
        named = ", ".join(dict.fromkeys(f"{_name(r.system)} at {r.point}" for r in wrong))
        lines += ["", f"**INVALID runs, with wrong frames: {named}.** They are in no figure."]
    warned = [
        f"{_name(system)} at {point}: {said}"
        for point in POINTS
        for system in runs.systems(point)
        for said in figures.strained(runs, point, system)
    ]
    if warned:
        lines += ["", "**The load itself was at its limit**, so these results are in part its own:", ""]
        lines += [f"- {line}" for line in warned]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _goals(runs: Runs) -> str:
    verdicts = [judge(goal, runs) for goal in GOALS]
    rows = []
    for verdict in verdicts:
        goal, measured = verdict.goal, verdict.measured
        peer, uvloop_floor, c_floor = _beside(runs, goal)
        sign = "≥" if goal.at_least else "≤"
        unit = "" if goal.unit == "×" else f" {goal.unit}"
        shown = ratio if goal.unit == "×" else spread
        against = f", of {_name(measured.against)}" if measured and measured.against and goal.subject else ""
        rows.append(
            (
                goal.name,
                f"{sign} {goal.bound:g}{unit}" if goal.bound < 1000 else f"{sign} {number(goal.bound)}{unit}",
                (shown(measured.figure) + against) if measured else NONE,
                _verdict(verdict) + ("; the load was at its limit" if _strained(runs, goal) else ""),
                peer,
                uvloop_floor,
                c_floor,
            )
        )
    counted = [v.reached if v.decided else "undecided" for v in verdicts]
    summary = (
        f"{counted.count(True)} of {len(counted)} reached, {counted.count(False)} not reached, "
        f"{counted.count('undecided')} undecided, {counted.count(None)} not measured. "
        "Each result is the median of the rounds, with minimum and maximum; ≈ marks noisy ones. Undecided: with "
        f"{100 * figures.CONFIDENCE:.0f} % confidence the rounds do not tell on which side of the bound the median is."
    )
    head = ("goal", "bound ", "result ", "", "of the best peer ", "of the uvloop floor ", "of the C floor ")
    promised = "\n".join(f"- {sentence}" for sentence in dict.fromkeys(goal.sentence for goal in GOALS))
    return (
        f"{summary}\n\n{table(head, rows)}\n\n<details><summary>The goals in full</summary>\n\n{promised}\n\n</details>"
    )


def _verdict(verdict: Verdict) -> str:
    if verdict.reached is None:
        return "not measured"
    text = "reached" if verdict.reached else "**not reached**"
    if verdict.why:
        return f"{text}: {verdict.why}"
    rounds = len(verdict.measured.figure.values) if verdict.measured else 0
    held = verdict.rounds_reached
    if not verdict.decided:
        return f"undecided: {held} of {rounds} rounds reach it"
    return text if held in (0, rounds) else f"{text}, noisy: {held} of {rounds} rounds"


def _strained(runs: Runs, goal: Goal) -> bool:
    return any(figures.strained(runs, point, SUBJECT) for point in goal.points)


def _beside(runs: Runs, goal: Goal) -> tuple[str, str, str]:
    """watchout over the best peer and over both floors, in the quantity that the goal is about."""
    if goal.subject is None:
        return NONE, NONE, NONE
    point, quantity = goal.subject
    best = runs.against_best(point, PEERS, quantity)
    peer = f"{ratio(best.figure)}, {_name(best.against)}" if best and best.against else NONE
    floors = (ratio(runs.ratio(point, SUBJECT, point, floor, quantity)) for floor in (FLOOR_UVLOOP, FLOOR_C))
    return peer, *floors  # type: ignore[return-value]


def _cpu(runs: Runs) -> str:
    rows = []
    for point in (*LOADS, *MORE_LOADS, *ALERT_LOADS):
        peer = runs.best(point, PEERS, figures.cpu_us)
        for system in runs.systems(point):
            against = None if peer in (None, system) else peer
            rows.append(
                (
                    POINTS[point],
                    _shown(system),
                    spread(runs.figure(point, system, figures.cpu_us)),
                    ratio(runs.ratio(point, system, point, against, figures.cpu_us)) if against else NONE,
                    *(
                        NONE if system == floor else ratio(runs.ratio(point, system, point, floor, figures.cpu_us))
                        for floor in (FLOOR_UVLOOP, FLOOR_C)
                    ),
                    *delivered(runs, point, system),
                    "; ".join(figures.remarks(runs, point, system)),
                )
            )
    head = (
        "load", "system", "µs ", "of the best peer ", "of the uvloop floor ", "of the C floor ", "sent ",
        "delivered ", "remarks",
    )  # fmt: skip
    return (
        "All processes of a system together, in µs per delivered frame. The best peer is the one with the lowest median"
        f" at that load.\n\n{table(head, _grouped(rows))}"
    )


def delivered(runs: Runs, point: str, system: str) -> tuple[str, str]:
    """Frames sent, and the share of what viewers were to have that they had: never rounded up to all of it."""
    loads = [run.load for run in runs.at(point, system).values()]
    sent, delivered = sum(load.sent for load in loads), sum(load.delivered for load in loads)
    wanted = sum(map(figures.wanted, loads))
    if not wanted:
        return NONE, NONE
    share = "100 %" if delivered == wanted else f"{min(delivered / wanted * 100, 99.99):.2f} %"
    return number(sent), f"{number(delivered)}, {share}"


def _grouped(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows, with the load named once."""
    last = None
    grouped = []
    for load, *rest in rows:
        grouped.append((load if load != last else "", *rest))
        last = load
    return grouped


def _latency(runs: Runs) -> str:
    quantities = (figures.p50_ms, figures.p99_ms, figures.p999_ms, figures.max_ms, figures.lateness_ms,
                  figures.load_cores)  # fmt: skip
    rows = [
        (POINTS[point], _shown(system), *(spread(runs.figure(point, system, quantity)) for quantity in quantities))
        for point in (*LOADS, *MORE_LOADS, *ALERT_LOADS)
        for system in runs.systems(point)
    ]
    head = ("load", "system", "p50 ", "p99 ", "p99.9 ", "max ", "load late, p99 ", "load's cores ")
    return (
        "Latencies and the load's own lateness are in ms, the CPU that the load used is in cores. Every latency"
        f" includes the load's own work, which is the same for all systems.\n\n{table(head, _grouped(rows))}"
    )


def _memory(runs: Runs) -> str:
    ran = [system for system in SYSTEMS if any(runs.figure(p, system, figures.memory_mib) for p in POINTS)]
    rows = [
        (
            _shown(system),
            *(spread(runs.figure(point, system, figures.memory_mib)) for point in LOADS),
            spread(runs.figure("idle", system, figures.idle_kb)),
            spread(runs.figure("idle", system, figures.idle_connections)),
        )
        for system in ran
    ]
    head = ("system", *(f"{POINTS[point]} " for point in LOADS), "kB per idle connection ", "connections held ")
    return (
        "Proportional set size of all processes of a system under load, in MiB; memory that an idle connection adds, in"
        f" kB of 1000 bytes.\n\n{table(head, rows)}"
    )


def _written(runs: Runs) -> str:
    """watchout with cameras that write their JSON in several ways."""
    measured = [
        (plain, point)
        for plain, others in WRITTEN.items()
        if any(map(runs.systems, others))
        for point in (plain, *others)
    ]
    rows = [
        (
            POINTS[point],
            spread(runs.figure(point, SUBJECT, figures.cpu_us)),
            ratio(runs.ratio(point, SUBJECT, plain, SUBJECT, figures.cpu_us)) if point != plain else NONE,
            *delivered(runs, point, SUBJECT),
            "; ".join(figures.remarks(runs, point, SUBJECT)),
        )
        for plain, point in measured
    ]
    if not rows:
        return ""
    return "CPU per delivered frame of watchout.\n\n" + table(
        ("load", "µs ", "of compact JSON ", "sent ", "delivered ", "remarks"), rows
    )


def _tls(runs: Runs) -> str:
    """TLS in the process and by proxies in front, beside Bun with TLS and beside watchout's own."""
    rows = [
        (
            POINTS[point],
            _shown(system),
            spread(runs.figure(point, system, figures.cpu_us)),
            *(
                NONE if system == other else ratio(runs.ratio(point, system, point, other, figures.cpu_us))
                for other in ("bun", SUBJECT)
            ),
            spread(runs.figure(point, system, figures.p99_ms)),
            spread(runs.figure(point, system, figures.memory_mib)),
            *delivered(runs, point, system),
            "; ".join(figures.remarks(runs, point, system)),
        )
        for point in TLS_LOADS
        for system in runs.systems(point)
    ]
    if not rows:
        return ""
    head = (
        "load", "system", "µs ", "of Bun ", "of watchout's own TLS ", "p99 in ms ", "MiB ", "sent ", "delivered ",
        "remarks",
    )  # fmt: skip
    return (
        f"TLS 1.3 with {CIPHER} and a certificate on P-256 for all. The CPU of a proxy counts together with that of the"
        f" watchout behind it.\n\n{table(head, _grouped(rows))}"
    )


def _pairs(runs: Runs) -> str:
    rows = []
    for group in (("ml-off", "ml-on", "ml-hangs"), ("one-gateway", "two-gateways", "two-hosts", "hosts-3"),
                  ("slow-off", "slow-on"), ("alerts-off", "alerts-on"), ("streams-50", "streams-1000")):  # fmt: skip
        for other, which in zip(("", *group), group, strict=False):
            if not runs.systems(which):
                continue
            rows.append(
                (
                    POINTS[which],
                    spread(runs.figure(which, SUBJECT, figures.cpu_us)),
                    ratio(runs.ratio(which, SUBJECT, other, SUBJECT, figures.cpu_us)) if other else NONE,
                    spread(runs.figure(which, SUBJECT, figures.p99_ms)),
                    spread(runs.difference(which, SUBJECT, other, SUBJECT, figures.p99_ms)) if other else NONE,
                    spread(runs.figure(which, SUBJECT, figures.memory_mib)),
                    *delivered(runs, which, SUBJECT),
                    "; ".join(_pair_remarks(runs, which)),
                )
            )
    if not rows:
        return ""
    head = ("point", "µs ", "ratio ", "p99 in ms ", "more ", "MiB ", "sent ", "delivered ", "remarks")
    return table(head, rows)


def _pair_remarks(runs: Runs, point: str) -> Iterable[str]:
    asked = [run.ml_requests for run in runs.at(point, SUBJECT).values() if run.ml_requests is not None]
    if asked:
        yield f"ML service asked {number(statistics.median(asked))} times a run"
    yield from figures.remarks(runs, point, SUBJECT)


def _processes(runs: Runs) -> str:
    """What each kind of process took of a delivered frame."""

    def of(kind: str) -> figures.Quantity:
        def cpu_us(run: figures.Run) -> float | None:
            found = [p.cpu_s for p in run.processes if kind.startswith(p.name.removeprefix("watchout-"))]
            return sum(found) * 1e6 / run.load.delivered if found and run.load.delivered else None

        return cpu_us

    kinds = ("gateway", "router", "mlbridge")
    rows = [
        (POINTS[point], *(spread(runs.figure(point, SUBJECT, of(kind))) for kind in kinds))
        for point in POINTS
        if any(runs.figure(point, SUBJECT, of(kind)) for kind in kinds)
    ]
    return f"In µs per delivered frame.\n\n{table(('point', *(f'{k} ' for k in kinds)), rows)}" if rows else ""


# ── the plot ─────────────────────────────────────────────────────────────────────────────────────────────────────

_WIDTH, _PANEL, _GAP, _LABEL, _VALUE, _ROW = 1000, 313, 20, 112, 46, 19
_TITLE: Final = "Server CPU per delivered frame and latency at p99 of each system at each load"
_STYLE: Final = """\
  svg { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .paper { fill: #ffffff; stroke: #d0d7de; } .axis { stroke: #d0d7de; }
  .ink { fill: #1f2328; } .quiet { fill: #59636e; }
  .own { fill: #0969da; } .peer { fill: #9aa4af; } .floor { fill: #d8b26e; } .whisker { stroke: #1f2328; }
  .title { font-size: 15px; font-weight: 600; } .load { font-weight: 600; } .bold { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #3d444d; } .axis { stroke: #3d444d; }
    .ink { fill: #f0f6fc; } .quiet { fill: #9198a1; }
    .own { fill: #4493f8; } .peer { fill: #656c76; } .floor { fill: #9a6f24; } .whisker { stroke: #f0f6fc; }
  }"""


def plot(results: figures.Results) -> str:
    """Bars of the medians at each load, with a line from the least to the greatest round, as SVG."""
    runs = Runs(results.runs, results.failed)
    out: list[str] = []
    top = 62
    for title, quantity in (
        ("Server CPU in µs per delivered frame", figures.cpu_us),
        ("Latency from send to receive at p99, in ms", figures.p99_ms),
    ):
        out.append(_text(_GAP, top, title, "ink title"))
        for points in (LOADS[:3], LOADS[3:]):
            shown = [s for s in SYSTEMS if any(runs.figure(p, s, quantity) for p in points)]
            for column, point in enumerate(points if shown else ()):
                out += _panel(runs, point, shown, quantity, _GAP + column * (_PANEL + _GAP // 2), top + 26)
            if shown:
                top += 26 + len(shown) * _ROW + 16
        top += 32
    height = top - 28
    note = "median; line: least to greatest round; * drops frames; less is better"
    legend = [_text(_WIDTH - _GAP, 26, note, "quiet", anchor="end")]
    for x, name, style in ((_GAP, "watchout", "own"), (120, "peer", "peer"), (190, "floor: only copies", "floor")):
        legend.append(f'<rect x="{x}" y="16" width="12" height="12" rx="2" class="{style}"/>')
        legend.append(_text(x + 18, 26, name, "ink"))
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_TITLE}">',
            f"<style>\n{_STYLE}\n</style>",
            f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6" class="paper"/>',
            *legend,
            *out,
            "</svg>\n",
        )
    )


def _panel(runs: Runs, point: str, systems: list[str], quantity: figures.Quantity, x: float, y: float) -> list[str]:
    found = [(system, runs.figure(point, system, quantity)) for system in systems]
    # A round far out would press all bars flat: the scale is that of the medians, and a line beyond it is cut.
    scale = max((f.median for _, f in found if f is not None), default=0.0) * 1.15
    left, room = x + _LABEL, _PANEL - _LABEL - _VALUE
    out = [_text(x, y, POINTS[point], "ink load")]
    top = y + 8
    bottom = top + len(systems) * _ROW
    for row, (system, figure) in enumerate(found):
        middle = top + row * _ROW + _ROW / 2
        own = " bold" if system == SUBJECT else ""
        out.append(_text(left - 6, middle + 4, _short(system), f"ink{own}", anchor="end"))
        if figure is None:
            out.append(_text(left + 4, middle + 4, "not measured", "quiet"))
            continue
        style = "own" if system == SUBJECT else "floor" if system in (FLOOR_UVLOOP, FLOOR_C) else "peer"
        width = room * figure.median / scale if scale else 0.0
        out.append(f'<rect x="{left:g}" y="{middle - 6:g}" width="{width:.1f}" height="12" rx="2" class="{style}"/>')
        if figure.high > figure.low and scale:
            a, b = (room * min(v / scale, 1.0) + left for v in (figure.low, figure.high))
            out.append(f'<path d="M{a:.1f} {middle:g}H{b:.1f}" class="whisker"/>')
        value = number(figure.median) + ("" if runs.whole(point, system) else "*")
        out.append(_text(x + _PANEL - 4, middle + 4, value, f"ink{own}", anchor="end"))
    out.append(f'<path d="M{left:g} {top:g}V{bottom:g}" class="axis"/>')
    return out


def _short(system: str) -> str:
    return {"broadcast": "websockets", FLOOR_UVLOOP: "floor: uvloop", FLOOR_C: "floor: C"}.get(system, _name(system))


def _text(x: float, y: float, text: str, style: str, *, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}" class="{style}"{where}>{html.escape(text)}</text>'


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_figures(page: str, generated: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with its part between two marks made anew. Raises `ReportFault` when it has no place for it."""
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ReportFault(f"the page has no part between {begin} and {end}")
    return f"{before}{begin}\n\n{generated}\n{end}{after}"


def load(raw: Path) -> tuple[figures.Results, Micro | None]:
    """The raw results, and those of the micro-benchmarks where they lie beside them. Raises `ReportFault`."""
    try:
        results = figures.read(read_bytes(raw))
    except figures.ResultsFault as fault:
        raise ReportFault(f"{raw}: {fault}") from None
    micro = raw.with_name(MICRO)
    if not micro.exists():
        return results, None
    try:
        return results, msgspec.json.decode(read_bytes(micro), type=Micro)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ReportFault(f"{micro}: not the results of the micro-benchmarks: {fault}") from None


def read_bytes(path: Path) -> bytes:
    """The raw file. Raises `ReportFault`, also for one that is too large."""
    try:
        if path.stat().st_size > MAX_RAW_BYTES:
            raise ReportFault(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_RAW_BYTES}")
        return path.read_bytes()
    except OSError as fault:
        raise ReportFault(f"{path}: {fault.strerror or fault}") from None


def pages(raw: Path = RAW) -> dict[Path, str]:
    """Each file that belongs to these raw results, and what is to stand in it. Raises `ReportFault`."""
    results, micro = load(raw)
    if raw.resolve() == RAW.resolve():
        return {PAGE: with_figures(read_bytes(PAGE).decode(), render(results, micro)), PLOT: plot(results)}
    page, drawing = raw.with_suffix(".md"), raw.with_suffix(".svg")
    text = render(results, micro, raw=raw.name, drawing=drawing.name)
    return {page: f"# {raw.name}\n\n{text}", drawing: plot(results)}


def write(raw: Path = RAW) -> tuple[Path, ...]:
    """Make page and plot anew: docs/performance.md and .svg from `RAW`, files beside it from any other raw file.

    Raises `ReportFault`, then nothing was changed or a file could not be written.
    """
    made = pages(raw)
    for path, text in made.items():
        put(path, text)
    return tuple(made)


def put(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Raises `ReportFault`."""
    half = path.with_name(f".{path.name}.new")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError as fault:
        raise ReportFault(f"{path}: {fault.strerror or fault}") from None


@click.command()
@click.argument("raw", type=click.Path(path_type=Path), default=RAW)
def main(raw: Path) -> None:
    """Write docs/performance.md and its plot from benchmarks/results/latest.json, or a page beside another RAW file."""
    try:
        for path in write(raw):
            click.echo(f"wrote {path}")
    except ReportFault as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
