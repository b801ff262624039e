"""A forked process is like one that was started by its script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import zmq

from tests.kit.prefork import Prefork, can_fork
from tests.kit.processes import BIN, REPOSITORY, poll, running

pytestmark = pytest.mark.e2e

#: More than the buffers of a socket hold.
LARGE_BYTES = 32 << 20


@pytest.mark.parametrize("prefork", [True, False])
def test_it_has_its_own_session_directory_environment_and_end(prefork: bool) -> None:
    with running(start=False, prefork=prefork) as started:
        router = started.start("router")
        router.wait_for_output("router ready")
        process = psutil.Process(router.pid)
        assert os.getsid(router.pid) == router.pid
        assert process.cwd() == str(started.directory)
        assert (started.home / "router.lock").exists() or any(started.home.iterdir())
        router.pause()
        router.resume()
        assert router.terminate(30.0) == 0
        assert not process.is_running()


@pytest.mark.parametrize("prefork", [True, False])
def test_its_exit_code_and_what_it_printed_are_known(prefork: bool) -> None:
    with running(start=False, prefork=prefork) as started:
        gateway = started.start("gateway", {"WATCHOUT_PORT": "none"})
        assert gateway.wait(30.0) == 2
        assert "WATCHOUT_PORT" in gateway.output
        router = started.start("router")
        router.wait_for_output("router ready")
        router.kill()
        assert router.wait() == -signal.SIGKILL


def test_what_it_has_sent_when_it_ends_arrives(tmp_path: Path) -> None:
    script = f"""
import zmq
from tests.kit.prefork import _run
def command():
    with zmq.Context.instance().socket(zmq.PUSH) as socket:
        socket.linger = 30_000
        socket.connect("ipc://{tmp_path}/last")
        socket.send(bytes({LARGE_BYTES}))
_run(command)
"""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(f"ipc://{tmp_path}/last")
        subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, timeout=60, check=True)
        assert socket.poll(30_000)
        assert len(socket.recv()) == LARGE_BYTES


def test_a_wait_that_is_too_long_raises() -> None:
    with running(start=False) as started:
        router = started.start("router")
        with pytest.raises(subprocess.TimeoutExpired):
            router.wait(0.05)
        router.wait_for_output("router ready")  # before, SIGTERM ends it as it ends any process


def test_what_was_forked_ends_with_its_parent(tmp_path: Path) -> None:
    prefork = Prefork(REPOSITORY)
    environ = {"WATCHOUT_HOME": str(tmp_path / "h")}
    forked = prefork.start("router", [str(BIN / "watchout-router")], environ, tmp_path / "log", tmp_path)
    process = psutil.Process(forked.pid)
    try:
        poll(lambda: (log := tmp_path / "log").exists() and "router ready" in log.read_text(), 30.0, "no router")
    finally:
        prefork.close()
    poll(lambda: not process.is_running(), 30.0, "the router lives on")


def test_the_parents_of_a_test_run_end_with_it_and_nobody_complains_of_them(pytestconfig: pytest.Config) -> None:
    """Also when somebody else has inherited the run's end of the socket."""
    assert pytestconfig.pluginmanager.has_plugin("tests.kit.prefork")
    script = f"""
import pathlib, subprocess
from tests.kit import prefork
made = prefork.preloaded(pathlib.Path({str(REPOSITORY)!r}), prefork.SERVERS)
heir = subprocess.Popen(["sleep", "60"], pass_fds=[made._ours.fileno()])
prefork.pytest_unconfigure()
print(made._parent.returncode)
heir.kill()
heir.wait()
"""
    command = [sys.executable, "-W", "always", "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_of_a_test_process_that_is_killed_nothing_is_left(tmp_path: Path) -> None:
    """Also when somebody else has inherited its end of the socket."""
    script = f"""
import os, pathlib, subprocess, sys, time
from tests.kit.prefork import Prefork
prefork = Prefork(pathlib.Path({str(REPOSITORY)!r}))
forked = prefork.start("router", [{str(BIN / "watchout-router")!r}], {{"WATCHOUT_HOME": {str(tmp_path / "h")!r}}},
                       pathlib.Path({str(tmp_path / "log")!r}), pathlib.Path({str(tmp_path)!r}))
heir = subprocess.Popen(["sleep", "60"], pass_fds=[prefork._ours.fileno()])
print(forked.pid, prefork._parent.pid, heir.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        router, parent, heir = map(psutil.Process, map(int, killed.stdout.readline().split()))
        try:
            poll(lambda: (log := tmp_path / "log").exists() and "router ready" in log.read_text(), 30.0, "no router")
            killed.kill()
            poll(lambda: not parent.is_running(), 30.0, "the parent lives on")
            poll(lambda: not router.is_running(), 30.0, "the router lives on")
        finally:
            heir.kill()


def test_what_was_forked_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    prefork = Prefork(REPOSITORY)
    environ = {"WATCHOUT_HOME": str(tmp_path / "h")}
    forked = prefork.start("router", [str(BIN / "watchout-router")], environ, tmp_path / "log", tmp_path)
    process = psutil.Process(forked.pid)
    poll(lambda: (log := tmp_path / "log").exists() and "router ready" in log.read_text(), 30.0, "no router")
    prefork._parent.kill()
    poll(lambda: not process.is_running(), 30.0, "the router lives on")
    prefork.close()


def test_many_that_end_at_once_are_all_known_to_have_ended(tmp_path: Path) -> None:
    prefork = Prefork(REPOSITORY, ["watchout-ctl"])
    forked = [
        prefork.start("watchout-ctl", ["watchout-ctl", "--version"], {}, tmp_path / str(number), tmp_path)
        for number in range(20)
    ]
    try:
        assert [each.wait(30.0) for each in reversed(forked)] == [0] * 20
        assert all("watchout-ctl" in (tmp_path / str(number)).read_text() for number in range(20))
    finally:
        prefork.close()


def test_what_an_interpreter_reads_at_its_start_wants_a_new_one() -> None:
    assert can_fork("gateway", {"WATCHOUT_PORT": "3000", "MAX_CONNECTIONS": "7"})
    assert not can_fork("gateway", {"PYTHONPATH": "/elsewhere"})
    assert not can_fork("gateway", {"LD_PRELOAD": "x.so"})
    assert not can_fork("another", {})
