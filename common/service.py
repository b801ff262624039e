"""The life of a process: settings → start → ready → drain → stop, with signals, on uvloop or asyncio.

Exit codes: 0 ended as told, 1 cannot start here or failed, 2 wrong settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
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
from watchout.common.process import memory
from watchout.common.process.keeper_link import KeeperLink
from watchout.common.process.process_name import claim_name, wanted_name
from watchout.common.settings import Settings, load
from watchout.common.settings.misspelled import honcho_port_note, notes

_log = log.get("common.service")

#: A drain may take this much longer than `DRAIN_S`, and closing everything as long again.
STOP_TIMEOUT_S: Final = 0.7
#: A thread that is still there at the end gets so long.
THREAD_END_S: Final = 0.2
#: Log lines that wait when a second signal comes get so long.
LAST_WORDS_S: Final = 0.2


class Process(Protocol):
    """What an `app` gives to `run`."""

    async def start(self) -> None:
        """Open everything. May raise `StartError`; must not wait for other processes."""

    async def drain(self) -> None:
        """Let go of clients in order."""

    async def stop(self) -> None:
        """Close everything; also after a `start` that failed."""


class Tasks:
    """Keeps background tasks alive by name, and logs the one that fails."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` beside everything else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def load_or_exit(options: Mapping[str, tuple[str, str]] | None = None) -> Settings:
    """The settings of this process's environment; prints every fault and exits with 2.

    `options` are settings of the command line, which go before: by the setting's name, the option's name and value.
    """
    given = options or {}
    try:
        return load({**os.environ, **{env: value for env, (_, value) in given.items()}})
    except SettingsError as error:
        for fault in error.faults:
            env = fault.partition(" ")[0]
            shown = given[env][0] + fault.removeprefix(env) if env in given else fault
            with contextlib.suppress(OSError):  # nobody may be there to read it; the exit code says it too
                print(f"watchout: wrong setting: {shown}", file=sys.stderr)
        raise SystemExit(2) from None


def run(name: str, build: Callable[[Settings], Process], options: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Run a process to its end; never returns normally. `options` as `load_or_exit` takes them."""
    settings = load_or_exit(options)
    memory.keep_little()
    log.setup(
        level=settings.log_level,
        format=settings.log_format,
        process=wanted_name(settings, name),
    )
    keeper = KeeperLink()
    try:
        factory = _loop_factory(settings)
        prepare_home(settings.home)
        settings = replace(settings, process_name=claim_name(settings.home, wanted_name(settings, name)))
        log.rename(settings.process_name)
        _tell_of_environment(name)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_live(name, build, settings, keeper))
    except StartError as error:
        _log.error(f"{name} cannot start", reason=str(error))
        raise SystemExit(1) from None
    keeper.exits(0)
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(THREAD_END_S)  # one that was told to end may be just about to
    stuck = [thread.name for thread in others if thread.is_alive()]
    if stuck:
        _log.warning(f"{name} left threads behind", threads=", ".join(stuck))
        log.close()
        os._exit(0)  # the interpreter would wait for them for ever
    raise SystemExit(0)


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop. Raises `StartError` when uvloop is not installed."""
    if settings.loop == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as exc:
        raise StartError(
            f"WATCHOUT_LOOP is uvloop, which cannot be loaded ({exc}): set WATCHOUT_LOOP=asyncio"
        ) from None
    return uvloop.new_event_loop


def _tell_of_environment(name: str) -> None:
    """Warn of variables that look like settings and have no effect."""
    for note in notes(os.environ):
        _log.warning(note)
    if name == "gateway" and (port := honcho_port_note(os.environ)) is not None:
        _log.info(port)


def _calm_the_collector() -> None:
    """Let cyclic garbage wait longer: what a frame makes goes by reference counts, and what stays is looked at for
    nothing. What the start has made is looked at no more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _callback_failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        # The loop accepts again in a second; until then it says so for each try, and sets as many timers.
        supervisor.current().failed("accepting connections", error)
    elif not (_loop.is_closed() or "_start_serving" in str(context.get("message"))):
        _log.error("a callback failed", what=context.get("message"), exc_info=error)


def end_signals() -> tuple[signal.Signals, ...]:
    """Signals that let this process drain and end. SIGHUP is none where it is ignored from the start, as by nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT) if ignored else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def _live(name: str, build: Callable[[Settings], Process], settings: Settings, keeper: KeeperLink) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    signals = 0

    def end() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:  # the second signal does not wait; a keeper's word counts as none
            log.close(LAST_WORDS_S)
            os._exit(1)
        told.set()

    for number in end_signals():
        loop.add_signal_handler(number, end)
    keeper.attach(told.set)
    loop.set_exception_handler(_callback_failed)
    process = build(settings)
    try:
        try:
            await process.start()
        except OSError as error:
            raise StartError(f"{error.strerror or error} ({error.filename or 'no file'})") from None
        _calm_the_collector()
        _log.info(f"{name} ready", pid=os.getpid())
        keeper.ready()
        await told.wait()
        _log.info(f"{name} drains")
        try:
            async with asyncio.timeout(settings.drain_s + STOP_TIMEOUT_S):
                await process.drain()
        except TimeoutError:
            _log.warning(f"{name} drain cut off", after_s=settings.drain_s + STOP_TIMEOUT_S)
    finally:
        keeper.detach()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.stop()
        except TimeoutError:
            _log.warning(f"{name} did not close everything", after_s=STOP_TIMEOUT_S)
    _log.info(f"{name} ended")
