"""Reports to the service manager when this process is ready, what it lacks, and that its event loop runs.

The watchdog is fed by a timer of the loop that does the work: a loop that is stuck feeds nobody, and the manager ends
the process and starts another.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Awaitable, Callable
from typing import Final

from watchout.common import supervisor
from watchout.common.process.service_manager import ServiceManager
from watchout.common.supervisor import Periodic

#: Seconds after which a process that still lacks something is reported as ready all the same: an outage of the router
#: or of the session store must neither hold up what is started after this process, nor end it.
READY_WAIT_S: Final = 15.0
#: Seconds between two looks while it is not ready, and afterwards.
LOOK_AGAIN_S: Final = 0.1
LOOK_S: Final = 5.0
#: The watchdog is fed so many times within its time.
BEATS: Final = 3
#: Name of the task in log, metrics and health.
REPORT: Final = "report to the service manager"


class Readiness:
    """What one process reports to its service manager; `common.service` makes one. Without a manager it does nothing.

    Args:
        manager: The service manager.
        missing: Returns what the process lacks to serve, such as "the router is unreachable"; None: nothing. It may
            raise: then nothing is known to be missing.
    """

    def __init__(self, manager: ServiceManager, missing: Callable[[], Awaitable[str | None]]) -> None:
        self._manager = manager
        self._missing = missing
        self._beat: Periodic | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Feed the watchdog from now on. Its signal, SIGABRT, prints where the process was stuck."""
        if self._manager.watchdog_s is not None:
            faulthandler.enable()
            every_s = self._manager.watchdog_s / BEATS
            self._beat = supervisor.current().every(every_s, self._manager.alive, "watchdog", first_s=0)

    def started(self) -> None:
        """Report that the process is ready as soon as it lacks nothing, and after `READY_WAIT_S` at the latest."""
        if self._manager.present:
            self._task = supervisor.current().keep(self._report, REPORT)

    def stopping(self, within_s: float) -> None:
        """Report that the process drains, and ends within so many seconds."""
        self._cancel()
        self._manager.stopping("drains", within_s)

    def close(self) -> None:
        """Report nothing more; the loop is about to end."""
        self._cancel()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_WAIT_S
        while (missing := await self._look()) is not None and loop.time() < until:
            self._manager.status(f"starts: {missing}")
            await asyncio.sleep(LOOK_AGAIN_S)
        self._manager.ready(_said(missing))
        while True:
            await asyncio.sleep(LOOK_S)
            self._manager.status(_said(await self._look()))

    async def _look(self) -> str | None:
        try:
            return await self._missing()
        except Exception as error:
            supervisor.current().failed(REPORT, error)
            return None


def _said(missing: str | None) -> str:
    return "serves" if missing is None else f"runs, but {missing}"
