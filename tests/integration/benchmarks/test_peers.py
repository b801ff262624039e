"""The peers that watchout is measured against run here and relay every frame as it was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks import fetch
from benchmarks.plan import POINTS, Turn
from benchmarks.runner import one
from benchmarks.systems import Missing, Options, Running, system
from tests.kit.clients import pack_frame
from tests.kit.services import missing, not_permitted

pytestmark = pytest.mark.e2e

WAIT_S = 30.0
PICTURES = [path.read_bytes() for path in sorted((Path(fetch.__file__).parent / "data").glob("*.jpg"))]
STREAM = "cam-1"
#: What is not a wheel or an npm package may be missing in CI too.
MAY_BE_MISSING = {"nchan"}


@contextlib.asynccontextmanager
async def started(name: str, work: Path) -> AsyncIterator[Running]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(system(name).started(work, options=Options()))
        except Missing as e:
            if name in MAY_BE_MISSING:
                not_permitted(str(e))
            missing(str(e))
        yield running


class Peer:
    """Cameras and viewers of one running system, in its dialect."""

    def __init__(self, running: Running, stack: contextlib.AsyncExitStack) -> None:
        self.running = running
        self._stack = stack

    async def _connect(self, port: int, path: str) -> ClientConnection:
        url = f"ws://127.0.0.1:{port}{path}"
        client = connect(url, compression=None, max_size=None, proxy=None, open_timeout=WAIT_S, ping_interval=None)
        return await self._stack.enter_async_context(client)

    async def _ask(self, socket: ClientConnection, **fields: str) -> None:
        await socket.send(json.dumps(fields))
        answer = json.loads(await received(socket))
        assert answer["type"] == "success", answer

    async def camera(self, stream: str) -> ClientConnection:
        if self.running.dialect == "nchan":
            return await self._connect(self.running.ports[0], f"/pub?id={stream}")
        socket = await self._connect(self.running.ports[0], "/streams/register")
        await self._ask(socket, type="auth", token=self.running.token or "")
        await self._ask(socket, type="register", streamId=stream)
        return socket

    async def viewer(self, stream: str, format: str) -> ClientConnection:
        if self.running.dialect == "nchan":
            return await self._connect(self.running.ports[-1], f"/sub?id={stream}")
        socket = await self._connect(self.running.ports[-1], "/streams/subscribe")
        await self._ask(socket, type="auth", token=self.running.token or "")
        await self._ask(socket, type="subscribe", streamId=stream, format=format)
        return socket


async def received(socket: ClientConnection) -> str | bytes:
    async with asyncio.timeout(WAIT_S):
        return await socket.recv()


def json_frame(picture: bytes, timestamp: int, stream: str = STREAM) -> str:
    data = base64.b64encode(picture).decode()
    return f'{{"type":"video-frame","streamId":"{stream}","data":"{data}","timestamp":{timestamp}}}'


def json_numbered(frame: str, number: int) -> str:
    return f'{frame[:-1]},"frameId":{number}}}'


def binary_frame(picture: bytes, timestamp: int, number: int = 0, stream: str = STREAM) -> bytes:
    return pack_frame(picture, stream_id=stream, timestamp=timestamp, frame_id=number)


@pytest.mark.parametrize("format", ["json", "binary"])
@pytest.mark.parametrize("name", ["bun", "bun-raw", "ws", "broadcast", "nchan"])
async def test_three_viewers_get_every_frame_of_a_camera_byte_by_byte_with_rising_numbers(tmp_path, name, format):
    async with contextlib.AsyncExitStack() as stack:
        peer = Peer(await stack.enter_async_context(started(name, tmp_path)), stack)
        assert format in system(name).formats
        viewers = [await peer.viewer(STREAM, format) for _ in range(3)]
        another = await peer.viewer("cam-2", format)
        camera = await peer.camera(STREAM)
        other_camera = await peer.camera("cam-2")
        pictures = [b"\xff\xd8\xff\xd9", *PICTURES, PICTURES[0] * 60]  # of one byte length, two and eight (RFC 6455)
        for number, picture in enumerate(pictures, 1):
            if format == "json":
                sent: str | bytes = json_frame(picture, number)
                wanted: str | bytes = json_numbered(json_frame(picture, number), number)
            else:
                sent, wanted = binary_frame(picture, number), binary_frame(picture, number, number)
            await camera.send(sent)
            for viewer in viewers:
                got = await received(viewer)
                assert got == (sent if peer.running.dialect == "nchan" else wanted)
        last = json_frame(b"end", 1, "cam-2") if format == "json" else binary_frame(b"end", 1, stream="cam-2")
        await other_camera.send(last)
        got = await received(another)
        wanted = json_numbered(last, 1) if isinstance(last, str) else binary_frame(b"end", 1, 1, "cam-2")
        assert got == (last if peer.running.dialect == "nchan" else wanted)


@pytest.mark.parametrize("name", ["bun", "bun-raw", "ws", "broadcast", "nchan"])
async def test_a_burst_of_frames_arrives_whole_and_in_order(tmp_path, name):
    async with contextlib.AsyncExitStack() as stack:
        peer = Peer(await stack.enter_async_context(started(name, tmp_path)), stack)
        viewers = [await peer.viewer(STREAM, "json") for _ in range(3)]
        camera = await peer.camera(STREAM)
        frames = [json_frame(picture, n) for n, picture in zip(range(60), itertools.cycle(PICTURES), strict=False)]

        async def watch(viewer: ClientConnection) -> list[str | bytes]:
            return [await received(viewer) for _ in frames]

        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watch(viewer)) for viewer in viewers]
            for frame in frames:
                await camera.send(frame)
        if peer.running.dialect != "nchan":
            frames = [json_numbered(frame, number) for number, frame in enumerate(frames, 1)]
        for task in watching:
            assert task.result() == frames


@pytest.mark.parametrize("name", ["bun", "nginx"])
async def test_with_tls_every_frame_arrives_over_the_one_cipher_in_the_process_and_behind_a_proxy(name):
    point = next(each for each in POINTS if each.name == "tls-20x1")
    try:
        found = await one(Turn(1, replace(point, streams=2, warmup_s=0.2, duration_s=0.3), name))
    except Missing as e:
        if name == "nginx":
            pytest.skip(str(e))
        missing(str(e))
    load = found["load"]  # it refuses another cipher, and compares every byte
    assert load["delivered"] == load["expected"] > 0
    assert (load["corrupt"], load["reordered"]) == (0, 0)
    assert any(each["name"] == name for each in found["processes"]), "its CPU counts"


@pytest.mark.parametrize("name", ["bun", "ws", "broadcast"])
async def test_a_relay_knows_its_token(tmp_path, name):
    async with started(name, tmp_path) as running:
        url = f"ws://127.0.0.1:{running.ports[-1]}/streams/subscribe"
        async with connect(url, proxy=None, open_timeout=WAIT_S) as socket:
            await socket.send('{"type":"auth","token":"wrong"}')
            with pytest.raises(ConnectionClosed):
                await received(socket)
            assert socket.close_code == 1008


@pytest.mark.parametrize("name", ["bun", "bun-raw", "ws", "broadcast", "nchan"])
async def test_a_peer_ends_with_its_block(tmp_path, name):
    async with started(name, tmp_path) as running:
        for pid in running.pids:
            os.kill(pid, 0)
    for pid in running.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_what_cannot_be_fetched_is_missing_and_the_text_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fetch, "node_command", lambda: None)
    monkeypatch.setattr(fetch, "npm_command", lambda: None)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(Missing, match=r"no Node\.js"):
        fetch.node()
    with pytest.raises(Missing, match="no npm"):
        fetch.node_modules()
    with pytest.raises(Missing, match="no npm"):
        fetch.bun.__wrapped__()
    with pytest.raises(Missing, match="nginx libnginx-mod-nchan"):
        fetch.nginx.__wrapped__()


def test_a_failing_download_says_what_the_tool_said(tmp_path):
    with pytest.raises(Missing, match="npm install failed: no such thing"):
        fetch._fetch(["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path, "npm install failed")
    with pytest.raises(Missing, match=r"npm install failed: .*not-a-program"):
        fetch._fetch(["not-a-program"], tmp_path, "npm install failed")
