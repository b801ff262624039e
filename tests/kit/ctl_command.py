"""A home, a fake gateway, pictures, and the command as a real process."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pybase64
import pytest

from tests.kit.fake_gateway import TOKEN, FakeGateway
from tests.kit.ports import free_port

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


class Command:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 10)).decode()

    async def end(self, timeout_s: float = 20) -> Ended:
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


@pytest.fixture
async def start(tmp_path: Path, home: Path) -> AsyncIterator[Start]:
    """Start the command in a directory and an environment of its own."""
    running: list[Command] = []

    async def start(*arguments: object, **environ: str) -> Command:
        base = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from watchout.ctl.app import main; main()",
            *map(str, arguments),
            cwd=tmp_path,
            env={**base, "WATCHOUT_HOME": str(home), "WATCHOUT_TOKEN": TOKEN, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(Command(process))
        return running[-1]

    yield start
    for command in running:
        if command.process.returncode is None:
            command.process.kill()
            await command.process.communicate()


@pytest.fixture
def ctl(start: Start) -> Ctl:
    """Run the command to its end."""

    async def ctl(*arguments: object, **environ: str) -> Ended:
        return await (await start(*arguments, **environ)).end()

    return ctl


@pytest.fixture
def unused_port() -> int:
    return free_port()
