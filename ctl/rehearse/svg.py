"""Draws lines over time as inline SVG, by itself: no script, no font, no request. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 190
LEFT: Final = 64
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 24
#: Lines across, about.
TICKS: Final = 4
#: Values below it are drawn as nothing.
LEAST: Final = 1e-9
COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot: its name, and points of seconds and values; None is a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]


def plot(curves: Sequence[Curve], *, unit: str, limit: float | None = None) -> str:
    """Return a plot as SVG with its legend below.

    Args:
        curves: The lines.
        unit: What the values are in.
        limit: A value that is marked by a dashed line, such as an objective; None: none.
    """
    values = [value for curve in curves for _, value in curve.points if value is not None and math.isfinite(value)]
    times = [at for curve in curves for at, _ in curve.points]
    if not values:
        return '<p class="none">nothing was measured</p>'
    if limit is not None and not math.isfinite(limit):
        limit = None
    marks = ticks(max([*values, *([] if limit is None else [limit])]))
    low = min(0.0, *values)
    seconds = max(*times, 1.0)
    scale = _Scale(seconds, low, max(marks[-1], low + 1e-9))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_names(curves))}">']
    for mark in marks:
        y = scale.y(mark)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_number(mark)}</text>')
    parts += [
        f'<text x="{scale.x(mark)}" y="{HEIGHT - 6}" text-anchor="middle">{_number(mark)} s</text>'
        for mark in ticks(seconds)
        if mark <= seconds
    ]
    if limit is not None:
        y = scale.y(limit)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="limit"/>')
    for number, curve in enumerate(curves):
        parts += _line(curve, scale, COLOURS[number % len(COLOURS)])
    parts.append("</svg>")
    return "".join(parts) + _legend(curves, unit)


def ticks(most: float) -> list[float]:
    """Return round numbers from 0 up to at least `most`, about `TICKS` of them above 0."""
    if not most >= LEAST or math.isinf(most):
        return [0.0, 1.0]
    rough = most / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(step * number, 12) for number in range(math.ceil(most / step - 1e-9) + 1)]


class _Scale:
    """Where seconds and values are in the picture."""

    def __init__(self, seconds: float, low: float, high: float) -> None:
        self.seconds = seconds
        self._low = low
        self._high = high

    def x(self, at: float) -> float:
        return round(LEFT + at / self.seconds * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _line(curve: Curve, scale: _Scale, colour: str) -> list[str]:
    """Return the parts of a line between its gaps; a point with gaps on both sides is a dot."""
    runs: list[list[str]] = [[]]
    for at, value in curve.points:
        if value is not None and math.isfinite(value):
            runs[-1].append(f"{scale.x(at)},{scale.y(value)}")
        elif runs[-1]:
            runs.append([])
    parts = []
    for run in runs:
        if len(run) == 1:
            x, y = run[0].split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>')
        elif run:
            parts.append(f'<polyline points="{" ".join(run)}" stroke="{colour}"/>')
    return parts


def _legend(curves: Sequence[Curve], unit: str) -> str:
    names = "".join(
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(curve.name)}</span>'
        for number, curve in enumerate(curves)
    )
    return f'<p class="legend">{names}<span>{escape(unit)}</span></p>'


def _names(curves: Sequence[Curve]) -> str:
    return ", ".join(curve.name for curve in curves)


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"
