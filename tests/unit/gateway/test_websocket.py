"""A socket that processes received bytes turn by turn, with a transport that records what is written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from watchout.common.bus.messages import AlertStamps
from watchout.common.errors import CloseCode
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.why.memory import IncidentMemory
from watchout.gateway import fastpath
from watchout.gateway.authorization import Authorization
from watchout.gateway.client import turns
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.handler import ClientHandler
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.client.socket import WebSocket
from watchout.gateway.context import Context
from watchout.gateway.hub.registry import Hub
from watchout.gateway.latency.timed_message import TimedMessage
from watchout.gateway.model import SocketPath
from watchout.gateway.quotas import Connections
from watchout.gateway.router_client import RouterClient
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds
from watchout.gateway.why.recorder import Recorder

HEAD = (
    b"GET /streams/subscribe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Wire:
    """A transport."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def get_extra_info(self, name: str) -> None:
        del name

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 1

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def abort(self) -> None: ...


def opened() -> tuple[WebSocket, Wire]:
    """A stranger's socket after its handshake."""
    settings = Settings()
    tasks = SimpleNamespace(start=lambda *_: None)
    sockets: set[WebSocket] = set()
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    ids = StreamIds(bytes(KEY_BYTES))
    parts: list[Any] = [
        settings, Metrics(), tasks, None, Authorization(settings), sockets, Connections(settings), hub, None, ids, None,
        None, None, Recorder(settings, IncidentMemory(), "gateway"),
    ]  # fmt: skip
    context = Context(*parts)
    wire = Wire()
    socket = WebSocket(context, context.connections.open_slot("127.0.0.1"))
    socket.connection_made(cast("asyncio.BaseTransport", wire))
    client = AcceptedClient(
        path=SocketPath.SUBSCRIBE, settings=settings, authorization=context.authorization, now=0.0, stream_ids=ids
    )
    socket._handler = ClientHandler(context, socket, ClientProtocol(client))
    socket._protocol.receive_data(HEAD)
    (request,) = socket._protocol.events_received()
    assert isinstance(request, Request)
    socket._protocol.send_response(socket._protocol.accept(request))
    socket._protocol.data_to_send()
    return socket, wire


def came(socket: WebSocket, *frames: Frame) -> None:
    data = b"".join(frame.serialize(mask=True) for frame in frames)
    buffer = socket.get_buffer(len(data))
    buffer[: len(data)] = data
    socket.buffer_updated(len(data))


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each item is one turn of the loop."""
    monkeypatch.setattr(turns, "TURN_S", -1.0)


PINGS = [Frame(Opcode.PING, b"%d" % n) for n in range(4)]


async def test_what_came_is_heard_turn_by_turn() -> None:
    socket, wire = opened()
    came(socket, *PINGS)
    for _ in range(8):
        await asyncio.sleep(0)
    assert [data[2:] for data in wire.written] == [b"0", b"1", b"2", b"3"]


async def test_frames_that_come_together_are_taken_one_by_one_and_none_while_a_reply_is_pending() -> None:
    """Each turn of the loop takes one; what follows a message that has to wait for its reply waits with it."""
    if fastpath.take is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    socket, _ = opened()
    heard: list[str] = []

    class Camera:
        publication, is_waiting, user_id = object(), False, "anna"

        def receive_plain(self, reader: FrameReader, count: int, *_: object) -> bool:
            return reader.plain(count, b"", b"", 1, 1) is not None

        def receive_next_plain(self, reader: FrameReader, *_: object) -> bool:
            found = reader.next_plain(b"", b"", 1, 1)
            heard.extend([] if found is None else [str(found[0][found[1] : found[2]], "ascii")])
            return found is not None

        def receive(self, data: bytes, *_: object, text: bool) -> None:
            heard.append(str(data, "ascii"))
            self.is_waiting = True

    camera = Camera()
    socket._handler = cast("ClientHandler", camera)
    socket._frame_reader.trusted = True

    def shown(text: bytes) -> Frame:
        return Frame(Opcode.TEXT, b'{"type":"video-frame","data":"%b"}' % text)

    came(socket, shown(b"AAAA"), shown(b"BBBB"), Frame(Opcode.TEXT, b"ask"), shown(b"CCCC"))
    assert heard == ["AAAA"]
    for _ in range(8):
        await asyncio.sleep(0)
    assert heard == ["AAAA", "BBBB", "ask"]
    camera.is_waiting = False
    socket.resume_messages()
    for _ in range(8):
        await asyncio.sleep(0)
    assert heard == ["AAAA", "BBBB", "ask", "CCCC"]


async def test_a_peer_that_ends_while_its_bytes_wait_is_no_fault() -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    socket, _ = opened()
    came(socket, *PINGS)
    socket.eof_received()
    for _ in range(8):
        await asyncio.sleep(0)
    assert faults == []


async def test_after_a_close_no_ping_that_waited_is_answered() -> None:
    socket, wire = opened()
    came(socket, *PINGS)
    before = len(wire.written)
    socket.close(CloseCode.POLICY, "x")
    for _ in range(8):
        await asyncio.sleep(0)
    assert [data[0] & 0x0F for data in wire.written[before:]] == [Opcode.CLOSE]


async def test_while_the_kernel_takes_nothing_one_acknowledgement_waits_the_newest() -> None:
    socket, wire = opened()
    socket.send_ack(b"first")
    socket.pause_writing()
    for number in range(1000):
        socket.send_ack(b"%d" % number)
    assert wire.written == [b"first"]
    socket.resume_writing()
    assert wire.written == [b"first", b"999"]
    socket.resume_writing()
    assert wire.written == [b"first", b"999"]


async def test_a_ping_is_sent_in_a_silence_and_not_to_a_client_that_is_behind() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    socket, wire = opened()
    silences = socket._context.silences
    socket.ping_silence(5)
    socket.ping_if_silent(began + 4.9)
    assert wire.written == []
    socket.pause_writing()
    socket.ping_if_silent(loop.time() + 50)
    assert wire.written == []
    socket.resume_writing()
    socket.ping_if_silent(loop.time() + 5.1)
    assert len(wire.written) == 1
    assert len(silences) == 1
    socket.close(CloseCode.RESTART, "restart")
    assert len(silences) == 0


async def test_an_alert_that_waits_for_a_full_socket_is_written_when_it_is_written() -> None:
    """The ledger counts the time that it waited in the queue of its viewer."""
    socket, wire = opened()
    written: list[bytes] = []
    latency = SimpleNamespace(on_alert_written=written.append)
    socket._context.router = cast("RouterClient", SimpleNamespace(latency=latency))
    first, second = (TimedMessage.of(text, "cam", AlertStamps(accepted=1)) for text in (b"first", b"second"))
    socket.send_message(first)
    assert written == [b"first"]
    socket.pause_writing()
    socket.send_message(second)
    assert written == [b"first"]
    socket.resume_writing()
    assert written == [b"first", b"second"]
    assert wire.written[-2:] == [b"first", b"second"]


async def test_an_alert_that_goes_to_many_sockets_counts_how_many_it_was_written_to() -> None:
    """`Delivery` tells the ledger of them together; of one that waits, the socket tells it when it is written."""
    told: list[bytes] = []
    router = cast("RouterClient", SimpleNamespace(latency=SimpleNamespace(on_alert_written=told.append)))
    alert = TimedMessage.of(b"alert", "cam", AlertStamps(accepted=1))
    alert.is_fanned_out = True
    sockets = [opened()[0] for _ in range(3)]
    for socket in sockets:
        socket._context.router = router
    sockets[2].pause_writing()
    for socket in sockets:
        socket.send_message(alert)
    assert (alert.written, told) == (2, [])
    alert.is_fanned_out = False
    sockets[2].resume_writing()
    assert told == [b"alert"]
