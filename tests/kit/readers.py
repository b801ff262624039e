"""Viewers on bare sockets, which read what, when and as fast as they are told, and keep nothing behind one's back.

`tests.kit.clients` reads all at once, and asyncio's streams read ahead: with both, a viewer is never slow. Here what is
not read stays in the kernel, whose buffer may be as small as it allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import re
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from tests.kit.clients import BINARY, CLOSE, TEXT, Message, base64_of, http, unpack_frame, web_socket_frame

#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 30.0
#: A reader with a rate takes what it may take in so long at once.
SIP_S: Final = 0.02
GULP_BYTES: Final = 1 << 18
#: Linux's ``SO_ATTACH_FILTER`` and ``SO_DETACH_FILTER`` (asm-generic/socket.h), which the socket module does not name.
ATTACH_FILTER: Final = 26
DETACH_FILTER: Final = 27

_NUMBER: Final = re.compile(r"^watchout_(\w+)\{process=\"gateway[^\"]*\"\} (\S+)$", re.MULTILINE)


class Closed(Exception):
    """The server ended the connection; `code` is that of its close frame, None when there was none."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"closed with {code}")


class Reader:
    """One connection to the gateway. With `bytes_per_s` it takes no more than that."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.bytes_per_s: float | None = None
        #: Bytes that came so far.
        self.taken = 0
        self._host = host
        self._held = bytearray()
        self._due = 0.0

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Self:
        """Connect to loopback; `receive_buffer` is for the kernel, which doubles it and knows a least one."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(sock, f"127.0.0.1:{port}")

    @classmethod
    async def watch(cls, port: int, token: str, stream: str, *, receive_buffer: int | None = None, **wish: Any) -> Self:
        """Connect, sign in and subscribe to frames and alerts; returns when the status came."""
        reader = await cls.connect(port, receive_buffer=receive_buffer)
        try:
            await reader.upgrade(f"/streams/subscribe?token={token}")
            await reader.send("subscribe", streamId=stream, **{"consumes": ["video-frame", "alert"], **wish})
            while (await reader.message())["type"] != "status":
                pass
        except BaseException:
            reader.leave()
            raise
        return reader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def local_port(self) -> int:
        return int(self.sock.getsockname()[1])

    @property
    def unread(self) -> int:
        """Bytes that came and belong to no message that was handed out."""
        return len(self._held)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, path: str, token: str) -> None:
        """Ask for something over HTTP, and read the head of the answer, which must be 200."""
        lines = (f"GET {path} HTTP/1.1", f"Host: {self._host}", f"Authorization: Bearer {token}", "", "")
        await self._send("\r\n".join(lines).encode())
        head = await self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head

    async def upgrade(self, path: str) -> None:
        """Shake hands."""
        key = base64_of(bytes(16))
        lines = (
            f"GET {path} HTTP/1.1", f"Host: {self._host}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "",
        )  # fmt: skip
        await self._send("\r\n".join(lines).encode())
        head = await self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def send(self, type: str, **fields: Any) -> None:
        """Send a JSON message."""
        await self._send(web_socket_frame(TEXT, json.dumps({"type": type, **fields}).encode()))

    async def _send(self, data: bytes) -> None:
        async with asyncio.timeout(COMES_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def message(self, timeout_s: float = COMES_S) -> Message:
        """The next message, frames with their names and bytes. Raises `Closed`; control frames are passed over."""
        async with asyncio.timeout(timeout_s):
            while True:
                opcode, payload = await self._frame()
                if opcode == TEXT:
                    return dict(json.loads(payload))
                if opcode == BINARY:
                    return unpack_frame(payload)
                if opcode == CLOSE:
                    raise Closed(int.from_bytes(payload[:2], "big"))

    async def skim(self, number_of_bytes: int) -> bytes:
        """So many bytes as they are on the wire, at the reader's rate."""
        await self._have(number_of_bytes)
        return self._take(number_of_bytes)

    async def _frame(self) -> tuple[int, bytes]:
        await self._have(2)
        first, second = self._take(2)
        assert first & 0x80, "the server sends whole messages"
        assert not second & 0x80, "a server masks nothing"
        length = second & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            await self._have(size)
            length = int.from_bytes(self._take(size), "big")
        await self._have(length)
        return first & 0xF, self._take(length)

    async def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            await self._more()
        return self._take(self._held.index(end) + len(end))

    async def _have(self, number_of_bytes: int) -> None:
        while len(self._held) < number_of_bytes:
            await self._more()

    async def _more(self) -> None:
        loop = asyncio.get_running_loop()
        most = GULP_BYTES
        if self.bytes_per_s is not None:
            most = max(1, int(self.bytes_per_s * SIP_S))
            now = loop.time()
            if self._due > now:
                await asyncio.sleep(self._due - now)
        try:
            data = await loop.sock_recv(self.sock, most)
        except ConnectionError:
            raise Closed(None) from None
        if not data:
            raise Closed(None)
        if self.bytes_per_s is not None:
            self._due = max(self._due, loop.time() - SIP_S) + len(data) / self.bytes_per_s
        self.taken += len(data)
        self._held += data

    def _take(self, number_of_bytes: int) -> bytes:
        data = bytes(self._held[:number_of_bytes])
        del self._held[:number_of_bytes]
        return data

    # ── going ────────────────────────────────────────────────────────────────────────────────────────────────────

    def vanish(self) -> None:
        """From now on this end does not exist for the other one: no FIN, no RST, no ACK of anything.

        A filter on the socket drops each packet before TCP sees it (socket(7), SO_ATTACH_FILTER); no rights are
        needed for that.
        """
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0: keep nothing of it
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        self.sock.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, program)

    def come_back(self) -> None:
        """Hear again."""
        self.sock.setsockopt(socket.SOL_SOCKET, DETACH_FILTER, 0)

    def leave(self) -> None:
        """End the connection at once (RST)."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


can_vanish: Final = sys.platform == "linux"


async def gateway_figures(url: str) -> dict[str, float]:
    """The gateways' figures as `/metrics` has them, summed."""
    page = (await http(f"{url}/metrics")).body.decode()
    found: dict[str, float] = {}
    for name, value in _NUMBER.findall(page):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def accounted(metrics: dict[str, float]) -> float:
    """Frames that were handed to viewers' sockets, or not, for a reason. Those of the bus are nobody's here."""
    dropped = (value for name, value in metrics.items() if name.startswith("frames_dropped_") and "_bus_" not in name)
    return metrics.get("frames_out_total", 0) + sum(dropped)


def own_memory_bytes(pid: int) -> int:
    """What a process has for itself (unique set size)."""
    return int(psutil.Process(pid).memory_full_info().uss)


def send_queues(port: int) -> dict[int, int]:
    """Bytes that the kernel holds for each client of a port, unsent or not acknowledged, by the client's port."""
    return dict(_queues(port))


def _queues(port: int) -> Iterator[tuple[int, int]]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port:
            yield int(remote.rpartition(":")[2], 16), int(queues.partition(":")[0], 16)


@contextlib.asynccontextmanager
async def all_leave(readers: list[Reader]) -> AsyncIterator[None]:
    """Let these go at the end, whatever happens."""
    try:
        yield
    finally:
        for reader in readers:
            reader.leave()
