"""Services, pictures and the run of `watchout-ctl ml` for its tests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.kit.ctl_command import Ctl, Ended, Start
from watchout.ctl.ml.pictures import SAMPLE

REPOSITORY = Path(__file__).parents[3]
FOOTAGE = Path(os.environ.get("WATCHOUT_FOOTAGE", REPOSITORY / "../shared/data/people.mp4"))
#: The first person of the footage is in the picture by then.
FIRST_PERSON_S = 6.0
ALERT = {"severity": "high", "message": "a person"}
#: The command may take so long on a machine that is busy.
ENDS_S = 180

Answer = Callable[[dict[str, Any], web.Request], Any]


@asynccontextmanager
async def service(answer: Answer, *, max_bytes: int = 32 << 20) -> AsyncIterator[str]:
    """A service that decodes the frame and answers as `answer` says: an object, or a whole response."""

    async def handle(request: web.Request) -> web.StreamResponse:
        given = answer(await request.json(), request)
        given = await given if asyncio.iscoroutine(given) else given
        return given if isinstance(given, web.StreamResponse) else web.json_response(given)

    app = web.Application(client_max_size=max_bytes)
    app.router.add_post("/analyze", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "room.jpg"
    path.write_bytes(SAMPLE)
    return path


@pytest.fixture
def run(start: Start) -> Ctl:
    async def run(*arguments: object, **environ: str) -> Ended:
        return await (await start("ml", *arguments, **environ)).end(ENDS_S)

    return run


def say(ended: Ended, check: str) -> list[str]:
    """Level and sentence of one check."""
    assert "Traceback" not in ended.err
    return [" ".join(m.groups()) for m in re.finditer(rf"^(\w+) +{check} +(.+)$", ended.out, re.MULTILINE)]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Forty pictures, told apart by what follows the JPEG."""
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:03d}.jpg").write_bytes(SAMPLE + bytes([number]))
    return folder


def number_of(frame: dict[str, Any]) -> int:
    return base64.b64decode(frame["frame"])[-1]


async def listens(url: str) -> None:
    """Wait until somebody accepts connections there."""
    port = int(url.rpartition(":")[2])
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)
