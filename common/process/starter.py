"""Finds the processes that started this one (honcho, and make before it), and detects when they are gone.

A closed terminal, a pipe without a reader, or SIGKILL can end a starter, or leave it unable to act, without a signal to
its children. The end of a process is detected by a pidfd on Linux, by a kqueue on macOS and BSD, and by polling
elsewhere. Whether a starter can still write is detected on Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

#: Variable with the process id of the make that ran honcho; the Makefile sets it.
MAKE_VARIABLE: Final = "WATCHOUT_STARTER"
#: How many generations of parents are searched for honcho and make.
MOST_GENERATIONS: Final = 10


class Ancestor(NamedTuple):
    """A process above the keeper (honcho or make) that must be alive for the keeper to go on. Found by `find`.

    `born` is its start time in clock ticks, by which a later process with the same id is recognised; 0: unknown.
    """

    pid: int
    born: int


class Starter(NamedTuple):
    """The processes that started this one: honcho, and make above it. Found by `find`, kept by `Keeper`.

    Attributes:
        ancestors: the processes that must be alive.
        writer: process id of honcho, whose output must have a reader; 0 for none.
        gone: whether one of them was already gone when they were searched.
    """

    ancestors: tuple[Ancestor, ...] = ()
    writer: int = 0
    gone: bool = False

    def end_a_writer_without_reader(self) -> bool:
        """Kill honcho if its output has no reader, as a broken pipe ends other programs. Returns whether it is gone.

        It cannot end by itself: its handlers of signals and of ended processes print first, and fail there.
        """
        honcho = next((each for each in self.ancestors if each.pid == self.writer), None)
        if honcho is None:
            return False
        if not _is_alive(honcho):
            return True
        if not output_is_dead(self.writer):
            return False
        with contextlib.suppress(OSError):
            os.kill(honcho.pid, signal.SIGKILL)
        return True

    def to_state(self) -> dict[str, Any]:
        """Return the value for JSON."""
        ancestors = [{"pid": each.pid, "born": each.born} for each in self.ancestors]
        return {"ancestors": ancestors, "writer": self.writer, "gone": self.gone}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Starter:
        """Return the starter of a `to_state` value."""
        return cls(tuple(Ancestor(**each) for each in state["ancestors"]), state["writer"], state["gone"])


def find(environ: Mapping[str, str]) -> Starter:
    """Return honcho and make if they started this process; otherwise a `Starter` that is never gone."""
    if "HONCHO_PROCESS_NAME" not in environ and MAKE_VARIABLE not in environ:
        return Starter()
    chain = _chain()
    found = chain[:1]
    writer = 0
    for each in chain:
        if not _is_honcho(each.command):
            break
        found.append(each)
        writer = each.pid  # the topmost is honcho itself, those below are its helpers
    gone = not chain or chain[0].pid != os.getppid()
    made_by = environ.get(MAKE_VARIABLE, "")
    if made_by.isdecimal():
        make = [each for each in chain if each.pid == int(made_by)]
        found += make
        gone = gone or not make
    unique = dict.fromkeys(Ancestor(each.pid, each.born) for each in found)
    return Starter(tuple(unique), writer, gone)


class StarterWatch:
    """Detects that a process of a `Starter` has ended. Made by `Keeper`.

    The keeper waits for events on the file descriptors in `descriptors`, and polls `gone` if `must_be_asked`.
    """

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._gone = starter.gone
        self._pidfds: list[int] = []
        self._kqueue: Any = None
        self._polled: list[Ancestor] = []
        for each in starter.ancestors:
            self._add(each)

    def _add(self, each: Ancestor) -> None:
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfds.append(os.pidfd_open(each.pid))
            except ProcessLookupError:
                self._gone = True
                return
            except OSError:
                pass  # an old kernel or a sandbox does not have it
            else:
                self._gone |= not _is_alive(each)
                return
        elif hasattr(select, "kqueue"):
            kernel: Any = select
            self._kqueue = self._kqueue or kernel.kqueue()
            event = kernel.kevent(
                each.pid, kernel.KQ_FILTER_PROC, kernel.KQ_EV_ADD | kernel.KQ_EV_ONESHOT, kernel.KQ_NOTE_EXIT
            )
            with contextlib.suppress(OSError):
                self._kqueue.control([event], 0)
                return
        self._polled.append(each)

    @property
    def descriptors(self) -> Sequence[int]:
        """File descriptors that become readable when a starter ends."""
        return [*self._pidfds, *([self._kqueue.fileno()] if self._kqueue is not None else [])]

    @property
    def must_be_asked(self) -> bool:
        """Whether something can be detected only by calling `gone` from time to time."""
        return bool(self._polled or self._starter.writer)

    def gone(self) -> bool:
        """Whether a starter is gone, or its output has no reader."""
        if not self._gone:
            if self._pidfds:
                poll = select.poll()
                for fd in self._pidfds:
                    poll.register(fd, select.POLLIN)
                self._gone = bool(poll.poll(0))
            if self._kqueue is not None and self._kqueue.control(None, 1, 0):
                self._gone = True
            self._gone |= not all(_is_alive(each) for each in self._polled) or output_is_dead(self._starter.writer)
        return self._gone

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds = []
        if self._kqueue is not None:
            self._kqueue.close()
            self._kqueue = None


def output_is_dead(pid: int) -> bool:
    """Whether the output of a process has no reader: a pipe without one, or a terminal that hung up.

    False where that cannot be detected.
    """
    if not pid:
        return False
    output = f"/proc/{pid}/fd/1"
    try:
        mode = os.stat(output).st_mode  # noqa: PTH116 - a link of the kernel's, not a path
    except FileNotFoundError:
        return False
    except OSError as exc:
        return exc.errno == errno.EIO
    if not stat.S_ISFIFO(mode) and not stat.S_ISCHR(mode):
        return False
    try:
        fd = os.open(output, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as exc:
        return exc.errno in (errno.ENXIO, errno.EIO)  # a named pipe without a reader, a terminal that hung up
    try:
        poll = select.poll()
        poll.register(fd, 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    finally:
        os.close(fd)


class _ProcessInfo(NamedTuple):
    """A process as /proc or ps(1) shows it: its id, its parent's, its start time in clock ticks, and its command."""

    pid: int
    parent: int
    born: int
    command: tuple[str, ...]


def _chain() -> list[_ProcessInfo]:
    """Return the ancestors of this process, from its parent upwards."""
    found: list[_ProcessInfo] = []
    pid = os.getppid()
    while pid > 1 and len(found) < MOST_GENERATIONS:
        process = _read_process(pid)
        if process is None:
            break
        found.append(process)
        pid = process.parent
    return found


def _read_process(pid: int) -> _ProcessInfo | None:
    """Return a process, None if there is none or it cannot be read."""
    if Path("/proc/self/stat").exists():
        try:
            words = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
        except OSError:
            return None
        return _ProcessInfo(pid, int(words[1]), int(words[19]), tuple(filter(None, command)))
    try:
        fields = subprocess.run(  # noqa: S603
            ["/bin/ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=True
        ).stdout.split()
        return _ProcessInfo(pid, int(fields[0]), 0, tuple(fields[1:]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _is_alive(each: Ancestor) -> bool:
    """Whether the process is alive, and not another one with its id."""
    if each.born:
        process = _read_process(each.pid)
        return process is not None and process.born == each.born
    try:
        os.kill(each.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's process: it is alive
    return True


def _is_honcho(command: Sequence[str]) -> bool:
    """Whether a command runs honcho: the script, or ``python -m honcho``."""
    return any(Path(word).name == "honcho" for word in command[:4])
