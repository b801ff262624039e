"""The kernel kills a process for want of memory: as after kill -9, sockets live on and all is right when it is back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.clients import Clients, eventually
from tests.kit.memory import limited

pytestmark = pytest.mark.e2e
COMES_S = 30.0
LIMIT_BYTES = 300 << 20
#: Takes memory beside the router until somebody is killed.
HOG = "import sys; held = []\nfor _ in range(1000): held.append(bytearray(b'x') * (4 << 20))\n"


async def test_a_router_that_the_kernel_kills_for_memory_costs_no_socket(watchout, clients: Clients):
    started = watchout()
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    router = started.one("router")
    async with camera.streaming(fps=10):
        await eventually(lambda: len(viewer.frames) > 5, COMES_S)
        with limited(LIMIT_BYTES) as group:
            group.add(router.pid)
            Path(f"/proc/{router.pid}/oom_score_adj").write_text("1000")  # the kernel's first choice
            hog = subprocess.Popen([sys.executable, "-c", f"input()\n{HOG}"], stdin=subprocess.PIPE)
            try:
                group.add(hog.pid)
                assert hog.stdin is not None
                hog.stdin.write(b"\n")
                hog.stdin.close()
                assert await router.ended(COMES_S) == -9
            finally:
                hog.kill()
                hog.wait()
        count = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > count + 5, COMES_S, "frames flow without the router")
        started.start("router")
        await eventually(lambda: started.get("/health")[0] == 200, COMES_S)
        await (await clients.camera(url, token)).register("new")
    assert camera.open
    assert viewer.open
    assert viewer.frame_ids == sorted(set(viewer.frame_ids))
