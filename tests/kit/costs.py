"""Reports what each test costs: wall time, CPU time of this process and of its children, processes started.

Wall time tells little on a busy machine; CPU time and the number of processes stay the same. Used with
``pytest -p tests.kit.costs --costs costs.csv``; works under pytest-xdist, where each worker appends to the same file.
"""

from __future__ import annotations

import csv
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

COLUMNS: Final = ("test", "wall_s", "cpu_s", "children_cpu_s", "processes")
_STARTS: Final = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.forkpty")
_started = 0


def _count(event: str, _: tuple[Any, ...], starts: tuple[str, ...] = _STARTS) -> None:
    """Count a start. `starts` is bound here: the hook is called at the interpreter's end too, when globals are gone."""
    global _started
    if event in starts:
        _started += 1


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _now() -> tuple[float, float, float, int]:
    from tests.kit import prefork  # a plugin of its own: pytest rewrites it only where nothing has imported it before

    children_s = _cpu_s(resource.RUSAGE_CHILDREN) + prefork.totals.cpu_s
    return time.monotonic(), _cpu_s(resource.RUSAGE_SELF), children_s, _started + prefork.totals.processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", metavar="FILE", help="append one CSV line a test: " + ", ".join(COLUMNS))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--costs"):
        sys.addaudithook(_count)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure one test with its fixtures. CPU time of a child counts when the child has been waited for."""
    path = item.config.getoption("--costs")
    if not path:
        return (yield)
    before = _now()
    try:
        return (yield)
    finally:
        after = _now()
        cost = [round(new - old, 3) for new, old in zip(after, before, strict=True)]
        with Path(path).open("a", newline="") as file:
            csv.writer(file).writerow([item.nodeid, *cost])
