"""Stalls stop a process for a moment, and only one that runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from tests.kit import stalls
from tests.kit.polling import until


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    process = subprocess.Popen(["sleep", "60"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


async def test_a_process_is_stopped_and_goes_on(sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        assert seen.wait(30)

    monkeypatch.setattr(stalls, "time", SimpleNamespace(sleep=sleep))
    thread = threading.Thread(target=stalls.stall, args=(sleeper, 1.0))
    thread.start()
    await until(lambda: sleeper.status() == psutil.STATUS_STOPPED)
    seen.set()
    thread.join()
    assert asked == [1.0]
    await until(lambda: sleeper.status() == psutil.STATUS_SLEEPING)


async def test_what_a_test_stopped_stays_stopped(sleeper: psutil.Process) -> None:
    sleeper.suspend()
    await until(lambda: sleeper.status() == psutil.STATUS_STOPPED)
    stalls.stall(sleeper, 0.01)
    assert sleeper.status() == psutil.STATUS_STOPPED


def test_a_process_that_ended_is_no_error(sleeper: psutil.Process) -> None:
    sleeper.kill()
    stalls.stall(sleeper, 0.01)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    assert stalls.main([sys.executable, "-c", f"import time; time.sleep(0.3); raise SystemExit({code})"]) == code
