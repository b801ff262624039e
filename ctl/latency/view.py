"""The tables of ``watchout-ctl latency``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from watchout.common.latency.hops import WHOLE_WAYS, Hop
from watchout.common.latency.rows import BurnFigures, HopFigures, LatencyPage, StreamFigures, milliseconds
from watchout.ctl.tables import TableColumn, table
from watchout.ctl.terminal import printable

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
        Text("no camera is connected" if found.clock is None else printable(found.clock.says)),
        *_notes(found, host_clocks_ms),
        Text(HINT, "bright_black"),
    )


def percent(share: float | None) -> Text:
    """Show a share of an error budget: red when it is overdrawn."""
    if share is None:
        return Text("–")
    return Text(f"{100 * share:.0f}%", "red" if share > 1 else "")


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


def _name(of: HopFigures | BurnFigures) -> Text:
    return Text(of.name, "bold" if of.hop in {hop.word for hop in WHOLE_WAYS} else "")


_HOP_COLUMNS: Final[list[TableColumn[HopFigures]]] = [
    TableColumn("hop", _name, right=False),
    TableColumn("p50", lambda hop: milliseconds(hop.p50_ms)),
    TableColumn("p99", lambda hop: milliseconds(hop.p99_ms)),
    TableColumn("mean", lambda hop: milliseconds(hop.mean_ms), 2),
    TableColumn("measured", lambda hop: str(hop.count), 1),
]
_OBJECTIVE_COLUMNS: Final[list[TableColumn[BurnFigures]]] = [
    TableColumn("objective (99 of 100)", _name, right=False),
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
