"""A viewer that notes when the kernel got each alert, however late the test itself reads it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.kit.clients import PING, PONG, TEXT, Message, web_socket_frame
from tests.kit.readers import Reader

#: Linux's ``SO_TIMESTAMPNS`` (asm-generic/socket.h): what is read comes with the time at which its last bytes came.
_TIMESTAMP: Final = 35
_TIME: Final = struct.Struct("qq")
_ALERT: Final = b'{"type":"alert",'


class KernelClockViewer:
    """Hears the alerts of one stream, in a thread; `heard` has each, and when it came in ms since the epoch.

    It reads frames too, as other viewers do. No read goes beyond a message, so the time is that of its last byte.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[tuple[float, Message]] = []
        self._sock = sock
        self._at_ms = 0.0
        self._thread = threading.Thread(target=self._listen, name="kernel clock", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                first, length = self._take(2)
                if length >= 126:
                    length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
                payload = self._take(length)
                if first & 0xF == TEXT and payload.startswith(_ALERT):
                    self.heard.append((self._at_ms, json.loads(payload)))
                elif first & 0xF == PING:
                    self._sock.sendall(web_socket_frame(PONG, payload))

    def _take(self, number_of_bytes: int) -> bytes:
        taken = b""
        while len(taken) < number_of_bytes:
            data, notes, _, _ = self._sock.recvmsg(number_of_bytes - len(taken), 64)
            if not data:
                raise EOFError
            taken += data
            for _, kind, value in notes:
                if kind == _TIMESTAMP:
                    seconds, nanoseconds = _TIME.unpack(value[: _TIME.size])
                    self._at_ms = seconds * 1000 + nanoseconds / 1e6
        return taken


@contextlib.asynccontextmanager
async def listening(port: int, token: str, stream: str, **wish: Any) -> AsyncIterator[KernelClockViewer]:
    """A viewer with the kernel's clock during the block; `wish` are fields of its `subscribe`."""
    async with await Reader.watch(port, token, stream, **wish) as reader:
        assert not reader.unread, "the first messages came one by one"
        reader.sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        reader.sock.setblocking(True)
        viewer = KernelClockViewer(reader.sock)
        try:
            yield viewer
        finally:
            viewer.leave()
