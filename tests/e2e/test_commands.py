"""The commands of the processes: help and version, and what is said when one of them is missing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import time

import pytest

from tests.kit.clients import eventually
from tests.kit.ports import free_port
from tests.kit.prefork import run_forked
from tests.kit.processes import BIN, REPOSITORY, poll
from watchout.ctl.bus_client import JOIN_TIMEOUT_S

pytestmark = pytest.mark.e2e
KINDS = ("router", "gateway", "mlbridge")
#: Where the processes' code is imported from, when that is not the installed one.
SOURCES = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def run(name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run an installed script to its end."""
    return subprocess.run(
        [BIN / name, *arguments], env={"PATH": "/usr/bin:/bin", "HOME": "/", **SOURCES, **environ},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def fork(name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without the start of an interpreter."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/", **SOURCES, **environ}
    return run_forked(REPOSITORY, [str(BIN / name), *arguments], environ)


@pytest.mark.parametrize("name", [*(f"watchout-{kind}" for kind in KINDS), "watchout-ctl", "watchout-keep"])
def test_help_and_version_start_nothing(name: str, tmp_path) -> None:
    # Not even the settings have to be right.
    environ = {"WATCHOUT_HOME": str(tmp_path / "home"), "WATCHOUT_PORT": "none"}
    again = run if name == "watchout-keep" else fork
    for option, start in (("--help", run), ("-h", again)):
        done = start(name, option, **environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: {name} ")
        assert "--version" in done.stdout
        assert name in ("watchout-ctl", "watchout-keep") or "docs/settings.md" in done.stdout
    done = again(name, "--version", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"{name}, version {importlib.metadata.version('watchout')}"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("argument", ["--port", "--no-such-option", "start", "-x"])
def test_what_is_not_known_starts_nothing(kind: str, argument: str, tmp_path) -> None:
    done = fork(f"watchout-{kind}", argument, WATCHOUT_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"Usage: watchout-{kind} ")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", ["gateway", "mlbridge"])
def test_a_process_without_a_router_says_so_within_seconds_and_when_it_comes(kind: str, watchout) -> None:
    started = watchout(start=False)
    process = started.start(kind)
    process.wait_for_output("the router is missing")
    line = next(line for line in process.output.splitlines() if "the router is missing" in line)
    assert f"no router runs on WATCHOUT_HOME={started.home}: start `watchout-router`" in line
    if kind == "gateway":
        said = fork("watchout-ctl", "stats", WATCHOUT_HOME=str(started.home))
        assert said.returncode == 1
        assert f"no router runs on WATCHOUT_HOME={started.home}" in said.stderr
        assert f"running: gateway (process {process.pid})" in said.stderr
    router = started.start("router")
    process.wait_for_output("the router is there")
    router.pause()
    poll(lambda: f"the router (process {router.pid}) of WATCHOUT_HOME" in process.output, 30, "not said that it hangs")
    router.resume()


async def test_a_command_waits_for_a_router_that_runs_and_has_to_wait_for_its_turn(watchout) -> None:
    started = watchout(start=False)
    router = started.start("router")
    await asyncio.to_thread(router.wait_for_output, "router ready")
    await asyncio.to_thread(router.pause)
    began = time.monotonic()
    command = started.run("stats", [str(BIN / "watchout-ctl"), "stats"])
    await eventually(lambda: time.monotonic() - began > JOIN_TIMEOUT_S + 1)
    assert command.running
    router.resume()
    assert await command.ended(30) == 0, command.output


def test_a_home_that_is_not_there_is_said(tmp_path) -> None:
    said = fork("watchout-ctl", "stats", "--home", str(tmp_path / "wrong"))
    assert said.returncode == 1
    assert "wrong, which does not exist" in said.stderr
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    "name", ["service.py", "over_http_raw.py", "over_http_batch.py", "over_websocket.py", "over_zeromq.py"]
)
def test_an_example_whose_port_is_taken_says_so_in_a_sentence(name: str) -> None:
    import socket

    pytest.importorskip("cv2")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        other.listen()
        done = subprocess.run(
            [BIN / "python", REPOSITORY / "examples/ml_service" / name, "--port", str(port)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"port {port} is not available" in done.stderr


def test_a_machine_without_uvloop_gets_a_sentence_and_the_other_loop(tmp_path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('no wheel for this machine')")
    environ = {"PYTHONPATH": str(tmp_path), "WATCHOUT_HOME": str(tmp_path / "h")}
    done = run("watchout-router", **environ)
    assert done.returncode == 1
    assert "WATCHOUT_LOOP is uvloop, which cannot be loaded (no wheel for this machine)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    with subprocess.Popen(
        [BIN / "watchout-router"], env={"PATH": "/usr/bin:/bin", "WATCHOUT_LOOP": "asyncio", **environ},
        stdout=subprocess.PIPE, text=True,
    ) as router:  # fmt: skip
        assert router.stdout is not None
        assert any("router ready" in line for line in router.stdout)
        router.terminate()
        router.stdout.read()
    assert router.returncode == 0


@pytest.mark.parametrize(
    ("name", "kind"), [("router.lock", "router"), ("name-router", "router"), ("sessions.db", "gateway")]
)
def test_a_process_follows_no_link_in_its_home(name: str, kind: str, tmp_path) -> None:
    home, target = tmp_path / "home", tmp_path / "precious"
    home.mkdir(mode=0o700)
    target.write_text("precious")
    (home / name).symlink_to(target)
    done = fork(f"watchout-{kind}", WATCHOUT_HOME=str(home), WATCHOUT_PORT=str(free_port()))
    assert done.returncode == 1
    assert f"{home / name} is a symbolic link" in done.stdout + done.stderr
    assert target.read_text() == "precious"
