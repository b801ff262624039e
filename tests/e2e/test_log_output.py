"""Where the log goes may fail in any way: frames flow, health is right, and lines come again when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import eventually
from tests.kit.processes import BIN, Watchout, hears_sigterm, poll

NAMES = ("router", "gateway", "mlbridge")


class Started:
    """Router, gateway and mlbridge with a standard output of the test's own."""

    def __init__(self, watchout: Watchout) -> None:
        self.watchout = watchout
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, output: int, *names: str) -> None:
        """Start these, or all."""
        for name in names or NAMES:
            self.processes[name] = subprocess.Popen(
                [str(BIN / f"watchout-{name}")], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.watchout.environ, cwd=self.watchout.directory, start_new_session=True,
            )  # fmt: skip

    async def serves(self, clients: Any) -> None:
        """Frames flow, and health says so."""

        async def healthy() -> bool:
            return bool((await asyncio.to_thread(self.watchout.get, "/health"))[0] == 200)

        await eventually(healthy, 30)
        url, token = self.watchout.url, self.watchout.token()
        camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
        stream = await camera.register()
        await viewer.subscribe(stream)
        async with camera.streaming(fps=20):
            for _ in range(10):
                await viewer.frame()
        await camera.leave()
        await viewer.leave()
        await eventually(healthy)
        assert all(process.poll() is None for process in self.processes.values())

    def end(self) -> None:
        """End all in order."""
        for process in reversed(self.processes.values()):
            poll(lambda pid=process.pid: hears_sigterm(pid), 30, "not started")
            process.send_signal(signal.SIGTERM)
        assert {process.wait(30) for process in self.processes.values()} == {0}

    def kill(self) -> None:
        """End what is left."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)


@pytest.fixture
def started(watchout: Any) -> Iterator[Started]:
    made = Started(watchout(start=False))
    yield made
    made.kill()


async def test_the_reader_of_the_log_is_gone(started: Started, clients: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    started.start(writing)
    os.close(writing)
    await started.serves(clients)
    started.end()


async def test_the_reader_of_the_log_is_stopped_and_goes_on(started: Started, clients: Any) -> None:
    seen = started.watchout.directory / "seen"
    reading, writing = os.pipe()
    with seen.open("wb") as file:
        reader = subprocess.Popen(["/bin/cat"], stdin=reading, stdout=file)
    os.close(reading)
    reader.send_signal(signal.SIGSTOP)
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * 4095 + b"\n")
        os.set_blocking(writing, True)
        started.start(writing)
        await started.serves(clients)
        assert b"ready" not in seen.read_bytes()
        reader.send_signal(signal.SIGCONT)
        for name in NAMES:
            await eventually(lambda name=name: f"{name} ready".encode() in seen.read_bytes())
        await started.serves(clients)
        started.end()
    finally:
        os.close(writing)
        reader.send_signal(signal.SIGCONT)
        reader.wait(20)
    for name in NAMES:
        assert f"{name} ended".encode() in seen.read_bytes()


async def test_the_disk_of_the_log_is_full(started: Started, clients: Any) -> None:
    with Path("/dev/full").open("wb") as full:
        started.start(full.fileno())
    await started.serves(clients)
    started.end()


async def test_the_disk_of_log_and_home_fills_up_and_has_room_again(started: Started, clients: Any) -> None:
    """No file may grow any more (RLIMIT_FSIZE): what a full disk does to a process, and as little its fault."""
    seen = started.watchout.directory / "seen"
    with seen.open("ab") as file:
        started.start(file.fileno())
    await started.serves(clients)
    limited = [process.pid for process in started.processes.values()]
    for pid in limited:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    size = seen.stat().st_size
    await started.serves(clients)
    for _ in range(3):  # each makes the router say something
        started.processes["mlbridge"].kill()
        started.processes["mlbridge"].wait(20)
        started.start(subprocess.DEVNULL, "mlbridge")
        await started.serves(clients)
    assert seen.stat().st_size == size
    for pid in limited[:2]:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await eventually(lambda: b"member gone" in seen.read_bytes()[size:])
    await started.serves(clients)
    started.end()


async def test_lines_that_nobody_can_take_are_counted(watchout: Any) -> None:
    made = watchout(start=False)
    made.start("router")
    closed = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {BIN}/watchout-gateway >&- 2>&-"], stdin=subprocess.DEVNULL,
        env=made.environ, cwd=made.directory, start_new_session=True,
    )  # fmt: skip
    try:
        line = re.compile(r"^watchout_log_lines_dropped_total\{[^}]*gateway[^}]*\} [1-9]", re.MULTILINE)

        def counted() -> bool:
            with contextlib.suppress(OSError):
                return line.search(made.text("/metrics")[1]) is not None
            return False

        await asyncio.to_thread(poll, counted, 30, "no lost line is counted")
        assert closed.poll() is None
    finally:
        closed.terminate()
        closed.wait(30)
