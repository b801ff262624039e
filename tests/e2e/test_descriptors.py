"""A process with few file descriptors: who is in stays, nothing spins, others are turned away, and it recovers."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import psutil
import pytest

from tests.kit.clients import eventually
from tests.kit.processes import BIN


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_with_64_file_descriptors_who_is_in_stays_and_it_recovers(loop: str, watchout: Any, clients: Any) -> None:
    started = watchout(
        start=False, loop=loop, environ={"AUTH_TIMEOUT_S": "120"}, expected=("a task failed and goes on", "Traceback")
    )
    for name in ("router", "gateway", "mlbridge"):
        started.run(name, ["/bin/sh", "-c", f"ulimit -n 64; exec {BIN}/watchout-{name}"])
    await asyncio.to_thread(started.wait_ready)
    gateway = started.one("gateway")
    assert "few file descriptors" in gateway.output
    token = started.token()
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await viewer.subscribe(await camera.register("cam"))
    async with camera.streaming(fps=20):
        await viewer.frame()
        for _ in range(120):
            await clients.raw(started.url)
        process, seen = psutil.Process(gateway.pid), len(viewer.frames)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        await eventually(lambda: len(viewer.frames) > seen + 40, 30)  # two seconds, if nothing is slow
        assert sum(process.cpu_times()[:2]) - before < 0.75 * max(2.0, time.monotonic() - began)
        assert process.num_fds() <= 64
        # The oldest of those that are over the limit and say nothing give way to who asks.
        status, health = await asyncio.to_thread(started.get, "/health")
        assert (status, health["status"]) == (503, "unhealthy")
        assert "no room for more connections" in health["reason"]
        assert (await asyncio.to_thread(started.get, "/health/live"))[0] == 200
        assert (await asyncio.to_thread(started.get, "/stats"))[0] == 503
        doctor = await asyncio.to_thread(
            subprocess.run, [BIN / "watchout-ctl", "doctor"], env=started.environ, capture_output=True, text=True
        )
        assert "may have 64 files and sockets open" in doctor.stdout
        await clients.leave_raw()

        async def healthy() -> bool:
            return bool((await asyncio.to_thread(started.get, "/health"))[0] == 200)

        await eventually(healthy, 30)
        other = await clients.viewer(started.url, token)
        await other.subscribe("cam")
        await other.frame()
    assert camera.open
    assert viewer.open
