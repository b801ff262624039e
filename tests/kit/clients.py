"""Cameras and viewers written from the edge protocol alone, on `websockets`; and a socket that sends any bytes.

Every message is read at once and kept, so a client never slows a stream down; `Client.next` hands them out in order.
A binary frame is handed out as a dict with the names of the JSON one, `picture` and `codec` in place of `data`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from watchout.common.clock import now_ms

#: What must come gets this long: the machine may be busy with other tests.
DEADLINE_S: Final = 30.0
#: No picture that a decoder takes, but it begins as one.
JPEG: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) + b"\xff\xd9"
PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)
WEBP: Final = b"RIFF\x40\x00\x00\x00WEBPVP8 " + bytes(64)

Message = dict[str, Any]

_HEADER: Final = struct.Struct(">BBBBIQBB")
_numbers: Final = itertools.count()


def new_name(kind: str = "cam") -> str:
    """A stream or user that no other test has."""
    return f"{kind}-{next(_numbers)}-{secrets.token_hex(3)}"


def base64_of(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def pack_frame(
    picture: bytes, *, stream_id: str | bytes = b"", timestamp: int = 0, codec: int = 1, frame_id: int = 0,
    magic: int = 0x57, version: int = 1, kind: int = 1, flags: int = 0,
) -> bytes:  # fmt: skip
    """A binary frame message."""
    name = stream_id.encode() if isinstance(stream_id, str) else stream_id
    return _HEADER.pack(magic, version, kind, flags, frame_id, timestamp, codec, len(name)) + name + picture


def unpack_frame(data: bytes) -> Message:
    """A binary frame message of the server."""
    magic, version, kind, flags, frame_id, timestamp, codec, length = _HEADER.unpack_from(data)
    assert (magic, version, kind, flags) == (0x57, 1, 1, 0)
    at = _HEADER.size + length
    return {
        "type": "video-frame",
        "streamId": data[_HEADER.size : at].decode("ascii"),
        "frameId": frame_id,
        "timestamp": timestamp,
        "codec": codec,
        "picture": data[at:],
    }


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    timeout_s: float = DEADLINE_S,
    what: str | Callable[[], str] = "",
) -> Any:
    """Poll until `condition` gives something true, and return that. `what` says what is wrong otherwise, then."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() >= give_up:
            wrong = what if isinstance(what, str) else what()
            raise AssertionError(f"{wrong or 'the condition does not hold'} within {timeout_s:g} s")
        await asyncio.sleep(0.02)


class Client:
    """One socket of a client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        #: All that came, in order, and when (monotonic seconds).
        self.heard: list[Message] = []
        self.heard_at: list[float] = []
        self._next = 0
        self._cut = False
        self._news = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="client")

    @property
    def open(self) -> bool:
        return not self._reader.done()

    @property
    def local_port(self) -> int:
        port: int = self.connection.local_address[1]
        return port

    @property
    def frames(self) -> list[Message]:
        """The frames that came so far."""
        return [message for message in self.heard if message["type"] == "video-frame"]

    @property
    def frame_ids(self) -> list[int]:
        return [frame["frameId"] for frame in self.frames]

    @property
    def statuses(self) -> list[str]:
        """The status messages that came so far."""
        return [message["status"] for message in self.heard if message["type"] == "status"]

    async def send(self, type: str, **fields: Any) -> None:
        """Send a JSON message."""
        await self.send_raw(json.dumps({"type": type, **fields}))

    async def send_raw(self, data: str | bytes) -> None:
        """Send a text or binary message."""
        async with asyncio.timeout(DEADLINE_S):
            await self.connection.send(data)

    async def next(self, timeout_s: float = DEADLINE_S) -> Message:
        """The next message."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._next >= len(self.heard):
                    if not self.open:
                        raise AssertionError(f"closed with {self.connection.close_code} in place of a message")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no message within {timeout_s:g} s; before came {self.heard[-3:]}") from None
        self._next += 1
        return self.heard[self._next - 1]

    async def expect(self, type: str, timeout_s: float = DEADLINE_S, **fields: Any) -> Message:
        """The next message, which must be this one."""
        message = await self.next(timeout_s)
        assert _fits(message, type, fields), f"expected {type} with {fields}, got {_short(message)}"
        return message

    async def find(self, type: str, timeout_s: float = DEADLINE_S, **fields: Any) -> Message:
        """The next message that fits; what comes before it is passed over."""
        give_up = time.monotonic() + timeout_s
        while not _fits(message := await self.next(max(0.001, give_up - time.monotonic())), type, fields):
            pass
        return message

    async def rest(self) -> list[Message]:
        """What came before the answer to a message of no known type, which the server gives at once.

        Only who is authenticated gets that answer.
        """
        start = self._next
        await self.send("rest")
        await self.find("error", code="UNKNOWN_MESSAGE_TYPE")
        return self.heard[start : self._next - 1]

    async def closed(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for the close; its code."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reader)
            await self.connection.wait_closed()
        code = self.connection.close_code
        assert code is not None
        return code

    async def leave(self) -> None:
        """Close, as a client does that has seen enough."""
        async with asyncio.timeout(DEADLINE_S):
            if self.open and not self._cut:
                await self.connection.close()
            await self._reader
            await self.connection.wait_closed()

    def cut(self) -> None:
        """Lose the connection without a word."""
        if self.open:
            self._cut = True
            self.connection.transport.abort()

    async def _read(self) -> None:
        try:
            while True:
                data = await self.connection.recv()
                message = unpack_frame(data) if isinstance(data, bytes) else json.loads(data)
                self.heard.append(message)
                self.heard_at.append(time.monotonic())
                self._news.set()
        except ConnectionClosed:
            pass
        finally:
            self._news.set()


class Camera(Client):
    """A client of the register path."""

    stream: str

    async def register(self, stream_id: str | None = None, within_s: float = DEADLINE_S, **fields: Any) -> str:
        """Register to produce frames, or what the fields say; the stream's id.

        Again after each `ROUTING_ERROR`, as clients do: a router that has to wait for its turn is late.
        """
        wish = {"clientType": "mobile", "produces": ["video-frame"], **fields}
        if stream_id is not None:
            wish["streamId"] = stream_id
        give_up = time.monotonic() + within_s
        await self.send("register", **wish)
        while (answer := await self.next(max(0.001, give_up - time.monotonic())))["type"] != "success":
            if _fits(answer, "error", {"code": "ROUTING_ERROR"}):
                await asyncio.sleep(0.05)
                await self.send("register", **wish)
        assert isinstance(answer["streamId"], str)
        self.stream = answer["streamId"]
        return self.stream

    async def show(self, data: str = "", **fields: Any) -> None:
        """A frame as JSON."""
        await self.send("video-frame", data=data or base64_of(JPEG), **fields)

    async def show_binary(self, picture: bytes = JPEG, **fields: Any) -> None:
        """A frame as a binary message."""
        await self.send_raw(pack_frame(picture, **fields))

    @contextlib.asynccontextmanager
    async def streaming(self, fps: float = 10.0) -> AsyncIterator[None]:
        """Frames at this rate while the block runs, or until the socket is closed."""
        task = asyncio.get_running_loop().create_task(self._stream(fps), name="streaming")
        try:
            yield
            assert not task.done() or not self.open, f"the camera could not go on: {task}"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stream(self, fps: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.show(timestamp=now_ms())
            due += 1 / fps
            await asyncio.sleep(due - loop.time())


class Viewer(Client):
    """A client of the subscribe path."""

    async def subscribe(self, stream_id: str, **fields: Any) -> str:
        """Subscribe to frames and alerts, or what the fields say; the present status.

        Again after each `ROUTING_ERROR`, as clients do: a router that has to wait for its turn is late.
        """
        wish = {"clientType": "dashboard", "consumes": ["video-frame", "alert"], **fields}
        done = {"message": "Subscription successful", "streamId": stream_id}
        give_up = time.monotonic() + DEADLINE_S
        await self.send("subscribe", streamId=stream_id, **wish)
        while not _fits(answer := await self.next(max(0.001, give_up - time.monotonic())), "success", done):
            if _fits(answer, "error", {"code": "ROUTING_ERROR", "streamId": stream_id}):
                await asyncio.sleep(0.05)
                await self.send("subscribe", streamId=stream_id, **wish)
        status = await self.expect("status", streamId=stream_id)
        return str(status["status"])

    async def frame(self, **fields: Any) -> Message:
        """The next frame."""
        return await self.find("video-frame", **fields)

    async def status(self, status: str, timeout_s: float = DEADLINE_S, **fields: Any) -> Message:
        """The next status message, which must be this one."""
        message = await self.find("status", timeout_s)
        assert _fits(message, "status", {"status": status, **fields}), _short(message)
        return message


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of an HTTP path."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].startswith("application/json"), (self.status, self.headers, self.body)
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code of an error body, which must be one."""
        assert self.status >= 400
        error = self.json["error"]
        assert isinstance(error["code"], str)
        assert error["code"]
        assert isinstance(error["message"], str)
        assert error["message"]
        return str(error["code"])


async def http(
    url: str, *, method: str = "GET", token: str | None = None, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One HTTP request on a connection of its own; `body` is sent as JSON unless it is bytes."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    made: list[socket.socket] = []

    def make(address: tuple[Any, ...]) -> socket.socket:
        made.append(socket.socket(*address[:3]))
        return made[-1]

    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(socket_factory=make)) as session,
            session.request(method, url, data=data, headers=sent, allow_redirects=False) as response,
        ):
            content = await response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, content)
    finally:
        await _all_closed(made)


async def _all_closed(sockets: list[socket.socket]) -> None:
    """Wait until the loop has closed them, also those with more to send, which nobody reads when a body is refused."""
    for each in sockets:
        if each.fileno() != -1:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(DEADLINE_S):
        while any(each.fileno() != -1 for each in sockets):
            await asyncio.sleep(0)


def web_socket_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as a client sends it (RFC 6455 section 5.2), or as it must not."""
    first, mask_bit = (0x80 if fin else 0) | rsv << 4 | opcode, 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return head + payload
    key = secrets.token_bytes(4)
    whole = int.from_bytes(payload, "big") ^ int.from_bytes((key * (length // 4 + 1))[:length], "big")
    return head + key + whole.to_bytes(length, "big")


TEXT: Final = 0x1
BINARY: Final = 0x2
CONTINUATION: Final = 0x0
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


@dataclass(frozen=True, slots=True)
class WebSocketFrame:
    """A frame of the server as it is on the wire."""

    opcode: int
    fin: bool
    rsv: int
    payload: bytes


class RawSocket:
    """A TCP connection to the gateway that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self._host = host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            await self.writer.drain()

    def send_end(self) -> None:
        """Say that nothing more is sent; the server may have ended the connection already (ENOTCONN)."""
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    def head(self, path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
        """The head of a request."""
        return "\r\n".join([f"{method} {path} {version}", f"Host: {self._host}", *headers, "", ""]).encode()

    def upgrade_head(self, path: str, *headers: str) -> bytes:
        """The head of a WebSocket handshake."""
        key = base64_of(secrets.token_bytes(16))
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}")
        return self.head(path, *upgrade, "Sec-WebSocket-Version: 13", *headers)

    async def upgrade(self, path: str, *headers: str) -> Answer:
        """Shake hands; the server's answer."""
        await self.send(self.upgrade_head(path, *headers))
        answer = await self.answer()
        assert answer.status == 101, answer
        return answer

    async def sign_in(self, token: str) -> None:
        """Say `auth`, which must be answered with success."""
        await self.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
        assert (await self.json("success"))["event"] == "authenticated"

    async def answer(self, timeout_s: float = DEADLINE_S) -> Answer:
        """One HTTP answer."""
        async with asyncio.timeout(timeout_s):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split()[1])
            pairs = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(status, headers, body)

    async def frame(self, timeout_s: float = DEADLINE_S) -> WebSocketFrame:
        """The server's next WebSocket frame."""
        async with asyncio.timeout(timeout_s):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server masks nothing"
            length = second & 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            payload = await self.reader.readexactly(length)
        return WebSocketFrame(first & 0xF, bool(first & 0x80), first >> 4 & 7, payload)

    async def json(self, type: str, timeout_s: float = DEADLINE_S) -> Message:
        """The next JSON message of this type; everything else is passed over."""
        async with asyncio.timeout(timeout_s):
            while True:
                frame = await self.frame(timeout_s)
                assert frame.opcode != CLOSE, frame
                if frame.opcode == TEXT and (message := json.loads(frame.payload))["type"] == type:
                    return dict(message)

    async def close_code(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for the server's close frame; its code."""
        async with asyncio.timeout(timeout_s):
            while (frame := await self.frame(timeout_s)).opcode != CLOSE:
                pass
        return int.from_bytes(frame.payload[:2], "big")

    async def gone(self, timeout_s: float = DEADLINE_S) -> bytes:
        """Wait until the server ended the connection; what it said before."""
        async with asyncio.timeout(timeout_s):
            said = b""
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    said += data
            return said


_C = TypeVar("_C", bound=Client)


class Clients:
    """Makes clients and lets all of them go at the end."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._sockets: list[RawSocket] = []

    async def connect(self, url: str, path: str, **options: Any) -> ClientConnection:
        """A WebSocket, with the options of `websockets`."""
        wished: dict[str, Any] = {
            "max_size": None, "max_queue": None, "ping_interval": None, "proxy": None, "open_timeout": DEADLINE_S,
            "close_timeout": DEADLINE_S, "compression": None, **options,
        }  # fmt: skip
        return await connect(url.replace("http://", "ws://") + path, **wished)

    async def camera(self, url: str, token: str | None, by: str = "message", query: str = "", **options: Any) -> Camera:
        """A camera that is authenticated, unless there is no token; `query` is for proxies, such as `?streamId=…`."""
        return await self._open(Camera, url, "/streams/register" + query, token, by, options)

    async def viewer(self, url: str, token: str | None, by: str = "message", query: str = "", **options: Any) -> Viewer:
        """A viewer that is authenticated, unless there is no token; `query` is for proxies, such as `?streamId=…`."""
        return await self._open(Viewer, url, "/streams/subscribe" + query, token, by, options)

    async def raw(self, url: str, **options: Any) -> RawSocket:
        """A connection for any bytes."""
        host = url.removeprefix("http://")
        name, _, port = host.partition(":")
        where = () if "sock" in options else (name, int(port))
        reader, writer = await asyncio.open_connection(*where, **options)
        raw = RawSocket(reader, writer, host)
        self._sockets.append(raw)
        return raw

    async def leave_raw(self) -> None:
        """Let all raw sockets go."""
        for raw in self._sockets:
            await raw.leave()
        self._sockets.clear()

    async def close(self) -> None:
        """Let all of them go; one that cannot go keeps no other one."""
        for client in self._clients:
            client.cut()
        left = await asyncio.gather(
            *(each.leave() for each in (*self._clients, *self._sockets)), return_exceptions=True
        )
        for fault in left:
            if fault is not None:
                raise fault

    async def _open(
        self, kind: type[_C], url: str, path: str, token: str | None, by: str, options: dict[str, Any]
    ) -> _C:
        if token is not None and by == "query":
            path += f"{'&' if '?' in path else '?'}token={token}"
        if token is not None and by == "header":
            options["additional_headers"] = {"Authorization": f"Bearer {token}"}
        client = kind(await self.connect(url, path, **options))
        self._clients.append(client)
        if token is not None and by == "message":
            await client.send("auth", token=token)
            await client.expect("success", message="Authentication successful")
        return client


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Cameras, viewers and raw sockets, closed after the test."""
    made = Clients()
    yield made
    await made.close()


def _fits(message: Message, type: str, fields: dict[str, Any]) -> bool:
    return message["type"] == type and all(message.get(name) == value for name, value in fields.items())


def _short(message: Message) -> str:
    return str({name: value if len(str(value)) < 200 else f"{str(value)[:80]}…" for name, value in message.items()})
