"""``watchout-keep``: runs a process, restarts it when it dies, and ends it when its starter is gone.

Each line of the Procfile runs it, because honcho ends all processes when one ends, and none when honcho itself is
killed. It imports little, so that it uses little memory. A process of watchout serves on when its keeper is killed, and
starts another keeper, which takes over (`common.process.keeper_link`). The two are joined by a socket pair, over which
the process reports that it is ready and its exit code, and the keeper asks it to end.
"""

from __future__ import annotations

import contextlib
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
from pathlib import Path
from typing import Any, Final, NamedTuple

from watchout.common.process import starter
from watchout.common.process.link import receive, send
from watchout.common.process.restarts import END, EXIT, READY, STATE_VARIABLE, Restarts, StartAgain

OWN: Final = ("router", "gateway", "mlbridge")
#: Seconds after which a process that was asked to end is killed; honcho kills after 5 s.
END_S: Final = 6.0
#: Seconds after which a signal is forwarded to another program: one that was sent to the process group has reached it.
FORWARD_S: Final = 0.3
#: Seconds between two polls of starters whose end cannot be waited for.
POLL_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


class ChildProcess(NamedTuple):
    """The process that a `Keeper` runs; made by `command_of` from the command line.

    Attributes:
        name: its name in the keeper's log lines.
        command: the program and its arguments.
        own: whether it is a process of watchout, which reports to the keeper over a socket pair.
    """

    name: str
    command: tuple[str, ...]
    own: bool


class Keeper:
    """Starts one child process and restarts it when it dies, until the keeper itself is asked to end or its starter is
    gone.

    The program ``watchout-keep``, once for each line of the Procfile. `main` makes one for a new child process, `adopt`
    for a child process of which the keeper was killed; both call `run`.
    """

    def __init__(self, process: ChildProcess, who: starter.Starter) -> None:
        self._process = process
        self._who = who
        self._watch = starter.StarterWatch(who)
        self._restarts = Restarts(process.name, own=process.own)
        self._child: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._reported_exit: int | None = None
        #: Process id of a process that was taken over, 0 once its end of the link is closed.
        self._adopted = 0
        self._ending = False
        self._abandoned = False
        self._end_code: int | None = None
        self._start_at: float | None = None
        self._kill_at: float | None = None
        self._forward_at: float | None = None
        self._signals: list[int] = []
        self._selector = selectors.DefaultSelector()

    def adopt(self, link: socket.socket, pid: int) -> None:
        """Take over a running process whose keeper was killed; `link` is the keeper's end of their socket pair."""
        self._adopted = pid
        self._restarts.started(time.monotonic())
        self._restarts.ready()
        self._set_link(link)

    def run(self) -> int:
        """Run the process until it ends for good. Returns the exit code of the keeper."""
        wake = self._watch_signals()
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
            self._handle_events()
        self._leave()
        return self._end_code

    def _watch_signals(self) -> socket.socket:
        wake, write = socket.socketpair()
        write.setblocking(False)
        wake.setblocking(False)
        self._write = write  # a reference, so that it stays open
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda received, _: self._signals.append(received))
        return wake

    def _timeout(self) -> float | None:
        now = time.monotonic()
        times = [at - now for at in (self._start_at, self._kill_at, self._forward_at) if at is not None]
        if self._watch.must_be_asked and not self._ending:
            times.append(POLL_S)
        return max(0.0, min(times)) if times else None

    def _handle_events(self) -> None:
        """Handle everything that is due: signals, the end of the starter or of the process, and timers."""
        for number in self._signals[:]:
            self._signals.remove(number)
            self._on_signal(number)
        if not self._ending and self._watch.gone():
            self._abandoned = True
            self._end()
            if not self._process.own:
                self._signal_all(signal.SIGTERM)
        self._reap()
        now = time.monotonic()
        if self._forward_at is not None and now >= self._forward_at:
            self._forward_at = None
            if self._child is not None:
                self._child.terminate()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()
        if self._start_at is not None and now >= self._start_at:
            self._start()

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._ending:  # a second signal does not wait
                self._kill()
            self._end()
            if not self._process.own:
                self._forward_at = time.monotonic() + FORWARD_S
        elif number == signal.SIGHUP and not self._ending:
            # A process of watchout reads its settings again; any other does with it what it likes.
            if self._child is not None:
                self._child.send_signal(signal.SIGHUP)
            elif self._adopted:
                with contextlib.suppress(OSError):
                    os.kill(self._adopted, signal.SIGHUP)

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._start_at = self._reported_exit = None
        ours, theirs = socket.socketpair()
        environ = dict(os.environ)
        environ.pop(STATE_VARIABLE, None)
        if self._process.own:
            environ[STATE_VARIABLE] = _encode_state(theirs.fileno(), self._process, self._who)
        try:
            self._child = subprocess.Popen(  # noqa: S603 - the command of the Procfile
                self._process.command,
                env=environ,
                pass_fds=[theirs.fileno()] if self._process.own else [],
                preexec_fn=None if self._process.own else _die_with(os.getpid()),  # noqa: PLW1509 - there are no threads
            )
        except OSError as exc:
            ours.close()
            self._log("error", f"{self._process.command[0]} cannot be started: {exc.strerror}")
            self._end_code = 127 if isinstance(exc, FileNotFoundError) else 126
            return
        finally:
            theirs.close()
        self._restarts.started(time.monotonic())
        if self._process.own:
            self._set_link(ours)
        else:
            ours.close()

    def _set_link(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._link = link
        self._selector.register(link, selectors.EVENT_READ, "process")

    def _read(self) -> None:
        assert self._link is not None
        data = receive(self._link)
        if data is None:
            return
        if not data:
            self._drop_link()
            if self._adopted:  # the process has ended
                self._adopted = 0
                self._on_end(self._reported_exit)
            return
        if READY in data:
            self._restarts.ready()
        at = data.find(EXIT)
        if at >= 0 and len(data) > at + 1:
            self._reported_exit = data[at + 1]

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
        self._on_end(code)

    def _on_end(self, code: int | None) -> None:
        if self._ending:
            self._end_code = 0 if code is None else code if code >= 0 else 128 - code
            return
        verdict = self._restarts.ended(time.monotonic(), code)
        if isinstance(verdict, StartAgain):
            self._log("warning", verdict.says)
            self._start_at = time.monotonic() + verdict.after_s
            return
        if verdict.says:
            self._log("error", verdict.says)
        self._end_code = verdict.code

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self) -> None:
        self._ending = True
        self._start_at = None
        self._kill_at = time.monotonic() + END_S
        if self._child is None and self._link is None:
            self._end_code = 0
        send(self._link, END)

    def _signal_all(self, number: int) -> None:
        """Signal the process and its descendants; under honcho they are in this process's group."""
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
        """End what honcho would leave behind when it is gone or its output has no reader.

        That is honcho itself, which fails on each write and so does not shut down, and its helper process.
        """
        self._watch.close()
        if self._abandoned and self._who.end_a_writer_without_reader():
            parent = os.getppid()
            if any(each.pid == parent for each in self._who.ancestors):
                with contextlib.suppress(OSError):
                    os.kill(parent, signal.SIGKILL)

    def _log(self, level: str, text: str) -> None:
        """Write one line to stdout; drop it if the write would block."""
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [1], [], 0)[1]:
                os.write(1, f"{level:<7} {text}\n".encode()[:1000])


def _encode_state(fd: int, process: ChildProcess, who: starter.Starter) -> str:
    """Return the value of `STATE_VARIABLE`, from which another keeper can take over; `fd` is the process's end."""
    state = {"fd": fd, "name": process.name, "command": list(process.command), "starter": who.to_state()}
    return json.dumps(state, separators=(",", ":"))


def _die_with(keeper: int) -> Callable[[], None] | None:
    """Return a function that lets the kernel end the child when its keeper is killed (prctl(2)); None outside Linux.

    For programs without a link to the keeper; it runs in the child between fork and exec.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # for other programs alone

    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != keeper:  # the keeper was killed in between
            os._exit(1)

    return prepare


def adopt(state: Mapping[str, Any]) -> int:
    """Keep a process whose keeper was killed, as described by `state`. Returns the exit code."""
    process = ChildProcess(state["name"], tuple(state["command"]), own=True)
    keeper = Keeper(process, starter.Starter.from_state(state["starter"]))
    keeper.adopt(socket.socket(fileno=state["fd"]), state["pid"])
    return keeper.run()


def command_of(words: Sequence[str]) -> ChildProcess:
    """Return the process to run: ``router``, ``gateway`` or ``mlbridge`` with its options, or any other command."""
    if words[0] in OWN:
        script = Path(sys.argv[0]).with_name(f"watchout-{words[0]}")
        return ChildProcess(words[0], (str(script) if script.exists() else script.name, *words[1:]), own=True)
    return ChildProcess(Path(words[0]).name, tuple(words), own=False)


def keep(command: Sequence[str]) -> int:
    """Run a command until it ends for good. Returns the exit code.

    Args:
        command: ``router``, ``gateway`` or ``mlbridge`` with its options, or any other command.
    """
    return Keeper(command_of(command), starter.find(os.environ)).run()


def main() -> None:
    """The program ``watchout-keep``: keeps a command, or explains itself."""
    words = sys.argv[1:]
    if words and not words[0].startswith("-"):
        sys.exit(keep(words))
    _read_options()


def _read_options() -> None:
    """Handle a command line that begins with an option, or is empty. click is loaded for it alone: it takes more memory
    than all else that a keeper loads.
    """
    import click

    @click.command(
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "allow_interspersed_args": False,
        }
    )
    @click.version_option(package_name="watchout", prog_name="watchout-keep")
    @click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
    def read(command: tuple[str, ...]) -> None:
        """Run a process, restart it when it dies, and end it when its starter is gone.

        COMMAND is router, gateway or mlbridge with its options, or any other command. A process of watchout is
        restarted however it ended, after growing pauses if it keeps ending; it is not restarted after exit code 2
        (wrong settings) or if its first start failed. Any other command is restarted if a signal ended it.

        Under honcho, which sets HONCHO_PROCESS_NAME, the keeper ends when honcho is gone or its output has no reader.
        Otherwise it runs until SIGTERM or SIGINT. SIGHUP is forwarded to the process.
        """
        sys.exit(keep(command))

    read()


if __name__ == "__main__":
    sys.exit(adopt(json.loads(os.environ[STATE_VARIABLE])))
