"""What the processes of the system told of themselves during a rehearsal: memory, CPU and counters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from watchout.common import metric_names
from watchout.common.bus.reply_records import StatsReply
from watchout.ctl.rehearse.even_samples import EvenSamples

#: Most samples of one process.
MAX_SAMPLES: Final = 1_000
#: Share of the time at the begin that is left out of a slope, as warm-up, and the least seconds for one.
WARM_UP: Final = 1 / 3
LEAST_SLOPE_S: Final = 60.0
MB: Final = 1_000_000


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one time, in seconds of the rehearsal."""

    at_s: float
    bytes: float
    cpu_s: float


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One process over the whole rehearsal. `slope_mb_per_h` is None when it was too short for one.

    `cores` is its CPU time by wall time. `samples` are pairs of seconds and MB.
    """

    name: str
    kind: str
    pid: int
    memory_mb: float
    slope_mb_per_h: float | None
    cores: float
    samples: list[tuple[float, float]]


class Watched:
    """Collects the stats of a system over a rehearsal."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str, int], EvenSamples[Sample]] = {}
        self._counters: dict[tuple[str, str, int], tuple[Mapping[str, float], Mapping[str, float]]] = {}

    def add(self, at_s: float, reply: StatsReply) -> None:
        """Add the stats of one time, in seconds of the rehearsal."""
        self._add(at_s, "router", "router", reply.router.pid, reply.router.metrics)
        for member in reply.members:
            if member.kind in ("gateway", "mlbridge"):
                self._add(at_s, member.kind, member.name, member.pid, member.metrics)

    def _add(self, at_s: float, kind: str, name: str, pid: int, metrics: Mapping[str, float]) -> None:
        if metric_names.RESIDENT_BYTES not in metrics:
            return
        key = (kind, name, pid)
        self._samples.setdefault(key, EvenSamples(MAX_SAMPLES)).add(
            Sample(
                at_s=at_s,
                bytes=metrics[metric_names.RESIDENT_BYTES],
                cpu_s=metrics.get(metric_names.CPU_SECONDS, 0.0),
            )
        )
        first, _ = self._counters.get(key, (metrics, metrics))
        self._counters[key] = (first, metrics)

    def told(self, pid: int, name: str) -> float | None:
        """Return what the process with this id told last of a metric; None: nothing."""
        return next((last.get(name) for key, (_, last) in self._counters.items() if key[2] == pid), None)

    def grown(self, name: str) -> float:
        """Return how much a counter grew, over all processes. Of one that was restarted, what it counted since."""
        return sum(last.get(name, 0) - first.get(name, 0) for first, last in self._counters.values())

    def processes(self) -> list[ProcessFigures]:
        """Return the figures of each process, in the order of their names."""
        return [
            ProcessFigures(
                name=name, kind=kind, pid=pid, memory_mb=round(samples[-1].bytes / MB, 1),
                slope_mb_per_h=slope_mb_per_h(samples), cores=cores(samples),
                samples=[(round(each.at_s, 1), round(each.bytes / MB, 2)) for each in samples],
            )
            for (kind, name, pid), samples in sorted((key, each.values()) for key, each in self._samples.items())
        ]  # fmt: skip


def cores(samples: Sequence[Sample]) -> float:
    """Return CPU seconds per second between the first and the last sample."""
    seconds = samples[-1].at_s - samples[0].at_s
    return round((samples[-1].cpu_s - samples[0].cpu_s) / seconds, 3) if seconds > 0 else 0.0


def slope_mb_per_h(samples: Sequence[Sample]) -> float | None:
    """Return the slope of the line through the memory after the warm-up; None: they span less than `LEAST_SLOPE_S`."""
    if not samples or samples[-1].at_s - samples[0].at_s < LEAST_SLOPE_S:
        return None
    begin = samples[0].at_s + WARM_UP * (samples[-1].at_s - samples[0].at_s)
    slope = _slope([(each.at_s, each.bytes) for each in samples if each.at_s >= begin])
    return None if slope is None else round(slope * 3600 / MB, 2)


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of the least squares; None when all points are of one time."""
    count = len(points)
    if count < 2:
        return None
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else None


def steepest(processes: Iterable[ProcessFigures]) -> float | None:
    """Return the largest slope of all; None when there is none."""
    return max((each.slope_mb_per_h for each in processes if each.slope_mb_per_h is not None), default=None)
