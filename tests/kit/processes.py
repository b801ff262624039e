"""Watchout as real processes, on a port and in a home of their own.

Calls block, for a second or two; only `Process.ended` leaves the loop to the clients. Whatever is started is ended
by its own id, and whoever printed a traceback or told of a failure fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.kit.hosts import Host
from tests.kit.ports import free_port
from tests.kit.prefork import SERVERS, TOOL, Forked, Prefork, can_fork, preloaded
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import table
from watchout.identity.embedded_store import mint_token

BIN: Final = Path(sys.executable).parent
REPOSITORY: Final = Path(__file__).parents[2]
SERVICE_TOKEN: Final = "service-token-of-the-tests"
READY_S: Final = 30.0
#: What was told to end gets this long on a busy machine. That it is quick enough for honcho, which kills after 5 s, is
#: the subject of tests of its own.
END_S: Final = 15.0
#: One request of `Watchout.get` gets this long.
ANSWER_S: Final = 15.0
TERMINATED: Final = 128 + signal.SIGTERM
COMMANDS: Final = ("publish", "watch", "demo")
#: What a process prints when it has joined the router.
JOINED: Final = {"gateway": "router joined", "mlbridge": "joined the router"}
#: What no process may ever print, see `bad_lines`.
BAD_WORDS: Final = ("Traceback", "failed")

_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def bad_lines(said: str) -> list[str]:
    """Lines that no process may ever print. Why a connection ended is a fault of the client's, whatever its words."""
    return [
        line
        for line in said.splitlines()
        if any(word in line for word in BAD_WORDS)
        and not ("gateway.why.access_log" in line and "Traceback" not in line)
    ]


def clean_environ() -> dict[str, str]:
    """This process's environment without anything that watchout or honcho would read."""
    ours = {spec.env for _, spec, _ in table()} | {"PORT", "PYTHONDONTWRITEBYTECODE"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("HONCHO_", "WATCHOUT_"))
    }


class Process:
    """One process, with what it prints in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        output: Path,
        cwd: Path,
        prefork: tuple[Prefork, str] | None = None,
        namespace: str | None = None,
    ) -> None:
        self.name = name
        self.cwd = cwd
        self._output = output
        self._popen: subprocess.Popen[bytes] | Forked
        if prefork is not None:
            output.touch()
            parent, program = prefork
            self._popen = parent.start(program, list(command), environ, output, cwd, namespace)
            return
        if namespace is not None:
            command = ["ip", "netns", "exec", namespace, *command]
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ, cwd=cwd,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self._output.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines that it printed so far, without one that it is just printing."""
        return self.output[: self.output.rfind("\n") + 1].splitlines()

    @property
    def children(self) -> list[psutil.Process]:
        """The processes below this one."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send_signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a warning (kill -9)."""
        self.send_signal(signal.SIGKILL)
        self._popen.wait(END_S)

    def pause(self) -> None:
        """It does nothing more, but is there (SIGSTOP); returns when it has stopped."""
        self.send_signal(signal.SIGSTOP)
        poll(self._stands_still, READY_S, f"{self.name} does not stop")

    def _stands_still(self) -> bool:
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float = END_S) -> int:
        """Wait for its end; its exit code. Raises `subprocess.TimeoutExpired`."""
        return self._popen.wait(timeout_s)

    def terminate(self, timeout_s: float = END_S) -> int:
        """Tell it to end (SIGTERM); its exit code. Raises `subprocess.TimeoutExpired`.

        A server that has just been started is told when it can hear it.
        """
        if self.name in SERVERS:
            poll(lambda: not self.running or hears_sigterm(self.pid), READY_S, f"{self.name} does not start")
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    async def ended(self, timeout_s: float = END_S) -> int:
        """Wait for its end while the loop runs; its exit code."""
        async with asyncio.timeout(timeout_s):
            while self.running:
                await asyncio.sleep(0.01)
        return self.wait(0)

    def wait_for_output(self, text: str, timeout_s: float = READY_S) -> None:
        """Wait until it printed this."""
        poll(lambda: text in self.output or not self.running, timeout_s, f"{self.name} did not print {text!r}")
        assert text in self.output, f"{self.name} ended without printing {text!r}:\n{self.output}"

    def end(self) -> str | None:
        """End it and all below it, whatever it does; what is to be said against how it ended."""
        if not self.running:
            return None
        below = self.children
        self.resume()
        fault = None
        try:
            code = self.terminate()
            # A command of an operator says by 128 + 15 that SIGTERM ended it; a server's drain ends with 0.
            if code and not below and not (code == TERMINATED and self.name in COMMANDS):
                fault = f"{self.name} ended with {code} when it was told to end"
        except subprocess.TimeoutExpired:
            fault = f"{self.name} did not end within {END_S:g} s"
            self.kill()
        for child in below:
            if child.is_running():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        return fault


def hears_sigterm(pid: int) -> bool:
    """Whether SIGTERM does not end a process on the spot: it handles it (`SigCgt` of proc(5)), or has ended."""
    status = Path(f"/proc/{pid}/status")
    try:
        (handled,) = re.findall(r"^SigCgt:\s+(\w+)$", status.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return True
    return bool(int(handled, 16) >> (signal.SIGTERM - 1) & 1)


def _parent_of(program: str, environ: Mapping[str, str]) -> tuple[Prefork, str] | None:
    """The parent that can fork this program, and its name there; None: it has to be started."""
    name = Path(program).name
    name = name if name in TOOL else name.removeprefix("watchout-")
    if Path(program).parent != BIN or not can_fork(name, environ):
        return None
    return preloaded(REPOSITORY, TOOL if name in TOOL else SERVERS), name


class Watchout:
    """One watchout on loopback: `start` its processes one by one, or `start_all`.

    `prefork`: fork the processes from one that has imported them already. False starts the installed scripts.
    `host`: not on loopback but on this host of `tests.kit.hosts`.
    """

    def __init__(
        self,
        *,
        loop: str = "uvloop",
        gateways: int = 1,
        environ: Mapping[str, str] | None = None,
        expected: Sequence[str] = (),
        prefork: bool = True,
        host: Host | None = None,
    ) -> None:
        self._prefork = prefork
        self.namespace = None if host is None else host.name
        self.address = "127.0.0.1" if host is None else host.address
        self.directory = Path(tempfile.mkdtemp(prefix="wo-"))  # short: the paths of sockets are
        self.home = self.directory / "home"
        self.port = free_port()
        self.gateways = gateways
        self._expected = expected
        self.environ = {
            **clean_environ(),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "WATCHOUT_HOME": str(self.home),
            "WATCHOUT_HOST": self.address,
            "WATCHOUT_PORT": str(self.port),
            "WATCHOUT_LOOP": loop,
            "SERVICE_TOKEN": SERVICE_TOKEN,
            **(environ or {}),
        }
        #: Every process that was started, in order.
        self.processes: list[Process] = []

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def output(self) -> str:
        """All that all processes printed so far."""
        return "".join(process.output for process in self.processes)

    def token(self, user: str | None = None, lifetime_s: float = 7 * 86_400.0) -> str:
        """A session token for the user of this name."""
        return mint_token(self.home / SESSION_STORE_FILE, user, lifetime_s)

    def start(self, name: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start ``router``, ``gateway`` or ``mlbridge``."""
        return self.run(name, [str(BIN / f"watchout-{name}")], environ)

    def run(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        """Start any program in the environment of this watchout."""
        output = self.directory / f"{len(self.processes)}-{name}.log"
        wanted = {**self.environ, **(environ or {})}
        parent = _parent_of(command[0], wanted) if self._prefork else None
        process = Process(name, command, wanted, output, self.directory, parent, self.namespace)
        self.processes.append(process)
        return process

    def start_all(self) -> None:
        """The router, the gateways and an mlbridge; returns when they serve."""
        for name in ("router", *["gateway"] * self.gateways, "mlbridge"):
            self.start(name)
        self.wait_ready()

    def named(self, name: str) -> list[Process]:
        """The processes of this name that run."""
        return [process for process in self.processes if process.name == name and process.running]

    def one(self, name: str) -> Process:
        """The only process of this name that runs."""
        (process,) = self.named(name)
        return process

    @contextlib.contextmanager
    def without_faults(self) -> Iterator[Callable[[], str]]:
        """The test that makes the gateway print a fault is the one that fails. Gives what it printed meanwhile."""
        gateway = self.one("gateway")
        before = len(gateway.output)
        yield lambda: gateway.output[before:]
        said = gateway.output[before:]
        assert not bad_lines(said), said

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until every started process says that it is ready and has joined the router, and `/health` is 200."""

        def ready() -> bool:
            for process in self.processes:
                if process.name in SERVERS and process.running:
                    said = process.output
                    if f"{process.name} ready" not in said:
                        return False
                    if self.named("router") and JOINED.get(process.name, "") not in said:
                        return False
                elif process.name in ("gateway", "router"):
                    raise AssertionError(f"{process.name} ended:\n{process.output}")
            return self.get("/health")[0] == 200

        poll(ready, timeout_s, "watchout is not healthy")

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """One request, blocking: the status, 0 when nobody answers, and the decoded body."""
        request = urllib.request.Request(self.url + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with _opener.open(request, timeout=ANSWER_S) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except (OSError, http.client.HTTPException):
            return 0, None

    def text(self, path: str) -> tuple[int, str]:
        """One request, blocking: the status and the body as it is."""
        try:
            with _opener.open(self.url + path, timeout=READY_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def holder_of(self, client_port: int) -> int | None:
        """The id of the gateway that has the other end of a client's connection; None: the kernel knows none yet."""
        for process in self.processes:
            if process.running and process.name not in ("router", "mlbridge"):  # to look is slow, and they have none
                for each in [psutil.Process(process.pid), *process.children]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        for connection in each.net_connections("tcp"):
                            if connection.raddr and connection.raddr.port == client_port:
                                return each.pid
        return None

    def close(self) -> None:
        """End everything. Raises `AssertionError` about bad words, exit codes, and whoever did not end in time."""
        faults = []
        order = {"gateway": 0, "mlbridge": 1, "router": 2}
        for process in sorted(self.processes, key=lambda process: order.get(process.name, -1)):
            fault = process.end()
            if fault is not None:
                faults.append(fault)
        for process in self.processes:
            said = process.output
            for text in self._expected:
                said = said.replace(text, "")
            bad = bad_lines(said)
            if bad:
                faults.append(f"{process.name} printed {bad[0][:500]!r}:\n{process.output[-6000:]}")
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not faults, "\n".join(faults)


def poll(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Block until `condition` holds; `AssertionError` with `what` when it does not in time."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"{what} within {timeout_s:g} s"
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    *,
    loop: str = "uvloop",
    gateways: int = 1,
    environ: Mapping[str, str] | None = None,
    start: bool = True,
    expected: Sequence[str] = (),
    prefork: bool = True,
) -> Iterator[Watchout]:
    """A watchout that serves; with `start=False` one of which nothing is started yet.

    `expected` are texts with bad words that may be printed all the same, such as the system's word on a service that
    the test has taken away.
    """
    watchout = Watchout(loop=loop, gateways=gateways, environ=environ, expected=expected, prefork=prefork)
    try:
        if start:
            watchout.start_all()
        yield watchout
    finally:
        watchout.close()


@pytest.fixture
def watchout() -> Iterator[Callable[..., Watchout]]:
    """Start a watchout of its own for one test: `watchout(loop=…, gateways=…, environ={…}, start=…)`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(**options))


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """The loop of `plain_watchout`; a module that wants both defines this with parameters."""
    return "uvloop"


@pytest.fixture(scope="module")
def plain_watchout(watchout_loop: str) -> Iterator[Watchout]:
    """A watchout with the default settings and a service token, for a whole module. Do not end its processes."""
    with running(loop=watchout_loop) as started:
        yield started
