"""What the HTTP client for untrusted services does not do, and what it says when there is no response."""

from __future__ import annotations

import asyncio
import gzip
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.kit.polling import until
from tests.kit.ports import free_port
from tests.kit.relays import Relays
from watchout.common.toolbox.http_client import (
    HTTP_ERRORS,
    MAX_PLAIN_BODY_BYTES,
    BodyTooLarge,
    ForbiddenAddress,
    HttpClient,
    http_reason,
    read_body,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """A server whose answer each test chooses; it keeps the requests."""

    def __init__(self) -> None:
        self.answer: Handler | None = None
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return web.Response(body=b"ok") if self.answer is None else await self.answer(request)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, str]]:
    made = Service()
    app = web.Application(client_max_size=MAX_PLAIN_BODY_BYTES * 4)
    app.router.add_route("*", "/{path:.*}", made.handle)
    server = TestServer(app)
    await server.start_server()
    yield made, str(server.make_url("/"))
    await server.close()


def client(**options: Any) -> HttpClient:
    return HttpClient(user_agent="watchout-test", connections=2, **options)


async def test_a_redirect_is_a_response_like_any_other(service: tuple[Service, str]) -> None:
    found, url = service
    found.answer = lambda _: _raise(web.HTTPFound("/elsewhere"))
    async with client() as http, http.request("GET", url) as response:
        assert response.status == 302
    assert len(found.requests) == 1


async def _raise(error: Exception) -> web.StreamResponse:
    raise error


async def test_cookies_are_not_kept_and_no_proxy_of_the_environment_is_used(
    service: tuple[Service, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    found, url = service

    async def with_cookie(_: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("a", "b")
        return response

    found.answer = with_cookie
    async with client() as http:
        for _ in range(2):
            async with http.request("GET", url) as response:
                assert response.status == 200
    assert "Cookie" not in found.requests[1].headers


async def test_a_body_counts_as_it_came_over_the_network(service: tuple[Service, str]) -> None:
    found, url = service
    bomb = gzip.compress(bytes(1 << 20))

    async def compressed(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    found.answer = compressed
    async with client() as http, http.request("GET", url) as response:
        assert await read_body(response, 1 << 16) == bomb
    assert found.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_bound_is_an_error_and_one_at_the_bound_is_read(
    service: tuple[Service, str], is_announced: bool
) -> None:
    found, url = service

    async def sized(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        size = int(request.query["size"])
        if is_announced:
            response.content_length = size
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(bytes(size))
        return response

    found.answer = sized
    async with client() as http:
        async with http.request("GET", f"{url}?size=1000") as response:
            assert len(await read_body(response, 1000)) == 1000
        async with http.request("GET", f"{url}?size=1001") as response:
            with pytest.raises(BodyTooLarge, match="1000") as caught:
                await read_body(response, 1000)
    assert caught.value.announced_bytes == (1001 if is_announced else None)


@pytest.mark.parametrize("size", [0, 1, MAX_PLAIN_BODY_BYTES, MAX_PLAIN_BODY_BYTES + 1])
async def test_a_request_has_its_body_whatever_its_size(service: tuple[Service, str], size: int) -> None:
    found, url = service
    async with client() as http, http.request("POST", url, body=bytes(size)) as response:
        assert response.status == 200
    assert [len(body) for body in found.bodies] == [size]


async def test_a_deadline_covers_the_wait_for_a_response(service: tuple[Service, str]) -> None:
    found, url = service
    found.answer = lambda _: asyncio.sleep(60, web.Response())
    async with client(timeout_s=0.05) as http:
        with pytest.raises(TimeoutError):
            async with http.request("GET", url):
                pass


async def reason_of(url: str, **options: Any) -> str:
    async with client(**options) as http:
        try:
            async with http.request("GET", url):
                return ""
        except HTTP_ERRORS as exc:
            return http_reason(exc)


async def test_why_there_is_no_response_names_no_address(unused_port: int) -> None:
    assert await reason_of(f"http://127.0.0.1:{unused_port}/?token=x") == "no connection: Connection refused"
    assert (await reason_of("http://name.invalid/")).startswith("no connection: its name has no address")
    assert await reason_of("http://") == "its URL cannot be used"


@pytest.fixture
def unused_port() -> int:
    return free_port()


async def test_a_connection_that_ends_without_a_word_is_named() -> None:
    async def leave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with Relays(leave) as server:
        assert await reason_of(f"http://127.0.0.1:{server.port}/") == "it closed the connection without an answer"


async def test_a_socket_factory_may_refuse_an_address(service: tuple[Service, str]) -> None:
    def refuse(_: tuple[Any, ...]) -> socket.socket:
        raise ForbiddenAddress("its address is not public")

    assert await reason_of(service[1], socket_factory=refuse) == "its address is not public"


def test_the_librarys_text_is_shown_only_when_asked_for() -> None:
    error = aiohttp.ClientPayloadError("token abc")
    assert http_reason(error) == "no HTTP answer: ClientPayloadError"
    assert http_reason(error, with_text=True) == "ClientPayloadError: token abc"


class Sockets:
    """A `socket_factory` that keeps what it made."""

    def __init__(self) -> None:
        self.made: list[socket.socket] = []

    def make(self, address: tuple[Any, ...]) -> socket.socket:
        self.made.append(socket.socket(*address[:3]))
        return self.made[-1]

    @property
    def open(self) -> int:
        """Those that are not closed."""
        return sum(each.fileno() != -1 for each in self.made)


@pytest.fixture
def hanging_url() -> Iterator[str]:
    """Of a server that takes connections and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


async def test_a_request_that_a_hanging_server_did_not_take_leaves_no_socket(hanging_url: str) -> None:
    sockets = Sockets()
    async with client(socket_factory=sockets.make) as http:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), http.request("POST", hanging_url, body=bytes(16 << 20)):
                    pass
        assert len(sockets.made) == 3
        await until(lambda: sockets.open == 0)


async def test_to_close_with_a_request_that_a_hanging_server_does_not_take_is_not_to_wait_for_it(
    hanging_url: str,
) -> None:
    sockets = Sockets()
    http = client(socket_factory=sockets.make)

    async def post() -> None:
        async with http.request("POST", hanging_url, body=bytes(16 << 20)):
            pass

    posting = asyncio.create_task(post())
    await until(lambda: any(_has_sent(each) for each in sockets.made))
    async with asyncio.timeout(30):
        await http.close()
        with pytest.raises(HTTP_ERRORS):
            await posting
    await until(lambda: sockets.open == 0)


def _has_sent(sock: socket.socket) -> bool:
    """Whether the server's end is full: `sock` would block."""
    return not select.select([], [sock], [], 0)[1]


async def test_a_connection_is_used_again(service: tuple[Service, str]) -> None:
    found, url = service
    sockets = Sockets()
    async with client(socket_factory=sockets.make) as http:
        for _ in range(3):
            async with http.request("POST", url, body=bytes(MAX_PLAIN_BODY_BYTES * 2)) as response:
                await read_body(response, 100)
    assert len(found.bodies) == 3
    assert len(sockets.made) == 1
