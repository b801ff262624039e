"""Who started this process, and whether they are still there: honcho, and make before it.

A dropped terminal, a pipe whose reader went, or a kill -9 can end a starter, or leave it behind unable to do anything,
without a signal to what it started. On Linux the end of a process is seen by a pidfd, on macOS and BSD by a kqueue, and
elsewhere by looking. Whether the starter can still write is seen on Linux only.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: Process id of the make that ran honcho; set in the Makefile.
MAKE_VARIABLE: Final = "WATCHOUT_STARTER"
#: How many processes up it is looked for honcho and make.
MOST_GENERATIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A process that has to be there. `born` tells it from a later one of the same id, 0 where it cannot be seen."""

    pid: int
    born: int


@dataclass(frozen=True, slots=True)
class Starter:
    """All who must be there, and the one whose output must be."""

    ancestors: tuple[Ancestor, ...] = ()
    writer: int = 0
    #: Somebody was gone before it was looked.
    gone: bool = False

    def end_a_writer_without_reader(self) -> bool:
        """Kill honcho when nobody can read what it prints, as a broken pipe ends other programs; whether it is gone.

        Its handler of every signal, and of the end of every process, prints first, and fails there.
        """
        honcho = next((each for each in self.ancestors if each.pid == self.writer), None)
        if honcho is None:
            return False
        if not _is_there(honcho):
            return True
        if not output_is_dead(self.writer):
            return False
        with contextlib.suppress(OSError):
            os.kill(honcho.pid, signal.SIGKILL)
        return True

    def to_state(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Starter:
        """The same back."""
        return cls(tuple(Ancestor(**each) for each in state["ancestors"]), state["writer"], state["gone"])


def find(environ: Mapping[str, str]) -> Starter:
    """Who started this process, when that is honcho or make; else nobody, and then it lives as long as it likes."""
    if "HONCHO_PROCESS_NAME" not in environ and MAKE_VARIABLE not in environ:
        return Starter()
    chain = _chain()
    found = chain[:1]
    writer = 0
    for each in chain:
        if not _is_honcho(each.command):
            break
        found.append(each)
        writer = each.pid  # the last one is honcho itself, those below are its helpers
    gone = not chain or chain[0].pid != os.getppid()
    made_by = environ.get(MAKE_VARIABLE, "")
    if made_by.isdecimal():
        make = [each for each in chain if each.pid == int(made_by)]
        found += make
        gone = gone or not make
    unique = dict.fromkeys(Ancestor(each.pid, each.born) for each in found)
    return Starter(tuple(unique), writer, gone)


class Watch:
    """Tells when one of them is gone. `descriptors` become readable then; where there are none, ask now and then."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._gone = starter.gone
        self._pidfds: list[int] = []
        self._kqueue: Any = None
        self._looked: list[Ancestor] = []
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
                pass  # an old kernel, or a sandbox
            else:
                self._gone |= not _is_there(each)
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
        self._looked.append(each)

    @property
    def descriptors(self) -> Sequence[int]:
        """To wait for."""
        return [*self._pidfds, *([self._kqueue.fileno()] if self._kqueue is not None else [])]

    @property
    def must_be_asked(self) -> bool:
        """Whether something can be seen by asking only."""
        return bool(self._looked or self._starter.writer)

    def gone(self) -> bool:
        """Whether somebody is gone, or cannot write any more."""
        if not self._gone:
            if self._pidfds:
                poll = select.poll()
                for fd in self._pidfds:
                    poll.register(fd, select.POLLIN)
                self._gone = bool(poll.poll(0))
            if self._kqueue is not None and self._kqueue.control(None, 1, 0):
                self._gone = True
            self._gone |= not all(_is_there(each) for each in self._looked) or output_is_dead(self._starter.writer)
        return self._gone

    def close(self) -> None:
        """Let go of the descriptors."""
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds = []
        if self._kqueue is not None:
            self._kqueue.close()
            self._kqueue = None


def output_is_dead(pid: int) -> bool:
    """Whether nobody can read what a process prints any more: a pipe without a reader, a terminal that hung up.

    False when it cannot be seen.
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


@dataclass(frozen=True, slots=True)
class _Seen:
    """One process of the chain, from the parent up."""

    pid: int
    parent: int
    born: int
    command: tuple[str, ...]


def _chain() -> list[_Seen]:
    found: list[_Seen] = []
    pid = os.getppid()
    while pid > 1 and len(found) < MOST_GENERATIONS:
        seen = _look(pid)
        if seen is None:
            break
        found.append(seen)
        pid = seen.parent
    return found


def _look(pid: int) -> _Seen | None:
    if Path("/proc/self/stat").exists():
        try:
            words = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
        except OSError:
            return None
        return _Seen(pid, int(words[1]), int(words[19]), tuple(filter(None, command)))
    try:
        said = subprocess.run(  # noqa: S603
            ["/bin/ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=True
        ).stdout.split()
        return _Seen(pid, int(said[0]), 0, tuple(said[1:]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _is_there(each: Ancestor) -> bool:
    if each.born:
        seen = _look(each.pid)
        return seen is not None and seen.born == each.born
    try:
        os.kill(each.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's, and there
    return True


def _is_honcho(command: Sequence[str]) -> bool:
    """Whether it runs honcho: the script, or ``python -m honcho``."""
    return any(Path(word).name == "honcho" for word in command[:4])
