"""Starts watchout's processes from one that has imported them already: a fork in place of an interpreter's start.

A start by its script costs half a second of CPU time, nearly all of it imports, and the suite starts a thousand
processes. What is forked is a process like any other: its own session, environment, directory, output and limits.
Only its command line is that of the parent. Where that matters, `running(prefork=False)` starts the scripts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: The processes that can be forked: the module of each, and of what it may import later.
MODULES: Final = {
    "router": "watchout.router.app",
    "gateway": "watchout.gateway.app",
    "mlbridge": "watchout.mlbridge.app",
}
LATER: Final = ("uvloop", "aiosqlite", "asyncpg", "websockets.server")
#: Variables that an interpreter, the loader or the C library reads once, when it starts.
READ_AT_START: Final = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "TZ", "LC_", "LANG")
POLL_S: Final = 0.005


@dataclass
class Totals:
    """What the forked processes of this test process cost until now: `tests.kit.costs` reports it per test."""

    processes: int = 0
    cpu_s: float = 0.0


totals = Totals()


class Forked:
    """A process that `Prefork` made, with the methods of `subprocess.Popen` that the kit uses."""

    def __init__(self, pid: int, prefork: Prefork, args: list[str]) -> None:
        self.pid = pid
        self._prefork = prefork
        self._args = args

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it runs."""
        return self._prefork.exit_code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if give_up is not None and time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(self._args, timeout or 0)
            time.sleep(POLL_S)
        return code


class Prefork:
    """The test process's end of one preloaded parent. Threads may share it.

    The parent ends, and kills what it forked, when this end is closed or the test process dies.
    """

    def __init__(self, repository: Path) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.prefork", str(theirs.fileno())],
                cwd=repository, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            )  # fmt: skip
        self._lines = self._ours.makefile("r")
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()

    def start(self, name: str, argv: list[str], environ: Mapping[str, str], output: Path, directory: Path) -> Forked:
        """Fork a process of `MODULES`; what it prints goes to the file `output`."""
        job = {
            "name": name, "argv": argv, "environ": dict(environ), "output": str(output), "directory": str(directory),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
        }  # fmt: skip
        with self._lock:
            self._ours.sendall(json.dumps(job).encode() + b"\n")
            while "started" not in (line := self._line()):
                self._exited(line)
            totals.processes += 1
            self._codes.pop(line["started"], None)  # of a former process of this id
        return Forked(line["started"], self, argv)

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a process that has ended, else None."""
        with self._lock:
            while pid not in self._codes and select.select([self._ours], [], [], 0)[0]:
                self._exited(self._line())
            return self._codes.get(pid)

    def close(self) -> None:
        """End the parent and all that it forked."""
        self._lines.close()
        self._ours.close()
        self._parent.wait()

    def _exited(self, line: dict[str, Any]) -> None:
        self._codes[line["exited"]] = line["code"]
        totals.cpu_s += line["cpu_s"]

    def _line(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the parent of the forked processes has ended")
        return dict(json.loads(line))


def can_fork(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a process of this name may be forked with this environment."""
    return name in MODULES and not any(
        variable.startswith(READ_AT_START) and os.environ.get(variable) != value for variable, value in environ.items()
    )


def _reap(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            pid, status, usage = ended
            _children.discard(pid)
            cpu_s = usage.ru_utime + usage.ru_stime
            line = json.dumps({"exited": pid, "code": os.waitstatus_to_exitcode(status), "cpu_s": cpu_s})
            control.sendall(line.encode() + b"\n")


_children: set[int] = set()


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return None in the parent when the test process has gone, and in a child its job."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    pending = b""
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(control)
        if control not in ready:
            continue
        data = control.recv(65536)
        if not data:
            for pid in _children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return None
        pending += data
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return dict(json.loads(line))
            _children.add(pid)
            control.sendall(json.dumps({"started": pid}).encode() + b"\n")


def become(job: dict[str, Any]) -> None:
    """Give this child what a fresh process has: session, environment, directory, output, limits, arguments."""
    os.setsid()
    os.chdir(job["directory"])
    os.environ.clear()
    os.environ.update(job["environ"])
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(job["descriptors"]))
    sys.argv[:] = job["argv"]
    sys.path[0] = str(Path(job["argv"][0]).parent)


def main() -> None:
    """Import everything, serve until the test process has gone; in a child, run its process."""
    import importlib

    for module in (*MODULES.values(), *LATER):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    job = serve(control)
    if job is None:
        return
    control.detach()
    become(job)
    sys.modules[MODULES[job["name"]]].main()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
