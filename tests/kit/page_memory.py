"""What a page that has a worker holds in a running Chromium: memory of its processes, and what its scripts keep."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.kit.browser import Tab
from tests.kit.clients import eventually
from tests.kit.processes import Process

#: Name of a thread of the page's process, and of no other one's: the worker's. The kernel keeps 15 letters.
_WORKER_THREAD: Final = "DedicatedWorker"
#: Of /proc/PID/smaps_rollup. Pages of program files are left out: they are a process's own or shared, depending on
#: whether another browser runs on the machine, and can be read again at any time.
_OWN: Final = ("Pss_Anon", "Pss_Shmem", "SwapPss")
START_S: Final = 30.0


@dataclass(frozen=True)
class Held:
    """What a page holds, in MB.

    Attributes:
        processes: Memory of the process that runs it and of the one that draws it, without program files. Memory that
            they share counts once.
        scripts: Objects of the page and its worker, and what the browser has for them, when garbage is collected.
    """

    processes: float
    scripts: float


class PageMemory:
    """Measures the page of a tab; there is one worker."""

    def __init__(self, browser: Process, tab: Tab) -> None:
        self._browser = browser
        self._tab = tab
        self._processes: list[psutil.Process] = []

    async def usual(self, seconds: float, busy: Callable[[float], Awaitable[object]]) -> Held:
        """The medians over a time, because now and then a browser takes or gives back much at once.

        Args:
            seconds: How long it is measured.
            busy: Called again and again with a number of seconds for which it has to wait, at most 5.
        """
        until, samples = time.monotonic() + seconds, []
        while (left_s := until - time.monotonic()) > 0:
            await busy(min(left_s, 5))
            samples.append(await self.now())
        return Held(
            statistics.median(each.processes for each in samples), statistics.median(each.scripts for each in samples)
        )

    async def now(self) -> Held:
        """What is held at present, when all garbage is collected."""
        if not self._processes:
            await eventually(lambda: self._find() and self._tab.count_workers(), START_S, "the page has no worker")
        scripts = await self._tab.kept_bytes()
        return Held(sum(map(own_bytes, self._processes)) / 1e6, scripts / 1e6)

    def _find(self) -> list[psutil.Process]:
        found = {}
        for process in self._browser.children:
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                kind = next((each for each in process.cmdline() if each.startswith("--type=")), "")
                if kind == "--type=gpu-process" or _WORKER_THREAD in thread_names(process.pid):
                    found[kind] = process
        self._processes = list(found.values()) if set(found) == {"--type=gpu-process", "--type=renderer"} else []
        return self._processes


def thread_names(pid: int) -> set[str]:
    """The names of a process's threads."""
    return {path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")}


def own_bytes(process: psutil.Process) -> int:
    """Memory of a process without program files, and its part of what it shares with others."""
    rows = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    amounts = {name: amount for name, _, amount in (row.partition(":") for row in rows)}
    return sum(int(amounts[name].split()[0]) for name in _OWN) * 1024
