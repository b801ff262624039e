"""Many streams and a router that is killed: each of them is known again, and each of them reaches its viewers."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest

from tests.kit.clients import Camera, Clients, Viewer, eventually
from tests.kit.processes import poll

pytestmark = pytest.mark.e2e
#: More than a ZeroMQ socket queues by default (1000 messages). `make test-thorough` has 5000.
STREAMS = int(os.environ.get("WATCHOUT_TEST_STREAMS", "1500"))
VIEWERS = 10
AT_ONCE = 50
COMES_S = 120.0


async def test_every_stream_of_many_receives_after_a_restart_of_the_router(watchout, clients: Clients):
    # The tests' side and the gateway have a socket each for every camera; a process inherits the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * STREAMS + 2000), hard))
    limits = dict.fromkeys(("MAX_CONNECTIONS_PER_USER", "MAX_WAITS_PER_USER"), "20000")
    limits["MAX_UNAUTHENTICATED_PER_ADDRESS"] = "9000"
    started = watchout(start=False, environ=limits)
    started.start("router")
    # Two gateways share the port: most frames then cross the bus.
    started.start("gateway")
    started.start("gateway")
    started.wait_ready()
    token = started.token()
    names = [f"cam-{number}" for number in range(STREAMS)]
    turns = asyncio.Semaphore(AT_ONCE)

    async def camera(name: str) -> Camera:
        async with turns:
            made = await clients.camera(started.url, token)
            await made.register(name)
            return made

    viewers: list[Viewer] = [await clients.viewer(started.url, token) for _ in range(VIEWERS)]
    cameras = await asyncio.gather(*map(camera, names))
    for number, viewer in enumerate(viewers):
        for name in names[number::VIEWERS]:
            await viewer.subscribe(name)
    started.one("router").kill()
    started.start("router")

    def known() -> bool:
        status, body = started.get("/stats")
        return status == 200 and body["totalProducers"] == STREAMS and body["totalVideoConsumers"] >= VIEWERS

    await asyncio.to_thread(poll, known, COMES_S, "the new router knows every stream")
    for camera in cameras:
        await camera.show()
    for number, viewer in enumerate(viewers):
        wanted = set(names[number::VIEWERS])
        await eventually(
            lambda viewer=viewer, wanted=wanted: {frame["streamId"] for frame in viewer.frames} == wanted,
            COMES_S, "a frame of each stream came",
        )  # fmt: skip
