"""Connections to an ML service are kept, bounded, and given up when nothing more can be expected of them."""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import pytest
from yarl import URL

from tests.kit.clients import eventually
from tests.kit.ports import free_port
from tests.kit.relays import Relays
from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.mlbridge.targets import http_connections
from watchout.mlbridge.targets.http_connections import HttpConnections, NoConnection, NoResponse, request_head

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Service:
    """A server that reads whole requests and does with each what `answer` does."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connected = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = _answer
        self.port = 0

    async def hang(self, _: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


async def _answer(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with Relays(service.serve) as server:
        service.port = server.port
        yield service


@asynccontextmanager
async def client(service: Service, *, connections: int = 2, timeout_s: float = 60) -> AsyncIterator[HttpConnections]:
    http = HttpConnections(
        URL(f"http://127.0.0.1:{service.port}/analyze"), [("X", "y")], connections=connections, timeout_s=timeout_s,
        max_body_bytes=1000,
    )  # fmt: skip
    try:
        yield http
    finally:
        await http.close()


async def test_a_request_is_what_was_asked_for_and_its_connection_is_used_again(service: Service) -> None:
    async with client(service) as http:
        for _ in range(3):
            response = await http.post(b"bo", memoryview(b"dy"), headers=b"A: b\r\n")
            assert (response.status, response.body) == (200, b"{}")
    expected = (
        f"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nX: y\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert service.requests == [expected.encode()] * 3
    assert service.connected == 1


async def test_no_more_connections_than_the_bound_are_open_and_none_is_lost_to_a_cancelled_request(
    service: Service,
) -> None:
    release = asyncio.Event()

    async def when_released(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(ANSWER)

    service.answer = when_released
    async with client(service, connections=2) as http:
        posts = [asyncio.create_task(http.post(b"%d" % number)) for number in range(6)]
        await eventually(lambda: len(service.requests) == 2, 30)
        posts[2].cancel()  # it waits, and lets go of its turn
        posts[0].cancel()  # it is under way: its connection is given up
        release.set()
        results = await asyncio.gather(*posts, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert sorted(request[-1:] for request in service.requests) == [b"0", b"1", b"3", b"4", b"5"]
    assert service.connected == 3


async def test_waiting_requests_come_in_the_order_of_their_calls(service: Service) -> None:
    async with client(service, connections=1) as http:
        await asyncio.gather(*(http.post(b"%d" % number) for number in range(5)))
    assert [request[-1:] for request in service.requests] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on(service: Service) -> None:
    async with client(service, connections=1) as http:
        first = asyncio.create_task(http.post(b"1"))
        await eventually(lambda: len(service.requests) == 1, 30)
        waits, last = asyncio.create_task(http.post(b"2")), asyncio.create_task(http.post(b"3"))
        await first
        waits.cancel()
        assert (await asyncio.wait_for(last, 30)).status == 200
        await asyncio.gather(waits, return_exceptions=True)


async def test_a_deadline_ends_a_request_and_its_connection_and_the_next_one_has_its_own(service: Service) -> None:
    service.answer = service.hang
    async with client(service, timeout_s=0.2) as http:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await http.post(b"x")
    assert service.connected == 2


async def test_the_deadline_holds_while_a_request_waits_for_room(service: Service) -> None:
    service.answer = service.hang
    async with client(service, connections=1, timeout_s=0.3) as http:
        results = await asyncio.gather(http.post(b"1"), http.post(b"2"), return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError, TimeoutError]


async def test_a_connection_that_the_service_closes_while_idle_is_not_used_again(service: Service) -> None:
    async with client(service) as http:
        await http.post(b"1")
        for writer in list(service.open):
            writer.close()
        await eventually(lambda: not http._idle, 30)
        assert (await http.post(b"2")).status == 200
    assert service.connected == 2


async def test_bytes_that_nobody_asked_for_end_a_connection(service: Service) -> None:
    async with client(service) as http:
        await http.post(b"1")
        for writer in list(service.open):
            writer.write(ANSWER)  # a response for the next request, before it
        await eventually(lambda: not http._idle, 30)
        assert (await http.post(b"2")).status == 200
    assert service.connected == 2


async def test_a_last_response_ends_its_connection(service: Service) -> None:
    async def last(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")

    service.answer = last
    async with client(service) as http:
        for _ in range(2):
            assert (await http.post(b"x")).is_last
    assert service.connected == 2


async def test_a_response_before_the_whole_request_is_taken_ends_its_connection(service: Service) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()  # it takes no more of the request

    async with Relays(early, limit=1 << 10) as server:
        service.port = server.port
        async with client(service) as http:
            assert (await http.post(bytes(64 << 20))).status == 413
            assert not http._idle


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 2", "within the head"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "after 2 bytes"),
    ],
)
async def test_a_connection_that_ends_too_early_says_what_came(service: Service, answer: bytes, says: str) -> None:
    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    service.answer = answer_and_close
    async with client(service) as http:
        with pytest.raises(NoResponse, match=says):
            await http.post(b"x")


async def test_a_reset_is_named(service: Service) -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    service.answer = reset
    async with client(service) as http:
        with pytest.raises(NoResponse, match=r"no HTTP answer: Connection reset by peer|without an answer"):
            await http.post(b"x")


async def test_a_body_over_the_limit_is_refused_and_the_next_request_has_another_connection(service: Service) -> None:
    async def large(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")

    service.answer = large
    async with client(service) as http:
        for _ in range(2):
            with pytest.raises(BodyTooLarge, match="1001"):
                await http.post(b"x")
    assert service.connected == 2


async def test_idle_connections_are_closed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "KEEPALIVE_S", 0.05)
    async with client(service) as http:
        await http.post(b"x")
        await eventually(lambda: not service.open, 30)
        assert not http._idle
        assert not http._watches_idle


async def test_nobody_there_is_no_connection_and_a_closed_client_has_none() -> None:
    service = Service()
    service.port = free_port()
    async with client(service) as http:
        with pytest.raises(NoConnection, match="Connection refused"):
            await http.post(b"x")
    with pytest.raises(NoConnection):
        await http.post(b"x")


async def test_requests_under_way_fail_when_the_client_is_closed(service: Service) -> None:
    service.answer = service.hang
    async with client(service) as http:
        post = asyncio.create_task(http.post(b"x"))
        await eventually(lambda: bool(service.requests), 30)
    with pytest.raises(NoResponse):
        await post


def test_the_head_of_a_request() -> None:
    url = URL("http://ann:p%40ss@[::1]:81/a%20b/analyze?key=k")
    credentials = base64.b64encode(b"ann:p@ss").decode()
    assert request_head(url, [("Accept", "a"), ("accept", "b")]).decode() == (
        f"POST /a%20b/analyze?key=k HTTP/1.1\r\nHost: [::1]:81\r\nAuthorization: Basic {credentials}\r\naccept: b\r\n"
    )
    assert b"Basic" not in request_head(url, [("authorization", "Bearer t")])
    for value in ("a\r\nB: c", "a\n", "a\0"):
        with pytest.raises(ValueError, match="line end"):
            request_head(url, [("A", value)])


async def test_a_connection_that_is_made_after_the_end_is_not_used(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, ended = http_connections.aiohappyeyeballs.start_connection, asyncio.Event()
    connecting = asyncio.Event()

    async def start_connection(*args: Any, **options: Any) -> socket.socket:
        connecting.set()
        await ended.wait()
        return await connect(*args, **options)

    monkeypatch.setattr(http_connections.aiohappyeyeballs, "start_connection", start_connection)
    async with client(service) as http:
        post = asyncio.create_task(http.post(b"body"))
        await connecting.wait()
        await http.close()
        ended.set()
        with pytest.raises(NoConnection, match="the bridge ends"):
            async with asyncio.timeout(30):
                await post
        await eventually(lambda: service.connected == 1 and not service.open, 30)
    assert service.requests == []


async def test_a_connection_that_is_made_after_its_request_was_cancelled_is_dropped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: asyncio.Future[asyncio.Protocol] = asyncio.get_running_loop().create_future()

    async def create_connection(factory: Callable[[], asyncio.Protocol], **options: socket.socket) -> None:
        with options["sock"]:
            made.set_result(factory())
            await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    async with client(service) as http:
        post = asyncio.create_task(http.post(b"body"))
        protocol = await made
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)
        transport = mock.Mock(spec=asyncio.Transport)
        protocol.connection_made(transport)
    transport.abort.assert_called_once_with()
