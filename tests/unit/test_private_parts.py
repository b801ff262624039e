"""What product code uses of libraries though they do not document it: each use has a test that fails when it changes.

`USES` is the whole list; a use that is not in it fails the last test.
"""

from __future__ import annotations

import ast
import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from tests.kit.sources import nodes_of
from watchout.common.toolbox import futures
from watchout.gateway.client.deflate import AFTER_LAST_BLOCK_BYTES, Deflate
from watchout.gateway.http.server import JsonRequestHandler

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("common", "identity", "gateway", "router", "mlbridge", "ctl")

NATS_CLIENT: Final = "common/toolbox/nats_client.py"

#: Library and part; the file that uses it; the test that fails when the library changes it.
USES: Final = {
    ("websockets", "ServerProtocol.writes"): ("gateway/client/socket.py", "test_a_pong_is_queued_in_writes"),
    ("websockets", "PerMessageDeflate.decoder"): (
        "gateway/client/deflate.py",
        "test_the_inflater_of_a_message_is_the_attribute_decoder",
    ),
    ("aiohttp", "RequestHandler._waiter"): ("gateway/http/server.py", "test_an_idle_http_connection_waits_in_waiter"),
    ("aiohttp", "RequestHandler._message_tail"): (
        "gateway/http/server.py",
        "test_what_follows_an_upgrade_is_kept_in_message_tail",
    ),
    ("aiohttp", "Connection.add_callback"): (
        "common/toolbox/http_client.py",
        "test_a_connection_calls_back_before_it_is_closed",
    ),
    ("redis", "_AsyncRESP2Parser._read"): ("mlbridge/targets/redis_server.py", "test_redis_reads_a_text_with_read"),
    ("redis", "Connection._writer"): ("mlbridge/targets/redis_server.py", "test_redis_writes_to_writer"),
    ("nats", "Client._process_info"): (NATS_CLIENT, "test_nats_handles_the_greeting_in_process_info"),
    ("nats", "greeting of Client._process_info"): (
        NATS_CLIENT,
        "test_nats_begins_tls_when_process_info_demands_it_in_the_greeting",
    ),
    ("nats", "TcpTransport._io_writer"): (NATS_CLIENT, "test_nats_writes_to_io_writer"),
    ("nats", "Client._status._reading_task._ping_interval_task._flusher_task"): (
        NATS_CLIENT,
        "test_nats_leaves_no_task_and_no_socket_when_it_is_abandoned",
    ),
    ("nats", "Client._subs._wait_for_msgs_task"): (
        NATS_CLIENT,
        "test_nats_leaves_no_task_and_no_socket_when_it_is_abandoned",
    ),
    ("asyncpg", "text of a refused TLS request"): (
        "identity/sources/connecting.py",
        "test_asyncpg_says_that_a_server_rejected_tls_in_these_words",
    ),
}


def test_every_use_has_its_test() -> None:
    for (_, part), (file, test) in USES.items():
        assert (ROOT / file).exists(), file
        assert test in globals(), part


def test_a_pong_is_queued_in_writes() -> None:
    """`WebSocket` takes the pong from the front of the list, so that it stands where the ping stood."""
    protocol = ServerProtocol(state=OPEN)
    ping = Frame(Opcode.PING, b"x").serialize(mask=True)
    protocol.receive_data(ping)
    (event,) = protocol.events_received()
    assert isinstance(event, Frame)
    assert protocol.writes == [Frame(Opcode.PONG, b"x").serialize(mask=False)]
    protocol.writes.pop(0)
    assert protocol.data_to_send() == []


def test_the_inflater_of_a_message_is_the_attribute_decoder() -> None:
    extension = Deflate(True, True, 12, 12, {})
    packer = zlib.compressobj(wbits=-12)
    message = packer.compress(b"hello") + packer.flush(zlib.Z_FINISH)
    with pytest.raises(ProtocolError, match="after the last block"):
        extension.decode(Frame(Opcode.BINARY, message + bytes(AFTER_LAST_BLOCK_BYTES + 1), fin=False, rsv1=True))


def idle_transport() -> mock.Mock:
    transport = mock.Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    return transport


async def test_an_idle_http_connection_waits_in_waiter() -> None:
    """`JsonRequestHandler.close` ends a connection at once when it waits for a request."""
    from aiohttp import web

    server = web.Server(lambda _: asyncio.sleep(0, web.Response()))
    handler = JsonRequestHandler(server, loop=asyncio.get_running_loop())
    transport = idle_transport()
    handler.connection_made(transport)
    await asyncio.sleep(0)
    assert handler._waiter is not None
    assert not handler._waiter.done()
    handler.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert transport.close.called
    handler.connection_lost(None)
    await server.shutdown()


async def test_what_follows_an_upgrade_is_kept_in_message_tail() -> None:
    """`JsonRequestHandler.detach` hands it to the next protocol of the connection."""
    from aiohttp import web

    server = web.Server(lambda _: asyncio.sleep(60, web.Response()))
    handler = JsonRequestHandler(server, loop=asyncio.get_running_loop())
    transport = idle_transport()
    handler.connection_made(transport)
    handler.data_received(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nrest")
    assert handler.detach() == b"rest"
    await server.shutdown(0)


async def test_a_connection_calls_back_before_it_is_closed() -> None:
    """`HttpClient` looks then whether the request was sent whole."""
    from aiohttp.connector import Connection

    order: list[str] = []
    connector = mock.Mock()
    connector._release.side_effect = lambda *_, **__: order.append("closed")
    connection = Connection(connector, mock.Mock(), mock.Mock(), asyncio.get_running_loop())
    connection.add_callback(lambda: order.append("called"))
    connection.close()
    assert order == ["called", "closed"]


async def test_redis_reads_a_text_with_read() -> None:
    pytest.importorskip("redis")
    from watchout.mlbridge.targets.redis_server import TooLarge, _BoundedParser
    from watchout.mlbridge.targets.results import MAX_RESULT_BYTES

    parser = _BoundedParser(socket_read_size=1024)
    stream = asyncio.StreamReader()
    parser._stream, parser._connected = stream, True
    parser.encoder = mock.Mock(decode=bytes)
    stream.feed_data(b"$5\r\nhello\r\n" + b"$%d\r\n" % (MAX_RESULT_BYTES + 1))
    assert await parser.read_response() == b"hello"
    with pytest.raises(TooLarge):
        await parser.read_response()


@asynccontextmanager
async def serving(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server on a free port whose connections are closed at the end."""
    done = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
            done.set()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
        await done.wait()
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def serving_websockets(talk: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[int]:
    """A WebSocket server on a free port."""
    async with serve(talk, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def test_redis_writes_to_writer() -> None:
    pytest.importorskip("redis")
    from watchout.mlbridge.targets.redis_pubsub import RedisPubSubTarget
    from watchout.mlbridge.targets.redis_server import RedisServer
    from watchout.mlbridge.targets.tls import ClientTls

    hangs = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()) and line != b"SET\r\n":
            if line.startswith(b"*"):  # a command
                writer.write(b"+OK\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        hangs.set()
        await left.wait()

    left = asyncio.Event()
    async with serving(answer) as port, asyncio.timeout(30):
        target = RedisPubSubTarget("redis://127.0.0.1", timeout_s=60, connections=1, tls=ClientTls())
        target._at = RedisServer("127.0.0.1", port, 0, None, None)
        client = target.make_client(1, 60)
        command = asyncio.create_task(client.set("frame", bytes(24 << 20)))  # more than the kernel takes
        await hangs.wait()
        command.cancel()
        await asyncio.gather(command, return_exceptions=True)
        transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined] # as tests/kit/left_open.py
        assert not [each for each in transports.values() if each.get_write_buffer_size()]
        left.set()
        await client.aclose()


async def test_nats_handles_the_greeting_in_process_info() -> None:
    pytest.importorskip("nats")
    from nats.errors import Error as NatsError

    from watchout.common.toolbox.nats_client import StrictClient

    sent: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1024}\r\n')
        sent.append(await reader.read())

    client = StrictClient(demand_tls=True)
    async with serving(greet) as port:
        with pytest.raises(NatsError, match="does not begin TLS"):
            await client.connect(
                f"tls://user:secret@127.0.0.1:{port}",
                allow_reconnect=False,
                connect_timeout=30,
                max_reconnect_attempts=0,
            )
        await client.close()
    assert sent == [b""]  # no credentials


async def test_nats_writes_to_io_writer() -> None:
    pytest.importorskip("nats")
    from nats.aio.transport import TcpTransport

    from watchout.common.toolbox.nats_client import StrictClient

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1024}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"PONG\r\n")
        await left.wait()

    client, left = StrictClient(), asyncio.Event()
    async with serving(greet) as port, asyncio.timeout(30):
        await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, connect_timeout=30)
        transport = client._transport
        assert isinstance(transport, TcpTransport)
        writer = transport._io_writer
        assert writer is not None
        transport.write(bytes(32 << 20))  # type: ignore[no-untyped-call] # more than the kernel takes
        await client.subscribe("a", cb=mock.AsyncMock())
        client.abandon(linger_s=0)
        await writer.wait_closed()
        while futures._in_background or any(
            "/nats/" in each.get_coro().cr_code.co_filename for each in asyncio.all_tasks()
        ):
            await asyncio.sleep(0.01)
        left.set()


async def test_nats_begins_tls_when_process_info_demands_it_in_the_greeting() -> None:
    """The bus demands TLS of a server that only offers it: no credentials go out in the clear."""
    pytest.importorskip("nats")
    from nats.aio.transport import TcpTransport

    from watchout.common.toolbox.nats_client import StrictClient

    begun = ConnectionError("TLS begins")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1024,"tls_available":true}\r\n')
        assert await reader.read() == b""

    client = StrictClient(demand_tls=True)
    with mock.patch.object(TcpTransport, "connect_tls", side_effect=begun) as connect_tls:
        async with serving(greet) as port:
            with pytest.raises(ConnectionError, match="TLS begins"):
                await client.connect(
                    f"nats://user:secret@127.0.0.1:{port}",
                    allow_reconnect=False,
                    connect_timeout=30,
                    max_reconnect_attempts=0,
                )
            await client.close()
    assert connect_tls.called


@pytest.mark.parametrize("scheme", ["nats", "ws"])
@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type:DeprecationWarning")  # nats-py gives it to aiohttp
async def test_nats_leaves_no_task_and_no_socket_when_it_is_abandoned(scheme: str) -> None:
    pytest.importorskip("nats")
    from watchout.common.toolbox.nats_client import StrictClient

    info = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1024}\r\n'
    ended = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(info)
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        ended.set()

    async def greet_over_websocket(connection: ServerConnection) -> None:
        with suppress(ConnectionClosedError):
            await connection.send(info)
            async for message in connection:
                if message.startswith(b"PING"):
                    await connection.send(b"PONG\r\n")
        ended.set()

    def tasks_of_nats() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if "/nats/" in task.get_coro().cr_code.co_filename]

    async with (
        serving(greet) if scheme == "nats" else serving_websockets(greet_over_websocket) as port,
        asyncio.timeout(30),
    ):
        client = StrictClient()
        await client.connect(f"{scheme}://127.0.0.1:{port}", allow_reconnect=False, connect_timeout=30)
        await client.subscribe("a", cb=mock.AsyncMock())
        assert len(tasks_of_nats()) == 4  # it reads, pings, flushes, and handles messages
        client.abandon()
        client.abandon()
        assert client.is_closed
        await ended.wait()
        while tasks_of_nats() or futures._in_background:
            await asyncio.sleep(0.01)


async def test_asyncpg_says_that_a_server_rejected_tls_in_these_words() -> None:
    import asyncpg

    from watchout.identity.sources.connecting import _REJECTED

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"N")
        await reader.read()

    async with serving(refuse) as port:
        with pytest.raises(ConnectionError, match=_REJECTED):
            await asyncpg.connect(host="127.0.0.1", port=port, user="u", database="d", ssl="require", timeout=30)


def names_defined(file: Path) -> set[str]:
    found: set[str] = set()
    for node in nodes_of(file):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return found


def private_names_used(file: Path, own: set[str]) -> set[str]:
    """Private attributes that none of our modules defines, and what is imported from private modules of others."""
    found: set[str] = set()
    for node in nodes_of(file):
        match node:
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__") and name not in own:
                found.add(name)
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith(("watchout", "__")):
                found |= {each.name for each in names if each.name.startswith("_") or "._" in module}
    return found


def test_no_other_private_name_of_a_library_is_used() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    own = set().union(*map(names_defined, files)) - {"_message_tail"}
    found = {(file.relative_to(ROOT).as_posix(), name) for file in files for name in private_names_used(file, own)}
    listed = {(file, word) for (_, part), (file, _) in USES.items() for word in part.split(".")}
    documented = {"_exit", "_fastpath"}  # os._exit, and our own extension module
    assert {use for use in found - listed if use[1] not in documented} == set()
