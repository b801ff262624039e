"""``watchout-keep``: runs a process, starts it again when it dies, and leaves none behind when its starter is gone.

It stands in each line of the Procfile, because honcho ends everything when one process ends, and nothing when it is
killed itself. It is small and imports little; what it keeps does not need it to serve: when the keeper is killed, a
process of watchout starts another one, which takes over (`common.process.kept`). Between the two is a socket pair, on
which the process says that it is ready and how it ends, and the keeper that it is to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from watchout.common.process import starter
from watchout.common.process.restarts import END, EXIT, READY, STATE_VARIABLE, Again, Restarts

OWN: Final = ("router", "gateway", "mlbridge")
#: A process that was told to end has this long; honcho kills after 5 s.
END_S: Final = 6.0
#: A signal to the group reaches a foreign process too; if it only came here it is handed on after this.
HAND_ON_S: Final = 0.3
#: Starters that must be asked are asked this often.
LOOK_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept: its name in lines, and its command. `own`: it is one of watchout's, and speaks with the keeper."""

    name: str
    command: tuple[str, ...]
    own: bool


class Keeper:
    """Keeps one process until it is to end."""

    def __init__(self, kept: Kept, who: starter.Starter) -> None:
        self._kept = kept
        self._who = who
        self._watch = starter.Watch(who)
        self._restarts = Restarts(kept.name, own=kept.own)
        self._child: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._said_exit: int | None = None
        #: Process id of one that was taken over, as long as its end of the link is open.
        self._adopted = 0
        self._ending = False
        self._abandoned = False
        self._end_code: int | None = None
        self._start_at: float | None = None
        self._kill_at: float | None = None
        self._hand_on_at: float | None = None
        self._signals: list[int] = []
        self._selector = selectors.DefaultSelector()

    def adopt(self, link: socket.socket, pid: int) -> None:
        """Take over a process that runs, and whose keeper was killed."""
        self._adopted = pid
        self._restarts.started(time.monotonic())
        self._restarts.ready()
        self._set_link(link)

    def run(self) -> int:
        """Keep it; the exit code with which the keeper ends."""
        wake = self._listen_to_signals()
        self._selector.register(wake, selectors.EVENT_READ, "signal")
        for fd in self._watch.descriptors:
            self._selector.register(fd, selectors.EVENT_READ, "starter")
        if self._link is None:
            self._start()
        while self._end_code is None:
            for key, _ in self._selector.select(self._timeout()):
                if key.data == "signal":
                    wake.recv(4096)
                elif key.data == "process":
                    self._read()
            self._turn()
        self._leave()
        return self._end_code

    def _listen_to_signals(self) -> socket.socket:
        wake, write = socket.socketpair()
        write.setblocking(False)
        wake.setblocking(False)
        self._write = write  # else it would be closed
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda came, _: self._signals.append(came))
        return wake

    def _timeout(self) -> float | None:
        now = time.monotonic()
        times = [at - now for at in (self._start_at, self._kill_at, self._hand_on_at) if at is not None]
        if self._watch.must_be_asked and not self._ending:
            times.append(LOOK_S)
        return max(0.0, min(times)) if times else None

    def _turn(self) -> None:
        for number in self._signals[:]:
            self._signals.remove(number)
            self._signal_came(number)
        if not self._ending and self._watch.gone():
            self._abandoned = True
            self._end()
            if not self._kept.own:
                self._signal_all(signal.SIGTERM)
        self._reap()
        now = time.monotonic()
        if self._hand_on_at is not None and now >= self._hand_on_at:
            self._hand_on_at = None
            if self._child is not None:
                self._child.terminate()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()
        if self._start_at is not None and now >= self._start_at:
            self._start()

    def _signal_came(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._ending:  # the second signal does not wait
                self._kill()
            self._end()
            if not self._kept.own:
                self._hand_on_at = time.monotonic() + HAND_ON_S
        elif number == signal.SIGHUP and not self._ending:
            # It drains, ends, and is started again: so it reads its settings and files anew.
            if self._kept.own:
                self._tell(END)
            elif self._child is not None:
                self._child.send_signal(signal.SIGHUP)

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._start_at = self._said_exit = None
        ours, theirs = socket.socketpair()
        environ = dict(os.environ)
        environ.pop(STATE_VARIABLE, None)
        if self._kept.own:
            environ[STATE_VARIABLE] = _state(theirs.fileno(), self._kept, self._who)
        try:
            self._child = subprocess.Popen(  # noqa: S603 - the command of the Procfile
                self._kept.command,
                env=environ,
                pass_fds=[theirs.fileno()] if self._kept.own else [],
                preexec_fn=None if self._kept.own else _die_with(os.getpid()),  # noqa: PLW1509 - there are no threads
            )
        except OSError as exc:
            ours.close()
            self._say("error", f"{self._kept.command[0]} cannot be started: {exc.strerror}")
            self._end_code = 127 if isinstance(exc, FileNotFoundError) else 126
            return
        finally:
            theirs.close()
        self._restarts.started(time.monotonic())
        if self._kept.own:
            self._set_link(ours)
        else:
            ours.close()

    def _set_link(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = link
        self._selector.register(link, selectors.EVENT_READ, "process")

    def _read(self) -> None:
        assert self._link is not None
        try:
            said = self._link.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._drop_link()
            if self._adopted:  # that was its end
                self._adopted = 0
                self._ended(self._said_exit)
            return
        if READY in said:
            self._restarts.ready()
        at = said.find(EXIT)
        if at >= 0 and len(said) > at + 1:
            self._said_exit = said[at + 1]

    def _drop_link(self) -> None:
        if self._link is not None:
            self._selector.unregister(self._link)
            self._link.close()
            self._link = None

    def _reap(self) -> None:
        if self._child is None or self._child.poll() is None:
            return
        if self._link is not None:
            self._read()
        self._drop_link()
        code = self._child.returncode
        self._child = None
        self._ended(code)

    def _ended(self, code: int | None) -> None:
        if self._ending:
            self._end_code = 0 if code is None else code if code >= 0 else 128 - code
            return
        verdict = self._restarts.ended(time.monotonic(), code)
        if isinstance(verdict, Again):
            self._say("warning", verdict.says)
            self._start_at = time.monotonic() + verdict.after_s
            return
        if verdict.says:
            self._say("error", verdict.says)
        self._end_code = verdict.code

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        self._ending = True
        self._start_at = None
        self._kill_at = time.monotonic() + END_S
        if self._child is None and self._link is None:
            self._end_code = 0
        self._tell(END)

    def _tell(self, message: bytes) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):  # it has just ended
                self._link.send(message)

    def _signal_all(self, number: int) -> None:
        """Signal the process and all that it started; under honcho that is this process's own group."""
        with contextlib.suppress(OSError):
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpid(), number)
            elif self._child is not None:
                self._child.send_signal(number)

    def _kill(self) -> None:
        self._kill_at = None
        if self._child is not None:
            self._child.kill()
        elif self._adopted:
            with contextlib.suppress(OSError):
                os.kill(self._adopted, signal.SIGKILL)
        if self._abandoned:
            self._leave()
            self._signal_all(signal.SIGKILL)

    def _leave(self) -> None:
        """End what honcho would leave behind: itself, when it can write no more and so fails to end in order, and its
        helper process, which waits for nobody's sake once honcho is gone.
        """
        self._watch.close()
        if self._abandoned and self._who.end_a_writer_without_reader():
            parent = os.getppid()
            if any(each.pid == parent for each in self._who.ancestors):
                with contextlib.suppress(OSError):
                    os.kill(parent, signal.SIGKILL)

    def _say(self, level: str, text: str) -> None:
        """One line on stdout, never waiting for a reader."""
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [1], [], 0)[1]:
                os.write(1, f"{level:<7} {text}\n".encode()[:1000])


def _state(fd: int, kept: Kept, who: starter.Starter) -> str:
    return json.dumps(
        {"fd": fd, "name": kept.name, "command": list(kept.command), "starter": who.to_state()}, separators=(",", ":")
    )


def _die_with(keeper: int) -> Callable[[], None] | None:
    """What makes a foreign process end when its keeper is killed, on Linux; run in the child before it begins."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != keeper:  # it was killed in between
            os._exit(1)

    return prepare


def adopt(state: Mapping[str, Any]) -> int:
    """Be the keeper of a process that lost its own; the exit code."""
    kept = Kept(state["name"], tuple(state["command"]), own=True)
    keeper = Keeper(kept, starter.Starter.from_state(state["starter"]))
    keeper.adopt(socket.socket(fileno=state["fd"]), state["pid"])
    return keeper.run()


def command_of(what: Sequence[str]) -> Kept:
    """What is to be kept: ``router``, ``gateway`` or ``mlbridge`` with its options, or any other command."""
    if what[0] in OWN:
        script = Path(sys.argv[0]).with_name(f"watchout-{what[0]}")
        return Kept(what[0], (str(script) if script.exists() else script.name, *what[1:]), own=True)
    return Kept(Path(what[0]).name, tuple(what), own=False)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "allow_interspersed_args": False}
)
@click.version_option(package_name="watchout", prog_name="watchout-keep")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def main(command: tuple[str, ...]) -> None:
    """Run a process, start it again when it dies, and leave none behind: what a line of the Procfile does.

    COMMAND is router, gateway or mlbridge, with options of its own, or any other command. One of watchout's is started
    again however it ended, after growing pauses when it keeps ending; a wrong setting (exit code 2) and a first start
    that did not succeed end it. Any other command is started again when a signal ended it.

    Under honcho, which sets HONCHO_PROCESS_NAME, it ends when honcho is gone, or can write no more. Elsewhere it lives
    until it is told to end (SIGTERM, SIGINT). SIGHUP lets the process drain, and starts it anew.
    """
    keeper = Keeper(command_of(command), starter.find(os.environ))
    sys.exit(keeper.run())


if __name__ == "__main__":
    sys.exit(adopt(json.loads(os.environ[STATE_VARIABLE])))
