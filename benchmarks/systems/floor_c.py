"""The floor of C: `recv` → `send` on epoll, no WebSocket, no JSON. Compiled where it runs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.systems import Failed, Missing, Options, Running, listening, process
from tests.kit.ports import free_port

COMPILE_S = 60.0


class FloorC:
    name = "floor-c"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        compiler = shutil.which("cc")
        if compiler is None:
            raise Missing("no C compiler: install gcc or clang, so that there is a `cc`")
        program, log = work / "floor", work / "floor.log"
        source = Path(__file__).with_name("floor.c")
        compiling = await asyncio.create_subprocess_exec(
            compiler, "-O2", "-o", str(program), str(source),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(compiling.communicate(), COMPILE_S)
        except TimeoutError:
            raise Failed(f"{compiler} did not end within {COMPILE_S:.0f} s") from None
        finally:
            if compiling.returncode is None:
                compiling.kill()
        if compiling.returncode:
            raise Failed(f"{compiler} cannot compile {source.name}:\n{said.decode(errors='replace')[-2000:]}")
        port = free_port()
        async with process([program, str(port)], log=log) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "raw")


SYSTEM = FloorC()
