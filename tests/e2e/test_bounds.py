"""The table of bounds in docs/security.md: every row is filled from many sockets at once, and nobody else notices.

The gateway runs under a limit of memory that the operating system holds. A camera and a viewer that have signed in go
on meanwhile: frames flow, and neither is disconnected.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import psutil
import pytest

from common.metrics import FIGURES
from tests.kit.clients import eventually
from tests.kit.fillers import FILLERS, Scene, rows

#: Memory that a process may have beside what it has when it is ready: past it an allocation fails.
HEADROOM_BYTES = 192 << 20
#: The bystanders' frames while a row is filled and after it.
FPS = 10.0
SETTINGS = {
    "MAX_STRANGERS_PER_ADDRESS": "200",
    "MAX_WAITS_PER_USER": "500",
    "STREAM_RESERVED_PER_USER": "20",
    "STREAM_RESERVED_MAX": "50",
    "RECENT_ALERTS": "100000",
    "RECENT_ALERT_BYTES": str(4 << 20),
    "NEWEST_FRAME_BYTES": str(32 << 20),
}


def test_every_row_of_the_table_is_whole_and_has_its_filler() -> None:
    found = rows()
    names = [row["filler"].strip("`") for row in found]
    assert len(set(names)) == len(names)
    assert set(names) == set(FILLERS)
    for row in found:
        assert all(row.values()), row
        metrics = [word.strip("`") for word in row["metric"].split(", ")]
        assert set(metrics) - {"–"} <= set(FIGURES), row


@pytest.mark.parametrize("name", sorted(FILLERS))
async def test_a_row_is_filled_and_camera_and_viewer_go_on(name: str, watchout: Any, clients: Any) -> None:
    started = watchout(environ=SETTINGS)
    token = started.token("alice")
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await viewer.subscribe(await camera.register("bystander"))
    limited = [started.one(each) for each in ("gateway", "router", "mlbridge")]
    for process in limited:
        _limit(process.pid)
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
    assert (await asyncio.to_thread(started.get, "/health"))[0] == 200


def _limit(pid: int) -> None:
    """Let the process have so much more private memory (RLIMIT_DATA: heap and anonymous maps), and no more."""
    info = psutil.Process(pid).memory_info()
    most = info.data + HEADROOM_BYTES
    resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
