"""Instructions of the gateway for one frame, function by function: `python -m benchmarks.instructions`.

The gateway runs under valgrind's callgrind, which counts the instructions of a process and not its time. One camera
sends a frame when all viewers have the one before, at first slowly and then as fast as that goes. What timers and
samples take by the second and what frames take are told apart by the two; on a machine that leaves no time to the
gateway, frames take long, timers are most of it, and the figures are worth less. The kernel's instructions are not in
it; `--syscalls` counts how often it is called instead.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.load.frames import pictures
from benchmarks.systems import Failed, Options, Running
from benchmarks.systems.watchout import Watchout
from benchmarks.tls import TlsFiles, client_context, make_files
from watchout.common.media.frames import Frame

#: Frames of the two runs, and seconds between two of them; before them come some that are not counted.
SLOW: Final = (20, 0.2)
FAST: Final = (200, 0.0)
FIRST: Final = (50, 0.0)
#: A command to valgrind, or a frame, that takes longer than this has failed, and a start under valgrind.
TIMEOUT_S: Final = 60.0
START_S: Final = 400.0
#: Viewers of the one camera, and whether the connections are TLS, by name.
SHAPES: Final[dict[str, tuple[int, bool]]] = {
    "1x1": (1, False), "1x10": (10, False), "tls-1x1": (1, True), "tls-1x10": (10, True),
}  # fmt: skip
FORMATS: Final = ("json", "binary")
STREAM: Final = "cam"
#: Lines of a profile that name the function whose costs follow, and one that it calls; the name stands at the first.
_NAME: Final = re.compile(r"fn=\((\d+)\)(?: (.+))?")
_CALLED: Final = re.compile(r"cfn=\((\d+)\)(?: (.+))?")


@dataclass(slots=True)
class Counted:
    """What was counted while so many frames were sent in so many seconds."""

    frames: int
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def per_frame(slow: Counted, fast: Counted) -> dict[str, float]:
    """What one frame adds to each count, without what is counted by the second."""
    share = fast.seconds / slow.seconds
    frames = fast.frames - slow.frames * share
    names = slow.counts | fast.counts
    return {name: (fast.counts[name] - slow.counts[name] * share) / frames for name in names}


def functions(profile: str) -> Counter[str]:
    """Instructions of each function itself, without what it calls, from a file of callgrind."""
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    now, of_call = "", False
    for line in profile.splitlines():
        if match := _CALLED.match(line) or _NAME.match(line):
            number, name = match.groups()
            names.setdefault(number, name or "?")
            if line.startswith("fn"):
                now = names[number]
        elif line.startswith("calls="):
            of_call = True  # the next line has what the called function cost
        elif line[:1].isdigit() or line.startswith(("+", "-", "*")):
            if not of_call:
                found[now] += int((*line.split(), "0")[1])  # a cost of 0 may be left out
            of_call = False
    return found


def system_calls(table: str) -> Counter[str]:
    """How often each system call was made, from what strace says with the columns name and calls."""
    found: Counter[str] = Counter()
    for line in table.splitlines():
        name, _, calls = line.partition(" ")
        if calls.strip().isdigit() and name != "total":
            found[name] = int(calls)
    return found


def under_callgrind(scripts: Path, folder: Path) -> Path:
    """Return a folder with the commands of watchout, of which the gateway starts under callgrind."""
    for each in scripts.glob("watchout-*"):
        (folder / each.name).symlink_to(each)
    gateway = folder / "watchout-gateway"
    gateway.unlink()
    gateway.write_text(
        "#!/bin/sh\nexec valgrind -q --tool=callgrind --instr-atstart=no "
        f"--callgrind-out-file='{folder}/out' '{scripts}/python' '{scripts}/watchout-gateway'\n"
    )
    gateway.chmod(0o755)
    return folder


async def command(*argv: str) -> None:
    """Run a command. Raises `Failed` with what it said."""
    child = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(TIMEOUT_S):
        said, _ = await child.communicate()
    if child.returncode:
        raise Failed(f"{argv[0]} ended with {child.returncode}:\n{said.decode(errors='replace')[-1000:]}")


@asynccontextmanager
async def instructions(pid: int, folder: Path, into: Counted) -> AsyncIterator[None]:
    """Count the instructions of a process by function until the block is left."""
    await command("callgrind_control", "-i", "on", str(pid))
    await command("callgrind_control", "-z", str(pid))
    yield
    await command("callgrind_control", "-d", str(pid))
    await command("callgrind_control", "-i", "off", str(pid))
    for file in await asyncio.to_thread(lambda: list(folder.glob("out.*"))):
        into.counts.update(functions(file.read_text()))
        file.unlink()


@asynccontextmanager
async def calls_of_kernel(pid: int, folder: Path, into: Counted) -> AsyncIterator[None]:
    """Count the system calls of all threads of a process until the block is left."""
    file = folder / "calls"
    child = await asyncio.create_subprocess_exec(
        "strace", "-f", "-c", "-U", "name,calls", "-p", str(pid), "-o", str(file), stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        await child.stderr.readline()  # it is attached
    yield
    child.send_signal(signal.SIGINT)
    async with asyncio.timeout(TIMEOUT_S):
        await child.communicate()
    into.counts.update(system_calls(file.read_text()))


#: Counts what a process does while frames are sent.
Meter = Callable[[int, Path, Counted], AbstractAsyncContextManager[None]]


class Clients:
    """One camera and its viewers, connected."""

    def __init__(self, camera: ClientConnection, viewers: list[ClientConnection], form: str) -> None:
        self._camera, self._viewers, self._form = camera, viewers, form
        self._pictures = pictures()
        self._sent = 0

    async def send(self, frames: int, every_s: float) -> None:
        """Send so many frames, each when all viewers have the one before and `every_s` is over."""
        for _ in range(frames):
            picture = self._pictures[self._sent % len(self._pictures)]
            frame = Frame(STREAM, 0, int(time.time() * 1000), picture=picture)
            message = frame.to_json().decode() if self._form == "json" else frame.to_binary()
            self._sent += 1
            async with asyncio.timeout(TIMEOUT_S):
                await self._camera.send(message)
                for viewer in self._viewers:
                    while len(await viewer.recv()) < len(picture):  # a message of another kind
                        pass
            if every_s:
                await asyncio.sleep(every_s)


async def joined(
    stack: AsyncExitStack, running: Running, tls: TlsFiles | None, path: str, **said: Any
) -> ClientConnection:
    """Return a client that has signed in and said this. Raises `Failed` when it is refused."""
    scheme, trust = ("ws", None) if tls is None else ("wss", client_context(tls.authority))
    client = await stack.enter_async_context(
        connect(f"{scheme}://127.0.0.1:{running.ports[0]}{path}", ssl=trust, compression=None, max_size=None)
    )
    for message in ({"type": "auth", "token": running.token}, said):
        await client.send(json.dumps(message))
        while (answer := json.loads(await client.recv()))["type"] != "success":
            if answer["type"] == "error":
                raise Failed(f"the gateway answered {answer}")
    return client


async def measured(scripts: Path, shape: str, form: str, meter: Meter) -> dict[str, float]:
    """What a meter counts in the gateway for one frame of the camera."""
    viewers, secured = SHAPES[shape]
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-")))
        folder = work / "counted"
        folder.mkdir()
        tls = make_files(work / "tls") if secured else None
        system = Watchout(under_callgrind(scripts, folder) if meter is instructions else scripts, start_s=START_S)
        running = await stack.enter_async_context(system.started(work, options=Options(tls=tls)))
        camera = await joined(
            stack, running, tls, "/streams/register",
            type="register", clientType="mobile", streamId=STREAM, produces=["video-frame"],
        )  # fmt: skip
        watching = [
            await joined(
                stack, running, tls, "/streams/subscribe",
                type="subscribe", clientType="dashboard", streamId=STREAM, consumes=["video-frame"], format=form,
            )
            for _ in range(viewers)
        ]  # fmt: skip
        clients = Clients(camera, watching, form)
        await clients.send(*FIRST)
        found: list[Counted] = []
        for frames, every_s in (SLOW, FAST):
            counted = Counted(frames)
            async with meter(running.pids[-1], folder, counted):
                began = time.perf_counter()
                await clients.send(frames, every_s)
                counted.seconds = time.perf_counter() - began
            found.append(counted)
    return per_frame(*found)


@click.command()
@click.argument("shapes", nargs=-1, type=click.Choice(list(SHAPES)))
@click.option("--format", "forms", multiple=True, type=click.Choice(FORMATS), help="Default: both.")
@click.option("--scripts", type=click.Path(path_type=Path, file_okay=False), help="Those of another environment.")
@click.option("--syscalls", is_flag=True, help="Count calls of the kernel, with strace, instead of instructions.")
@click.option("--functions", "most", type=int, default=0, help="Tell so many functions with the most instructions.")
def main(shapes: tuple[str, ...], forms: tuple[str, ...], scripts: Path | None, syscalls: bool, most: int) -> None:
    """Say what one frame costs the gateway: instructions, or system calls. SHAPES: all if none is given."""
    needed = ("strace",) if syscalls else ("valgrind", "callgrind_control")
    if missing := [name for name in needed if shutil.which(name) is None]:
        raise click.ClickException(f"not installed: {', '.join(missing)}")
    meter = calls_of_kernel if syscalls else instructions
    place = (scripts or Path(sys.executable).parent).absolute()
    for shape in shapes or tuple(SHAPES):
        for form in forms or FORMATS:
            try:
                found = asyncio.run(measured(place, shape, form, meter))
            except (Failed, TimeoutError) as fault:
                raise click.ClickException(f"{shape}, {form}: {str(fault) or 'it took too long'}") from None
            click.echo(f"{shape}, {form}: {sum(found.values()):,.1f} for each frame")
            shown = sorted(found.items(), key=lambda each: -each[1])
            for name, count in [each for each in shown if each[1] >= 0.05] if syscalls else shown[:most]:
                click.echo(f"  {count:12,.2f}  {name}")


if __name__ == "__main__":
    main()
