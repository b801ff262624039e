"""Where a stream is published can be asked, and proxies bring cameras and viewers of one stream to one gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import WebSocketException

from tests.kit.clients import Camera, Clients, Viewer, eventually, http, new_name
from tests.kit.fronts import Front, haproxy, nginx
from tests.kit.ports import free_port
from tests.kit.processes import Process, Watchout, running

#: What must come gets this long: the machine may be busy with other tests.
COMES_S = 60.0
#: Each attempt looks at all streams, one after the other.
MEETS_S = 180.0
#: Enough that each of three gateways gets some, whatever the hash.
STREAMS = 24

Proxy = Callable[..., AbstractContextManager[Front]]


class Gateways:
    """Three gateways of one router, each with a port and a public address of its own, as on three machines."""

    def __init__(self, started: Watchout) -> None:
        self.started = started
        self.ports = [free_port() for _ in range(3)]
        self.processes = [self.start(number) for number in range(3)]

    def start(self, number: int) -> Process:
        port = self.ports[number]
        environ = {"WATCHOUT_PORT": str(port), "PUBLIC_URL": self.url(number)}
        return self.started.start("gateway", environ)

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    async def ready(self) -> None:
        for port in self.ports:

            async def healthy(port: int = port) -> bool:
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    return (await http(f"http://127.0.0.1:{port}/health")).status == 200
                return False

            await eventually(healthy, COMES_S, f"the gateway on {port} serves")

    async def frames_between(self) -> float:
        """Frames that went from one gateway to another, by the count of the gateways that run."""
        for number, process in enumerate(self.processes):
            if process.running:  # each reports its own count when it is asked: the last answer has all
                text = (await http(f"{self.url(number)}/metrics")).body.decode()
        counts = [line for line in text.splitlines() if line.startswith("watchout_frames_from_bus_total")]
        return sum(float(line.rpartition(" ")[2]) for line in counts)


@pytest.fixture
async def gateways(watchout: Callable[..., Watchout]) -> Gateways:
    started = watchout(start=False)
    started.start("router")
    made = Gateways(started)
    await made.ready()
    return made


@pytest.fixture(scope="module")
def plain() -> Iterator[Watchout]:
    with running(gateways=2) as started:
        yield started


async def where(base: str, stream: str, token: str | None) -> tuple[int, object]:
    answer = await http(f"{base}/streams/{stream}/where", token=token)
    return answer.status, answer.json


async def test_where_a_stream_is_published_is_told_to_those_who_may_view_it(
    gateways: Gateways, clients: Clients
) -> None:
    started, stream = gateways.started, new_name()
    owner, other = started.token("ann"), started.token("bob")
    camera = await clients.camera(gateways.url(1), owner)
    await camera.register(stream)
    told = {"streamId": stream, "host": socket.gethostname(), "url": gateways.url(1)}
    for number in range(3):
        assert await where(gateways.url(number), stream, owner) == (200, told), number
        assert (await where(gateways.url(number), stream, other))[0] == 404, "as for one that is not there"
        assert (await where(gateways.url(number), stream, None))[0] == 401
        assert (await where(gateways.url(number), "no-such-stream", owner))[0] == 404
    assert (await http(f"{gateways.url(0)}/streams/{stream}/where", method="POST", token=owner)).status == 405
    await camera.leave()
    for number in range(3):
        await eventually(lambda number=number: gone(gateways.url(number), stream, owner), COMES_S)
    again = await clients.camera(gateways.url(2), owner)
    await again.register(stream)
    assert await where(gateways.url(0), stream, owner) == (200, {**told, "url": gateways.url(2)})


async def gone(base: str, stream: str, token: str) -> bool:
    return (await where(base, stream, token))[0] == 404


async def test_without_a_public_address_the_machine_alone_is_told(plain: Watchout, clients: Clients) -> None:
    token, stream = plain.token(), new_name()
    camera = await clients.camera(plain.url, token)
    await camera.register(stream)
    for _ in range(8):  # of both gateways, which share the port
        answer = await where(plain.url, stream, token)
        assert answer == (200, {"streamId": stream, "host": socket.gethostname(), "url": None})


class Site:
    """Cameras and viewers that know only the address of a proxy."""

    def __init__(self, gateways: Gateways, clients: Clients, port: int) -> None:
        self._gateways, self._clients = gateways, clients
        self.base = f"http://127.0.0.1:{port}"
        self.token = gateways.started.token()

    async def camera(self, stream: str, **fields: Any) -> Camera:
        camera = await self._clients.camera(self.base, self.token, query=f"?streamId={stream}")
        await camera.register(stream, **fields)
        return camera

    async def viewer(self, stream: str, **fields: Any) -> Viewer:
        viewer = await self._clients.viewer(self.base, self.token, query=f"?streamId={stream}")
        await viewer.subscribe(stream, **fields)
        return viewer

    @contextlib.asynccontextmanager
    async def moving_picture(self, stream: str) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=2 * COMES_S)) as session,
            session.get(f"{self.base}/streams/{stream}/mjpeg") as response,
        ):
            assert response.status == 200
            yield response

    async def home_of(self, stream: str) -> str:
        """The public address of the gateway that has the camera."""
        status, told = await where(self.base, stream, self.token)
        assert status == 200, told
        assert isinstance(told, dict)
        return str(told["url"])


async def picture(response: aiohttp.ClientResponse) -> int:
    """The frame id of the next part of a moving picture."""
    async with asyncio.timeout(COMES_S):
        while not (line := await response.content.readline()).lower().startswith(b"x-frame-id:"):
            assert line, "the moving picture has ended"
    return int(line.partition(b":")[2])


@pytest.mark.parametrize("proxy", [nginx, haproxy])
async def test_behind_a_proxy_camera_and_viewers_of_a_stream_meet_and_a_lost_gateway_moves_only_its_streams(
    gateways: Gateways, clients: Clients, proxy: Proxy, tmp_path: Path
) -> None:
    streams = [new_name() for _ in range(STREAMS)]
    with proxy(tmp_path, gateways.ports) as front:
        site = Site(gateways, clients, front.port)
        cameras = {stream: await site.camera(stream) for stream in streams}
        homes = {stream: await site.home_of(stream) for stream in streams}
        assert set(homes.values()) == {gateways.url(number) for number in range(3)}, "each gateway has some"

        async def all_are_seen() -> None:
            """Over a socket and as a moving picture, through the proxy."""
            for stream, camera in cameras.items():
                viewer = await site.viewer(stream, lastFrame=False)
                async with camera.streaming(10), site.moving_picture(stream) as response:
                    await viewer.frame()
                    await picture(response)
                await viewer.leave()

        await all_are_seen()
        assert await gateways.frames_between() == 0, "each frame stayed within the gateway of its camera"

        gateways.processes[1].kill()
        lost = [stream for stream, home in homes.items() if home == gateways.url(1)]
        for stream in lost:
            await eventually(lambda stream=stream: not cameras[stream].open, COMES_S)

        async def meet_again() -> bool:
            """Whoever connects before the proxy has noticed may come to another gateway, where all works as well."""
            with contextlib.suppress(OSError, WebSocketException, aiohttp.ClientError):
                for stream in lost:
                    await cameras[stream].leave()
                    cameras[stream] = await site.camera(stream)
                before = await gateways.frames_between()
                await all_are_seen()
                return await gateways.frames_between() == before
            return False

        await eventually(meet_again, MEETS_S, "viewers follow the camera to its new gateway")
        for stream in streams:
            if stream in lost:
                assert await site.home_of(stream) != gateways.url(1)
            else:
                assert cameras[stream].open
                assert await site.home_of(stream) == homes[stream]

        gateways.processes[1] = gateways.start(1)
        await gateways.ready()
        await eventually(lambda: comes_back(site, lost[0], gateways.url(1)), COMES_S, "the stream is at home again")

        far = await clients.viewer(gateways.url(0), site.token)
        at_other = next(stream for stream, home in homes.items() if home == gateways.url(2))
        await far.subscribe(at_other, lastFrame=False)
        async with cameras[at_other].streaming(10):
            await far.frame()
        assert await gateways.frames_between() > 0, "frames between gateways are counted"


async def comes_back(site: Site, stream: str, home: str) -> bool:
    """Connect a camera anew; whether it is at this gateway, which the proxy asks again only after a while."""
    camera = await site.camera(stream)
    try:
        return await site.home_of(stream) == home
    finally:
        await camera.leave()
