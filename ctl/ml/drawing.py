"""Draws a replay as an SVG picture: coverage, latency and alerts over the time of the footage. Pure."""

from __future__ import annotations

import html
import math
from typing import Final, TypeVar

from watchout.ctl.ml.report import BORDERS_MS, Outcome, Replay, ServiceRecord, clock_of, histogram
from watchout.ctl.terminal import printable

T = TypeVar("T")

_WIDTH: Final = 1000
_LEFT: Final = 70
_RIGHT: Final = 20
_PLOT: Final = 120
_ROOM: Final = _WIDTH - _LEFT - _RIGHT
#: Most points and marks that are drawn for one service; of more, every n-th is drawn.
MAX_MARKS: Final = 5_000
_LEAST_MS: Final = 1.0
_STYLE: Final = """\
  svg { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .paper { fill: #ffffff; stroke: #d0d7de; } .axis { stroke: #d0d7de; fill: none; }
  .ink { fill: #1f2328; } .quiet { fill: #59636e; } .title { font-size: 15px; font-weight: 600; }
  .answered { fill: #0969da; } .failed { fill: #cf222e; } .timeout { fill: #bf8700; } .covered { fill: #2da44e; }
  .gap { fill: #ffcecb; } .low { fill: #1b7c83; } .medium { fill: #bf8700; } .high { fill: #cf222e; }
  .critical { fill: #82071e; } .differs { fill: #8250df; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #3d444d; } .axis { stroke: #3d444d; }
    .ink { fill: #f0f6fc; } .quiet { fill: #9198a1; } .answered { fill: #4493f8; } .gap { fill: #67060c; }
    .critical { fill: #ff8182; }
  }"""


def draw(replay: Replay) -> str:
    """Return the text of an SVG file."""
    top = 34
    out = [_text(16, top, f"{replay.footage}, {clock_of(replay.length_s)}", "ink title")]
    top += 14
    for name, record in (("service", replay.first), ("shadow", replay.second)):
        if record is not None:
            part, top = _service(replay, record, name, top + 22)
            out += part
    comparison = replay.comparison
    if comparison is not None:
        top += 26
        told = f"where they disagree ({comparison.compared - comparison.agreed} of {comparison.compared} frames)"
        out.append(_text(16, top, told, "ink"))
        for each in comparison.disagreements:
            out.append(_rect(_x(replay, each.at_s) - 1, top + 8, 2, 14, "differs"))
        top += 26
    height = top + 20
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    label = html.escape(printable(replay.footage), quote=True)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
            f"<style>\n{_STYLE}\n</style>",
            f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6" class="paper"/>',
            *out,
            "</svg>\n",
        )
    )


def _service(replay: Replay, record: ServiceRecord, name: str, top: int) -> tuple[list[str], int]:
    covered = record.coverage(replay.length_s)
    out = [_text(16, top, f"{name}: {record.service} · coverage {covered:.1%}", "ink")]
    top += 12
    out += [_rect(_x(replay, at_s), top, width, 8, style) for at_s, width, style in _covered(replay, record)]
    top += 16
    out += _latencies(replay, record, top)
    top += _PLOT + 22
    marks = [told for told in record.alerts if told.at_s is not None]
    out.append(_text(_LEFT - 8, top + 10, "alerts", "quiet", anchor="end"))
    for told in _thinned(marks):
        assert told.at_s is not None, "the others were left out above"
        height = 14 if told.told else 5  # what the cooldown would hold back is a stub
        title = f"{clock_of(told.at_s)} {told.alert.severity}: {told.alert.message}"
        out.append(_rect(_x(replay, told.at_s) - 1.5, top + 14 - height, 3, height, told.alert.severity, title))
    top += 26
    out += _histogram(record, top)
    return out, top + 58


def _covered(replay: Replay, record: ServiceRecord) -> list[tuple[float, float, str]]:
    """Return stretches of seconds with and without results: begin in seconds, width in pixels, style."""
    seconds = math.ceil(replay.length_s - 1e-9)
    seen = {math.floor(look.at_s) for look in record.looks if look.outcome is Outcome.ANSWERED}
    found: list[tuple[float, float, str]] = []
    begin = 0
    for second in range(1, seconds + 1):
        if second == seconds or (second in seen) is not (begin in seen):
            end = min(float(second), replay.length_s)
            width = max(_x(replay, end) - _x(replay, begin), 0.1)
            found.append((begin, width, "covered" if begin in seen else "gap"))
            begin = second
    return found


def _latencies(replay: Replay, record: ServiceRecord, top: float) -> list[str]:
    most = max((look.latency_ms for look in record.looks), default=_LEAST_MS)
    high = max(10.0, 10 ** math.ceil(math.log10(max(most, _LEAST_MS))))

    def y(latency_ms: float) -> float:
        return top + _PLOT * (1 - math.log10(max(latency_ms, _LEAST_MS)) / math.log10(high))

    out = [f'<path d="M{_LEFT} {top}V{top + _PLOT}H{_WIDTH - _RIGHT}" class="axis"/>']
    out += [
        _text(_LEFT - 8, y(10.0**power) + 4, f"{10**power} ms", "quiet", anchor="end")
        for power in range(round(math.log10(high)) + 1)
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at_s = share * replay.length_s
        anchor = "start" if not share else "end" if share == 1 else "middle"
        out.append(_text(_x(replay, at_s), top + _PLOT + 15, clock_of(at_s), "quiet", anchor=anchor))
    for look in _thinned(record.looks):
        style = str(look.outcome)
        out.append(f'<circle cx="{_x(replay, look.at_s):.1f}" cy="{y(look.latency_ms):.1f}" r="2" class="{style}"/>')
    return out


def _histogram(record: ServiceRecord, top: float) -> list[str]:
    bars = histogram(record.latencies())
    most = max(bars) or 1
    step = _ROOM / len(bars)
    out = []
    for n, bar in enumerate(bars):
        height = 34 * bar / most
        label = f"≤ {BORDERS_MS[n]} ms" if n < len(BORDERS_MS) else f"> {BORDERS_MS[-1]} ms"
        out.append(_rect(_LEFT + n * step + 4, top + 34 - height, step - 8, height, "answered", f"{bar} answers"))
        out.append(_text(_LEFT + (n + 0.5) * step, top + 48, label, "quiet", anchor="middle"))
    out.append(_text(_LEFT - 8, top + 34, "answers", "quiet", anchor="end"))
    return out


def _thinned(marks: list[T]) -> list[T]:
    return marks[:: math.ceil(len(marks) / MAX_MARKS) or 1]


def _x(replay: Replay, at_s: float) -> float:
    return _LEFT + _ROOM * min(at_s / replay.length_s, 1.0) if replay.length_s > 0 else float(_LEFT)


def _rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    head = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{style}"'
    return f"{head}><title>{html.escape(printable(title))}</title></rect>" if title else f"{head}/>"


def _text(x: float, y: float, text: str, style: str, *, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}" class="{style}"{where}>{html.escape(printable(text))}</text>'
