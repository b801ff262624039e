"""The report of a rehearsal as one HTML file with plots: no script, and nothing is loaded from anywhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from watchout.common.latency.rows import milliseconds
from watchout.ctl.rehearse.objectives import GOALS, Verdict, shown
from watchout.ctl.rehearse.result import Point, Result
from watchout.ctl.rehearse.soak_result import Soak, growth_text
from watchout.ctl.rehearse.svg import Curve, plot
from watchout.ctl.rehearse.text import report_lines, scenario_line, undecided

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.1em;margin:1.8em 0 .4em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2em .6em;border-bottom:1px solid #8884}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.passed,.ok{color:#1a7f37}.failed,.missed{color:#d1242f}.undecided{color:#9a6700}
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:currentColor;opacity:.75}
polyline{fill:none;stroke-width:1.5}.grid{stroke:#8884}.limit{stroke:#d1242f;stroke-dasharray:5 4}
.legend{margin:0;font-size:.85em}.legend span{margin-right:1.2em}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
pre{overflow-x:auto;font-size:.85em;background:#8881;padding:1em}.none{opacity:.7}
"""
#: Nothing may be loaded or run; only the style is in the page itself.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(result: Result) -> str:
    """Return the report as an HTML document."""
    return "\n".join(_parts(result)) + "\n"


def _parts(result: Result) -> Iterator[str]:
    began = datetime.fromtimestamp(result.began_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    title = f"Rehearsal: {result.verdict}"
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f'<h1>Rehearsal <span class="{result.verdict}">{result.verdict}</span></h1>'
    said = f"{result.system}: {scenario_line(result.scenario)}. Began {began}, seed {result.seed}."
    yield f"<p>{escape(said)}</p>"
    if result.interrupted:
        yield f"<p>It was ended early, after {result.seconds:g} s.</p>"
    if result.verdict is Verdict.UNDECIDED:
        said = f"Nothing is decided: {undecided(result)}."
        yield f'<p class="undecided">{escape(said)}</p>'
    yield from _objectives(result)
    yield from _plots(result)
    yield from _hops(result)
    yield f"<h2>Everything in text</h2><pre>{escape(chr(10).join(report_lines(result)))}</pre>"
    yield "</body></html>"


def _objectives(result: Result) -> Iterator[str]:
    yield "<h2>Objectives</h2>"
    yield from _table(
        ("objective", "", "wanted", "measured", ""),
        (
            (
                each.name, GOALS[each.name].says, each.wanted, shown(each.name, each.measured),
                "ok" if each.met else "missed",
            )
            for each in result.objectives
        ),
        numbers=(2, 3),
    )  # fmt: skip


def _hops(result: Result) -> Iterator[str]:
    if not result.hops:
        return
    yield "<h2>Where the time went, by the latency ledger</h2>"
    yield from _table(
        ("hop", "p50", "p99", "measured"),
        ((hop.name, milliseconds(hop.p50_ms), milliseconds(hop.p99_ms), str(hop.count)) for hop in result.hops),
        numbers=(1, 2, 3),
    )


def _plots(result: Result) -> Iterator[str]:
    limits = {each.name: each.limit for each in result.objectives}
    points = result.points
    yield "<h2>Frames</h2>"
    yield plot(
        [
            Curve("sent by cameras", _line(points, "sent")),
            Curve("never came", _line(points, "missing")),
            Curve("read by viewers", _line(points, "received")),
        ],
        unit="frames per second",
    )
    yield "<h2>Glass to glass</h2>"
    yield plot([Curve("p99, steady viewers", _line(points, "glass_p99_ms"))], unit="ms", limit=limits.get("glass-p99"))
    yield "<h2>Glass to alert</h2>"
    yield plot([Curve("p99, clients", _line(points, "alert_p99_ms"))], unit="ms", limit=limits.get("alert-p99"))
    if result.processes:
        yield "<h2>Memory of the processes</h2>"
        yield plot([Curve(f"{each.name} ({each.pid})", each.samples) for each in result.processes], unit="MB")
    if result.soak is not None:
        yield from _soak(result.soak)
    yield "<h2>How late the load itself was</h2>"
    yield plot([Curve("p99", _line(points, "lag_p99_ms"))], unit="ms", limit=result.own.limit_ms)


def _soak(soak: Soak) -> Iterator[str]:
    """Yield a table of the growth, and a plot of each quantity."""
    yield "<h2>Growth an hour</h2>"
    yield from _table(
        ("process", "", "first", "last", "growth", ""),
        (
            (
                f"{each.process} ({each.pid})", each.quantity, f"{each.first:.4g}", f"{each.last:.4g}",
                growth_text(each), str(each.verdict),
            )
            for each in soak.growth
        ),
        numbers=(2, 3),
    )  # fmt: skip
    for quantity in dict.fromkeys(each.quantity for each in soak.growth):
        found = [each for each in soak.growth if each.quantity == quantity]
        yield f"<h2>{escape(quantity.capitalize())} over the soak</h2>"
        curves = [Curve(f"{each.process} ({each.pid})", each.samples) for each in found]
        yield plot(curves, unit=found[0].unit or quantity)


def _line(points: Sequence[Point], name: str) -> list[tuple[float, float | None]]:
    return [(float(point.at_s), getattr(point, name)) for point in points]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int]) -> Iterator[str]:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_class(column, text, numbers)}>{escape(text)}</{tag}>" for column, text in enumerate(row)
        )

    yield f"<table><tr>{cells('th', heads)}</tr>"
    yield from (f"<tr>{cells('td', row)}</tr>" for row in rows)
    yield "</table>"


def _class(column: int, text: str, numbers: Sequence[int]) -> str:
    if column in numbers:
        return ' class="n"'
    return f' class="{text}"' if text in ("ok", "missed", *Verdict) else ""
