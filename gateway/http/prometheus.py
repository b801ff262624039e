"""What the router counts, as ``/stats`` and Prometheus show it. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchout.common.metrics import METRICS, OF


def _public_stats(stats: dict[str, Any]) -> dict[str, Any]:
    totals, rows = stats["totals"], stats["streams"]
    return {
        "totalProducers": totals["producers"],
        "totalVideoConsumers": totals["videoConsumers"],
        "totalAlertConsumers": totals["alertConsumers"],
        "totalConnections": totals["connections"],
        "activeStreams": [row["streamId"] for row in rows],
        "streams": [{key: row[key] for key in ("streamId", "fps", "totalFrames", "uptime")} for row in rows],
    }


@dataclass(frozen=True, slots=True)
class Stats:
    """An answer of the router, and what all may see of it as JSON: the page, and the streams alone."""

    all: dict[str, Any]
    page: bytes
    streams: bytes

    @classmethod
    def of(cls, stats: dict[str, Any]) -> Stats:
        """Of the router's answer to ``stats``."""
        public = _public_stats(stats)
        return cls(stats, msgspec.json.encode(public), msgspec.json.encode(public["streams"]))


class _Metrics(Collector):
    """All processes' figures as Prometheus families; the only label is the process."""

    def __init__(self, processes: dict[str, dict[str, float]], totals: dict[str, float]) -> None:
        self._processes = processes
        self._totals = totals

    def collect(self) -> list[Metric]:
        families: list[Metric] = []
        for name, value in self._totals.items():
            families.append(GaugeMetricFamily(f"watchout_{name}", TOTALS[name], value=value))
        for name, text in METRICS.items():
            rows = list(self._rows(name))
            if not rows:
                continue
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            by_task = name == BY_TASK
            family = kind(f"watchout_{name}", text, labels=["process", "task"] if by_task else ["process"])
            for process, task, value in rows:
                family.add_metric([process, task] if by_task else [process], value)
            families.append(family)
        return families

    def _rows(self, name: str) -> Iterator[tuple[str, str, float]]:
        """Process, task and value of one figure."""
        for process, values in self._processes.items():
            if name in values:
                yield process, "", values[name]
            if name == BY_TASK:
                for key, value in values.items():
                    metric, _, task = key.partition(OF)
                    if task and metric == name:
                        yield process, task, value


#: The figure that has a label beside the process.
BY_TASK: Final = "task_failures_total"

TOTALS: Final = {
    "router_up": "1 when this gateway reaches the router.",
    "active_streams": "Streams with a camera, over all gateways.",
    "producers": "Cameras that produce video, over all gateways.",
    "video_consumers": "Subscriptions that consume video, over all gateways.",
    "alert_consumers": "Subscriptions and cameras that consume alerts, over all gateways.",
}


def render_metrics(stats: dict[str, Any] | None, own: tuple[str, dict[str, float]]) -> bytes:
    """The Prometheus page: of all processes, or of this gateway alone while the router is away."""
    processes: dict[str, dict[str, float]] = {}
    totals: dict[str, float] = {"router_up": 0}
    if stats is None:
        processes[own[0]] = own[1]
    else:
        processes["router"] = stats["router"]["figures"]
        for member in stats["members"]:
            if member["kind"] != "ctl":
                processes[_label(member, processes)] = member["figures"]
        totals = {
            "router_up": 1,
            "active_streams": len(stats["streams"]),
            "producers": stats["totals"]["producers"],
            "video_consumers": stats["totals"]["videoConsumers"],
            "alert_consumers": stats["totals"]["alertConsumers"],
        }
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(processes, totals))
    return generate_latest(registry)


def _label(member: dict[str, Any], taken: Container[str]) -> str:
    """The name of a process; of those of one home it is unique by itself (`common.process.process_name`), of others
    made so.
    """
    name = str(member["name"])
    for label in (name, f"{name}-{member['pid']}"):
        if label not in taken:
            return label
    return f"{name}-{member['id']}"
