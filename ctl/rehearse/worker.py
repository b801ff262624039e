"""One process of clients: reads its job from stdin, and writes what it counted to stdout, a line of JSON each second.

The first line says that it is ready. It ends early when stdin ends, so that it ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import sys
from typing import Final

import msgspec
import uvloop

from watchout.ctl.rehearse.clients import Clients, Job
from watchout.ctl.rehearse.figures import Counts, Moment

#: Longest line of a job, in bytes: the pictures are in it.
MAX_JOB_BYTES: Final = 512 << 20
EVERY_S: Final = 1.0


class WorkerLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a process of clients: that it is ready, what it counted in a second, or in all, which is the last."""

    ready: bool = False
    moment: Moment | None = None
    counts: Counts | None = None


def main() -> None:
    """Run the process."""
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    with contextlib.suppress(ValueError, OSError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work())


async def _work() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_JOB_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(WorkerLine(ready=True))
    line = await reader.readline()
    if not line.endswith(b"\n"):
        return
    stop = asyncio.Event()
    watch = asyncio.create_task(_wait_for_end(reader, stop), name="end of stdin")
    clients = Clients(msgspec.json.decode(line, type=Job), stop)
    del line
    work = asyncio.create_task(clients.run(), name="clients")
    while not work.done():
        await asyncio.wait({work}, timeout=EVERY_S)
        _say(WorkerLine(moment=clients.second()))
    watch.cancel()
    await work
    _say(WorkerLine(counts=clients.counts))


async def _wait_for_end(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await reader.read()
    stop.set()


def _say(line: WorkerLine) -> None:
    """Write a line. Nobody may read it any more: the process ends with its starter anyway."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
