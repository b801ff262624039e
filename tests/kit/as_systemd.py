"""Starts a program as systemd does: with a listening socket as descriptor 3, and a socket for what it reports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

END_S: Final = 30.0
HEARS_S: Final = 60.0
#: Run by Python in the new process: descriptor 3 and the process id are known there alone.
_LAUNCH: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ServiceStarter:
    """What systemd is to one service: it has the listening socket, and hears the service.

    Args:
        directory: for the socket of reports and the output.
        environ: the environment of the service.
        listening: the socket that is passed; None: none is.
        watchdog_s: the time of the watchdog; None: there is none.
    """

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        listening: socket.socket | None,
        watchdog_s: float | None = None,
    ) -> None:
        self._listening = listening
        self._output = directory / "service.log"
        self._reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reports.bind(str(directory / "notify"))
        self._environ = {**environ, "NOTIFY_SOCKET": str(directory / "notify")}
        if watchdog_s is not None:
            self._environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reports.close()

    @property
    def running(self) -> bool:
        """Whether the service runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """All that the service printed."""
        return self._output.read_text(errors="replace")

    def start(self, command: Sequence[str]) -> None:
        """Start the service, in place of one that has ended, whose reports that nobody has heard count no more."""
        self._reports.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while self._reports.recv(4096):
                pass
        passed = [] if self._listening is None else [self._listening.fileno()]
        launch = [sys.executable, "-c", _LAUNCH, *map(str, passed), *command] if passed else list(command)
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                launch, env=dict(self._environ), pass_fds=passed, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the service; its exit code."""
        assert self._process is not None
        return self._process.wait(END_S)

    def hear(self, timeout_s: float = HEARS_S) -> list[str]:
        """The lines of the next report. Raises `TimeoutError`."""
        self._reports.settimeout(timeout_s)
        return self._reports.recv(4096).decode().split("\n")

    def hear_until(self, line: str, timeout_s: float = HEARS_S) -> list[str]:
        """All lines up to the report with this one. Raises `TimeoutError`."""
        until, heard = time.monotonic() + timeout_s, []
        while line not in heard:
            heard += self.hear(max(0.001, until - time.monotonic()))
        return heard

    def wait_for_silence(self, silent_s: float) -> None:
        """Wait until nothing was reported for so long; it must come soon."""
        until = time.monotonic() + HEARS_S
        with contextlib.suppress(TimeoutError):
            while True:
                said = self.hear(silent_s)
                assert time.monotonic() < until, f"the service goes on to report {said}"


def listening_socket() -> socket.socket:
    """A socket as that of `watchout-gateway.socket`: of both families where there are both."""
    one = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    one.setblocking(False)
    os.set_inheritable(one.fileno(), False)
    return one
