"""The kernel kills a process for want of memory: as after kill -9, and whoever watches the metrics saw it come."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest
from websockets.exceptions import WebSocketException

from tests.kit.clients import JPEG, Clients, eventually
from tests.kit.memory import limited
from tests.kit.ml_stub import MlStub
from tests.kit.processes import BIN, REPOSITORY, Watchout

pytestmark = pytest.mark.e2e
COMES_S = 40.0
LIMIT_BYTES = 300 << 20
#: Takes memory beside the process until somebody is killed.
HOG = "import sys; held = []\nfor _ in range(1000): held.append(bytearray(b'x') * (4 << 20))\n"
#: What a gateway may have that is filled with frames, and how large these are.
FULL_BYTES: Final = 220 << 20
FRAME_BYTES: Final = 8 << 20
RULE: Final = re.compile(r"watchout_resident_bytes / watchout_memory_limit_bytes\) > ([\d.]+)")


@pytest.mark.parametrize("name", ["router", "mlbridge"])
async def test_a_process_that_the_kernel_kills_for_memory_costs_no_socket(watchout, clients: Clients, name: str):
    async with contextlib.AsyncExitStack() as stack:
        stub = MlStub()
        stub.mode = "answer"
        await stub.start()
        stack.push_async_callback(stub.stop)
        started = watchout(environ={"ML_SERVICE_URL": stub.url, "ALERT_COOLDOWN_S": "0"})
        url, token = started.url, started.token()
        camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
        await camera.register("cam")
        await viewer.subscribe("cam")
        victim = started.one(name)

        def alerts() -> int:
            return sum(message["type"] == "alert" for message in viewer.heard)

        await stack.enter_async_context(camera.streaming(fps=10))
        await eventually(lambda: len(viewer.frames) > 5 and alerts(), COMES_S)
        with limited(LIMIT_BYTES) as group:
            group.add(victim.pid)
            Path(f"/proc/{victim.pid}/oom_score_adj").write_text("1000")  # the kernel's first choice
            hog = subprocess.Popen([sys.executable, "-c", f"input()\n{HOG}"], stdin=subprocess.PIPE)
            try:
                group.add(hog.pid)
                assert hog.stdin is not None
                hog.stdin.write(b"\n")
                hog.stdin.close()
                assert await victim.ended(COMES_S) == -9
            finally:
                hog.kill()
                hog.wait()
        count = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > count + 5, COMES_S, f"frames flow without the {name}")
        started.start(name)
        await eventually(lambda: started.get("/health")[0] == 200, COMES_S)
        await (await clients.camera(url, token)).register("new")
        count = alerts()
        await eventually(lambda: alerts() > count, COMES_S, "alerts come again")
        assert camera.open
        assert viewer.open
        assert viewer.frame_ids == sorted(set(viewer.frame_ids))


async def test_a_gateway_that_fills_its_memory_is_seen_before_it_is_killed_and_serves_when_it_is_back(
    watchout, clients: Clients
):
    (rule,) = RULE.findall((REPOSITORY / "deploy/prometheus/watchout.rules.yml").read_text())
    started: Watchout = watchout(start=False, environ={"NEWEST_FRAME_BYTES": str(1 << 30)})
    with limited(FULL_BYTES) as group:
        started.start("router")
        inside = f"echo $$ > {group.processes}; exec {BIN}/watchout-gateway"
        gateway = started.run("gateway", ["/bin/sh", "-c", inside])
        started.wait_ready()
        token = started.token()

        def fullness() -> float:
            figures = [figure_of(started, name) for name in ("resident_bytes", "memory_limit_bytes")]
            assert figures[1] in (0, FULL_BYTES), "the limit of its group"
            return figures[0] / figures[1] if figures[1] else 0.0

        seen = False
        for _ in range(FULL_BYTES // FRAME_BYTES):
            with contextlib.suppress(OSError, AssertionError, WebSocketException):  # it may be killed meanwhile
                camera = await clients.camera(started.url, token)
                await camera.register()
                await camera.show_binary(JPEG + bytes(FRAME_BYTES))
                await camera.rest()
            if not gateway.running:
                break
            if not seen and psutil.Process(gateway.pid).memory_info().rss > (float(rule) + 0.01) * FULL_BYTES:
                seen = await eventually(lambda: fullness() > float(rule), COMES_S, "the rule of the alarm sees nothing")
        assert await gateway.ended(COMES_S) == -9
        assert seen, "it was killed before it was full"
    started.start("gateway")
    await eventually(lambda: started.get("/health")[0] == 200, COMES_S)
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await viewer.subscribe(await camera.register())
    await camera.show()
    await viewer.frame()


def figure_of(started: Watchout, name: str) -> float:
    """A metric of the gateway; 0: it is not there yet."""
    rows = re.findall(rf'^watchout_{name}{{process="gateway"}} (\S+)$', started.text("/metrics")[1], re.MULTILINE)
    return float(rows[0]) if rows else 0.0
