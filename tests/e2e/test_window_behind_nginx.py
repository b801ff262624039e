"""`window` bounds how old frames get behind a reverse proxy: nginx in front of the gateway, and a viewer that is slow.

nginx takes what the gateway gives, and its sockets hold megabytes; the gateway cannot see that the viewer is far
behind. Only the viewer's acknowledgements tell it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from benchmarks import fetch
from benchmarks.systems import Missing
from tests.kit.clients import Camera, eventually, http, new_name
from tests.kit.processes import Process, Watchout, clean_environ, free_port, poll, running
from tests.kit.proxies import answers, nginx_settings
from tests.kit.readers import COMES_S, Reader, gateway_figures
from tests.kit.services import missing
from watchout.common.clock import now_ms

pytestmark = [pytest.mark.e2e, pytest.mark.real]

FPS: Final = 30
FRAME_BYTES: Final = 30_000
#: A third of what the camera sends.
BYTES_PER_S: Final = 10 * FRAME_BYTES
#: Until the buffers between are full.
WATCH_S: Final = 8.0
WATCH_WINDOWED_S: Final = 4.0
WINDOW: Final = 2
#: A viewer that acknowledges nothing for a second gets one frame more (docs/protocol.md). Half of that already counts
#: here, as an acknowledgement may itself be late.
LONG_SILENCE_S: Final = 0.5

#: As anyone writes it who puts nginx in front of WebSockets; all sizes of buffers are nginx's defaults.
LOCATION: Final = """
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_buffering {buffering};
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Watchout]:
    with running() as started:
        yield started


@pytest.fixture(scope="module", params=["off", "on"])
def proxy_port(
    request: pytest.FixtureRequest, served: Watchout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of an nginx in front of the gateway, with this `proxy_buffering`."""
    try:
        program = fetch.nginx().program
    except Missing as e:
        missing(str(e))
    directory: Path = tmp_path_factory.mktemp("nginx")
    port, settings = free_port(), directory / "nginx.conf"
    location = LOCATION.format(buffering=request.param)
    settings.write_text(nginx_settings(directory, port, served.port, location=location, level="warn"), encoding="ascii")
    command = [str(program), "-p", str(directory), "-c", str(settings), "-e", "stderr"]
    nginx = Process("nginx", command, clean_environ(), directory / "log", directory)
    try:
        poll(lambda: answers(port) or not nginx.running, COMES_S, "nginx does not listen")
        assert nginx.running, nginx.output
        yield port
    finally:
        fault = nginx.end()
    assert fault is None, fault


@dataclass
class Watched:
    """What a viewer saw."""

    #: From the camera's clock to the moment when the whole frame was there, in milliseconds.
    ages_ms: list[int] = field(default_factory=list)
    frame_ids: list[int] = field(default_factory=list)
    #: Frames that the gateway had sent and that were not acknowledged, each time that was looked at.
    under_way: list[int] = field(default_factory=list)
    acknowledged: int = 0
    long_silences: int = 0

    @property
    def settled_age_ms(self) -> float:
        """The median over the second half."""
        return statistics.median(self.ages_ms[len(self.ages_ms) // 2 :])


async def watch(served: Watchout, port: int, camera: Camera, token: str, watch_s: float, **wish: int) -> Watched:
    """Read slowly for a while, as the only viewer of this watchout; acknowledge each frame that is there, if asked."""

    async def nobody_watches() -> bool:
        return bool((await http(f"{served.url}/stats")).json["totalVideoConsumers"] == 0)

    await eventually(nobody_watches, COMES_S)
    seen, before = Watched(), await frames_out(served)
    wish_of_all = {"consumes": ["video-frame"], "format": "binary", "lastFrame": False}
    async with await Reader.watch(port, token, camera.stream, **wish_of_all, **wish) as reader:
        reader.bytes_per_s = BYTES_PER_S
        counting = asyncio.create_task(count(served, seen, before), name="counting")
        spoke = time.monotonic()
        until = spoke + watch_s
        while time.monotonic() < until:
            frame = await reader.message()
            seen.ages_ms.append(now_ms() - frame["timestamp"])
            seen.frame_ids.append(frame["frameId"])
            if "window" in wish:
                await reader.send("ack", streamId=camera.stream, frameId=frame["frameId"])
                seen.acknowledged += 1
                now = time.monotonic()
                seen.long_silences += int((now - spoke) / LONG_SILENCE_S)
                spoke = now
        counting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await counting
    return seen


async def frames_out(served: Watchout) -> int:
    return int((await gateway_figures(served.url)).get("frames_out_total", 0))


async def count(served: Watchout, seen: Watched, before: int) -> None:
    while True:
        # What is acknowledged after the gateway was asked makes this smaller than it was, never larger.
        sent = await frames_out(served) - before
        seen.under_way.append(sent - seen.acknowledged)
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def streaming(camera: Camera) -> AsyncIterator[None]:
    """Frames of `FRAME_BYTES` at `FPS` while the block runs."""

    async def stream() -> None:
        loop = asyncio.get_running_loop()
        picture, due = b"\xff\xd8\xff" + bytes(FRAME_BYTES - 5) + b"\xff\xd9", loop.time()
        while True:
            await camera.show_binary(picture, timestamp=now_ms())
            due += 1 / FPS
            await asyncio.sleep(due - loop.time())

    task = asyncio.create_task(stream(), name="streaming")
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_window_keeps_a_slow_viewer_behind_nginx_near_the_present(served, proxy_port, clients):
    token = served.token(new_name("slow"))
    camera = await clients.camera(served.url, token)
    await camera.register(new_name())
    async with streaming(camera):
        plain = await watch(served, proxy_port, camera, token, WATCH_S)
        windowed = await watch(served, proxy_port, camera, token, WATCH_WINDOWED_S, window=WINDOW)
    for name, seen in (("no window", plain), (f"window {WINDOW}", windowed)):  # pytest -s shows it
        print(f"{name}: median age {seen.settled_age_ms:.0f} ms, {len(seen.frame_ids)} frames, behind at the end "
              f"{seen.under_way[-1] - (0 if seen is windowed else len(seen.frame_ids))}")  # fmt: skip
        assert all(a < b for a, b in itertools.pairwise(seen.frame_ids))
        assert len(seen.under_way) > 10
    assert max(windowed.under_way) <= WINDOW + windowed.long_silences
    # So many frames lie between gateway and viewer where nothing bounds them.
    assert plain.under_way[-1] - len(plain.frame_ids) > 5 * WINDOW
    assert windowed.settled_age_ms < plain.settled_age_ms / 2, (windowed.ages_ms, plain.ages_ms)
    # He sees no fewer pictures for it, only newer ones.
    assert len(windowed.frame_ids) / WATCH_WINDOWED_S > len(plain.frame_ids) / WATCH_S / 2
