"""The tables of ``watchout-ctl latency``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from watchout.common.latency.hops import SENTENCES, WHOLE_WAYS, Hop
from watchout.common.latency.rows import BurnFigures, ClockFigures, HopFigures, LatencyPage, StreamFigures
from watchout.ctl.tables import TableColumn, table
from watchout.ctl.terminal import printable

NAMES: Final = {hop.word: says for hop, says in SENTENCES.items()}
#: Clocks of hosts that are less apart than this, in ms, are not mentioned: what is measured of them is no better.
CLOCKS_MS: Final = 20
HINT: Final = "durations of the last 5 to 10 minutes; docs/latency.md says how they are measured"


def render(page: LatencyPage, *, width: int, rows: int) -> RenderableType:
    """Draw all streams together, then the slowest ones.

    Args:
        page: what was measured.
        width: width of the terminal in characters.
        rows: streams that are shown at most.
    """
    if page.total is None or not page.total.hops:
        return Group(Text("nothing was measured in the last ten minutes: no camera sends frames", "yellow"))
    return Group(
        *_hops(page.total.hops, width),
        Text(),
        *_objectives(page.total.objectives, width),
        *_notes(page.total, page.host_clocks_ms),
        Text(),
        *table("streams", page.streams, _STREAM_COLUMNS, width, rows),
        *([Text(f"… and {page.more} more", "bright_black")] if page.more else []),
        Text(HINT, "bright_black"),
    )


def render_stream(found: StreamFigures, *, width: int, host_clocks_ms: int) -> RenderableType:
    """Draw one stream."""
    return Group(
        Text(f"stream {printable(found.stream_id or '')}", "bold"),
        *_hops(found.hops, width),
        Text(),
        *_objectives(found.objectives, width),
        Text(),
        Text(clock_sentence(found.clock)),
        *_notes(found, host_clocks_ms),
        Text(HINT, "bright_black"),
    )


def milliseconds(value: float | None) -> str:
    """Show a duration in ms with three digits: 0.31, 4.2, 180, 12.5s."""
    if value is None:
        return "–"
    if value >= 10_000:
        return f"{value / 1000:.1f}s"
    return f"{value:.0f}ms" if value >= 100 else f"{value:.1f}ms" if value >= 1 else f"{value:.2f}ms"


def percent(share: float | None) -> Text:
    """Show a share of an error budget: red when it is overdrawn."""
    if share is None:
        return Text("–")
    return Text(f"{100 * share:.0f}%", "red" if share > 1 else "")


def clock_sentence(clock: ClockFigures | None) -> str:
    """Say what is known of a camera's clock."""
    if clock is None:
        return "camera's clock: no camera is connected"
    if clock.offset_ms is None or clock.error_ms is None:
        return f"camera's clock: not known, so neither is the time of capture: {printable(clock.unknown)}"
    ahead = "ahead of" if clock.offset_ms >= 0 else "behind"
    sentence = (
        f"camera's clock: {milliseconds(abs(clock.offset_ms))} {ahead} the gateway's, "
        f"within {milliseconds(clock.error_ms)}"
    )
    if clock.drift_ppm is not None and clock.drift_error_ppm is not None:
        sentence += f"; it runs {clock.drift_ppm:+.0f} ppm, within {clock.drift_error_ppm:.0f} ppm"
    if clock.steps:
        sentence += f"; it was set {clock.steps} times"
    return sentence


def _notes(found: StreamFigures, host_clocks_ms: int) -> list[Text]:
    notes = []
    if found.unknown:
        notes.append(f"{found.unknown} frames and alerts are in no glass-to-… row: their time of capture is not known")
    negative = sum(hop.negative for hop in found.hops)
    if negative:
        notes.append(f"{negative} durations were negative: clocks of hosts are apart (watchout-ctl cluster)")
    if host_clocks_ms >= CLOCKS_MS:
        notes.append(
            f"clocks of hosts are up to {host_clocks_ms} ms apart, and so is what is measured from one to another"
        )
    return [Text(note, "yellow") for note in notes]


def _hops(hops: Sequence[HopFigures], width: int) -> list[RenderableType]:
    order = [hop.word for hop in Hop]
    return table("hops", sorted(hops, key=lambda hop: order.index(hop.hop)), _HOP_COLUMNS, width, len(order))


def _objectives(objectives: Sequence[BurnFigures], width: int) -> list[RenderableType]:
    return table("objectives", objectives, _OBJECTIVE_COLUMNS, width, len(WHOLE_WAYS))


def _name(word: str) -> Text:
    whole = word in {hop.word for hop in WHOLE_WAYS}
    return Text(NAMES.get(word, printable(word)), "bold" if whole else "")


_HOP_COLUMNS: Final[list[TableColumn[HopFigures]]] = [
    TableColumn("hop", lambda hop: _name(hop.hop), right=False),
    TableColumn("p50", lambda hop: milliseconds(hop.p50_ms)),
    TableColumn("p99", lambda hop: milliseconds(hop.p99_ms)),
    TableColumn("mean", lambda hop: milliseconds(hop.mean_ms), 2),
    TableColumn("measured", lambda hop: str(hop.count), 1),
]
_OBJECTIVE_COLUMNS: Final[list[TableColumn[BurnFigures]]] = [
    TableColumn("objective (99 of 100)", lambda burn: _name(burn.hop), right=False),
    TableColumn("within", lambda burn: milliseconds(burn.objective_ms)),
    TableColumn("budget used, 5 min", lambda burn: percent(burn.burn5m)),
    TableColumn("1 h", lambda burn: percent(burn.burn1h)),
    TableColumn("late in 1 h", lambda burn: f"{burn.late1h} of {burn.count1h}", 1),
]


def _figure(found: StreamFigures, hop: Hop, name: str) -> str:
    value = next((getattr(each, name) for each in found.hops if each.hop == hop.word), None)
    return milliseconds(value)


def _burn(found: StreamFigures) -> Text:
    used = [burn.burn5m for burn in found.objectives if burn.burn5m is not None]
    return percent(max(used, default=None))


def _clock(found: StreamFigures) -> Text:
    if found.clock is None:
        return Text("–")
    if found.clock.offset_ms is None:
        return Text("not known", "yellow")
    return Text(f"{found.clock.offset_ms / 1000:+.2f}s")


_STREAM_COLUMNS: Final[list[TableColumn[StreamFigures]]] = [
    TableColumn("stream", lambda found: printable(found.stream_id or ""), right=False),
    TableColumn("alert p50", lambda found: _figure(found, Hop.GLASS_TO_ALERT, "p50_ms"), 1),
    TableColumn("alert p99", lambda found: _figure(found, Hop.GLASS_TO_ALERT, "p99_ms")),
    TableColumn("glass p50", lambda found: _figure(found, Hop.GLASS_TO_GLASS, "p50_ms"), 1),
    TableColumn("glass p99", lambda found: _figure(found, Hop.GLASS_TO_GLASS, "p99_ms")),
    TableColumn("ML p99", lambda found: _figure(found, Hop.ML, "p99_ms"), 2),
    TableColumn("budget 5 min", _burn, 3),
    TableColumn("camera's clock", _clock, 4),
]
