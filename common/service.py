"""Runs a process from its settings to its end: start, ready, drain and stop, with signals, on uvloop or asyncio.

Exit codes: 0 ended on request, 1 cannot start here or failed, 2 wrong settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from watchout.common import log, supervisor
from watchout.common.errors import SettingsError, StartError
from watchout.common.home import prepare_home
from watchout.common.process import descriptors, garbage, memory
from watchout.common.process.alive_file import AliveFile
from watchout.common.process.keeper_link import KeeperLink
from watchout.common.process.process_name import claim_name, wanted_name
from watchout.common.process.readiness import Readiness
from watchout.common.process.reloading import Reloading
from watchout.common.process.service_manager import ServiceManager
from watchout.common.settings import Settings
from watchout.common.settings.misspelled import honcho_port_note, notes
from watchout.common.settings.source import SettingsSource
from watchout.common.tracing import tracer

_log = log.get("common.service")

#: Seconds that a drain may take beyond `DRAIN_S`, and seconds for `stop`.
STOP_TIMEOUT_S: Final = 0.7
#: Seconds after which `Tasks.close` cancels a task again.
CANCEL_AGAIN_S: Final = 1.5
#: Seconds to wait at the end for threads that are still running.
THREAD_END_S: Final = 0.2
#: Seconds to write queued log lines after a second signal.
LAST_WORDS_S: Final = 0.2


class Process(Protocol):
    """What `run` needs of an application: the gateway, the router and the bridge implement it.

    `run` calls `start` once, waits for a signal, and calls `drain` and then `stop`. A second signal ends the process at
    once.
    """

    async def start(self) -> None:
        """Open everything, without waiting for other processes. Raises `StartError` when it cannot run here."""

    async def missing(self) -> str | None:
        """Return what the process lacks to serve, which may come later; None: nothing. Called after `start`."""

    async def drain(self) -> None:
        """Finish what is in progress and send clients away; called once, for `drain_limit_s` at most."""

    def prepare_reload(self, new: Settings) -> Callable[[], None]:
        """Check what new settings need, and return what takes them up; the values themselves are replaced before.

        Raises `StartError` when something is wrong; nothing is taken up then.
        """

    def hurry(self) -> None:
        """Let a drain, also one under way, take no time for those who could go elsewhere: all processes end."""

    async def stop(self) -> None:
        """Close everything; also called after a `start` that failed."""


class Tasks:
    """Starts background tasks, keeps a reference to each until its end, and logs those that fail.

    For tasks that end by themselves; what has to go on is run by `common.supervisor`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a coroutine as a task of this name."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all tasks and wait for their end; one that goes on all the same is cancelled again."""
        tasks = set(self._tasks)
        while tasks:
            for task in tasks:
                task.cancel()  # again, as a library may swallow one: asyncio.wait_for does before Python 3.12
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)


def load_or_exit(source: SettingsSource, options: Mapping[str, tuple[str, str]]) -> Settings:
    """Return the settings of this process, or print every fault and exit with 2.

    Args:
        source: Where they come from.
        options: Settings given on the command line: the name of the setting → (name of the option, value).
    """
    given = options
    try:
        return source.read()
    except SettingsError as error:
        for fault in error.faults:
            env = fault.partition(" ")[0]
            shown = given[env][0] + fault.removeprefix(env) if env in given else fault
            with contextlib.suppress(OSError):  # stderr may be closed; the exit code is enough
                print(f"watchout: wrong setting: {shown}", file=sys.stderr)
        raise SystemExit(2) from None


def run(name: str, build: Callable[[Settings], Process], options: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Run a process to its end; raises `SystemExit` with its exit code.

    Args:
        name: ``gateway``, ``router`` or ``mlbridge``.
        build: Creates the application from the settings, in the event loop.
        options: Settings given on the command line, which take precedence, see `load_or_exit`.

    """
    options = options or {}
    source = SettingsSource(os.environ, {env: value for env, (_, value) in options.items()})
    settings = load_or_exit(source, options)
    memory.keep_little()
    descriptors.raise_limit()
    log.setup(
        level=settings.log_level,
        format=settings.log_format,
        process=wanted_name(settings, name),
    )
    keeper, manager = KeeperLink(), ServiceManager()
    try:
        factory = _loop_factory(settings)
        prepare_home(settings.home)
        settings = replace(settings, process_name=claim_name(settings.home, wanted_name(settings, name)))
        log.rename(settings.process_name)
        _log_notes_on_environment(name, source.environ())
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_live(name, build, settings, source, keeper, manager))
    except StartError as error:
        _log.error(f"{name} cannot start", reason=str(error))
        raise SystemExit(1) from None
    keeper.exits(0)
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(THREAD_END_S)  # one that was asked to end may be about to
    stuck = [thread.name for thread in others if thread.is_alive()]
    if stuck:
        _log.warning(f"{name} left threads behind", threads=", ".join(stuck))
        log.close()
        os._exit(0)  # a normal exit would wait for them without end
    raise SystemExit(0)


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that creates the event loop. Raises `StartError` when uvloop cannot be loaded."""
    if settings.loop == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as exc:
        raise StartError(
            f"WATCHOUT_LOOP is uvloop, which cannot be loaded ({exc}): set WATCHOUT_LOOP=asyncio"
        ) from None
    return uvloop.new_event_loop


def _log_notes_on_environment(name: str, environ: Mapping[str, str]) -> None:
    """Log environment variables that look like settings and have no effect."""
    for note in notes(environ):
        _log.warning(note)
    if name == "gateway" and (port := honcho_port_note(environ)) is not None:
        _log.info(port)


def _callback_failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        # The loop accepts again after a second. Until then it reports each attempt, so the supervisor limits the log.
        supervisor.current().failed("accepting connections", error)
    elif not (_loop.is_closed() or "_start_serving" in str(context.get("message"))):
        _log.error("a callback failed", what=context.get("message"), exc_info=error)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, which did not hang up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def drain_limit_s(name: str, settings: Settings) -> float:
    """Return the seconds after which a drain is given up."""
    spread_s = settings.drain_spread_s if name == "gateway" else 0.0
    return spread_s + settings.drain_s + STOP_TIMEOUT_S


async def _live(
    name: str,
    build: Callable[[Settings], Process],
    settings: Settings,
    source: SettingsSource,
    keeper: KeeperLink,
    manager: ServiceManager,
) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    signals = 0

    def end() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:  # the second signal ends at once; a request of the keeper counts as none
            log.close(LAST_WORDS_S)
            os._exit(1)
        ending.set()

    def end_with_all() -> None:
        process.hurry()
        ending.set()

    had_terminal = has_terminal()

    def hang_up() -> None:
        """Handle SIGHUP: of a terminal that closed, or of somebody who wants the settings to be read again."""
        if had_terminal and not has_terminal():
            end()
        elif not ending.is_set():
            reloading.reload()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as by nohup
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    keeper.attach(end_with_all)
    loop.set_exception_handler(_callback_failed)
    tracer.begin(os.environ, kind=name, name=settings.process_name)
    process = build(settings)
    reloading = Reloading(name, source, settings, manager, process.prepare_reload)
    readiness, alive = Readiness(manager, process.missing), AliveFile(settings.alive_file)
    readiness.begin()
    alive.begin()
    try:
        try:
            await process.start()
        except OSError as error:
            raise StartError(f"{error.strerror or error} ({error.filename or 'no file'})") from None
        garbage.relax()
        _log.info(f"{name} ready", pid=os.getpid())
        keeper.ready()
        readiness.started()
        await ending.wait()
        limit_s = drain_limit_s(name, settings)
        readiness.stopping(limit_s + 2 * STOP_TIMEOUT_S)
        _log.info(f"{name} drains")
        try:
            async with asyncio.timeout(limit_s):
                await process.drain()
        except TimeoutError:
            _log.warning(f"{name} stopped draining: clients or requests were still there", after_s=limit_s)
    finally:
        keeper.detach()
        readiness.close()
        alive.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.stop()
        except TimeoutError:
            _log.warning(f"{name} did not close everything", after_s=STOP_TIMEOUT_S)
        await asyncio.to_thread(tracer.end)
    _log.info(f"{name} ended")
