"""`/mjpeg` as real readers see it: ffmpeg, OpenCV, PyAV, curl, Chromium and Firefox, straight and through proxies.

One camera does to all of them at once what cameras do: odd frames, a pause longer than the proxies wait for a word, a
take-over, a return. Every reader has to see every colour in its order, over one and the same request.

The proxies' time-outs are scaled down, unless `MJPEG_DEFAULT_TIME_OUTS` is set (`make test-mjpeg-long`): then they are
the proxies' own, and the camera pauses for longer than those; and Caddy is among them, which has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from tests.kit.browsers import Browser, chromium, firefox
from tests.kit.clients import JPEG, PNG, Camera, Clients, base64_of, eventually, http, new_name
from tests.kit.fronts import caddy
from tests.kit.processes import REPOSITORY, Watchout, clean_environ, running
from tests.kit.proxies import haproxy, nginx
from tests.kit.services import missing

pytestmark = [pytest.mark.e2e, pytest.mark.real]

Image = pytest.importorskip("PIL.Image")

DEFAULT_TIME_OUTS: Final = bool(os.environ.get("MJPEG_DEFAULT_TIME_OUTS"))
#: The time-out of the proxies, None for their own, and how long the camera pauses, in seconds.
IDLE_S: Final = None if DEFAULT_TIME_OUTS else 12
PAUSE_S: Final = 75.0 if DEFAULT_TIME_OUTS else 15.0
#: Between two looks at a browser's page: the camera goes on when everybody has seen a colour.
LOOK_EVERY_S: Final = 0.3
SEEN_S: Final = 120.0
COLOURS: Final = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0), "yellow": (255, 255, 0)}
SIZE: Final = (64, 48)


def picture(colour: str, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(buffer, kind)
    return buffer.getvalue()


def named(rgb: Any) -> str | None:
    """The name of a colour as an encoder leaves it."""
    for name, exact in COLOURS.items():
        if all(abs(int(one) - other) < 40 for one, other in zip(rgb, exact, strict=True)):
            return name
    return None


class Seen:
    """What one reader saw: colours, each once until another one comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.colours: list[str] = []
        #: How often it looked, and when last (monotonic): one that hangs is told from one that sees nothing new.
        self.looks, self.looked = 0, time.monotonic()

    def saw(self, rgb: Any) -> None:
        self.looks, self.looked = self.looks + 1, time.monotonic()
        name = named(rgb)
        if name is not None and self.colours[-1:] != [name]:
            self.colours.append(name)


# ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def program(*command: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=None,
        env={**clean_environ(), "OPENCV_FFMPEG_READ_ATTEMPTS": "1"}, cwd=REPOSITORY,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ffmpeg(url: str, seen: Seen) -> None:
    command = (
        "ffmpeg", "-loglevel", "error", "-probesize", "32", "-analyzeduration", "0", "-fflags", "nobuffer", "-i", url,
        "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
    )  # fmt: skip
    async with program(*command) as output:
        while True:
            data = await output.readexactly(SIZE[0] * SIZE[1] * 3)
            seen.saw(data[6000:6003])


async def opencv(url: str, seen: Seen) -> None:
    await _python("opencv", url, seen)


async def pyav(url: str, seen: Seen) -> None:
    await _python("pyav", url, seen)


async def _python(library: str, url: str, seen: Seen) -> None:
    async with program(sys.executable, "tests/kit/video_reader.py", library, url) as output:
        while line := await output.readline():
            seen.saw([int(value) for value in line.split()])
    raise EOFError


async def curl(url: str, seen: Seen) -> None:
    async with program("curl", "--silent", "--no-buffer", "--noproxy", "*", url) as output:
        while True:
            head = (await output.readuntil(b"\r\n\r\n")).decode()
            fields = dict(re.findall(r"^([\w-]+): (.*?)\r$", head, re.MULTILINE))
            data = await output.readexactly(int(fields["Content-Length"]))
            with contextlib.suppress(OSError):
                seen.saw(Image.open(io.BytesIO(data)).convert("RGB").getpixel((20, 20)))


PROGRAMS: Final[dict[str, Callable[[str, Seen], Awaitable[None]]]] = {
    "ffmpeg": ffmpeg, "OpenCV": opencv, "PyAV": pyav, "curl": curl,
}  # fmt: skip


async def look(browser: Browser, page: str, seen: list[Seen]) -> None:
    """Look at a page of pictures one below the other."""
    await browser.show(page)
    while True:
        shown = Image.open(io.BytesIO(await browser.screenshot())).convert("RGB")
        for number, each in enumerate(seen):
            each.saw(shown.getpixel((20, 20 + number * SIZE[1])))
        await asyncio.sleep(LOOK_EVERY_S)


@contextlib.asynccontextmanager
async def page_of(urls: list[str]) -> AsyncIterator[str]:
    """The URL of a page with these pictures, on an origin of its own."""

    async def answer(_: web.Request) -> web.Response:
        pictures = "".join(f'<img width="{SIZE[0]}" height="{SIZE[1]}" style="display:block" src="{u}">' for u in urls)
        return web.Response(text=f"<!doctype html><body style='margin:0'>{pictures}", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


# ── the camera ───────────────────────────────────────────────────────────────────────────────────────────────────────

ODD: Final = (
    "null", "", "!", base64_of(b"null"), base64_of(b"\xff\xd8\xff\xd9"), base64_of(JPEG), base64_of(PNG),
    base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    base64_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)),
    base64_of(b"RIFF\x40\0\0\0WEBPVP8 " + bytes(64)), base64_of(b"GIF89a" + bytes(7)),
)  # fmt: skip


async def odd_frames(camera: Camera, colour: str) -> None:
    """Pictures of all codecs, and what is none; the newest is a JPEG of this colour."""
    for data in ODD:
        await camera.send("video-frame", data=data)
    for data in (b"null", b"\0" * 9, JPEG, PNG):
        await camera.show_binary(data, codec=1)
    for kind in ("PNG", "WEBP", "GIF", "JPEG"):
        await camera.show_binary(picture(colour, kind), codec=0)


async def test_every_reader_sees_every_picture_through_odd_frames_pauses_and_take_overs(
    served: Watchout, ways: dict[str, str], clients: Clients
) -> None:
    for name in ("ffmpeg", "curl"):
        if shutil.which(name) is None:
            missing(f"no {name} is on the PATH")
    token, stream, silent = served.token(new_name("ann")), new_name(), new_name()
    camera = await clients.camera(served.url, token)
    await camera.register(stream)
    waits = await clients.camera(served.url, token)
    await waits.register(silent)
    seen: list[Seen] = []
    lasting: list[Seen] = []
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks: list[asyncio.Task[None]] = []
        stack.callback(lambda: [task.cancel() for task in tasks])
        for way, url in ways.items():
            for name, reader in PROGRAMS.items():
                seen.append(Seen(f"{name}, {way}"))
                tasks.append(group.create_task(reader(f"{url}/streams/{stream}/mjpeg?token={token}", seen[-1])))
            lasting.append(Seen(f"curl without a first picture, {way}"))
            tasks.append(group.create_task(curl(f"{url}/streams/{silent}/mjpeg?token={token}", lasting[-1])))
        page = await stack.enter_async_context(
            page_of([f"{url}/streams/{stream}/mjpeg?token={token}" for url in ways.values()])
        )
        for name, start in (("Chromium", chromium), ("Firefox", firefox)):
            of_browser = [Seen(f"{name}, {way}") for way in ways]
            seen += of_browser
            tasks.append(group.create_task(look(await stack.enter_async_context(start()), page, of_browser)))

        async def all_see(count: int, of: list[Seen], colour: str) -> None:
            def others() -> str:
                now = time.monotonic()
                wrong = [
                    f"{each.name}: {each.colours}; it looked {each.looks} times, last {now - each.looked:.1f} s ago"
                    for each in of
                    if each.colours[-1:] != [colour]
                ]
                return f"not all see {colour}: {wrong}"

            await eventually(lambda: all(each.colours[-1:] == [colour] for each in of), SEEN_S, others)
            assert count == len({task for task in tasks if not task.done()})

        async def viewers() -> bool:
            rows = (await http(f"{served.url}/streams", token=token)).json["streams"]
            return sum(row["viewers"] for row in rows if row["id"] == stream) == len(seen)

        try:
            await eventually(viewers, SEEN_S, "not every reader has come")
            await camera.show_binary(picture("red"))
            await all_see(len(tasks), seen, "red")
            await odd_frames(camera, "blue")
            await all_see(len(tasks), seen, "blue")
            await asyncio.sleep(PAUSE_S)  # the pause is what is tested
            other = await clients.camera(served.url, token)
            await other.register(stream)
            assert await camera.closed() == 4501
            await other.show(base64_of(picture("green")))
            await all_see(len(tasks), seen, "green")
            await other.leave()
            again = await clients.camera(served.url, token)
            await again.register(stream)
            await again.show_binary(picture("yellow"))
            await all_see(len(tasks), seen, "yellow")
            await waits.show_binary(picture("red"))
            await all_see(len(tasks), lasting, "red")
            for each in seen:
                assert each.colours == ["red", "blue", "green", "yellow"], each.name
        finally:  # before the browsers end, whose readers would hide what failed
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def served() -> Iterator[Watchout]:
    with running(environ={"MAX_CONNECTIONS_PER_USER": "100"}) as started:
        yield started


@pytest.fixture(scope="module")
def ways(served: Watchout) -> Iterator[dict[str, str]]:
    """Base URLs: of the gateway, and of proxies in front of it."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-")))
        ports = {
            "nginx": stack.enter_context(nginx(directory / "nginx", served.port, IDLE_S)),
            "haproxy": stack.enter_context(haproxy(directory / "haproxy", served.port, IDLE_S)),
        }
        if DEFAULT_TIME_OUTS:
            ports["caddy"] = stack.enter_context(caddy(directory / "caddy", [served.port])).port
        yield {"straight": served.url, **{name: f"http://127.0.0.1:{port}" for name, port in ports.items()}}
