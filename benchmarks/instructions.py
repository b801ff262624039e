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


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured. `viewers`: those of the one camera. `secured`: TLS for all clients.

    `gateways`: with two, all viewers are at the second one, and both are counted. `hosts`: with two, one gateway each.
    """

    viewers: int
    secured: bool = False
    gateways: int = 1
    hosts: int = 1


SHAPES: Final[dict[str, Shape]] = {
    "1x1": Shape(1),
    "1x10": Shape(10),
    "tls-1x1": Shape(1, secured=True),
    "tls-1x10": Shape(10, secured=True),
    "two-gateways-1x1": Shape(1, gateways=2),
    "two-hosts-1x1": Shape(1, gateways=2, hosts=2),
}
FORMATS: Final = ("json", "binary")
#: Of two gateways, what each is.
GATEWAYS: Final = (", the camera's gateway", ", the viewers' gateway")
#: Place of the first gateway among the processes of watchout: after router and mlbridge.
FIRST_GATEWAY: Final = 2
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
        f"--callgrind-out-file='{folder}/out-%p' '{scripts}/python' '{scripts}/watchout-gateway'\n"
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
    for file in await asyncio.to_thread(lambda: list(folder.glob(f"out-{pid}.*"))):
        into.counts.update(functions(file.read_text()))
        file.unlink()


@asynccontextmanager
async def calls_of_kernel(pid: int, folder: Path, into: Counted) -> AsyncIterator[None]:
    """Count the system calls of all threads of a process until the block is left."""
    file = folder / f"calls-{pid}"
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
    stack: AsyncExitStack, running: Running, gateway: int, tls: TlsFiles | None, path: str, **said: Any
) -> ClientConnection:
    """Return a client that has signed in and said this. Raises `Failed` when it is refused."""
    scheme, trust = ("ws", None) if tls is None else ("wss", client_context(tls.authority))
    client = await stack.enter_async_context(
        connect(f"{scheme}://127.0.0.1:{running.ports[gateway]}{path}", ssl=trust, compression=None, max_size=None)
    )
    for message in ({"type": "auth", "token": running.token}, said):
        await client.send(json.dumps(message))
        while (answer := json.loads(await client.recv()))["type"] != "success":
            if answer["type"] == "error":
                raise Failed(f"the gateway answered {answer}")
    return client


async def measured(scripts: Path, name: str, form: str, meter: Meter) -> list[dict[str, float]]:
    """What a meter counts in each gateway for one frame of the camera."""
    shape = SHAPES[name]
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-")))
        folder = work / "counted"
        folder.mkdir()
        tls = make_files(work / "tls") if shape.secured else None
        system = Watchout(under_callgrind(scripts, folder) if meter is instructions else scripts, start_s=START_S)
        options = Options(tls=tls, gateways=shape.gateways, hosts=shape.hosts)
        running = await stack.enter_async_context(system.started(work, options=options))
        camera = await joined(
            stack, running, 0, tls, "/streams/register",
            type="register", clientType="mobile", streamId=STREAM, produces=["video-frame"],
        )  # fmt: skip
        watching = [
            await joined(
                stack, running, shape.gateways - 1, tls, "/streams/subscribe",
                type="subscribe", clientType="dashboard", streamId=STREAM, consumes=["video-frame"], format=form,
            )
            for _ in range(shape.viewers)
        ]  # fmt: skip
        clients = Clients(camera, watching, form)
        await clients.send(*FIRST)
        gateways = running.pids[FIRST_GATEWAY : FIRST_GATEWAY + shape.gateways]
        found: list[list[Counted]] = []
        for frames, every_s in (SLOW, FAST):
            counts = [Counted(frames) for _ in gateways]
            async with AsyncExitStack() as counting:
                for pid, each in zip(gateways, counts, strict=True):
                    await counting.enter_async_context(meter(pid, folder, each))
                began = time.perf_counter()
                await clients.send(frames, every_s)
                seconds = time.perf_counter() - began
            for each in counts:
                each.seconds = seconds
            found.append(counts)
    return [per_frame(slow, fast) for slow, fast in zip(*found, strict=True)]


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
            for counts, gateway in zip(found, [""] if len(found) == 1 else GATEWAYS, strict=True):
                click.echo(f"{shape}, {form}{gateway}: {sum(counts.values()):,.1f} for each frame")
                shown = sorted(counts.items(), key=lambda each: -each[1])
                for name, count in [each for each in shown if each[1] >= 0.05] if syscalls else shown[:most]:
                    click.echo(f"  {count:12,.2f}  {name}")


if __name__ == "__main__":
    main()
