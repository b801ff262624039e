"""The processes of clients: starts them, gives each its part of the plan, and collects what they count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from watchout.common.clock import now_ms
from watchout.ctl.environment import Failure
from watchout.ctl.rehearse import processes
from watchout.ctl.rehearse.clients import GRACE_S, Job
from watchout.ctl.rehearse.figures import Counts, Series
from watchout.ctl.rehearse.plan import LoadPlan, share_out
from watchout.ctl.rehearse.worker import WorkerLine

WORKER: Final = "watchout.ctl.rehearse.worker"
#: Seconds from when all are ready to the begin, so that all have read their jobs.
BEGIN_IN_S: Final = 1.0
#: Seconds after the end in which a process of clients has to have told its counts.
LATE_S: Final = 30.0


class Crew:
    """The processes of clients of one rehearsal. `start` starts them, `work` runs the plan, `close` ends them.

    Attributes:
        series: What they counted, second by second.
        counts: What they counted in all, once `work` has returned.
        cores: CPU seconds per second of each.
        begin_ms: When the plan began, in ms since the epoch; 0 before.
    """

    def __init__(self) -> None:
        self.series = Series()
        self.counts = Counts()
        self.cores: list[float] = []
        self.begin_ms = 0
        self._running: list[asyncio.subprocess.Process] = []
        self._stopped = False

    @property
    def at_s(self) -> float:
        """Seconds of the rehearsal; negative before its begin."""
        return (now_ms() - self.begin_ms) / 1000

    async def start(self, number: int) -> None:
        """Start so many processes, and wait until they are ready. Raises `Failure` when one ends."""
        for _ in range(number):  # each is known at once: `close` ends those that there are when this is cancelled
            self._running.append(await processes.start(WORKER))
        await asyncio.gather(*(processes.line_of(each, "a process of clients") for each in self._running))

    async def work(
        self, plan: LoadPlan, url: str, tokens: Sequence[str], pictures: Sequence[bytes], on_second: Callable[[], None]
    ) -> None:
        """Run a plan to its end, or until `stop`.

        Args:
            plan: What all clients do.
            url: The gateway.
            tokens: The tokens that the plan numbers.
            pictures: What cameras send, in turns.
            on_second: Called when figures came.

        Raises:
            Failure: A process of clients ended early.
        """
        self.begin_ms = now_ms() + int(BEGIN_IN_S * 1000)
        jobs = []
        for process, part in zip(self._running, share_out(plan, len(self._running)), strict=True):
            job = Job(url=url, tokens=list(tokens), plan=part, begin_ms=self.begin_ms, pictures=list(pictures))
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            jobs.append(self._collect(process, on_second))
        try:
            async with asyncio.timeout(BEGIN_IN_S + plan.seconds + GRACE_S + LATE_S):
                await asyncio.gather(*jobs)
        except TimeoutError:
            raise Failure("the clients did not end in time; the machine is too busy for this load") from None

    def stop(self) -> None:
        """Let the clients leave before the end of the plan."""
        self._stopped = True
        for process in self._running:
            if process.stdin is not None:
                process.stdin.close()

    async def close(self) -> None:
        """End the processes."""
        await processes.end(self._running)

    async def _collect(self, process: asyncio.subprocess.Process, on_second: Callable[[], None]) -> None:
        cpu_s = 0.0
        while True:
            line = msgspec.json.decode(await processes.line_of(process, "a process of clients"), type=WorkerLine)
            if line.moment is not None:
                self.series.add(line.moment)
                cpu_s += line.moment.cpu_s
                on_second()
            if line.counts is not None:
                self.counts.add(line.counts)
                self.cores.append(cpu_s / max(self.at_s, 1.0))
                return
