"""The tables of ``watchout-ctl stats``, from the router's answers. Pure.

A column is a title, what it says of a row, and how soon it is left out where the terminal is narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watchout.ctl.terminal import STATUS_STYLES, printable, size

#: Processes that are shown; a home with more has its figures in ``/metrics``.
MAX_PROCESSES: Final = 50
#: What the first column gets before others are left out.
NAME_WIDTH: Final = 26
#: From here on columns are two spaces apart.
WIDE: Final = 96

_KIND_ORDER: Final = {"router": 0, "gateway": 1, "mlbridge": 2, "ctl": 3}
_STATUS_ORDER: Final = {"streaming": 0, "online": 1, "offline": 2}
_IN: Final = {"router": ("frames_in_total",), "mlbridge": ("frames_in_total", "frames_from_bus_total")}
_OUT: Final = {"router": ("frames_routed_total",), "mlbridge": ("ml_requests_total",)}
_LOST: Final = (
    "frames_skipped_slow_total", "frames_skipped_bus_total", "frames_undecodable_total", "frames_old_term_total",
    "frames_to_bus_dropped_total", "ml_failures_total", "ml_timeouts_total",
)  # fmt: skip
_BREAKERS: Final = ("closed", "half-open", "open")
_ENDPOINTS: Final = ("first", "fallback")
_ALERTS: Final = {"router": ("alerts_total",), "mlbridge": ("alerts_total",)}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    """One process with what it counted, and what it had counted at the time before."""

    row: Row
    now: Mapping[str, float]
    before: Mapping[str, float] | None

    @property
    def kind(self) -> str:
        """Its kind, `router` for the router."""
        return str(self.row.get("kind", ""))

    def total(self, names: tuple[str, ...]) -> float | None:
        """The first of these figures that it has."""
        return next((self.now[name] for name in names if name in self.now), None)

    def flow(self, names: tuple[str, ...]) -> str:
        """Per second since the time before; without one, the total."""
        total = self.total(names)
        if total is None:
            return "–"
        if self.before is None:
            return compact(total)
        then = next((self.before[name] for name in names if name in self.before), 0.0)
        return compact(max(0.0, total - then) / self._elapsed_s(), digits=1)

    def cpu(self) -> str:
        """CPU in percent: since the time before, or since the process started."""
        used = self.now.get("cpu_seconds_total")
        if used is None:
            return "–"
        then = self.before.get("cpu_seconds_total", 0.0) if self.before is not None else 0.0
        return f"{100 * max(0.0, used - then) / self._elapsed_s():.1f}"

    def _elapsed_s(self) -> float:
        up = self.now.get("uptime_seconds", 0.0)
        return max(up - (self.before.get("uptime_seconds", 0.0) if self.before is not None else 0.0), 1e-3)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; the higher `rank`, the sooner it is left out, and 0 stays."""

    title: str
    cell: Callable[[Any], str | Text]
    rank: int = 0
    right: bool = True
    max_width: int | None = None


def render(body: Row, *, before: Row | None = None, width: int, rows: int, own_id: str | None = None) -> RenderableType:
    """Header, processes and streams. `before` is the answer before this one; then figures are per second."""
    processes = _processes(body, before, own_id)
    streams = sorted(_rows(body.get("streams")), key=_stream_key)
    bridges = [process for process in processes if "ml_in_flight_limit" in process.now]
    looks = [Text(), *_table("bridges", bridges, _bridge_columns(rates=before is not None), width, MAX_PROCESSES)]
    return Group(
        _header(body),
        Text(),
        *_table("processes", processes, _process_columns(rates=before is not None), width, MAX_PROCESSES),
        *(looks if bridges else ()),
        Text(),
        *_table("streams", streams, _stream_columns(_now_ms(body, streams)), width, rows),
    )


def compact(value: float, digits: int = 0) -> str:
    """A number in at most six characters or so: 9999, 12.3k, 4.56M."""
    if value < 10_000:
        return f"{value:.{digits if value < 1000 else 0}f}"
    for unit in ("k", "M", "G"):
        value /= 1000
        if value < 1000 or unit == "G":
            break
    return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"


def duration(seconds: object) -> str:
    """A time span in its two largest units."""
    if not isinstance(seconds, int | float):
        return "–"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _header(body: Row) -> Text:
    router, totals = _map(body.get("router")), _map(body.get("totals"))
    state = printable(router.get("state", "?"))
    line = Text("router ")
    line.append(state, "green" if state == "active" else "yellow")
    line.append(f" · up {duration(router.get('uptimeS'))} · epoch {printable(router.get('epoch', '?'))}\n")
    names = (("producers", "cameras"), ("videoConsumers", "viewers"), ("alertConsumers", "alert viewers"),
             ("connections", "connections"))  # fmt: skip
    for number, (key, name) in enumerate(names):
        value = totals.get(key, 0)
        line.append(" · " if number else "")
        line.append(printable(value), "bold")
        line.append(f" {name[:-1] if value == 1 else name}")
    return line


def _processes(body: Row, before: Row | None, own_id: str | None) -> list[Process]:
    router = _map(body.get("router"))
    old_router = _map(before.get("router")) if before is not None else {}
    same = before is not None and old_router.get("epoch") == router.get("epoch")
    head = {"name": "router", "kind": "router", "pid": router.get("pid"), "aliveS": router.get("uptimeS")}
    metrics = {"uptime_seconds": router.get("uptimeS", 0.0), **_metrics(router)}
    old = {"uptime_seconds": old_router.get("uptimeS", 0.0), **_metrics(old_router)} if same else None
    found = [Process(head, metrics, old)]
    earlier = {str(m.get("id")): _metrics(m) for m in _rows((before or {}).get("members"))}
    found += [
        Process(member, _metrics(member), earlier.get(str(member.get("id"))))
        for member in _rows(body.get("members"))
        if member.get("id") != own_id
    ]
    return sorted(found, key=lambda p: (_KIND_ORDER.get(p.kind, 9), str(p.row.get("name")), str(p.row.get("pid"))))


def _process_columns(*, rates: bool) -> list[Column]:
    per = "/s" if rates else ""
    return [
        Column("process", lambda p: printable(p.row.get("name", "")), right=False, max_width=18),
        Column("kind", lambda p: printable(p.kind), 1, right=False),
        Column("pid", lambda p: printable(p.row.get("pid", "–"))),
        Column("up", lambda p: duration(p.now.get("uptime_seconds", p.row.get("aliveS")))),
        Column("CPU %", Process.cpu),
        Column("memory", lambda p: size(p.now["resident_bytes"]) if "resident_bytes" in p.now else "–"),
        Column("sockets", lambda p: _gauge(p, "sockets"), 2),
        Column("cameras", lambda p: _gauge(p, "cameras"), 3),
        Column("viewers", lambda p: _gauge(p, "video_viewers"), 3),
        Column(f"in{per}", lambda p: p.flow(_IN.get(p.kind, ("frames_in_total",)))),
        Column(f"out{per}", lambda p: p.flow(_OUT.get(p.kind, ("frames_out_total",)))),
        Column("lost", _lost),
        Column(f"alerts{per}", lambda p: p.flow(_ALERTS.get(p.kind, ("alerts_out_total",))), 1),
    ]


def _bridge_columns(*, rates: bool) -> list[Column]:
    """How the ML service does, and how well streams are looked at. The last columns are frames that were not sent."""
    per = "/s" if rates else ""
    return [
        Column("ML", lambda p: printable(p.row.get("name", "")), right=False, max_width=18),
        Column("service", _service, right=False),
        Column("in flight", lambda p: f"{_gauge(p, 'ml_in_flight')}/{_gauge(p, 'ml_in_flight_limit')}"),
        Column("p50", lambda p: _milliseconds(p, "ml_latency_p50_seconds"), 1),
        Column("p99", lambda p: _milliseconds(p, "ml_latency_p99_seconds")),
        Column("streams", lambda p: _gauge(p, "ml_streams"), 2),
        Column("looked", lambda p: _percent(p.now.get("ml_coverage_mean"))),
        Column("least", lambda p: _percent(p.now.get("ml_coverage_min"))),
        Column(f"failed{per}", lambda p: p.flow(("ml_failures_total",))),
        Column(f"replaced{per}", lambda p: p.flow(("ml_frames_replaced_total",)), 3),
        Column(f"old{per}", lambda p: p.flow(("ml_frames_too_old_total",)), 3),
        Column(f"away{per}", lambda p: p.flow(("ml_frames_away_total",)), 3),
    ]


def _service(process: Process) -> Text:
    """Which endpoint is served, and how the first one's breaker stands when it is not closed."""
    endpoint = _ENDPOINTS[1 if process.now.get("ml_endpoint") else 0]
    state = _BREAKERS[max(0, min(2, int(process.now.get("ml_breaker_state", 0))))]
    return Text(endpoint if state == "closed" else f"{endpoint}, {state}", "green" if state == "closed" else "yellow")


def _milliseconds(process: Process, name: str) -> str:
    value = process.now.get(name, 0.0)
    return f"{compact(value * 1000)}ms" if value else "–"


def _percent(share: object) -> str:
    return f"{100 * share:.0f}%" if isinstance(share, int | float) else "–"


def _gauge(process: Process, name: str) -> str:
    """One figure of a process as it is."""
    total = process.total((name,))
    return "–" if total is None else compact(total)


def _lost(process: Process) -> Text:
    lost = sum(process.now.get(name, 0) for name in _LOST)
    return Text(compact(lost), "yellow" if lost else "")


def _stream_columns(now_ms: float) -> list[Column]:
    return [
        Column("stream", lambda s: printable(s.get("streamId", "")), right=False, max_width=40),
        Column("user", lambda s: printable(s.get("userId") or "–"), 2, right=False, max_width=20),
        Column("status", _status, right=False),
        Column("fps", lambda s: f"{float(s.get('fps') or 0):.1f}"),
        Column("frames", lambda s: compact(float(s.get("totalFrames") or 0))),
        Column("viewers", lambda s: compact(float(s.get("viewers") or 0))),
        Column("skipped", _skipped, 5),
        Column("alert viewers", lambda s: compact(float(s.get("alertViewers") or 0)), 4),
        Column("gateway", lambda s: printable(s.get("gateway") or "–"), 1, right=False, max_width=16),
        Column("mlbridge", lambda s: printable(s.get("mlbridge") or "–"), 3, right=False, max_width=16),
        Column("looked", lambda s: _percent(s.get("coverage")), 2),
        Column("last", lambda s: _age(s.get("lastFrameAt"), now_ms)),
    ]


def _skipped(stream: Row) -> Text:
    """Frames that viewers missed; in yellow when some of them could not keep up."""
    skipped = stream.get("skipped") or {}
    total = sum(float(count) for count in skipped.values()) if isinstance(skipped, dict) else 0.0
    slow = isinstance(skipped, dict) and ("slow" in skipped or "window" in skipped)
    return Text(compact(total), "yellow" if slow else "")


def _status(stream: Row) -> Text:
    status = printable(stream.get("status", ""))
    return Text(status, STATUS_STYLES.get(status, ""))


def _age(at_ms: object, now_ms: float) -> str:
    if not isinstance(at_ms, int | float):
        return "–"
    age_s = max(0.0, (now_ms - at_ms) / 1000)
    return f"{age_s:.1f}s" if age_s < 10 else duration(age_s)


def _now_ms(body: Row, streams: list[Row]) -> float:
    """The clock that ages are counted from: this machine's, which is also the router's."""
    newest = max((s["lastFrameAt"] for s in streams if isinstance(s.get("lastFrameAt"), int | float)), default=0)
    return max(float(body.get("timestamp") or datetime.now().timestamp() * 1000), float(newest))  # noqa: DTZ005


def _stream_key(stream: Row) -> tuple[int, float, str]:
    watched = -float(stream.get("viewers") or 0)
    return _STATUS_ORDER.get(str(stream.get("status")), 9), watched, str(stream.get("streamId"))


def _table(what: str, rows: list[Any], columns: list[Column], width: int, limit: int) -> list[RenderableType]:
    if not rows:
        return [Text(f"no {what}", "bright_black")]
    cells = {column.title: [_cell(column, row) for row in rows[:limit]] for column in columns}
    widths = {
        column.title: min(
            max(map(cell_len, [column.title, *(cell.plain for cell in cells[column.title])])), column.max_width or width
        )
        for column in columns
    }
    gap = 2 if width >= WIDE else 1
    shown, first = list(columns), columns[0]
    while True:  # only the first column gives way, and less important ones go: a number that is cut is a wrong number
        room = width - sum(widths[column.title] + gap for column in shown[1:])
        dispensable = max(shown[1:], key=lambda column: column.rank, default=first)
        if room >= min(widths[first.title], NAME_WIDTH) or not dispensable.rank:
            break
        shown.remove(dispensable)
    widths[first.title] = max(1, min(widths[first.title], room))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), collapse_padding=True, header_style="bold")
    for column in shown:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        at = widths[column.title]
        table.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", width=at)
    for number in range(len(rows[:limit])):
        table.add_row(*(cells[column.title][number] for column in shown))
    more = len(rows) - limit
    return [table, Text(f"… and {more} more", "bright_black")] if more > 0 else [table]


def _cell(column: Column, row: Any) -> Text:
    content = column.cell(row)
    return content if isinstance(content, Text) else Text(content)  # text is never read as markup


def _rows(value: object) -> list[Row]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _map(value: object) -> Row:
    return value if isinstance(value, dict) else {}


def _metrics(owner: Row) -> dict[str, float]:
    return {str(k): v for k, v in _map(owner.get("figures")).items() if isinstance(v, int | float)}
