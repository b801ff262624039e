"""What a raw client says on a WebSocket, and what it hears: frames as the standard has them, or has them not.

A second `auth` is answered by ALREADY_AUTHENTICATED, a type that is not known is named in the answer, and a ping by its
pong: so a server that does not echo shows what arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.kit.clients import CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, web_socket_frame

HI: Final = "ALREADY_AUTHENTICATED"
BAD: Final = "INVALID_MESSAGE"
#: A ping that asks whether all before it is answered.
ALIVE: Final = b"still there?"
#: Ways of sending frames.
HOW: Final = ("at once", "frame by frame", "byte by byte")


def again(length: int = 27) -> bytes:
    """A second `auth` of so many bytes, 27 at least."""
    return b'{"type":"auth","token":"%b"}' % (b"x" * (length - 26))


def named(name: str) -> bytes:
    """A message of a type that is not known."""
    return f'{{"type":"{name}"}}'.encode()


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def message(opcode: int, *parts: bytes, rsv: int = 0) -> list[bytes]:
    """The frames of a message in these fragments; `rsv` stands in the first."""
    last = len(parts) - 1
    return [
        web_socket_frame(CONTINUATION if n else opcode, part, fin=n == last, rsv=0 if n else rsv)
        for n, part in enumerate(parts)
    ]


def text(*parts: bytes) -> list[bytes]:
    return message(TEXT, *parts)


def ping(payload: bytes = b"") -> bytes:
    return web_socket_frame(PING, payload)


def pong(payload: bytes = b"") -> bytes:
    return web_socket_frame(PONG, payload)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return web_socket_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server says, in order, and the payload of its close.

    Errors are their codes, those about unknown types the name, other messages their type, pongs their payload.
    """

    said: list[str | bytes]
    close: bytes | None = None

    @property
    def code(self) -> int | None:
        """Of the close; 1005 when it has none (RFC 6455 section 7.1.5)."""
        if self.close is None:
            return None
        return int.from_bytes(self.close[:2], "big") if self.close else 1005


async def hear(socket: RawSocket) -> Heard:
    """All that the server says until it answers `ALIVE`, or closes; nothing may come after a close."""
    said: list[str | bytes] = []
    while True:
        frame = await socket.frame()
        assert (frame.fin, frame.rsv) == (True, 0), frame
        if frame.opcode == CLOSE:
            await say(socket, [web_socket_frame(CLOSE, frame.payload)])  # if the server began, it waits for that
            assert await socket.gone() == b""
            return Heard(said, frame.payload)
        if frame.opcode == PONG:
            if frame.payload == ALIVE:
                return Heard(said)
            said.append(frame.payload)
        else:
            assert frame.opcode == TEXT, frame
            answer = json.loads(frame.payload)
            name = answer["code"] if answer["type"] == "error" else answer["type"]
            if name == "UNKNOWN_MESSAGE_TYPE" and "'" in answer["message"]:
                name = answer["message"].split("'")[1]
            said.append(name)


async def say(socket: RawSocket, frames: Sequence[bytes], how: str = "at once") -> None:
    """Send these frames. The server may be gone before the last one."""
    pieces = [b"".join(frames)] if how == "at once" else list(frames)
    if how == "byte by byte":
        pieces = split(b"".join(frames), 1)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            await socket.send(piece)
            await asyncio.sleep(0.001 if how == "frame by frame" else 0)


async def dialogue(socket: RawSocket, frames: Sequence[bytes], how: str = "at once", *, ends: bool = False) -> Heard:
    """Send these frames; what is heard until the close, or until all of them are answered."""
    await say(socket, frames if ends else [*frames, ping(ALIVE)], how)
    return await hear(socket)
