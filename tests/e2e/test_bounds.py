"""The table of bounds in docs/security.md: every row is filled from many sockets at once, and nobody else notices.

The gateway runs under a limit of memory that the operating system holds. A camera and a viewer that have signed in go
on meanwhile: frames flow, and neither is disconnected.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time
import zlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit.clients import JPEG, TEXT, Clients, base64_of, eventually, web_socket_frame
from tests.kit.fillers import FILLERS, NEEDS, Scene, compressed_fragment, unfinished
from tests.kit.processes import BIN, Watchout

NAMES = ("router", "gateway", "mlbridge")
#: The bystanders' frames while a row is filled and after it.
FPS = 10.0
SETTINGS = {
    "MAX_UNAUTHENTICATED_PER_ADDRESS": "200",
    "MAX_WAITS_PER_USER": "500",
    "MAX_SUBSCRIPTIONS_PER_USER": "300",
    "MAX_CONNECTIONS_PER_USER": "200",
    "STREAM_RESERVED_PER_USER": "20",
    "STREAM_RESERVED_MAX": "50",
    "RECENT_ALERTS": "100000",
    "RECENT_ALERT_BYTES": str(4 << 20),
    "NEWEST_FRAME_BYTES": str(32 << 20),
    "WAITING_FRAME_BYTES": str(32 << 20),
}


@pytest.mark.parametrize("name", sorted(FILLERS))
async def test_a_row_is_filled_and_camera_and_viewer_go_on(name: str, watchout: Any, clients: Any) -> None:
    needs = NEEDS[name]
    async with needs.service() as url:
        started = watchout(environ=SETTINGS | needs.environ_with(url), start=False, expected=needs.expected)
        for each in NAMES:
            started.run(each, needs.gateway if each == "gateway" and needs.gateway else [str(BIN / f"watchout-{each}")])
        await asyncio.to_thread(started.wait_ready)
        await _fill(name, started, clients)


async def _fill(name: str, started: Watchout, clients: Clients) -> None:
    token = started.token("alice")
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await viewer.subscribe(await camera.register("bystander"))
    limited = [started.one(each) for each in NAMES]
    for process in limited:
        _limit(process.pid, NEEDS[name].headroom_bytes)
    async with camera.streaming(fps=FPS):
        await viewer.frame()
        await FILLERS[name](Scene(started, clients))
        seen, until = len(viewer.frames), time.monotonic() + 1.0
        await eventually(lambda: len(viewer.frames) > seen + 3 and time.monotonic() > until)
    assert camera.open
    assert viewer.open
    assert all(process.running for process in limited)
    ids = viewer.frame_ids
    assert ids == sorted(set(ids))

    async def healthy() -> bool:
        return bool((await asyncio.to_thread(started.get, "/health"))[0] == 200)

    # The filling may have kept a process from its heartbeats until just now, and what was sent has to be worked off.
    await eventually(healthy, 180)


def _limit(pid: int, headroom_bytes: int) -> None:
    """Let the process have so much more private memory (RLIMIT_DATA: heap and anonymous maps), and no more."""
    info = psutil.Process(pid).memory_info()
    most = info.data + headroom_bytes
    resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _most_resident(pid: int) -> int:
    """The most that it ever had."""
    if not (status := Path(f"/proc/{pid}/status")).exists():
        return _resident(pid)
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(kilobytes) << 10


@pytest.mark.parametrize(("sockets", "path", "size_bytes"), [(400, "subscribe", 1 << 20), (400, "subscribe", 60_000)])
async def test_strangers_with_unfinished_fragments_cost_little_and_nothing_when_they_are_gone(
    sockets: int, path: str, size_bytes: int, watchout: Any, clients: Any
) -> None:
    started = watchout()
    pid, scene = started.one("gateway").pid, Scene(started, clients)
    token = started.token("alice")
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await viewer.subscribe(await camera.register("bystander"))
    async with camera.streaming(fps=FPS):
        await viewer.frame()
        before = _resident(pid)
        await unfinished(scene, f"/streams/{path}", compressed_fragment(size_bytes), sockets)
        assert _resident(pid) - before < 60 << 20
        await clients.leave_raw()
        await eventually(lambda: _resident(pid) - before < 10 << 20, 30)
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 3)
    assert camera.open
    assert viewer.open


async def test_signed_in_ones_with_unfinished_messages_are_bounded_and_told_to_come_back(
    watchout: Any, clients: Any
) -> None:
    started = watchout()
    pid, scene = started.one("gateway").pid, Scene(started, clients)
    before = _resident(pid)
    path = f"/streams/register?token={started.token('mallory')}"
    codes = await unfinished(scene, path, compressed_fragment(15 << 20), 40)
    # What one user may hold, and twice the largest message while one more is inflated: not 600 MiB.
    assert _resident(pid) - before < (32 + 16) << 20
    assert _most_resident(pid) - before < (32 + 2 * 16 + 16) << 20
    assert set(codes) <= {None, 1013}
    assert codes.count(1013) > 10  # others had their pong first, and are told as well
    await scene.reached("closed_unfinished_total", 38)
    await clients.leave_raw()
    await eventually(lambda: _resident(pid) - before < 10 << 20, 30)


async def test_what_a_client_sends_together_with_its_token_is_taken_when_the_token_is_good(
    watchout: Any, clients: Any
) -> None:
    """In one write: the token, a message larger than a stranger's may be, the registration, a large frame."""
    started = watchout()
    raw = await clients.raw(started.url)
    await raw.upgrade("/streams/register")
    said = [
        {"type": "auth", "token": started.token("ann")},
        {"type": "greeting", "text": "x" * 200_000},
        {"type": "register", "streamId": "cam", "produces": ["video-frame"]},
        {"type": "video-frame", "data": base64_of(JPEG + bytes(200_000))},
        {"type": "nonsense"},
    ]
    await raw.send(b"".join(web_socket_frame(TEXT, json.dumps(each).encode()) for each in said))
    assert (await raw.json("success"))["message"] == "Authentication successful"
    assert "greeting" in (await raw.json("error"))["message"]
    assert (await raw.json("success"))["streamId"] == "cam"
    assert "nonsense" in (await raw.json("error"))["message"]


async def test_a_whole_message_is_let_go_of_when_it_was_read(watchout: Any, clients: Any) -> None:
    """Whole compressed messages of 15 MiB, from sockets that stay open and send nothing more."""
    started = watchout()
    pid, deflate = started.one("gateway").pid, zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(b"a" * (15 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    path, before = f"/streams/register?token={started.token('mallory')}", _resident(pid)
    for _ in range(10):
        raw = await clients.raw(started.url)
        await raw.upgrade(path, "Sec-WebSocket-Extensions: permessage-deflate")
        await raw.send(web_socket_frame(TEXT, data[:-4], rsv=4))
        assert (await raw.json("error"))["code"] == "INVALID_MESSAGE"
    assert _resident(pid) - before < 40 << 20


async def test_whole_messages_that_inflate_a_thousand_times_starve_nobody(watchout: Any, clients: Any) -> None:
    """From 20 sockets of one user, as fast as they are taken; a camera and a viewer of another one go on meanwhile."""
    started = watchout()
    camera = await clients.camera(started.url, started.token("alice"))
    viewer = await clients.viewer(started.url, started.token("alice"))
    await viewer.subscribe(await camera.register("bystander"))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(b"a" * (15 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    message, path = web_socket_frame(TEXT, data[:-4], rsv=4), f"/streams/register?token={started.token('mallory')}"
    raws = [await clients.raw(started.url) for _ in range(20)]
    for raw in raws:
        await raw.upgrade(path, "Sec-WebSocket-Extensions: permessage-deflate")
    async with camera.streaming(fps=FPS):
        await viewer.frame()
        for raw in raws:
            raw.writer.write(message * 30)  # inflated it is 9 GiB in all
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 20, 30)
    assert camera.open
    assert viewer.open
