"""Counts the declared metrics of this process (`common.metric_names`) and reads them together with its resources.

Heartbeats carry the values to the router; ``watchout-ctl stats`` and ``/metrics`` show them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import time
from collections.abc import Mapping
from typing import Final, TypeVar

from watchout.common import log, metric_names, supervisor
from watchout.common.bus import server_connections
from watchout.common.metric_names import DECLARED, CounterName, MetricName
from watchout.common.process import descriptors, memory
from watchout.common.tracing import tracer

#: Between the name of a metric and the value of its label.
LABEL_SEPARATOR: Final = ":"
#: Seconds between two looks at what takes time: the tasks, and how much memory the process may have, which an operator
#: may change while it runs.
LOOK_EVERY_S: Final = 10.0

_PAGE_BYTES: Final = resource.getpagesize()
#: More than /proc/self/statm has: seven numbers.
_STATM_BYTES: Final = 256

_V = TypeVar("_V")


class _Values(dict[MetricName, float]):
    """Metrics by name, in a dictionary; a declared metric that was never counted is 0. Part of `Metrics`.

    Raises `KeyError` for a name that is not declared. Only the first access to a name comes here: afterwards
    ``values[name] += 1`` is the increment of a plain dictionary item, which is what the path of a frame does.
    """

    __slots__ = ()

    def __missing__(self, name: MetricName) -> float:
        if name not in DECLARED:
            raise KeyError(f"the metric {name} is not declared in common.metric_names")
        self[name] = 0.0
        return 0.0


class Metrics:
    """The metrics of one process. Its app creates one and hands it to every part that counts.

    `values` is public for the path of a frame, where ``values[name] += 1`` costs less than a call of `count`.
    """

    __slots__ = ("_look_at", "_started", "values")

    def __init__(self) -> None:
        self.values: Final = _Values()
        self._started = time.monotonic()
        self._look_at = 0.0

    def count(self, name: CounterName, amount: float = 1) -> None:
        """Raise a counter by `amount`. Raises `KeyError` for a name that is not declared."""
        self.values[name] += amount

    def set(self, name: MetricName, value: float) -> None:
        """Set a gauge, or a counter of which another part keeps the total.

        Raises `KeyError` for a name that is not declared.
        """
        self.values[name]
        self.values[name] = value

    def read(self) -> dict[str, float]:
        """Return all metrics by name, those of the process's resources included.

        A metric with a label has an entry for each value of it, ``name:label``.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        failures, stalled = supervisor.counted()
        values = self.values
        values[metric_names.UPTIME_SECONDS] = round(time.monotonic() - self._started, 3)
        values[metric_names.CPU_SECONDS] = round(usage.ru_utime + usage.ru_stime, 3)
        values[metric_names.RESIDENT_BYTES] = resident_bytes()
        values[metric_names.DESCRIPTORS_LIMIT] = descriptors.limit()
        if (now_open := descriptors.count_open()) is not None:
            values[metric_names.DESCRIPTORS_OPEN] = now_open
        values[metric_names.LOG_LINES_DROPPED] = log.dropped()
        values[metric_names.TASKS_STALLED] = len(stalled)
        self._look()
        values[metric_names.EVENT_LOOP_LAG_SECONDS] = round(supervisor.lag_s(), 3)
        if (spans := tracer.counted()) is not None:
            values[metric_names.TRACE_SPANS_SENT], values[metric_names.TRACE_SPANS_DROPPED] = spans
        if (connected := server_connections.all_stand()) is not None:
            values[metric_names.NATS_CONNECTED] = float(connected)
        labelled = {f"{metric_names.TASK_FAILURES}{LABEL_SEPARATOR}{task}": count for task, count in failures.items()}
        return {**{str(name): value for name, value in values.items()}, **labelled}

    def _look(self) -> None:
        """Now and then count the tasks of the event loop, which takes 3 ms for 10 000, and read the memory limit."""
        now = time.monotonic()
        if now < self._look_at:
            return
        if (most := memory.limit_bytes()) is not None:
            self.values[metric_names.MEMORY_LIMIT_BYTES] = most
        with contextlib.suppress(RuntimeError):  # no loop runs here
            self.values[metric_names.ASYNCIO_TASKS] = len(asyncio.all_tasks())
            self._look_at = now + LOOK_EVERY_S


def with_former_names(values: Mapping[str, _V]) -> dict[str, _V]:
    """Return `values` with both names of each renamed metric, whichever of them is there.

    What operators read (``/metrics``, ``watchout-ctl stats``) has the former names for one release, and a member of the
    former release, which sends only those, is shown like the others during an update.
    """
    found = dict(values)
    for name, declaration in DECLARED.items():
        former = declaration.former_name
        if former is not None and name in values:
            found[former] = values[name]
        elif former is not None and former in values:
            found[name] = values[former]
    return found


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; where there is no /proc, its largest value so far."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)  # a file object costs five system calls more
        try:
            return int(os.read(statm, _STATM_BYTES).split()[1]) * _PAGE_BYTES
        finally:
            os.close(statm)
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
