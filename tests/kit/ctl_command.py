"""A home, a fake gateway, pictures, and the command as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pybase64
import pytest

from tests.kit.fake_gateway import TOKEN, FakeGateway, until
from tests.kit.ports import free_port
from tests.kit.prefork import TOOL, Forked, can_fork, preloaded
from tests.kit.processes import BIN, REPOSITORY

#: A JPEG of 1×1.
TINY_JPEG = pybase64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////"
    "////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AN//Z"
)


@dataclass
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str


class ForkedProcess:
    """A command that was forked, with the part of `asyncio.subprocess.Process` that tests use."""

    def __init__(self, forked: Forked, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self._forked = forked

    @property
    def pid(self) -> int:
        return self._forked.pid

    @property
    def returncode(self) -> int | None:
        return self._forked.poll()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await asyncio.sleep(0.005)
        return code

    async def communicate(self) -> tuple[bytes, bytes]:
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err


class Command:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode()

    async def end(self, timeout_s: float = 120) -> Ended:
        out, err = await asyncio.wait_for(self.process.communicate(), timeout_s)
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), err.decode())


Start = Callable[..., Awaitable[Command]]
Ctl = Callable[..., Awaitable[Ended]]


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wo-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    gateway = FakeGateway()
    await gateway.start()
    yield gateway
    await gateway.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(TINY_JPEG + bytes([number]))
    return folder


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """A stream of what comes out of a pipe."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


@pytest.fixture
async def start(tmp_path: Path, home: Path) -> AsyncIterator[Start]:
    """Start the command in a directory and an environment of its own."""
    running: list[Command] = []
    transports: list[asyncio.BaseTransport] = []

    async def start(*arguments: object, **environ: str) -> Command:
        base = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")}
        argv = [str(BIN / "watchout-ctl"), *map(str, arguments)]
        wanted = {**base, "WATCHOUT_HOME": str(home), "WATCHOUT_TOKEN": TOKEN, **environ}
        if can_fork("watchout-ctl", wanted):
            (out, out_end), (err, err_end) = os.pipe(), os.pipe()
            forked = await asyncio.to_thread(
                preloaded(REPOSITORY, TOOL).start, "watchout-ctl", argv, wanted, (out_end, err_end), tmp_path
            )
            os.close(out_end)
            os.close(err_end)
            streams = [await _reader(end) for end in (out, err)]
            transports.extend(transport for _, transport in streams)
            running.append(Command(ForkedProcess(forked, *(reader for reader, _ in streams))))
        else:
            process = await asyncio.create_subprocess_exec(
                *argv, cwd=tmp_path, env=wanted, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            running.append(Command(process))
        return running[-1]

    yield start
    for command in running:
        if command.process.returncode is None:
            command.process.kill()
            await command.process.communicate()
    for transport in transports:
        transport.close()


@pytest.fixture
def ctl(start: Start, request: pytest.FixtureRequest) -> Ctl:
    """Run the command to its end, and until the fake gateway of the test has read all that it sent."""

    async def ctl(*arguments: object, **environ: str) -> Ended:
        gateway: FakeGateway | None = None
        if "gateway" in request.fixturenames:
            gateway = request.getfixturevalue("gateway")
        others = gateway.open if gateway is not None else 0
        ended = await (await start(*arguments, **environ)).end()
        await until(lambda: gateway is None or gateway.open <= others)
        return ended

    return ctl


@pytest.fixture
def unused_port() -> int:
    return free_port()
