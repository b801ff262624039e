"""Runs the background tasks of a process so that no exception ends them: failures are logged and counted.

An event loop has one supervisor, `current`. `every` runs work at an interval; `keep` runs work that goes on as long as
the process, such as a listener, and restarts it when it ends; `Alarm` runs work at a time that it sets itself.
`stalled` names periodic work that has not succeeded for too long, for which the process reports itself unhealthy.

A wake-up costs more than the work it is for: the caches are cold. So where a process wakes at a steady rate anyway, as
a member does for each heartbeat of its router, `pulse` runs what is due soon: each in a turn of its own, so that a
frame that comes meanwhile waits for one of them, not for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

from watchout.common import log
from watchout.common.toolbox.retry import backoff_s

#: Seconds between two log lines about failures of the same task.
LOG_EVERY_S: Final = 60.0
#: A periodic task is stalled when it has not succeeded for so many of its intervals, and so many seconds.
STALLED_INTERVALS: Final = 5.0
STALLED_S: Final = 10.0
#: Seconds between two checks whether the event loop itself was held up; that time does not count as a stall.
CHECK_EVERY_S: Final = 1.0
#: The most by which the loop was late for a check in so many seconds is its lag: longer than between two scrapes.
LAG_WINDOW_S: Final = 30.0
#: Seconds until kept work that ended is restarted; doubled each time, up to the last.
FIRST_RESTART_S: Final = 0.1
LAST_RESTART_S: Final = 15.0
#: A pulse runs periodic work that is due within so many seconds. Pulses come every half second: so work of any phase
#: falls in with them at the first one, and stays with them, as they may come sooner by the rest and later by `LATE_S`.
EARLY_S: Final = 0.4
#: So many seconds after a pulse the next one is looked for: periodic work waits for it for `LATE_S` at most.
PACED_S: Final = 1.0
LATE_S: Final = 0.1
#: Work of a shorter interval in seconds keeps its own time.
LEAST_PACED_S: Final = 0.5
#: A pulse that comes sooner after another one, in seconds, is none: several sources do not hurry the work.
PULSES_APART_S: Final = 0.4
#: Kept work that ran for so many seconds is restarted after the first pause again.
STEADY_S: Final = 30.0
#: Seconds until an alarm whose work failed before it set the next time runs again.
ALARM_AGAIN_S: Final = 1.0

_log = log.get("common.supervisor")


class Supervisor:
    """The background tasks of one event loop; `current` creates and returns it.

    `failures` counts the failures of each task by its name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Failures so far, by the name of the work.
        self.failures: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self._periodic: set[Periodic] = set()
        self._checked_at = loop.time()
        self._checker: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        #: When the loop was late for a check, and by how much: each by more than at all later ones.
        self._lags: deque[tuple[float, float]] = deque()
        self._pulsed_at = float("-inf")

    def every(
        self,
        interval_s: float | Callable[[], float],
        work: Callable[[], Awaitable[None] | None],
        name: str,
        *,
        first_s: float | None = None,
    ) -> Periodic:
        """Run `work` at an interval until the returned handle is cancelled.

        Args:
            interval_s: Seconds from the start of one run to the next, or a function that returns them after each run.
                Late runs are left out, and runs never overlap. With pulses (`pulse`) a run may come by `EARLY_S`
                sooner, and by `LATE_S` later.
            work: A function, which may return an awaitable. Exceptions are logged and counted.
            name: The name of the task in log, metrics and health.
            first_s: Seconds until the first run; None: the interval.

        """
        periodic = Periodic(self, interval_s, work, name)
        self._periodic.add(periodic)
        if self._checker is None:
            self._checked_at = self.loop.time()
            self._check_later()
        periodic.begin(first_s)
        return periodic

    def keep(
        self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, log_failures: bool = True
    ) -> asyncio.Task[None]:
        """Run `work` until the returned task is cancelled; restart it after a pause when it raises or returns.

        Args:
            work: A coroutine function.
            name: The name of the task in log, metrics and health.
            log_failures: Whether failures are logged, besides being counted.

        """
        return self.loop.create_task(self._keep(work, name, log_failures=log_failures), name=name)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, log_failures: bool) -> None:
        restarts = 0
        while True:
            began = self.loop.time()
            try:
                await work()
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                self.failed(name, error, log_it=log_failures)
            except Exception as error:
                self.failed(name, error, log_it=log_failures)
            if _is_cancelled():  # what the work did at its end raised, or a library swallowed the cancellation
                raise asyncio.CancelledError
            if self.loop.time() - began > STEADY_S:
                restarts = 0
            await asyncio.sleep(
                backoff_s(restarts, first_s=FIRST_RESTART_S, most_s=LAST_RESTART_S, chance=random.random())
            )
            restarts += 1

    @contextlib.contextmanager
    def guarding(self, name: str) -> Iterator[None]:
        """Return a context manager that logs and counts an exception instead of raising it."""
        try:
            yield
        except Exception as error:
            self.failed(name, error)

    def failed(self, name: str, error: BaseException, *, log_it: bool = True) -> None:
        """Count a failure of a task, and log it unless one was logged within `LOG_EVERY_S`."""
        self.failures[name] += 1
        if not log_it:
            return
        now = self.loop.time()
        if now - self._logged_at.get(name, float("-inf")) < LOG_EVERY_S:
            self._unlogged[name] += 1
            return
        self._logged_at[name] = now
        _log.error(
            "a task failed and goes on", task=name, not_logged_before=self._unlogged.pop(name, None), exc_info=error
        )

    def pulse(self) -> None:
        """Run what is due soon in the next turns of the loop, one in each: the process is awake.

        To be called about every half second. A call that comes sooner than `PULSES_APART_S` after another does nothing.
        """
        now = self.loop.time()
        if now - self._pulsed_at >= PULSES_APART_S:
            self._pulsed_at = now
            self.loop.call_soon(self._run_early)

    def waits_s(self, interval_s: float) -> float:
        """Return for how many seconds work of this interval waits for a pulse after it is due."""
        is_paced = interval_s >= LEAST_PACED_S and self.loop.time() - self._pulsed_at < PACED_S
        return LATE_S if is_paced else 0.0

    def _run_early(self) -> None:
        now = self.loop.time()
        self._run_next([each for each in self._periodic if each.is_due_soon(now)])

    def _run_next(self, due: list[Periodic]) -> None:
        """Run the last of these that still is due, and the others in later turns."""
        while due:
            if due.pop().run_early(self.loop.time()):
                break
        if due:
            self.loop.call_soon(self._run_next, due)

    def stalled(self) -> list[str]:
        """Return the names of periodic tasks that have not succeeded for too long, sorted."""
        now = self.loop.time()
        self._excuse(now)
        return sorted({periodic.name for periodic in self._periodic if periodic.stalled(now)})

    def lag_s(self) -> float:
        """Return by how many seconds the loop was late for a check at most, within the last `LAG_WINDOW_S`."""
        while self._lags and self._lags[0][0] < self.loop.time() - LAG_WINDOW_S:
            self._lags.popleft()
        return self._lags[0][1] if self._lags else 0.0

    def forget(self, periodic: Periodic) -> None:
        """Remove a periodic task that was cancelled."""
        self._periodic.discard(periodic)
        if not self._periodic and self._checker is not None:
            self._checker.cancel()
            self._checker = None

    def _check_later(self) -> None:
        self._due_at = self.loop.time() + CHECK_EVERY_S
        self._checker = self.loop.call_at(self._due_at, self._check)

    def _check(self) -> None:
        now = self.loop.time()
        self._late(now, now - self._due_at)
        self._excuse(now)
        self._check_later()

    def _late(self, now: float, late_s: float) -> None:
        """Record by how much the loop was late for a check."""
        while self._lags and self._lags[-1][1] <= late_s:
            self._lags.pop()
        self._lags.append((now, late_s))

    def _excuse(self, now: float) -> None:
        """Do not count time in which the process was stopped or got no CPU as a stall of its tasks."""
        held_up_s = now - self._checked_at - CHECK_EVERY_S
        self._checked_at = now
        if held_up_s > 0:
            for periodic in self._periodic:
                periodic.succeeded_at += held_up_s


class Periodic:
    """Handle of a periodic task, returned by `Supervisor.every`; its owner cancels or closes it.

    `succeeded_at` is when it last ran without an exception, in seconds of the loop's clock.
    """

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
        self.succeeded_at = self._loop.time()
        self._interval_was_s = interval_s if isinstance(interval_s, float | int) else 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: When the next run is due; there is a timer for it while none is under way.
        self._due_at = 0.0
        self._task: asyncio.Future[None] | None = None
        self._cancelled = False

    def begin(self, first_s: float | None) -> None:
        """Schedule the first run."""
        self._set(self._interval() if first_s is None else first_s, self._loop.time())

    def cancel(self) -> None:
        """Run it no more, and cancel a run in progress."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
        self._supervisor.forget(self)

    async def close(self) -> None:
        """Cancel it, and wait for the end of a run in progress."""
        self.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def stalled(self, now: float) -> bool:
        """Return whether it has not succeeded for too long."""
        return now - self.succeeded_at > max(STALLED_S, STALLED_INTERVALS * self._interval_was_s)

    def _interval(self) -> float:
        if callable(self._interval_s):
            with self._supervisor.guarding(self.name):
                self._interval_was_s = self._interval_s()
        return self._interval_was_s

    def _set(self, after_s: float, since: float) -> None:
        if not self._cancelled:
            # Overdue runs are run once, in the next turn of the loop.
            self._due_at = max(since + after_s, self._loop.time())
            self._timer = self._loop.call_at(self._due_at + self._supervisor.waits_s(self._interval_was_s), self._due)

    def is_due_soon(self, now: float) -> bool:
        """Return whether it waits for a run that may come now, because the process is awake."""
        is_paced = self._timer is not None and self._interval_was_s >= LEAST_PACED_S
        return is_paced and self._due_at - now <= EARLY_S

    def run_early(self, now: float) -> bool:
        """Run it now if it is due soon; return whether it was."""
        if self._timer is None or not self.is_due_soon(now):
            return False
        self._timer.cancel()
        self._due()
        return True

    def _due(self) -> None:
        self._timer = None
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


def _is_cancelled() -> bool:
    """Return whether the current task was cancelled; a cancelled future that it awaits raises the same exception."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Alarm:
    """A timer that runs `work` once at a time that can be changed, also by the work itself.

    An exception is logged and counted under `name`; the work then runs again after `ALARM_AGAIN_S` at the latest. A
    time that is put off costs nothing: the timer of the loop stays, and is set anew when it ends.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._supervisor = current()
        self._work = work
        self._name = name
        self._timer: asyncio.TimerHandle | None = None
        #: When the work is to run, and when the timer ends: then, or before.
        self._at = self._ends_at = 0.0
        self._soon: asyncio.Handle | None = None

    def set(self, at: float | None) -> None:
        """Run the work at this time of the loop's clock, in place of the time before; None: not at all."""
        if at is None:
            self._cancel_timer()
            return
        self._at = at
        if self._timer is None or at < self._ends_at:
            self._cancel_timer()
            self._begin()

    def soon(self) -> None:
        """Run the work once at the end of this turn of the loop, besides the time that is set."""
        if self._soon is None:
            self._soon = self._supervisor.loop.call_soon(self._run_soon)

    def cancel(self) -> None:
        """Do not run the work."""
        self._cancel_timer()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._ends_at = self._at
        self._timer = self._supervisor.loop.call_at(self._at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._at > self._ends_at:  # it was put off
            self._begin()
        else:
            self._run()

    def _run_soon(self) -> None:
        self._soon = None
        self._run()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._supervisor.failed(self._name, error)
            again_at = self._supervisor.loop.time() + ALARM_AGAIN_S
            if self._timer is None or again_at < self._at:
                self.set(again_at)


#: The supervisor of the loop that ran last: a process has one loop.
_latest: Final[list[Supervisor]] = []


def current() -> Supervisor:
    """Return the supervisor of the running loop, created at the first call."""
    loop = asyncio.get_running_loop()
    if not _latest or _latest[0].loop is not loop:
        _latest[:] = [Supervisor(loop)]
    return _latest[0]


def counted() -> tuple[dict[str, int], list[str]]:
    """Return the failures by task and the names of stalled tasks; empty where no loop has run."""
    return (dict(_latest[0].failures), _latest[0].stalled()) if _latest else ({}, [])


def lag_s() -> float:
    """Return the lag of the event loop in seconds, see `Supervisor.lag_s`; 0 where no loop has run."""
    return _latest[0].lag_s() if _latest else 0.0
