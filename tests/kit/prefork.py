"""Starts watchout's programs from a process that has imported them already: a fork in place of an interpreter's start.

A start by its script costs half a second of CPU time, nearly all of it imports, and the suite starts a thousand
processes. What is forked is a process like any other: its own session, environment, directory, output and limits.
Only its command line is that of the parent. Where that matters, `running(prefork=False)` starts the scripts.

Nothing outlives a test process that is killed: the parent ends with it, and what was forked ends with the parent.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import zmq

from tests.kit.namespaces import enter

#: The programs that can be forked, by their module.
MODULES: Final = {
    "router": "watchout.router.app",
    "gateway": "watchout.gateway.app",
    "mlbridge": "watchout.mlbridge.app",
    "watchout-ctl": "watchout.ctl.app",
}
SERVERS: Final = ("router", "gateway", "mlbridge")
TOOL: Final = ("watchout-ctl",)
#: What programs import later, by their settings: libraries, and packages of servers and of the tool.
LATER: Final = (
    "uvloop", "websockets.server", "watchout.common.settings.database_url", "watchout.gateway.http.server",
    "watchout.gateway.http.prometheus",
)  # fmt: skip
PACKAGES_OF_SERVERS: Final = (
    "watchout.identity.sources", "watchout.common.bus.nats", "watchout.common.bus.zeromq", "watchout.router.slots",
    "watchout.router.webhook", "watchout.mlbridge.targets",
)  # fmt: skip
PACKAGES_OF_THE_TOOL: Final = ("watchout.ctl.commands", "watchout.ctl.doctor", "watchout.ctl.ml")
#: Variables that an interpreter, the loader, a library or the C library reads once, when it starts.
READ_AT_START: Final = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "TZ", "LC_", "LANG", "SSL_")
POLL_S: Final = 0.005
#: Seconds between two looks of the parent whether the test process is there.
LOOK_S: Final = 1.0
#: Linux's prctl(2): the signal for this process when its parent ends.
SET_DEATH_SIGNAL: Final = 1


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

    The parent ends, and kills what it forked, when this end is closed or the test process dies. `programs` are names
    of `MODULES`: what the parent imports.
    """

    def __init__(self, repository: Path, programs: Sequence[str] = SERVERS) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.prefork", str(theirs.fileno()), str(os.getpid()), *programs],
                cwd=repository, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            )  # fmt: skip
        self._pending = b""
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()

    def start(
        self,
        name: str,
        argv: list[str],
        environ: Mapping[str, str],
        output: Path | tuple[int, int],
        directory: Path,
        namespace: str | None = None,
    ) -> Forked:
        """Fork a program, in a network namespace if one is named.

        What it prints goes to the file `output`, or to two descriptors, which the caller closes.
        """
        pipes = output if isinstance(output, tuple) else ()
        job = {
            "name": name, "argv": argv, "environ": dict(environ), "directory": str(directory),
            "output": None if pipes else str(output), "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
            "namespace": namespace,
        }  # fmt: skip
        with self._lock:
            line = json.dumps(job).encode() + b"\n"
            self._ours.sendall(line[:-1])
            socket.send_fds(self._ours, [line[-1:]], pipes)  # they come with the end of the line
            while not self._started:
                self._receive()
            totals.processes += 1
            return Forked(self._started.pop(), self, argv)

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a process that has ended, else None."""
        with self._lock:
            while pid not in self._codes and select.select([self._ours], [], [], 0)[0]:
                self._receive()
            return self._codes.get(pid)

    def close(self) -> None:
        """End the parent and all that it forked."""
        with contextlib.suppress(OSError):  # it has ended
            self._ours.shutdown(socket.SHUT_RDWR)  # another process may have inherited this end
        self._ours.close()
        self._parent.wait()

    def _receive(self) -> None:
        """Read what the parent says, at least a part of it, and note all whole lines."""
        data = self._ours.recv(65536)
        if not data:
            raise ConnectionError("the parent of the forked processes has ended")
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in map(json.loads, lines):
            if "started" in line:
                self._codes.pop(line["started"], None)  # of a former process of this id
                self._started.append(line["started"])
            else:
                self._codes[line["exited"]] = line["code"]
                totals.cpu_s += line["cpu_s"]


_preloaded: Final[dict[tuple[Path, tuple[str, ...]], Prefork]] = {}


def preloaded(repository: Path, programs: tuple[str, ...]) -> Prefork:
    """Return the one parent of these programs, which ends with this test run."""
    if (repository, programs) not in _preloaded:
        _preloaded[repository, programs] = Prefork(repository, programs)
    return _preloaded[repository, programs]


def pytest_unconfigure() -> None:
    """End the parents."""
    while _preloaded:
        _preloaded.popitem()[1].close()


def run_forked(repository: Path, argv: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an installed program of `MODULES` to its end, in the directory `repository`; within a minute.

    Raises `subprocess.TimeoutExpired`.
    """
    name = Path(argv[0]).name
    name = name if name in TOOL else name.removeprefix("watchout-")
    assert can_fork(name, environ), (name, environ)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        parent = preloaded(repository, TOOL if name in TOOL else SERVERS)
        code = parent.start(name, argv, environ, (out.fileno(), err.fileno()), repository).wait(60)
        texts = [file.seek(0) or file.read() for file in (out, err)]
    return subprocess.CompletedProcess(argv, code, *texts)


def can_fork(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a program of this name may be forked with this environment."""
    return name in MODULES and not any(
        variable.startswith(READ_AT_START) and os.environ.get(variable) != value for variable, value in environ.items()
    )


def _reap(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError, BrokenPipeError):
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            pid, status, usage = ended
            _children.discard(pid)
            cpu_s = usage.ru_utime + usage.ru_stime
            line = json.dumps({"exited": pid, "code": os.waitstatus_to_exitcode(status), "cpu_s": cpu_s})
            control.sendall(line.encode() + b"\n")


_children: set[int] = set()


def serve(control: socket.socket, test_process: int) -> dict[str, Any] | None:
    """Fork for each request; return None in the parent when the test process has gone, and in a child its job."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    pending = b""
    while True:
        ready, _, _ = select.select([control, woken], [], [], LOOK_S)
        if woken in ready:
            os.read(woken, 4096)
            _reap(control)
        data, pipes = b"", []
        if control in ready:
            with contextlib.suppress(ConnectionError):
                data, pipes, _, _ = socket.recv_fds(control, 65536, 2)
        # Another process may have inherited the test process's end of the socket: then it stays open.
        if (control in ready and not data) or os.getppid() != test_process:
            for pid in _children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return None
        pending += data
        if pending.endswith(b"\n"):  # one request at a time: the next one follows when this is answered
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return {**json.loads(pending), "pipes": pipes}
            pending = b""
            for pipe in pipes:
                os.close(pipe)
            _children.add(pid)
            with contextlib.suppress(BrokenPipeError):
                control.sendall(json.dumps({"started": pid}).encode() + b"\n")


def become(job: dict[str, Any]) -> None:
    """Give this child what a fresh process has: session, environment, directory, output, limits, arguments."""
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    os.setsid()
    if job["namespace"]:
        enter(job["namespace"])
    os.chdir(job["directory"])
    os.environ.clear()
    os.environ.update(job["environ"])
    if job["pipes"]:
        out, err = job["pipes"]
    else:
        out = err = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 256)
    # The streams of the parent remember of what kind its output was.
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(job["descriptors"]))
    sys.argv[:] = job["argv"]
    sys.modules["__main__"].__package__ = None  # as that of a script, from which click has the program's name
    sys.path[0] = str(Path(job["argv"][0]).parent)


def _run(command: Callable[[], object]) -> NoReturn:
    """Run a process to its end, with its exit handlers, but leave its objects to the kernel.

    To take apart all that was imported costs more than all else that a short process does: it is copied first.
    """
    code: object = 0
    try:
        command()
    except SystemExit as exc:
        code = exc.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # An interpreter that takes its objects apart waits until what was sent has gone: the last word to the router.
    zmq.Context.instance().destroy()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> NoReturn:
    """Import everything, serve until the test process has gone; in a child, run its process."""
    control = socket.socket(fileno=int(sys.argv[1]))
    test_process, programs = int(sys.argv[2]), sys.argv[3:]
    for module in (*(MODULES[name] for name in programs), *LATER):
        importlib.import_module(module)
    for name in PACKAGES_OF_THE_TOOL if set(programs) & set(TOOL) else PACKAGES_OF_SERVERS:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(found.name)
    gc.collect()
    gc.freeze()
    job = serve(control, test_process)
    if job is None:
        os._exit(0)
    control.detach()
    become(job)
    _run(sys.modules[MODULES[job["name"]]].main)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
