"""Messages, sockets and cases of the tests of RFC 6455 and RFC 7692."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.kit.clients import BINARY, DEADLINE_S, TEXT, Clients, RawSocket, new_name, web_socket_frame
from tests.kit.dialogue import Heard, again, message, named, ping, text

REGISTER: Final = "/streams/register"
SUBSCRIBE: Final = "/streams/subscribe"
KIB: Final = 1 << 10
MIB: Final = 1 << 20
LIMIT: Final = 16 * MIB
#: Set in the first frame of a compressed message (RFC 7692 section 6).
RSV1: Final = 4


@dataclass(frozen=True, slots=True)
class Case:
    """What a client sends, what it hears, and the codes with one of which it ends, if it does."""

    frames: Sequence[bytes]
    says: Sequence[str | bytes] = ()
    closes: Sequence[int] = ()


HELLO: Final = text(again())


def fails(*frames: bytes, says: Sequence[str] = (), code: int = 1002) -> Case:
    """What follows the breach is not answered."""
    return Case([*frames, *HELLO, ping(b"after")], says, [code])


AFTER: Final = [*HELLO, ping(b"after")]
PART: Final = web_socket_frame(TEXT, named("part")[:5], fin=False)


def check(heard: Heard, case: Case) -> None:
    assert heard.said == list(case.says)
    assert heard.code in (case.closes or (None,))


@dataclass(frozen=True, slots=True)
class Wire:
    """A camera that sends bytes, and a viewer that gets its pictures as they are."""

    camera: RawSocket
    viewer: RawSocket

    async def picture(self) -> bytes:
        """The next one that the viewer gets, without its header; or the data of a JSON frame."""
        while (frame := await self.viewer.frame(DEADLINE_S)).opcode != BINARY:
            data = json.loads(frame.payload)
            if data["type"] == "video-frame":
                return str(data["data"]).encode()
        return frame.payload[18 + frame.payload[17] :]


async def wired(url: str, token: str, clients: Clients, *headers: str, form: str = "binary") -> Wire:
    camera, viewer = await clients.raw(url), await clients.raw(url)
    stream = new_name()
    for raw, path, wish in (
        (camera, REGISTER, {"type": "register", "streamId": stream, "produces": ["video-frame"]}),
        (viewer, SUBSCRIBE, {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"], "format": form}),
    ):
        await raw.upgrade(f"{path}?token={token}", *(headers if raw is camera else ()))
        await raw.sign_in(token)
        await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
        await raw.json("success")
    await viewer.json("status")
    return Wire(camera, viewer)


async def stream(camera: RawSocket, frames: Sequence[bytes]) -> None:
    """Send without a wait for each."""
    for some in itertools.batched(frames, 500) if hasattr(itertools, "batched") else [frames]:
        await camera.send(b"".join(some))


def deflated(data: bytes, bits: int = 15, *, final: bool = False) -> bytes:
    """Compressed as RFC 7692 section 7.2.1 says, or with the last block marked as such (section 7.2.3.4)."""
    packer = zlib.compressobj(wbits=-bits)
    if final:
        return packer.compress(data) + packer.flush() + b"\x00"
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def packed(data: bytes, **options: Any) -> list[bytes]:
    return message(TEXT, deflated(data, **options), rsv=RSV1)
