"""Caddy with the file of `deploy/caddy`: TLS, WebSockets, moving pictures, silence, the client's address."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.clients import Clients, eventually, new_name
from tests.kit.processes import Watchout, running
from tests.kit.proxies import caddy_with_tls

pytestmark = [pytest.mark.e2e, pytest.mark.real]
COMES_S = 60.0
#: Connections that an address may have.
MOST = 3


@dataclass
class Front:
    """A watchout behind Caddy."""

    started: Watchout
    url: str
    trust: ssl.SSLContext
    log: Path

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


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    directory, key = tmp_path_factory.mktemp("caddy"), make_key()
    (directory / "key.pem").write_bytes(pem(key))
    (directory / "cert.pem").write_bytes(make_certificate(key))
    environ = {"TRUSTED_PROXIES": "127.0.0.1", "MAX_CONNECTIONS_PER_ADDRESS": str(MOST)}
    with (
        running(environ=environ) as started,
        caddy_with_tls(directory, started.port, directory / "cert.pem", directory / "key.pem") as port,
    ):
        trust = ssl.create_default_context(cafile=str(directory / "cert.pem"))
        yield Front(started, f"https://127.0.0.1:{port}", trust, directory / "log")


async def test_camera_and_viewer_meet_over_tls_and_a_silence_ends_nothing(front: Front, clients: Clients) -> None:
    url, token, stream = front.url.replace("https", "wss"), front.started.token(), new_name()
    camera = await clients.camera(url, token, ssl=front.trust)
    viewer = await clients.viewer(url, token, ssl=front.trust)
    await camera.register(stream)
    await viewer.subscribe(stream)
    await camera.show()
    await eventually(lambda: viewer.frames, COMES_S)
    await asyncio.sleep(10)  # nobody says a word: that is what the test is about
    await camera.show()
    await eventually(lambda: len(viewer.frames) == 2, COMES_S)


async def test_pictures_come_one_by_one_while_the_response_is_open(front: Front, clients: Clients) -> None:
    token, stream = front.started.token(), new_name()
    camera = await clients.camera(front.started.url, token)
    await camera.register(stream)
    await camera.show_binary()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        front.client("127.0.0.4") as client,
        client.get(f"{front.url}/streams/{stream}/mjpeg", headers=headers) as response,
        asyncio.timeout(COMES_S),
    ):
        assert response.status == 200
        for _ in range(3):
            await response.content.readuntil(b"\xff\xd9")
            await camera.show_binary()


async def test_the_limits_are_those_of_the_client_and_not_of_caddy(front: Front, clients: Clients) -> None:
    """A client that has too many connections is refused, whatever it says of itself; another one is served."""
    token, stream = front.started.token(), new_name()
    camera = await clients.camera(front.started.url, token)
    await camera.register(stream)
    await camera.show_binary()
    path, headers = f"{front.url}/streams/{stream}/mjpeg", {"Authorization": f"Bearer {token}"}
    async with (
        front.client("127.0.0.2") as greedy,
        front.client("127.0.0.3") as other,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(MOST):
            response = await stack.enter_async_context(greedy.get(path, headers=headers))
            assert response.status == 200
        for said in ({}, {"X-Forwarded-For": "10.1.2.3"}):
            async with greedy.get(path, headers={**headers, **said}) as refused:
                assert refused.status == 503
                assert (await refused.json())["error"]["code"] == "TOO_MANY_CONNECTIONS"
        async with other.get(path, headers=headers) as served:
            assert served.status == 200


async def test_a_token_in_the_address_is_in_no_log(front: Front) -> None:
    async with (
        front.client("127.0.0.5") as client,
        client.get(f"{front.url}/streams?token=secret-of-the-test") as response,
    ):
        await response.read()
    await eventually(lambda: '"uri":"/streams"' in front.log.read_text(), COMES_S, front.log.read_text())
    assert "secret-of-the-test" not in front.log.read_text()
