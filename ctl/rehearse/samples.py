"""Samples of processes of this machine, from `/proc`: private memory, file descriptors and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
#: Of `smaps_rollup`: pages that no other process has, in kB.
_PRIVATE: Final = ("Private_Clean:", "Private_Dirty:")


def private_bytes(pid: int) -> int:
    """Return the resident memory that a process shares with no other. Raises `OSError` when it is gone."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_PRIVATE))


def descriptors(pid: int) -> int:
    """Return how many file descriptors a process has open. Raises `OSError` when it is gone."""
    return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())


def threads(pid: int) -> int:
    """Return how many threads a process has. Raises `OSError` when it is gone."""
    return sum(1 for _ in (PROC / str(pid) / "task").iterdir())
