"""Runs a process of watchout, and writes once a second how long its event loop was stalled at most.

`python -m benchmarks.stall_probe FILE router|gateway|mlbridge`. A timer of 1 ms is late by as long as the loop could do
nothing else. Two times are told for each second: by the wall clock, and by the CPU time of the loop's thread, in which
other work on the machine does not count.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import uvloop

EVERY_S: Final = 0.001
WRITE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Second:
    """One line of the file: the longest stalls within a second that ended `at` (s since the epoch), in ms."""

    at: float
    cpu_ms: float
    wall_ms: float


class Probe:
    """The timer in one loop.

    Args:
        output: Where a line is written each second.
    """

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._cpu_s = self._wall_s = 0.0
        self._at = self._cpu_at = self._written_at = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the timer.

        Args:
            loop: The loop, which may not run yet.
        """
        self._loop = loop
        self._at = self._written_at = time.perf_counter()
        self._cpu_at = time.thread_time()
        loop.call_later(EVERY_S, self._tick)

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self._wall_s = max(self._wall_s, now - self._at - EVERY_S)
        self._cpu_s = max(self._cpu_s, cpu - self._cpu_at)
        if now - self._written_at >= WRITE_EVERY_S:
            line = {"at": time.time(), "cpu_ms": 1000 * self._cpu_s, "wall_ms": 1000 * self._wall_s}
            print(json.dumps(line), file=self._output, flush=True)
            self._cpu_s = self._wall_s = 0.0
            self._written_at = now
        self._at, self._cpu_at = time.perf_counter(), time.thread_time()
        self._loop.call_later(EVERY_S, self._tick)


def longest(file: Path, since: float, until: float) -> Second | None:
    """Return the longest stalls of the seconds that ended within a time; None when none did.

    Args:
        file: What a probe wrote.
        since: Seconds since the epoch.
        until: The same.
    """
    lines = [Second(**json.loads(line)) for line in file.read_text().splitlines()]
    found = [each for each in lines if since < each.at <= until]
    if not found:
        return None
    return Second(found[-1].at, max(each.cpu_ms for each in found), max(each.wall_ms for each in found))


def _main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    sys.argv = [f"watchout-{name}", *sys.argv[3:]]
    make_loop = uvloop.new_event_loop
    with path.open("w") as output:

        def with_probe() -> asyncio.AbstractEventLoop:
            loop = make_loop()
            Probe(output).begin(loop)
            return loop

        uvloop.new_event_loop = with_probe  # type: ignore[assignment]
        importlib.import_module(f"watchout.{name}.app").main()


if __name__ == "__main__":
    _main()
