"""Everything that a process does again and again, under one supervisor: it logs what fails, counts it, and goes on.

A loop has one supervisor, `current`. `every` runs a piece of work at an interval; `keep` runs one that is to go on for
as long as the process lives, such as a listener, and begins it again when it dies; `Alarm` runs one at a time that the
work itself sets anew. No exception ends any of them. `stalled` names the periodic work that has not succeeded for too
long, which is a reason to be unhealthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

from watchout.common import log
from watchout.common.toolbox.retry import backoff_s

#: The same work is logged so often at most when it fails, in seconds.
LOG_EVERY_S: Final = 60.0
#: Work that has not succeeded for so many of its intervals, and for so long, is stalled.
STALLED_INTERVALS: Final = 5.0
STALLED_S: Final = 10.0
#: Time in which the loop itself stood still counts as nobody's stall; it is looked for this often, in seconds.
LOOK_EVERY_S: Final = 1.0
#: Work that was to go on and ended begins again after so long, twice as long each time, up to the second number.
FIRST_RESTART_S: Final = 0.1
LAST_RESTART_S: Final = 15.0
#: Who went on for so long begins anew with the first.
STEADY_S: Final = 30.0
#: An alarm whose work failed before it set the next one rings again after this.
ALARM_AGAIN_S: Final = 1.0

_log = log.get("common.supervisor")


class Supervisor:
    """The periodic and lasting work of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Failures so far, by the name of the work.
        self.failures: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self._periodic: set[Periodic] = set()
        self._looked_at = loop.time()
        self._looker: asyncio.TimerHandle | None = None

    def every(
        self,
        interval_s: float | Callable[[], float],
        work: Callable[[], Awaitable[None] | None],
        name: str,
        *,
        first_s: float | None = None,
    ) -> Periodic:
        """Run `work` at an interval until the result is cancelled.

        Args:
            interval_s: Seconds from one begin to the next, or what gives them after each run. Runs that came to be
                late are left out, never made up for; a run that takes longer than the interval is not run twice.
            work: A function, or one that returns an awaitable. What it raises is logged and counted.
            name: Names it in log, metrics and health.
            first_s: Seconds until the first run; None: the interval.

        """
        periodic = Periodic(self, interval_s, work, name)
        self._periodic.add(periodic)
        if self._looker is None:
            self._looked_at = self.loop.time()
            self._looker = self.loop.call_later(LOOK_EVERY_S, self._look)
        periodic.begin(first_s)
        return periodic

    def keep(
        self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, log_failures: bool = True
    ) -> asyncio.Task[None]:
        """Run `work` for as long as the process lives: when it raises or returns it begins again, after a pause."""
        return self.loop.create_task(self._keep(work, name, log_failures=log_failures), name=name)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, log_failures: bool) -> None:
        restarts = 0
        while True:
            began = self.loop.time()
            try:
                await work()
            except asyncio.CancelledError as error:
                if _is_told_to_end():
                    raise
                self.failed(name, error, say=log_failures)
            except Exception as error:
                self.failed(name, error, say=log_failures)
            if self.loop.time() - began > STEADY_S:
                restarts = 0
            await asyncio.sleep(
                backoff_s(restarts, first_s=FIRST_RESTART_S, most_s=LAST_RESTART_S, chance=random.random())
            )
            restarts += 1

    @contextlib.contextmanager
    def guarding(self, name: str) -> Iterator[None]:
        """Around one of many pieces of work that must not keep each other from being done."""
        try:
            yield
        except Exception as error:
            self.failed(name, error)

    def failed(self, name: str, error: BaseException, *, say: bool = True) -> None:
        """Count a failure of this work, and log it unless that was done just now."""
        self.failures[name] += 1
        if not say:
            return
        now = self.loop.time()
        if now - self._logged_at.get(name, float("-inf")) < LOG_EVERY_S:
            self._unlogged[name] += 1
            return
        self._logged_at[name] = now
        _log.error(
            "a task failed and goes on", task=name, not_logged_before=self._unlogged.pop(name, None), exc_info=error
        )

    def stalled(self) -> list[str]:
        """The names of periodic work that has not succeeded for too long, in order."""
        now = self.loop.time()
        self._excuse(now)
        return sorted({periodic.name for periodic in self._periodic if periodic.stalled(now)})

    def forget(self, periodic: Periodic) -> None:
        """It was cancelled."""
        self._periodic.discard(periodic)
        if not self._periodic and self._looker is not None:
            self._looker.cancel()
            self._looker = None

    def _look(self) -> None:
        self._looker = self.loop.call_later(LOOK_EVERY_S, self._look)
        self._excuse(self.loop.time())

    def _excuse(self, now: float) -> None:
        """A process that was stopped, or had no CPU, was no task's fault."""
        still = now - self._looked_at - LOOK_EVERY_S
        self._looked_at = now
        if still > 0:
            for periodic in self._periodic:
                periodic.succeeded_at += still


class Periodic:
    """One piece of periodic work; made by `Supervisor.every`."""

    def __init__(
        self,
        supervisor: Supervisor,
        interval_s: float | Callable[[], float],
        work: Callable[[], Awaitable[None] | None],
        name: str,
    ) -> None:
        self._supervisor = supervisor
        self._loop = supervisor.loop
        self._interval_s = interval_s
        self._work = work
        self.name = name
        #: When it last did what it is for.
        self.succeeded_at = self._loop.time()
        self._interval_was_s = interval_s if isinstance(interval_s, float | int) else 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[None] | None = None
        self._cancelled = False

    def begin(self, first_s: float | None) -> None:
        """Set the first run."""
        self._set(self._interval() if first_s is None else first_s, self._loop.time())

    def cancel(self) -> None:
        """Run it no more; a run that is under way is cancelled."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._supervisor.forget(self)

    async def close(self) -> None:
        """`cancel`, and wait for the end of a run that is under way."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def stalled(self, now: float) -> bool:
        """Whether it has not succeeded for too long."""
        return now - self.succeeded_at > max(STALLED_S, STALLED_INTERVALS * self._interval_was_s)

    def _interval(self) -> float:
        if callable(self._interval_s):
            with self._supervisor.guarding(self.name):
                self._interval_was_s = self._interval_s()
        return self._interval_was_s

    def _set(self, after_s: float, since: float) -> None:
        if not self._cancelled:
            # What is overdue runs in the next turn, once.
            self._timer = self._loop.call_at(max(since + after_s, self._loop.time()), self._due)

    def _due(self) -> None:
        began = self._loop.time()
        try:
            awaited = self._work()
        except Exception as error:
            self._ended(began, error)
            return
        if awaited is None:
            self._ended(began, None)
        else:
            self._task = asyncio.ensure_future(awaited)
            self._task.add_done_callback(lambda task: self._done(task, began))

    def _done(self, task: asyncio.Future[None], began: float) -> None:
        self._task = None
        if not task.cancelled():
            self._ended(began, task.exception())
        elif not self._cancelled and not (isinstance(task, asyncio.Task) and task.cancelling()):
            self._ended(began, asyncio.CancelledError("from within"))

    def _ended(self, began: float, error: BaseException | None) -> None:
        if error is None:
            self.succeeded_at = self._loop.time()
        else:
            self._supervisor.failed(self.name, error)
        self._set(self._interval(), began)


def _is_told_to_end() -> bool:
    """Whether somebody cancelled this task; a cancelled future that it awaited raises the same."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Alarm:
    """Runs `work` once at a time that may be set anew, also by the work itself."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._supervisor = current()
        self._work = work
        self._name = name
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Ring at this time of the loop's clock, in place of the time before; None: not at all."""
        self.cancel()
        if at is not None:
            self._timer = self._supervisor.loop.call_at(at, self._ring)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        try:
            self._work()
        except Exception as error:
            self._supervisor.failed(self._name, error)
            if self._timer is None:
                self.set(self._supervisor.loop.time() + ALARM_AGAIN_S)


#: Of the loop that ran last: a process has one.
_latest: Final[list[Supervisor]] = []


def current() -> Supervisor:
    """The supervisor of the running loop."""
    loop = asyncio.get_running_loop()
    if not _latest or _latest[0].loop is not loop:
        _latest[:] = [Supervisor(loop)]
    return _latest[0]


def counted() -> tuple[dict[str, int], list[str]]:
    """Failures by the name of the work, and the names of what is stalled; nothing where no loop has run."""
    return (dict(_latest[0].failures), _latest[0].stalled()) if _latest else ({}, [])
