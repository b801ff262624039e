"""A control group of the kernel (version 1 or 2) that a test has for itself. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.kit.processes import poll

#: A process that has just ended leaves its group within this.
_LEAVES_S: Final = 30.0
_numbers: Final = itertools.count()


@contextlib.contextmanager
def group_below(above: Path) -> Iterator[Path]:
    """A group below this one; at the end its processes are in that, and it is removed.

    Raises `OSError` if none can be made.
    """
    path = above / f"watchout-test-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    try:
        yield path
    finally:
        poll(lambda: _removed(path), _LEAVES_S, f"a process is left in {path}")


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):  # one of its processes is still ending
        for pid in (path / "cgroup.procs").read_text().split():
            (path.parent / "cgroup.procs").write_text(pid)
        path.rmdir()
        return True
    return False
