"""Nchan: nginx with the module that is a publish-subscribe server in C, by `nchan.conf`.

It relays each message as it came, text or binary, so it adds no `frameId`, and it knows no tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks import fetch
from benchmarks.systems import Options, Running, listening, process
from tests.kit.ports import free_port

TEMPLATE: Final = Path(__file__).with_name("nchan.conf")
#: Where Nchan would keep messages in files, as compiled in: a folder that only root can make. Its setting
#: `nchan_message_temp_path` is refused as a duplicate (1.3.6), so a copy of the module gets a name of the same length,
#: which is relative to the folder of the run.
MESSAGE_FILES: Final = (b"/var/lib/nginx/body\0", b"nchan-message-files\0")


class Nchan:
    name = "nchan"
    formats = frozenset({"json", "binary"})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:  # noqa: ARG002
        nginx = await asyncio.to_thread(fetch.nginx)
        port, log, settings = free_port(), work / "nginx.log", work / "nginx.conf"
        module, text = work / nginx.nchan.name, TEMPLATE.read_text()
        module.write_bytes(nginx.nchan.read_bytes().replace(*MESSAGE_FILES))
        for name, value in {"MODULE": module, "WORK": work, "PORT": port}.items():
            text = text.replace(f"@{name}@", str(value))
        settings.write_text(text)
        argv: list[str | Path] = [nginx.program, "-p", work, "-c", settings, "-e", "stderr"]
        async with process(argv, log=log, cwd=work) as child:
            await listening(port, child, log)
            yield Running((port,), (child.pid,), "nchan")


SYSTEM = Nchan()
