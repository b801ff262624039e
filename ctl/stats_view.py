"""The tables of ``watchout-ctl stats``, drawn from the router's replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from watchout.common import metric_names
from watchout.common.bus.reply_records import MemberRow, RouterStats, StatsReply, StreamRow
from watchout.common.metrics import with_former_names
from watchout.ctl.tables import TableColumn, table
from watchout.ctl.terminal import STATUS_STYLES, printable, size

#: Processes that are shown at most; the metrics of all of them are in ``/metrics``.
MAX_PROCESSES: Final = 50

_KIND_ORDER: Final = {"router": 0, "gateway": 1, "mlbridge": 2, "ctl": 3}
_STATUS_ORDER: Final = {"streaming": 0, "online": 1, "offline": 2}
_IN: Final = {"router": (metric_names.FRAMES_IN,), "mlbridge": (metric_names.FRAMES_IN, metric_names.FRAMES_FROM_BUS)}
_OUT: Final = {"router": (metric_names.FRAMES_ROUTED,), "mlbridge": (metric_names.ML_REQUESTS,)}
_DROPPED: Final = (
    metric_names.FRAMES_DROPPED_SLOW, metric_names.FRAMES_DROPPED_BUS, metric_names.FRAMES_UNDECODABLE,
    metric_names.FRAMES_OLD_TERM,
    metric_names.FRAMES_TO_BUS_DROPPED, metric_names.ML_FAILURES, metric_names.ML_TIMEOUTS,
)  # fmt: skip
_BREAKERS: Final = ("closed", "half-open", "open")
_ENDPOINTS: Final = ("first", "fallback")
_ALERTS: Final = {"router": (metric_names.ALERTS,), "mlbridge": (metric_names.ALERTS,)}


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A row of the tables of processes and bridges: one process with its metrics now and at the reply before.

    Made by `render`. `now` and `before` map names of metrics to values; `before` is None for the first reply, or when
    the process was not in the reply before.
    """

    member: MemberRow
    now: Mapping[str, float]
    before: Mapping[str, float] | None

    @property
    def kind(self) -> str:
        """``router``, ``gateway``, ``mlbridge`` or ``ctl``."""
        return self.member.kind

    def total(self, names: Sequence[str]) -> float | None:
        """Return the value of the first of these metrics that the process has; None when it has none."""
        return next((self.now[name] for name in names if name in self.now), None)

    def flow(self, names: Sequence[str]) -> str:
        """Show a counter per second since the reply before; its total when there was none, a dash without a value."""
        total = self.total(names)
        if total is None:
            return "–"
        if self.before is None:
            return compact(total)
        then = next((self.before[name] for name in names if name in self.before), 0.0)
        return compact(max(0.0, total - then) / self._elapsed_s(), digits=1)

    def cpu(self) -> str:
        """Show the CPU time used, in percent of one core, since the reply before or else since the process started."""
        used = self.now.get(metric_names.CPU_SECONDS)
        if used is None:
            return "–"
        then = self.before.get(metric_names.CPU_SECONDS, 0.0) if self.before is not None else 0.0
        return f"{100 * max(0.0, used - then) / self._elapsed_s():.1f}"

    def _elapsed_s(self) -> float:
        """Seconds from `before` to `now` by the process's own uptime; since its start when there is no `before`."""
        up = self.now.get(metric_names.UPTIME_SECONDS, 0.0)
        return max(up - (self.before.get(metric_names.UPTIME_SECONDS, 0.0) if self.before is not None else 0.0), 1e-3)


def to_compare(reply: StatsReply, last: StatsReply, before: StatsReply | None) -> StatsReply:
    """Return the reply with which `render` compares one: the last one, with older rows where they are needed.

    A process tells its metrics once a second. One that told none since the last reply is shown as it was then.

    Args:
        reply: The router's reply.
        last: The one before it.
        before: What that one was compared with; None: with nothing.

    """
    now = {member.id: member.metrics for member in reply.members}
    older = {} if before is None else {member.id: member for member in before.members}
    return msgspec.structs.replace(
        last,
        members=[
            older.get(member.id, member) if now.get(member.id) == member.metrics else member for member in last.members
        ],
    )


def render(
    reply: StatsReply, *, before: StatsReply | None = None, width: int, rows: int, own_id: str | None = None
) -> RenderableType:
    """Draw the header and the tables of processes, bridges and streams.

    Args:
        reply: The router's reply.
        before: A reply before this one (`to_compare`). With it, counters are shown per second; without it, as totals.
        width: Width of the terminal, in characters.
        rows: Streams that are shown at most; the others are counted.
        own_id: Member id of the command itself, in hexadecimal, which is not shown.

    """
    processes = _processes(reply, before, own_id)
    streams = sorted(reply.streams, key=_stream_key)
    bridges = [process for process in processes if metric_names.ML_IN_FLIGHT_LIMIT in process.now]
    rates = before is not None
    of_bridges = [Text(), *table("bridges", bridges, _bridge_columns(rates=rates), width, MAX_PROCESSES)]
    return Group(
        _header(reply),
        Text(),
        *table("processes", processes, _process_columns(rates=rates), width, MAX_PROCESSES),
        *(of_bridges if bridges else ()),
        Text(),
        *table("streams", streams, _stream_columns(_now_ms(streams)), width, rows),
    )


def compact(value: float, digits: int = 0) -> str:
    """Show a number in about six characters at most: 9999, 12.3k, 4.56M."""
    if value < 10_000:
        return f"{value:.{digits if value < 1000 else 0}f}"
    for unit in ("k", "M", "G"):
        value /= 1000
        if value < 1000 or unit == "G":
            break
    return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"


def duration(seconds: float) -> str:
    """Show a time span in its two largest units: 59s, 2m05s, 3h10m, 4d01h."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _header(reply: StatsReply) -> Text:
    router, totals = reply.router, reply.totals
    state = printable(router.state)
    line = Text("router ")
    line.append(state, "green" if state == "active" else "yellow")
    line.append(f" · up {duration(router.uptime_s)} · epoch {router.epoch}\n")
    counts = (
        (totals.producers, "publishers"), (totals.video_consumers, "viewers"),
        (totals.alert_consumers, "alert viewers"), (totals.connections, "connections"),
    )  # fmt: skip
    for number, (value, name) in enumerate(counts):
        line.append(" · " if number else "")
        line.append(str(value), "bold")
        line.append(f" {name[:-1] if value == 1 else name}")
    if reply.missing_slots is not msgspec.UNSET:
        missing = ", ".join(map(str, reply.missing_slots))
        line.append(f"\nno router answers for slot {missing}: its streams are not shown", "red")
    return line


def _processes(reply: StatsReply, before: StatsReply | None, own_id: str | None) -> list[ProcessRow]:
    """Return the rows of all processes but the one of `own_id`: router, gateways, bridges, each by name."""
    old_routers = {} if before is None else _routers(before)
    found = [
        ProcessRow(
            MemberRow(name=name, kind="router", pid=router.pid, alive_s=router.uptime_s),
            _router_metrics(router),
            _router_metrics(old) if (old := old_routers.get(name)) and old.epoch == router.epoch else None,
        )
        for name, router in _routers(reply).items()
    ]
    earlier = {} if before is None else {member.id: with_former_names(member.metrics) for member in before.members}
    found += [
        ProcessRow(member, with_former_names(member.metrics), earlier.get(member.id))
        for member in reply.members
        if member.id != own_id
    ]
    return sorted(found, key=lambda p: (_KIND_ORDER.get(p.kind, 9), p.member.name, str(p.member.pid)))


def _routers(reply: StatsReply) -> dict[str, RouterStats]:
    """Return the router, or in a cluster that of each slot, by the name under which it is shown."""
    if reply.routers is msgspec.UNSET:
        return {"router": reply.router}
    return {f"router of slot {each.slot}": each.router for each in reply.routers}


def _router_metrics(router: RouterStats) -> dict[str, float]:
    return {metric_names.UPTIME_SECONDS: router.uptime_s, **with_former_names(router.metrics)}


def _process_columns(*, rates: bool) -> list[TableColumn[ProcessRow]]:
    per = "/s" if rates else ""
    return [
        TableColumn("process", lambda p: printable(p.member.name), right=False, max_width=18),
        TableColumn("kind", lambda p: printable(p.kind), 1, right=False),
        TableColumn("pid", lambda p: str(p.member.pid)),
        TableColumn("up", lambda p: duration(p.now.get(metric_names.UPTIME_SECONDS, p.member.alive_s))),
        TableColumn("CPU %", ProcessRow.cpu),
        TableColumn(
            "memory",
            lambda p: size(int(p.now[metric_names.RESIDENT_BYTES])) if metric_names.RESIDENT_BYTES in p.now else "–",
        ),
        TableColumn("sockets", lambda p: _gauge(p, metric_names.SOCKETS), 2),
        TableColumn("publishers", lambda p: _gauge(p, metric_names.PUBLISHERS), 3),
        TableColumn("viewers", lambda p: _gauge(p, metric_names.VIDEO_VIEWERS), 3),
        TableColumn(f"in{per}", lambda p: p.flow(_IN.get(p.kind, (metric_names.FRAMES_IN,)))),
        TableColumn(f"out{per}", lambda p: p.flow(_OUT.get(p.kind, (metric_names.FRAMES_OUT,)))),
        TableColumn("dropped", _dropped_by_process),
        TableColumn(f"alerts{per}", lambda p: p.flow(_ALERTS.get(p.kind, (metric_names.ALERTS_OUT,))), 1),
    ]


def _bridge_columns(*, rates: bool) -> list[TableColumn[ProcessRow]]:
    """Columns of the ML service's state and of the coverage; the last three count frames that were not sent to it."""
    per = "/s" if rates else ""
    return [
        TableColumn("ML", lambda p: printable(p.member.name), right=False, max_width=18),
        TableColumn("service", _service, right=False),
        TableColumn("in flight", _in_flight),
        TableColumn("p50", lambda p: _milliseconds(p, metric_names.ML_LATENCY_P50_SECONDS), 1),
        TableColumn("p99", lambda p: _milliseconds(p, metric_names.ML_LATENCY_P99_SECONDS)),
        TableColumn("streams", lambda p: _gauge(p, metric_names.ML_STREAMS), 2),
        TableColumn("coverage", lambda p: _percent(p.now.get(metric_names.ML_COVERAGE_MEAN))),
        TableColumn("least", lambda p: _percent(p.now.get(metric_names.ML_COVERAGE_MIN))),
        TableColumn(f"failed{per}", lambda p: p.flow((metric_names.ML_FAILURES,))),
        TableColumn(f"replaced{per}", lambda p: p.flow((metric_names.ML_FRAMES_REPLACED,)), 3),
        TableColumn(f"old{per}", lambda p: p.flow((metric_names.ML_FRAMES_TOO_OLD,)), 3),
        TableColumn(f"away{per}", lambda p: p.flow((metric_names.ML_FRAMES_AWAY,)), 3),
    ]


def _service(process: ProcessRow) -> Text:
    """Show which endpoint gets the frames, with the state of the first one's breaker when that is not closed."""
    endpoint = _ENDPOINTS[1 if process.now.get(metric_names.ML_ENDPOINT) else 0]
    state = _BREAKERS[max(0, min(2, int(process.now.get(metric_names.ML_BREAKER_STATE, 0))))]
    return Text(endpoint if state == "closed" else f"{endpoint}, {state}", "green" if state == "closed" else "yellow")


def _in_flight(process: ProcessRow) -> str:
    return f"{_gauge(process, metric_names.ML_IN_FLIGHT)}/{_gauge(process, metric_names.ML_IN_FLIGHT_LIMIT)}"


def _milliseconds(process: ProcessRow, name: str) -> str:
    value = process.now.get(name, 0.0)
    return f"{compact(value * 1000)}ms" if value else "–"


def _percent(share: object) -> str:
    return f"{100 * share:.0f}%" if isinstance(share, int | float) else "–"


def _gauge(process: ProcessRow, name: str) -> str:
    """Show the value of a gauge, a dash when the process does not have it."""
    total = process.total((name,))
    return "–" if total is None else compact(total)


def _dropped_by_process(process: ProcessRow) -> Text:
    """Show how many frames were dropped or failed for want of speed or health, in yellow when there are any."""
    dropped = sum(process.now.get(name, 0) for name in _DROPPED)
    return Text(compact(dropped), "yellow" if dropped else "")


def _stream_columns(now_ms: float) -> list[TableColumn[StreamRow]]:
    return [
        TableColumn("stream", lambda s: printable(s.stream_id), right=False, max_width=40),
        TableColumn("user", lambda s: printable(s.user_id or "–"), 2, right=False, max_width=20),
        TableColumn("status", _status, right=False),
        TableColumn("fps", lambda s: f"{s.fps:.1f}"),
        TableColumn("frames", lambda s: compact(s.total_frames)),
        TableColumn("viewers", lambda s: compact(s.viewers)),
        TableColumn("dropped", _dropped_by_stream, 5),
        TableColumn("alert viewers", lambda s: compact(s.alert_viewers), 4),
        TableColumn("gateway", lambda s: printable(s.gateway or "–"), 1, right=False, max_width=16),
        TableColumn("mlbridge", lambda s: printable(s.mlbridge or "–"), 3, right=False, max_width=16),
        TableColumn("coverage", lambda s: _percent(s.coverage), 2),
        TableColumn("last", lambda s: _age(s.last_frame_at, now_ms)),
    ]


def _dropped_by_stream(stream: StreamRow) -> Text:
    """Show how many frames viewers did not get; in yellow when some viewers were too slow."""
    slow = "slow" in stream.dropped or "window" in stream.dropped
    return Text(compact(sum(stream.dropped.values())), "yellow" if slow else "")


def _status(stream: StreamRow) -> Text:
    status = printable(stream.status)
    return Text(status, STATUS_STYLES.get(status, ""))


def _age(at_ms: int | None, now_ms: float) -> str:
    """Show the time since `at_ms`, with a tenth of a second below ten seconds."""
    if at_ms is None:
        return "–"
    age_s = max(0.0, (now_ms - at_ms) / 1000)
    return f"{age_s:.1f}s" if age_s < 10 else duration(age_s)


def _now_ms(streams: Sequence[StreamRow]) -> float:
    """The time that ages are counted from: this machine's clock, or the newest frame where that is later."""
    newest = max((stream.last_frame_at for stream in streams if stream.last_frame_at is not None), default=0)
    return max(datetime.now().timestamp() * 1000, float(newest))  # noqa: DTZ005


def _stream_key(stream: StreamRow) -> tuple[int, float, str]:
    """Streams that send frames come first, then those with the most viewers."""
    return _STATUS_ORDER.get(stream.status, 9), -stream.viewers, stream.stream_id
