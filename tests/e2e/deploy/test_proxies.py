"""The proxies with the files of `deploy/`: TLS, WebSockets, moving pictures, silence, the client's address, reloads.

What is before several gateways is in tests/e2e/test_placement.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import pytest

from tests.e2e.edge.support import cookie
from tests.kit import fronts
from tests.kit.clients import Camera, Clients, Viewer, eventually, new_name
from tests.kit.fronts import Authority, Front
from tests.kit.ports import free_port
from tests.kit.processes import SERVICE_TOKEN, Watchout, running
from watchout.common.settings import Settings

pytestmark = [pytest.mark.e2e, pytest.mark.real]
COMES_S: Final = 60.0
#: Connections that an address may have.
MOST: Final = 4
#: So many times as short are the time-outs of the files and the gateway's, unless they are to be as they are
#: (`make test-mjpeg-long`).
FASTER: Final = 1 if os.environ.get("MJPEG_DEFAULT_TIME_OUTS") else 5
KINDS: Final = tuple(fronts.ALL)
_addresses = itertools.count(2)


@dataclass
class Site:
    """A watchout, and a proxy before it."""

    started: Watchout
    front: Front
    authority: Authority

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.front.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return self.authority.trust()

    async def camera(self, clients: Clients, stream: str) -> Camera:
        options = {"ssl": self.trust, "local_addr": (new_address(), 0)}
        camera = await clients.camera(self.url.replace("https", "wss"), self.started.token(), **options)
        await camera.register(stream, produces=["video-frame", "alert"])
        return camera

    async def viewer(self, clients: Clients, stream: str, **wish: Any) -> Viewer:
        options = {"ssl": self.trust, "local_addr": (new_address(), 0)}
        viewer = await clients.viewer(self.url.replace("https", "wss"), self.started.token(), **options)
        await viewer.subscribe(stream, **wish)
        return viewer

    @contextlib.asynccontextmanager
    async def client(self, address: str) -> AsyncIterator[aiohttp.ClientSession]:
        """A client of this address, with connections of its own."""
        connector = aiohttp.TCPConnector(ssl=self.trust, local_addr=(address, 0), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session
        # TLS says goodbye to each other before a socket is closed.
        mine = psutil.Process()
        await eventually(
            lambda: not [one for one in mine.net_connections("tcp4") if one.laddr and one.laddr.ip == address], COMES_S
        )

    @contextlib.asynccontextmanager
    async def moving_picture(
        self, client: aiohttp.ClientSession, stream: str, **said: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Authorization": f"Bearer {self.started.token()}", **said}
        timeout = aiohttp.ClientTimeout(total=None)
        async with client.get(f"{self.url}/streams/{stream}/mjpeg", headers=headers, timeout=timeout) as response:
            yield response


def new_address() -> str:
    """An address of loopback that no other client has."""
    number = next(_addresses)
    return f"127.0.{number // 250 + 1}.{number % 250 + 1}"


async def part(response: aiohttp.ClientResponse) -> None:
    """Read one picture of a moving picture."""
    async with asyncio.timeout(COMES_S):
        await response.content.readuntil(b"\xff\xd9")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """Each proxy before one watchout."""
    directory = tmp_path_factory.mktemp("fronts")
    authority = Authority(directory)
    environ = {
        "TRUSTED_PROXIES": "127.0.0.1",
        "MAX_CONNECTIONS_PER_ADDRESS": str(MOST),
        "IDLE_TIMEOUT_S": str(Settings().idle_timeout_s / FASTER),
    }
    with running(environ=environ) as started, contextlib.ExitStack() as stack:
        made = {}
        for name, (start, file) in fronts.ALL.items():
            ports = [started.port] * max(1, fronts.text_of(file).count("10.77.0."))
            front = stack.enter_context(start(directory / name, ports, authority, FASTER))
            made[name] = Site(started, front, authority)
        yield made


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


async def test_frames_and_alerts_come_over_tls(site: Site, clients: Clients) -> None:
    stream = new_name()
    camera = await site.camera(clients, stream)
    viewer = await site.viewer(clients, stream)
    await camera.show()
    await viewer.frame()
    await camera.send("alert", severity="high", message="of the camera")
    await viewer.find("alert", message="of the camera")
    body = {"streamId": stream, "severity": "low", "message": "of a service"}
    async with site.client(new_address()) as client:
        headers = {"Authorization": f"Bearer {SERVICE_TOKEN}"}
        async with client.post(f"{site.url}/alerts", json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
    await viewer.find("alert", message="of a service")


async def test_pictures_come_one_by_one_while_the_response_is_open(site: Site, clients: Clients) -> None:
    stream = new_name()
    camera = await site.camera(clients, stream)
    await camera.show_binary()
    async with site.client(new_address()) as client, site.moving_picture(client, stream) as response:
        assert response.status == 200
        for _ in range(3):
            await part(response)
            await camera.show_binary()


async def test_who_comes_without_tls_is_led_to_it(site: Site) -> None:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{site.front.plain_port}/streams?x=1", allow_redirects=False) as response,
    ):
        assert response.status == 308
        assert response.headers["Location"].startswith("https://127.0.0.1")
        assert response.headers["Location"].endswith("/streams?x=1")


async def test_the_limits_are_those_of_the_client_and_not_of_the_proxy(site: Site, clients: Clients) -> None:
    """A client that has too many connections is refused, whatever it says of itself; another one is served."""
    stream, greedy = new_name(), new_address()
    camera = await site.camera(clients, stream)
    await camera.show_binary()
    async with (
        site.client(greedy) as client,
        site.client(new_address()) as other,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(MOST):
            response = await stack.enter_async_context(site.moving_picture(client, stream))
            assert response.status == 200
        for said in ({}, {"X-Forwarded-For": "10.1.2.3"}, {"Forwarded": "for=10.1.2.3"}, {"X-Real-IP": "10.1.2.3"}):
            async with site.moving_picture(client, stream, **said) as refused:
                assert refused.status == 503, said
                assert (await refused.json())["error"]["code"] == "TOO_MANY_CONNECTIONS"
        async with site.moving_picture(other, stream, **{"X-Forwarded-For": greedy}) as served:
            assert served.status == 200, "nobody is refused for another one's address"


async def test_no_client_gets_a_connection_that_counts_for_another_one(site: Site, clients: Clients) -> None:
    """A proxy that kept the connections of answered requests would give them to whoever comes next."""
    stream = new_name()
    camera = await site.camera(clients, stream)
    await camera.show_binary()
    body = json.dumps({"streamId": stream, "severity": "low", "message": "x"}).encode()
    begun, go = 0, asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        nonlocal begun
        yield body[:9]
        begun += 1
        await go.wait()
        yield body[9:]

    async def post(client: aiohttp.ClientSession) -> int:
        headers = {"Authorization": f"Bearer {SERVICE_TOKEN}"}
        url = f"{site.url}/alerts?streamId={stream}"
        async with client.post(url, data=slow_body(), headers=headers) as response:
            await response.read()
            return response.status

    async with (
        site.client(new_address()) as first,
        site.client(new_address()) as second,
        contextlib.AsyncExitStack() as stack,
    ):
        async with asyncio.TaskGroup() as group:  # as many connections at once as it may have
            posts = [group.create_task(post(first)) for _ in range(MOST)]
            await eventually(lambda: begun == MOST, COMES_S)
            async with second.get(f"{site.url}/streams/{stream}/where") as response:
                await response.read()
            go.set()
        assert all(each.result() < 300 for each in posts)
        for client in (second, first):
            for _ in range(MOST):
                response = await stack.enter_async_context(site.moving_picture(client, stream))
                assert response.status == 200


async def test_a_page_of_the_own_site_may_use_the_cookie_and_one_of_another_site_may_not(
    site: Site, clients: Clients
) -> None:
    """The gateway hears the name, the port and the scheme that the browser knows, and nothing that clients make up."""
    stream, token = new_name(), site.started.token()
    await site.camera(clients, stream)
    name, _, value = cookie(token).partition(": ")

    async def answer(origin: str, **said: str) -> dict[str, Any]:
        viewer = await clients.viewer(
            site.url.replace("https", "wss"),
            None,
            ssl=site.trust,
            local_addr=(new_address(), 0),
            additional_headers={name: value, "Origin": origin, **said},
        )
        await viewer.send("subscribe", streamId=stream, clientType="dashboard", consumes=["alert"])
        return await viewer.next()

    assert (await answer(site.url))["type"] == "success"
    evil = {"X-Forwarded-Host": "evil.com", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.com;proto=https"}
    for origin, said in (
        ("https://evil.com", evil),
        (site.url.replace("https", "http"), {"X-Forwarded-Proto": "http"}),
    ):
        refused = await answer(origin, **said)
        assert refused["code"] == "AUTH_REQUIRED", refused


async def test_a_long_silence_ends_nothing(sites: dict[str, Site], clients: Clients) -> None:
    """Longer than the time-outs of each file, which are over what the gateway leaves between two words."""
    longest = 0.0
    scenes = []
    async with contextlib.AsyncExitStack() as stack:
        for name, site in sites.items():
            given = fronts.time_outs(fronts.ALL[name][1])
            assert name == "caddy" or len(given) >= 3, "the file says them"
            longest = max(longest, *(seconds for seconds in given.values() if seconds < 3600), 0.0)
            stream = new_name()
            camera = await site.camera(clients, stream)
            viewer = await site.viewer(clients, stream, lastFrame=False)
            client = await stack.enter_async_context(site.client(new_address()))
            moving = await stack.enter_async_context(site.moving_picture(client, stream))
            scenes.append((name, camera, viewer, moving))
        await asyncio.sleep(1.25 * longest / FASTER)  # nobody says a word: that is what the test is about
        for name, camera, viewer, moving in scenes:
            assert camera.open, name
            assert viewer.open, name
            await camera.show_binary()
            await viewer.frame()
            await part(moving)
            moving.close()
            await camera.show_binary()  # HAProxy notices that a reader has left when it has something to write


async def test_a_reload_takes_up_a_renewed_certificate_and_ends_no_socket(site: Site, clients: Clients) -> None:
    """But for Caddy, which ends them: clients come again at once."""
    stream = new_name()
    camera, viewer = await site.camera(clients, stream), await site.viewer(clients, stream, lastFrame=False)
    site.authority.renew()
    await asyncio.to_thread(site.front.reload)

    async def renewed() -> bool:
        """Until all of the proxy's processes have it, an old one may take the connection."""
        with contextlib.suppress(OSError):
            shown = [await asyncio.to_thread(site.authority.shown_serial, site.front.port) for _ in range(5)]
            return set(shown) == {site.authority.serial}
        return False

    await eventually(renewed, COMES_S, "the renewed certificate is shown")
    if site.front.process.name == "caddy":
        for each in (camera, viewer):
            await each.leave()
        camera, viewer = await site.camera(clients, stream), await site.viewer(clients, stream, lastFrame=False)
    assert camera.open
    assert viewer.open
    await camera.show()
    await viewer.frame()
    another = await site.viewer(clients, stream)
    await another.frame()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_in_the_address_is_in_no_log(kind: str, sites: dict[str, Site], tmp_path: Path) -> None:
    """Neither of a request that was answered, nor of one that reached no gateway."""
    start, file = fronts.ALL[kind]
    nobody = [free_port()] * max(1, fronts.text_of(file).count("10.77.0."))
    with start(tmp_path, nobody, sites[kind].authority) as lost:
        for site in (sites[kind], Site(sites[kind].started, lost, sites[kind].authority)):
            async with site.client(new_address()) as client:
                for headers in ({}, {"Referer": f"{site.url}/?token=secret-of-the-test"}):
                    async with client.get(f"{site.url}/asked?token=secret-of-the-test", headers=headers) as response:
                        await response.read()
                        assert response.status in ((404, 401) if site is sites[kind] else (502, 503))
            await eventually(lambda site=site: site.front.said().count("/asked") >= 2, COMES_S, site.front.said)
            assert "secret-of-the-test" not in site.front.said()
