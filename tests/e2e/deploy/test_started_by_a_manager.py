"""Processes as a service manager starts them: sockets passed, readiness and watchdog reported."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.as_systemd import ServiceStarter, listening_socket
from tests.kit.processes import BIN, REPOSITORY, Watchout
from watchout.gateway.listen.port import BACKLOG

pytestmark = pytest.mark.e2e
COMES_S = 60.0
GATEWAY = [str(BIN / "watchout-gateway")]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listening_socket() as one:
        yield one


def get(port: int, address: str = "127.0.0.1") -> int:
    connection = http.client.HTTPConnection(address, port, timeout=COMES_S)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_connections_made_while_no_gateway_runs_are_served_by_the_next_one(
    watchout, listening: socket.socket, tmp_path: Path, loop: str
) -> None:
    started: Watchout = watchout(start=False, loop=loop)
    started.start("router")
    port = listening.getsockname()[1]
    with ServiceStarter(tmp_path, started.environ, listening) as manager:
        manager.start(GATEWAY)
        heard = manager.hear_until("READY=1")
        assert "WATCHDOG=1" not in heard
        assert get(port) == get(port, "::1") == 200
        manager.signal(signal.SIGTERM)
        assert manager.hear_until("STOPPING=1")
        assert manager.wait() == 0
        statuses: list[int] = []
        visitors = [threading.Thread(target=lambda: statuses.append(get(port))) for _ in range(20)]
        for visitor in visitors:
            visitor.start()
        manager.start(GATEWAY)
        for visitor in visitors:
            visitor.join(COMES_S)
        assert statuses == [200] * 20
        manager.hear_until("READY=1")
        # The loop that serves has not made the queue of the socket shorter.
        shown = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert int(shown.split()[2]) == min(BACKLOG, most)
        assert "another port" in manager.output  # WATCHOUT_PORT is not the one of the socket, and commands use it
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0


def test_ready_waits_for_the_router_and_says_so(watchout, listening: socket.socket, tmp_path: Path) -> None:
    started: Watchout = watchout(start=False)
    with ServiceStarter(tmp_path, started.environ, listening) as manager:
        manager.start(GATEWAY)
        heard = manager.hear_until("STATUS=starts: the router is unreachable")
        assert "READY=1" not in heard
        started.start("router")
        assert "STATUS=serves" in manager.hear_until("STATUS=serves")
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0


def test_a_loop_that_is_blocked_feeds_no_watchdog_and_tells_where(watchout, tmp_path: Path) -> None:
    started: Watchout = watchout(start=False)
    environ = {**started.environ, "BLOCK_S": "600", "PYTHONPATH": str(REPOSITORY)}
    with ServiceStarter(tmp_path, environ, None, watchdog_s=0.6) as manager:
        manager.start([str(BIN / "python"), str(REPOSITORY / "tests/kit/blocked.py"), "router"])
        manager.hear_until("READY=1")
        manager.hear_until("WATCHDOG=1")
        manager.signal(signal.SIGUSR1)
        manager.wait_for_silence(3.0)  # the loop runs again after ten minutes
        manager.signal(signal.SIGABRT)  # as systemd does
        assert manager.wait() == -signal.SIGABRT
        assert 'blocked.py", line' in manager.output


def test_a_socket_of_the_wrong_kind_is_refused_in_one_line(watchout, tmp_path: Path) -> None:
    started: Watchout = watchout(start=False)
    with socket.socket() as unbound, ServiceStarter(tmp_path, started.environ, unbound) as manager:
        manager.start(GATEWAY)
        assert manager.wait() == 1
        assert "does not listen: expected a listening TCP socket" in manager.output
        assert "Traceback" not in manager.output
