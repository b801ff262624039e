"""The Procfile, and processes that start in any order."""

from __future__ import annotations

import itertools
import re
import shutil
import signal

import pytest

from tests.faults.processes.support import health, healthy, registers, served, stats
from tests.kit.clients import eventually
from tests.kit.processes import BIN, REPOSITORY, Process, Watchout, running

pytestmark = pytest.mark.e2e


# ── the Procfile ─────────────────────────────────────────────────────────────────────────────────────────────────


def honcho(started: Watchout, *arguments: str) -> Process:
    """`honcho start` with the real Procfile, in a directory without .env, on whose port nothing is to listen."""
    shutil.copy(REPOSITORY / "Procfile", started.directory / "Procfile")
    process = started.run("honcho", [str(BIN / "honcho"), "start", *arguments])
    started.wait_ready()
    process.wait_for_output("joined the router")
    return process


async def test_honcho_start_serves_and_sigterm_ends_it_cleanly_within_5_seconds(watchout, clients):
    started = watchout(start=False, environ={"PORT": "1"})
    process = honcho(started)
    camera, viewer = await served(started.url, started.token(), clients)
    names = sorted(" ".join(child.cmdline()) for child in process.children)
    for name in ("router", "gateway", "mlbridge"):
        assert any(f"watchout-{name}" in command for command in names)
    before = len(process.output)
    below = process.children
    process.send_signal(signal.SIGTERM)
    assert await viewer.closed() == 1012
    assert await camera.closed() == 1012
    await process.ended(30.0)  # honcho itself kills what has not ended after 5 s, and says another code below
    await eventually(lambda: not any(child.is_running() for child in below), 30)
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in process.output[before:].splitlines()]
    said = [line.partition(" | ")[2] for line in lines]
    for name in ("router", "gateway", "mlbridge"):
        assert any(f"{name}.1 stopped (rc=0)" in line for line in said), said
    allowed = (
        r"SIGTERM received|sending SIGTERM to .*|.* stopped \(rc=0\)|(\S+ )?info +(router|gateway|mlbridge|member) .*"
        r"|(\S+ )?info +connection closed .* code=1012 .*"
    )
    assert [line for line in said if line and not re.fullmatch(allowed, line)] == []


async def test_honcho_start_with_two_gateways_serves_one_port(watchout, clients):
    started = watchout(start=False)
    process = honcho(started, "-c", "gateway=2,router=1,mlbridge=1")
    await eventually(lambda: process.output.count("gateway ready") == 2, 30)
    token = started.token()
    holders: set[int] = set()
    for _ in range(60):
        viewer = await clients.viewer(started.url, token)
        holders.add(await eventually(lambda port=viewer.local_port: started.holder_of(port)))
        if len(holders) == 2:
            break
    assert len(holders) == 2
    assert await stats(started.url)


async def test_whatever_order_the_processes_start_in_they_come_up(watchout):
    for order in itertools.permutations(("router", "gateway", "mlbridge")):
        with running(start=False) as started:
            for name in order:
                started.start(name).wait_for_output(f"{name} ready")
            started.wait_ready()


async def test_the_others_may_come_long_after_a_camera_tried(watchout, clients):
    started = watchout(start=False, environ={"ROUTER_TIMEOUT_S": "0.3"})
    started.start("gateway").wait_for_output("gateway ready")
    camera = await clients.camera(started.url, started.token())
    await camera.send("register", produces=["video-frame"])
    await camera.expect("error", code="ROUTING_ERROR")
    assert await health(started.url) == 503
    started.start("router")
    await healthy(started, 200, 30)
    await eventually(lambda: registers(camera, "cam"))
