"""Rehearsals as real processes: one that passes, one whose ML service fails, and one that is ended early."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.kit.ctl_command import Ctl, Start
from tests.kit.ports import free_port
from tests.kit.processes import Watchout
from watchout.ctl.rehearse.growth import LEAST_STEPS, growth_of
from watchout.ctl.rehearse.objectives import Verdict
from watchout.ctl.rehearse.plan import ViewerRole
from watchout.ctl.rehearse.result import Result
from watchout.ctl.rehearse.samples import private_bytes

#: Objectives that a machine meets on which any process stands still for a second now and then.
PATIENT = ("--own-lag", 60_000, "--objective", "glass-p99=60s", "--objective", "sent=1%", "--objective", "delivered=1%")
LOAD = ("--minutes", 0.1, "--cameras", 2, "--fps", 10, "--size", 5000, "--alert-every", 0.5, "--seed", 3)
END_S = 60.0
GROWS = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytearray(b"x") * 1_000_000)
    print(len(kept), flush=True)
"""


def result_of(file: Path) -> Result:
    return msgspec.json.decode(file.read_bytes(), type=Result)


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def test_a_system_of_its_own_passes_and_nothing_is_left_of_it(start: Start, home: Path, tmp_path: Path) -> None:
    command = await start(
        "rehearse", *LOAD, *PATIENT, "--viewers", 4, "--slow", 2, "--flapping", 2, "--hidden", 2, "--processes", 2,
        "--gateways", 2,
        "--objective", "alert-p99=60s", "--set", "ML_FPS=5", "--json", "r.json", "--html", "r.html",
        TMPDIR=str(home),
    )  # fmt: skip
    ended = await command.end()
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.endswith("PASSED\n")
    result = result_of(tmp_path / "r.json")
    roles = result.counts.roles
    assert {role: roles[role].viewers for role in ViewerRole} == {"steady": 4, "slow": 2, "flapping": 2, "hidden": 2}
    assert all(roles[role].received for role in ViewerRole if role is not ViewerRole.FLAPPING)
    assert roles[ViewerRole.SLOW].missing
    assert result.counts.streams.keys() == {f"rehearse-3-{command.process.pid:x}-{number}" for number in (0, 1)}
    # What gateways remember is what the clients counted.
    assert result.explained is not None
    assert (result.explained.streams, result.explained.unexplained) == (2, 0)
    assert sum(result.explained.closes.values()) == result.explained.connections >= 12
    assert result.explained.dropped["window"]
    assert {each.name for each in result.processes} == {"router", "gateway", "gateway-2", "mlbridge"}
    assert result.hops
    assert result.ml_counts is not None
    assert result.ml_counts.alerts
    assert (tmp_path / "r.html").read_text().count("<svg") == 5
    assert not list(home.iterdir())


async def test_a_running_system_whose_ml_service_fails_misses_its_objective(
    watchout: Callable[..., Watchout], ctl: Ctl, tmp_path: Path
) -> None:
    port = free_port()
    system = watchout(environ={"ML_SERVICE_URL": f"http://127.0.0.1:{port}/"})
    ended = await ctl(
        "rehearse", *LOAD, *PATIENT, "--viewers", 2, "--home", system.home, "--url", system.url.replace("http", "ws"),
        "--token", system.token(), "--ml-listen", f"127.0.0.1:{port}", "--ml-fail", 100, "--json", "r.json",
    )  # fmt: skip
    assert ended.code == 1, ended.out + ended.err
    result = result_of(tmp_path / "r.json")
    assert {"alert-p99", "alerts-lost"} <= {each.name for each in result.objectives if not each.met}, ended.out
    assert result.ml_failures is not None
    assert result.ml_failures > 0.5
    assert result.explained is not None
    assert result.explained.unexplained == 0


async def test_a_soak_does_everything_at_once_and_a_short_one_decides_nothing(
    start: Start, home: Path, tmp_path: Path
) -> None:
    command = await start(
        "rehearse", "--soak", *LOAD, *PATIENT, "--viewers", 2, "--flapping", 1, "--objective", "alert-p99=60s",
        "--json", "r.json", "--html", "r.html", TMPDIR=str(home),
    )  # fmt: skip
    ended = await command.end()
    assert ended.code == 3, ended.out + ended.err
    soak = result_of(tmp_path / "r.json").soak
    assert soak is not None
    assert soak.faults == {}
    assert {"POST /alerts", "refused logins", "SIGHUP"} <= soak.acts.keys()
    found = {(each.process, each.quantity): each for each in soak.growth}
    assert {process for process, _ in found} == {"router", "gateway", "gateway-2", "mlbridge"}
    assert all(found["gateway-2", quantity].last > 0 for quantity in ("memory", "descriptors", "threads"))
    assert all(each.verdict is Verdict.UNDECIDED and each.slope is None for each in soak.growth)
    assert (tmp_path / "r.html").read_text().count("<svg") >= 8
    assert not list(home.iterdir())


def test_a_process_that_takes_a_megabyte_a_minute_is_found_to_grow() -> None:
    """The minutes are those of the samples: the process is told of each."""
    with subprocess.Popen(
        [sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        taken = []
        for minute in range(3 * LEAST_STEPS):
            one.stdin.write("\n")
            one.stdin.flush()
            assert one.stdout.readline()
            taken.append((60.0 * minute, private_bytes(one.pid) / 1e6))
        one.stdin.close()
    found = growth_of(process="leaks", pid=one.pid, quantity="memory", unit="MB", limit=1.0, samples=taken)
    assert found.verdict is Verdict.FAILED
    assert found.slope is not None
    assert found.slope.per_hour == pytest.approx(60, rel=0.1)


async def test_an_interrupt_ends_it_with_a_report_and_ends_what_it_started(
    start: Start, home: Path, tmp_path: Path
) -> None:
    command = await start("rehearse", "--minutes", 60, *LOAD[2:], *PATIENT, "--json", "r.json", TMPDIR=str(home))
    assert command.process.stderr is not None
    while "of 3600 s · sent" not in (
        line := (await asyncio.wait_for(command.process.stderr.readline(), END_S)).decode()
    ):
        assert line, "it ended"
    started = below(command.process.pid)
    assert len(started) == 5
    command.process.send_signal(signal.SIGINT)
    ended = await command.end()
    assert ended.code == 130, ended.out + ended.err
    result = result_of(tmp_path / "r.json")
    assert result.interrupted
    assert 0 < result.seconds < 300
    assert result.counts.sent
    assert not any(each.is_running() for each in started)
    assert not list(home.iterdir())
