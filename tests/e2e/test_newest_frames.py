"""Newest frames of quiet cameras are bounded in total; on the real processes."""

from __future__ import annotations

import re

import psutil
import pytest

from tests.kit.clients import JPEG, Clients, eventually, http, new_name
from tests.kit.processes import running

pytestmark = pytest.mark.e2e

MIB = 1 << 20
CAMERAS = 24
KEPT = 32 * MIB


async def test_large_pictures_of_many_quiet_cameras_take_no_more_memory_than_is_said(clients: Clients) -> None:
    with running(environ={"NEWEST_FRAME_BYTES": str(KEPT)}) as started:
        gateway = psutil.Process(started.one("gateway").pid)
        token = started.token("ann")
        picture = JPEG + bytes(4 * MIB)
        streams: list[str] = []

        async def has_frame(stream: str) -> bool:
            answer = await http(f"{started.url}/streams/{stream}/frame.jpg", token=token)
            assert answer.status in (200, 404)
            return answer.status == 200

        async def show(count: int) -> None:
            for _ in range(count):
                camera = await clients.camera(started.url, token)
                streams.append(await camera.register(new_name()))
                await camera.show_binary(picture)
                await eventually(lambda: has_frame(streams[-1]), 30, "the picture is not shown")

        await show(2)
        before = gateway.memory_info().rss
        await show(CAMERAS - 2)
        assert gateway.memory_info().rss - before < KEPT + 40 * MIB
        # The newest first: a picture that was just handed out counts twice, and the oldest may be evicted for it.
        kept = [stream for stream in reversed(streams) if await has_frame(stream)]
        assert kept == streams[::-1][: len(kept)]
        assert 2 <= len(kept) <= 8  # a frame that was just handed out counts twice for a while
        viewer = await clients.viewer(started.url, token)
        assert await viewer.subscribe(streams[0]) in ("streaming", "online")  # it waits for the next frame
        page = (await http(f"{started.url}/metrics")).body.decode()
        (held,) = re.findall(r"^watchout_newest_frame_bytes\{.*\} (\S+)$", page, re.MULTILINE)
        assert float(held) <= KEPT
