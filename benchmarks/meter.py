"""CPU time and resident memory of sets of processes, from the kernel's own books. Linux only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CPUCLOCK_SCHED = 2
"""The clock of clock_getcpuclockid(3) that counts all threads of a process, ended ones too, in nanoseconds."""


class Gone(Exception):
    """A process that was to be measured is not there any more."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one process used so far."""

    pid: int
    name: str
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Rest:
    """What one process used so far, and how often its threads have waited for something since they began."""

    pid: int
    name: str
    cpu_s: float
    waits: int


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process since its start, user and system, in seconds. Raises `Gone`."""
    try:
        return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED) / 1e9
    except OSError as e:
        raise Gone(f"process {pid} is gone") from e


def name(pid: int) -> str:
    """A process's name as the kernel has it, at most 15 characters. Raises `Gone`."""
    return _read(pid, "comm").strip()


def pss_bytes(pid: int) -> int:
    """Resident memory of a process, pages that it shares divided by those who share them. Raises `Gone`."""
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Gone(f"process {pid} has no memory left")


def with_children(pids: Iterable[int]) -> tuple[int, ...]:
    """These processes and all below them that live. Raises `Gone` when one of the given ones does not."""
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop(0)
        if pid in found:
            continue
        found.append(pid)
        for task in (PROC / str(pid) / "task").glob("*/children"):
            try:
                waiting += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    for pid in found:
        cpu_s(pid)
    return tuple(found)


def cpu(pids: Iterable[int]) -> list[Use]:
    """What each of these processes used so far. Raises `Gone`."""
    return [Use(pid, name(pid), cpu_s(pid)) for pid in pids]


def rest(pids: Iterable[int]) -> list[Rest]:
    """What each of these processes used so far, by the name of its program. Raises `Gone`."""
    return [Rest(pid, program(pid), cpu_s(pid), _waits(pid)) for pid in pids]


def program(pid: int) -> str:
    """The file name of what a process runs, of a Python process its script. Raises `Gone`."""
    words = [Path(word).name for word in _read(pid, "cmdline").split("\0") if word and not word.startswith("-")]
    return next((word for word in words if not word.startswith("python")), name(pid))


def _waits(pid: int) -> int:
    """How often the threads of a process that are there now gave the CPU back because they had to wait."""
    waits = 0
    for status in (PROC / str(pid) / "task").glob("*/status"):
        found = status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)
        waits += int(found[0])
    return waits


def pss(pids: Iterable[int]) -> int:
    """Resident memory of these processes together, in bytes. Raises `Gone`."""
    return sum(pss_bytes(pid) for pid in pids)


def machine_busy_s() -> float:
    """What all cores together have worked since the machine came up, in seconds, in steps of a clock tick."""
    # user nice system idle iowait irq softirq steal, in ticks: proc_stat(5); steal is not work.
    ticks = [int(value) for value in (PROC / "stat").read_text().split(maxsplit=9)[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _read(pid: int, file: str) -> str:
    try:
        return (PROC / str(pid) / file).read_text()
    except OSError as e:
        raise Gone(f"process {pid}: {e.strerror}: /proc/{pid}/{file}") from e
