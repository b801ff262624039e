"""Runs a process of watchout, and writes what takes long in the turns of its event loop: `python -m benchmarks.turns`.

`python -m benchmarks.turns_probe router|gateway|mlbridge`. Each collection of garbage, and each run of a periodic work,
that takes `NOTED_S` or longer by the CPU time of the loop's thread is a line of
$WATCHOUT_BENCH_TURNS/<name>-<pid>.notes. The turns themselves are measured by turns.c.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Final

from watchout.common.supervisor import Periodic, Supervisor

NOTED_S: Final = 0.000_2


class Notes:
    """Writes what took long.

    Args:
        output: Where a line is written for each.
    """

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._collection_began = 0.0

    def begin(self) -> None:
        """Watch the garbage collector and the periodic works from now on."""
        gc.callbacks.append(self._on_collection)
        every = Supervisor.every

        def with_notes(
            supervisor: Supervisor, interval_s: Any, work: Callable[[], Awaitable[None] | None], name: str, **how: Any
        ) -> Periodic:
            return every(supervisor, interval_s, lambda: self._run(work, name), name, **how)

        Supervisor.every = with_notes  # type: ignore[assignment, method-assign]

    def _run(self, work: Callable[[], Awaitable[None] | None], name: str) -> Awaitable[None] | None:
        began = time.thread_time()
        try:
            return work()
        finally:
            self._note(time.thread_time() - began, name)

    def _on_collection(self, phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began = time.thread_time()
        else:
            self._note(time.thread_time() - self._collection_began, f"collection {details['generation']}")

    def _note(self, cpu_s: float, what: str) -> None:
        if cpu_s >= NOTED_S:
            line = {"at_ns": time.monotonic_ns(), "cpu_ms": 1000 * cpu_s, "what": what}
            print(json.dumps(line), file=self._output, flush=True)


def _main() -> None:
    name = sys.argv[1]
    sys.argv = [f"watchout-{name}", *sys.argv[2:]]
    with Path(os.environ["WATCHOUT_BENCH_TURNS"], f"{name}-{os.getpid()}.notes").open("w") as output:
        Notes(output).begin()
        importlib.import_module(f"watchout.{name}.app").main()


if __name__ == "__main__":
    _main()
