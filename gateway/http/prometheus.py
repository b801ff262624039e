"""The routers' stats as the Prometheus page of ``/metrics``. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from watchout.common.bus.messages import HopRow
from watchout.common.bus.reply_records import MemberRow, MetricValues, StatsReply
from watchout.common.latency.histogram import PER_DOUBLING, edge_ms
from watchout.common.latency.rows import histograms_of
from watchout.common.metric_guide import counters_of
from watchout.common.metric_names import DECLARED, LATENCY_SECONDS, TASK_FAILURES, TOTALS
from watchout.common.metrics import LABEL_SEPARATOR, with_former_names

#: Buckets of latencies that Prometheus is told of: those whose upper edges are 1, 2, 4 … ms, up to 65.536 s.
LATENCY_BUCKETS: Final = tuple(range(2 * PER_DOUBLING, 19 * PER_DOUBLING, PER_DOUBLING))


class _ProcessCollector(Collector):
    """Gives `prometheus_client` the metrics of all processes for `/metrics`, as families with the label ``process``.

    `processes` maps the label to the metrics of a process; `totals` are metrics without a label, see `TOTALS`;
    `latencies` are histograms of a process.
    """

    def __init__(
        self, processes: dict[str, MetricValues], totals: dict[str, float], latencies: dict[str, Sequence[HopRow]]
    ) -> None:
        self._processes = processes
        self._latencies = latencies
        self._totals = totals

    def collect(self) -> list[Metric]:
        """Return a family for each total and each declared metric that a process has."""
        families: list[Metric] = []
        for name, value in self._totals.items():
            families.append(GaugeMetricFamily(f"watchout_{name}", TOTALS[name], value=value))
        for declaration in DECLARED.values():
            if declaration.name == LATENCY_SECONDS:
                families += self._latency_families(f"watchout_{declaration.name}", declaration.help)
                continue
            families += self._families(declaration.name, declaration.kind, declaration.help)
            if declaration.former_name is not None:
                text = f"Deprecated, use watchout_{declaration.name}. {declaration.help}"
                families += self._families(declaration.former_name, declaration.kind, text)
        return families

    def _families(self, name: str, kind: str, text: str) -> Iterator[Metric]:
        """Yield the family of one metric, if any process has it."""
        rows = list(self._rows(name))
        if not rows:
            return
        by_task = name == TASK_FAILURES
        family_type = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family = family_type(f"watchout_{name}", text, labels=["process", "task"] if by_task else ["process"])
        for process, task, value in rows:
            family.add_metric([process, task] if by_task else [process], value)
        yield family

    def _latency_families(self, name: str, text: str) -> Iterator[Metric]:
        """Yield the family of the latencies, if any process has measured some."""
        if not any(self._latencies.values()):
            return
        family = HistogramMetricFamily(name, text, labels=["process", "hop"])
        for process, rows in self._latencies.items():
            for hop, found in histograms_of(rows).items():
                counts = found.below(LATENCY_BUCKETS)
                edges = [f"{edge_ms(bucket) / 1000:g}" for bucket in LATENCY_BUCKETS]
                buckets = [*zip(edges, counts, strict=True), ("+Inf", found.count)]
                family.add_metric([process, hop.word], buckets, sum_value=found.sum_ms / 1000)
        yield family

    def _rows(self, name: str) -> Iterator[tuple[str, str, float]]:
        """Yield process, task and value of one metric; the task is empty for all but `TASK_FAILURES`."""
        for process, values in self._processes.items():
            if name in values:
                yield process, "", values[name]
            if name == TASK_FAILURES:
                for key, value in values.items():
                    metric, _, task = key.partition(LABEL_SEPARATOR)
                    if task and metric == name:
                        yield process, task, value


def render_metrics(
    stats: StatsReply | None, own: tuple[str, MetricValues], own_latencies: Sequence[HopRow] = ()
) -> bytes:
    """Render the Prometheus page.

    Args:
        stats: The router's reply, for the metrics of all processes; None while the router is unreachable.
        own: Name and metrics of this gateway, which are shown alone in that case.
        own_latencies: Its latencies.

    """
    latencies: dict[str, Sequence[HopRow]] = {}
    processes: dict[str, MetricValues] = {}
    totals: dict[str, float] = {"router_up": 0}
    if stats is None:
        processes[own[0]] = _complete("gateway", own[1])
        latencies[own[0]] = own_latencies
    else:
        if stats.routers is msgspec.UNSET:
            processes["router"] = _complete("router", stats.router.metrics)
        else:
            for each in stats.routers:
                processes[f"router-{each.slot}"] = _complete("router", each.router.metrics)
        for member in stats.members:
            if member.kind != "ctl":
                label = _label(member, processes)
                processes[label] = _complete(member.kind, member.metrics)
                if member.latencies is not msgspec.UNSET:
                    latencies[label] = member.latencies
        totals = {
            "router_up": 1,
            "active_streams": stats.stream_count,
            "producers": stats.totals.producers,
            "video_consumers": stats.totals.video_consumers,
            "alert_consumers": stats.totals.alert_consumers,
        }
        if stats.routers is not msgspec.UNSET:
            totals["slots_missing"] = 0 if stats.missing_slots is msgspec.UNSET else len(stats.missing_slots)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ProcessCollector(processes, totals, latencies))
    return generate_latest(registry)


def _complete(kind: str, metrics: MetricValues) -> MetricValues:
    """Return the metrics of a process of this kind, with its counters that have not counted yet as 0.

    A counter that is there only when it counts for the first time hides that from Prometheus: a rise from nothing to 1
    is no rise.
    """
    return with_former_names({**dict.fromkeys(counters_of(kind), 0), **with_former_names(metrics)})


def _label(member: MemberRow, taken: Container[str]) -> str:
    """Return a process label that is not among `taken`.

    Names of processes are unique within one home (`common.process.process_name`). Bridges of other machines may have
    the same name; the process id, or else the member id, is added to theirs.
    """
    for label in (member.name, f"{member.name}-{member.pid}"):
        if label not in taken:
            return label
    return f"{member.name}-{member.id}"
