"""Orders the tests so that all workers of pytest-xdist have about the same to do, and begin with what takes longest.

`--dist worksteal` gives each worker a part of the list, of equal length, whatever its tests take. Here each part gets
its share of the long files, which `tests/durations.txt` names, the longest first, and then of all others: those are
what is left at the end, and a worker without tests takes half of what another one has left. A file stays with one
worker as long as it can, so that what its tests share is made once; and so do the files that share a fixture of the
whole session which takes long to start (`GROUPS`).

`python -m tests.kit.schedule costs.csv` writes the list anew, from what `make test-costs` measured.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

LIST: Final = Path(__file__).parents[1] / "durations.txt"
#: Files that take less are not in the list.
LEAST_S: Final = 2.0
#: Fixtures of a whole session that take seconds of CPU time to start, each with the group of the files that use it.
GROUPS: Final = {"browser_process": "browsers", "console_browser_process": "browsers", "house": "house"}
_HEAD: Final = """\
# Seconds that the long files take, beside others on two cores: where `make test` puts them (tests/kit/schedule.py).
# Written by `make test-costs`. A file that is not listed is short.
"""


def parts(count: int, workers: int) -> list[int]:
    """How many tests of so many pytest-xdist's `worksteal` gives to each worker at first."""
    sizes = []
    for left in range(workers, 0, -1):
        sizes.append(count // left)
        count -= sizes[-1]
    return sizes


def arranged(
    files: Sequence[str], seconds: Mapping[str, float], workers: int, groups: Mapping[str, str] | None = None
) -> list[int]:
    """The order of tests, as indices: each worker's part begins with its long files, the longest first.

    Args:
        files: The file of each test, in the order in which they were found.
        seconds: What the long files take.
        workers: How many workers there are.
        groups: The group of each file that has one. Files of one group go to one worker, one after the other, and
            count as one long file.
    """
    tests: dict[str, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        tests[file].append(index)
    groups = groups or {}
    units: dict[str, list[str]] = defaultdict(list)
    for file in tests:
        if file in seconds or file in groups:
            units[groups.get(file, file)].append(file)
    unit_seconds = {unit: sum(seconds.get(file, 0.0) for file in its_files) for unit, its_files in units.items()}
    of_workers: list[list[str]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for unit in sorted(units, key=lambda unit: (-unit_seconds[unit], unit)):
        worker = loads.index(min(loads))
        of_workers[worker] += units[unit]
        loads[worker] += unit_seconds[unit]
    placed = {file for its_files in of_workers for file in its_files}
    short = iter([index for file, indices in tests.items() if file not in placed for index in indices])
    order: list[int] = []
    end = 0
    for size, its_files in zip(parts(len(files), workers), of_workers, strict=True):
        end += size
        order += [index for file in its_files for index in tests[file]]
        order += itertools.islice(short, max(0, end - len(order)))
    return order


def groups_of(items: Sequence[pytest.Item]) -> dict[str, str]:
    """The group of each file that has a test which uses a fixture of `GROUPS`, where that is one of the session."""
    found: dict[str, str] = {}
    for item in items:
        for name in GROUPS.keys() & set(getattr(item, "fixturenames", ())):
            definitions = item._fixtureinfo.name2fixturedefs.get(name, ())  # type: ignore[attr-defined]
            if definitions and definitions[-1].scope == "session":
                found[_file_of(item)] = GROUPS[name]
    return found


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def listed(text: str) -> dict[str, float]:
    """The files of the list with their seconds."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {file: float(seconds) for seconds, file in lines}


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """The list, from the rows that `tests.kit.costs` wrote."""
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        sums[row["test"].partition("::")[0]] += float(row["wall_s"])
    long = sorted(((took_s, file) for file, took_s in sums.items() if took_s >= LEAST_S), reverse=True)
    return _HEAD + "".join(f"{took_s:.0f} {file}\n" for took_s, file in long)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order them, in a worker: all workers do it alike, or pytest-xdist ends the run.

    Last, because pytest itself brings together what shares parameters, wherever it stands.
    """
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        files = [_file_of(item) for item in items]
        order = arranged(files, listed(LIST.read_text()), workers, groups_of(items))
        items[:] = [items[index] for index in order]


if __name__ == "__main__":
    from tests.kit.costs import COLUMNS

    with Path(sys.argv[1]).open(newline="") as file:
        LIST.write_text(page(list(csv.DictReader(file, fieldnames=COLUMNS))))
