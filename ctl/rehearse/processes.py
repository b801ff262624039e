"""Starts the processes of a rehearsal, and ends them, each by its own id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from watchout.ctl.environment import Failure

#: Longest line that a process may write, in bytes.
MAX_LINE_BYTES: Final = 64 << 20
#: Seconds for a process to end when it is told to, before it is killed.
END_S: Final = 10.0
#: Characters of what a process wrote to stderr that an error shows.
MAX_SHOWN: Final = 600


async def start(
    module: str, *arguments: str, environ: Mapping[str, str] | None = None, log: Path | None = None
) -> asyncio.subprocess.Process:
    """Start a module of watchout as a process, which ends with this one. Terminals' signals do not reach it.

    Args:
        module: Its import path.
        arguments: Its arguments.
        environ: Its environment; None: as here.
        log: The file for all that it prints; None: stdin and stdout are pipes, and stderr is shared.
    """
    # -P: files of the current directory are no modules.
    command = (sys.executable, "-P", "-m", "watchout.ctl.rehearse.child", str(os.getpid()), module, *arguments)
    if log is None:
        return await asyncio.create_subprocess_exec(
            *command, env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True, limit=MAX_LINE_BYTES,
        )  # fmt: skip
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *command, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


async def end(processes: Iterable[asyncio.subprocess.Process]) -> None:
    """Tell processes to end, all at once, and kill those that do not within `END_S`."""
    running = [each for each in processes if each.returncode is None]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    await asyncio.gather(*(_ended(each) for each in running))


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def last_lines(log: Path) -> str:
    """Return the end of what a process printed, for an error."""
    try:
        return log.read_text(errors="replace").strip()[-MAX_SHOWN:] or "it printed nothing"
    except OSError:
        return "it printed nothing"


async def line_of(process: asyncio.subprocess.Process, what: str) -> bytes:
    """Return the next line of a process. Raises `Failure` when it ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise Failure(f"{what} ended with exit code {await process.wait()}")
    return line
