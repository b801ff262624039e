"""What a connection leaves behind when it has ended: nothing that only the garbage collector could find.

The gateway calms the collector, so a cycle would hold a connection's buffers for minutes. Gateway and router run in
this process, on the loop of the test, with the collector off.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import ssl
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    JPEG,
    PING,
    TEXT,
    Clients,
    RawSocket,
    base64_of,
    eventually,
    web_socket_frame,
)
from tests.kit.ports import free_port
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.process import garbage
from watchout.common.settings import load
from watchout.gateway.app import Gateway
from watchout.gateway.listen.dispatch import PIECES_OF_CONNECTION
from watchout.identity.embedded_store import mint_token
from watchout.router.app import Router

#: Objects of which none may be left.
KINDS = {
    "WebSocket", "ClientHandler", "ClientProtocol", "FrameReader", "OutboundQueue", "ServerProtocol",
    "ConnectionDispatcher", "JsonRequestHandler", "WriteMonitor", "Mjpeg", "Place", "Subscription", "Publication",
    "StreamReader", "Request", "Deflate",
}  # fmt: skip
ENDS = 20


@dataclass
class Here:
    """A gateway in this process."""

    url: str
    token: str
    gateway: Gateway
    home: Path
    clients: Clients
    tls: ssl.SSLContext | None = None

    async def raw(self) -> RawSocket:
        """A connection."""
        options = {"ssl": self.tls} if self.tls else {}
        return await self.clients.raw(self.url, **options)

    async def socket(self, path: str = "/streams/subscribe", *, token: bool = True, deflate: bool = False) -> RawSocket:
        """A WebSocket."""
        raw = await self.raw()
        headers = ["Sec-WebSocket-Extensions: permessage-deflate"] if deflate else []
        await raw.upgrade(path + (f"?token={self.token}" if token else ""), *headers)
        return raw


@contextlib.asynccontextmanager
async def serving(tls: tuple[Path, Path] | None = None, **environ: str) -> AsyncIterator[Here]:
    home = Path(tempfile.mkdtemp(prefix="wo-"))
    port = free_port()
    settings = load(
        {
            "WATCHOUT_HOME": str(home), "WATCHOUT_HOST": "127.0.0.1", "WATCHOUT_PORT": str(port),
            "AUTH_TIMEOUT_S": "60", "HANDSHAKE_TIMEOUT_S": "60", "DRAIN_S": "0.5",
            **({"TLS_CERT": str(tls[0]), "TLS_KEY": str(tls[1])} if tls else {}),
            **environ,
        }
    )  # fmt: skip
    router, gateway, clients = Router(settings), Gateway(settings), Clients()
    context = None
    if tls:
        context = ssl.create_default_context(cafile=str(tls[0]))
    try:
        await router.start()
        await gateway.start()
        token = mint_token(home / SESSION_STORE_FILE, "ann")
        await eventually(lambda: gateway._link.live)
        yield Here(f"http://127.0.0.1:{port}", token, gateway, home, clients, context)
    finally:
        await clients.close()
        await gateway.stop()
        await router.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def only_new_objects() -> Iterator[None]:
    """Leave what lives already out of `gc.get_objects()`: a test process has a million objects of other tests."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def left() -> Counter[str]:
    """What lives, by kind, of what was made since `only_new_objects` began."""
    kinds = (type(each) for each in gc.get_objects())
    return Counter(
        kind.__name__ for kind in kinds if kind.__name__ in KINDS and not kind.__module__.startswith("asyncio")
    )


async def leaves_nothing(here: Here, end: Callable[[Here], Awaitable[Any]], times: int = ENDS) -> None:
    """Do this many times, and see that as much lives after as before."""

    async def several() -> None:
        for _ in range(times // 10):
            await asyncio.gather(*(one() for _ in range(10)))

    async def one() -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await end(here)

    async def leave() -> None:
        for raw in here.clients._sockets:
            await raw.leave()
        here.clients._sockets.clear()

    await one()
    await leave()
    await eventually(lambda: here.gateway._context.connections.total == 0, 30)
    gc.collect()
    gc.disable()
    try:
        before = left()
        await several()
        await leave()
        await eventually(lambda: here.gateway._context.connections.total == 0, 30)
        await eventually(lambda: not left() - before, 30, what="nothing is left")
    except AssertionError:
        raise AssertionError(f"{dict(left() - before)} are left") from None
    finally:
        gc.enable()


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def normal(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(CLOSE, b"\x03\xe8"))
    await raw.gone()


async def aborted(here: Here) -> None:
    raw = await here.socket()
    raw.writer.transport.abort()


async def half_closed(here: Here) -> None:
    raw = await here.socket()
    raw.writer.write_eof()
    await raw.gone()


async def protocol_error(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(TEXT, b"x", rsv=2))
    await raw.gone()


async def not_masked(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(TEXT, b"x", masked=False))
    await raw.gone()


async def not_utf8(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(TEXT, b"\xff"))
    assert await raw.close_code() == 1007
    raw.writer.transport.abort()


async def too_large(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(TEXT, b"")[:1] + b"\xff" + (1 << 30).to_bytes(8, "big") + b"1234")
    await raw.gone()


async def unfinished_fragments(here: Here) -> None:
    raw = await here.socket(deflate=True)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    data = deflate.compress(b"a" * 100_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    await raw.send(web_socket_frame(TEXT, data, fin=False, rsv=4) + web_socket_frame(CONTINUATION, b"", fin=False))
    await raw.send(web_socket_frame(PING))
    await raw.frame()
    raw.writer.transport.abort()


async def half_a_frame(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(BINARY, bytes(100_000))[:50_000])
    raw.writer.transport.abort()


async def never_signed_in(here: Here) -> None:
    raw = await here.socket(token=False)
    assert await raw.close_code() == 1008
    await raw.send(web_socket_frame(CLOSE, b"\x03\xf0"))
    await raw.gone()


async def wrong_token(here: Here) -> None:
    raw = await here.socket(token=False)
    await raw.send(web_socket_frame(TEXT, b'{"type":"auth","token":"wrong"}'))
    assert await raw.close_code() == 1008
    raw.writer.transport.abort()


async def refused_handshake(here: Here) -> None:
    raw = await here.raw()
    await raw.send(raw.upgrade_head("/streams/subscribe?token=wrong"))
    await raw.gone()


async def broken_handshake(here: Here) -> None:
    raw = await here.raw()
    await raw.send(raw.head("/streams/subscribe", "Upgrade: websocket", "Connection: Upgrade"))
    await raw.gone()


async def left_in_the_handshake(here: Here) -> None:
    raw = await here.raw()
    await raw.send(raw.upgrade_head(f"/streams/subscribe?token={here.token}"))
    raw.writer.transport.abort()


async def camera_and_viewer(here: Here) -> None:
    camera = await here.socket("/streams/register")
    await camera.send(web_socket_frame(TEXT, b'{"type":"register","produces":["video-frame"],"consumes":["demand"]}'))
    stream = (await camera.json("success"))["streamId"]
    viewer = await here.socket()
    wish = f'{{"type":"subscribe","streamId":"{stream}","consumes":["video-frame","alert"],"window":1,"alertsSince":0}}'
    await viewer.send(web_socket_frame(TEXT, wish.encode()))
    for _ in range(3):
        await camera.send(web_socket_frame(TEXT, f'{{"type":"video-frame","data":"{base64_of(JPEG)}"}}'.encode()))
    await viewer.json("video-frame")
    camera.writer.transport.abort()
    await viewer.send(web_socket_frame(CLOSE, b"\x03\xe8"))
    await viewer.gone()


async def taken_over(here: Here) -> None:
    first, second = await here.socket("/streams/register"), await here.socket("/streams/register")
    wish = web_socket_frame(TEXT, b'{"type":"register","streamId":"same","produces":["video-frame"]}')
    await first.send(wish)
    await first.json("success")
    await second.send(wish)
    assert await first.close_code() == 4501
    first.writer.transport.abort()
    await second.send(web_socket_frame(CLOSE, b"\x03\xe8"))
    await second.gone()


async def abusive(here: Here) -> None:
    raw = await here.socket()
    await raw.send(web_socket_frame(TEXT, b"no") * 150)
    assert await raw.close_code() == 1008
    raw.writer.transport.abort()


async def plain_http(here: Here) -> None:
    raw = await here.raw()
    for path in ("/health/live", "/stats", "/nothing", "/streams", "/streams/x/frame.jpg", "/alerts?streamId=x"):
        await raw.send(raw.head(path, f"Authorization: Bearer {here.token}"))
        await raw.answer()
    await raw.send(raw.head("/alerts", "Content-Length: 100", method="POST"))
    await raw.answer()
    raw.writer.transport.abort()


async def http_then_upgrade(here: Here) -> None:
    raw = await here.raw()
    await raw.send(raw.head("/health/live"))
    await raw.answer()
    await raw.upgrade("/streams/subscribe")
    raw.writer.transport.abort()


async def half_a_head(here: Here) -> None:
    raw = await here.raw()
    await raw.send(b"GET / HTTP/1.1\r\nHost: ")
    await raw.gone()


async def no_http(here: Here) -> None:
    raw = await here.raw()
    await raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    await raw.gone()


async def silent(here: Here) -> None:
    await (await here.raw()).gone()


async def moving_picture(here: Here) -> None:
    camera = await here.socket("/streams/register")
    await camera.send(web_socket_frame(TEXT, b'{"type":"register","produces":["video-frame"]}'))
    stream = (await camera.json("success"))["streamId"]
    raw = await here.raw()
    await raw.send(raw.head(f"/streams/{stream}/mjpeg?token={here.token}"))
    await raw.reader.readuntil(b"\r\n\r\n")
    await camera.send(web_socket_frame(TEXT, f'{{"type":"video-frame","data":"{base64_of(JPEG)}"}}'.encode()))
    await raw.reader.readuntil(JPEG)
    camera.writer.transport.abort()
    raw.writer.transport.abort()


PLAIN = [
    normal, aborted, half_closed, protocol_error, not_masked, not_utf8, too_large, unfinished_fragments, half_a_frame,
    wrong_token, refused_handshake, broken_handshake, left_in_the_handshake, camera_and_viewer, taken_over, abusive,
    plain_http, http_then_upgrade, no_http, moving_picture,
]  # fmt: skip
#: Those that a deadline ends; each with a server whose other deadlines are far away, so that it ends by no other.
LATE = [
    ([never_signed_in], {"AUTH_TIMEOUT_S": "0.3"}),
    ([half_a_head, silent], {"HANDSHAKE_TIMEOUT_S": "0.3"}),
]
SECURED = [normal, aborted, protocol_error, unfinished_fragments, refused_handshake, camera_and_viewer, plain_http]


async def faults_of(
    ends: list[Callable[[Here], Awaitable[Any]]], tls: tuple[Path, Path] | None, environ: dict[str, str]
) -> list[str]:
    faults = []
    async with serving(tls, **environ) as here:
        for end in ends:
            try:
                await leaves_nothing(here, end, 10 if end in (taken_over, abusive) else ENDS)
            except AssertionError as error:
                faults.append(f"{end.__name__}: {str(error)[:300]}")
                if len(faults) > 2:
                    break
    return faults


def run(
    loop: str,
    ends: list[Callable[[Here], Awaitable[Any]]],
    tls: tuple[Path, Path] | None = None,
    environ: dict[str, str] | None = None,
) -> list[str]:
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with only_new_objects(), asyncio.Runner(loop_factory=factory) as runner:
        found = runner.run(faults_of(ends, tls, environ or {}))
    gc.collect()
    return found


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_is_left_of_a_connection_that_has_ended_without_a_collection(loop: str) -> None:
    assert run(loop, PLAIN) == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nor_of_one_that_a_deadline_has_ended(loop: str) -> None:
    for ends, environ in LATE:
        assert run(loop, ends, environ=environ) == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nor_of_one_over_tls(loop: str, tmp_path: Path) -> None:
    key = make_key()
    (tmp_path / "key").write_bytes(pem(key))
    (tmp_path / "cert").write_bytes(make_certificate(key))
    assert run(loop, SECURED, (tmp_path / "cert", tmp_path / "key")) == []


def test_nor_of_those_that_a_drain_ends() -> None:
    async def all_at_once() -> Counter[str]:
        async with serving() as here:
            await (await here.socket()).leave()
            await eventually(lambda: here.gateway._context.connections.total == 0)
            gc.collect()
            gc.disable()
            try:
                before = left()
                raws = [await here.socket() for _ in range(40)] + [await here.raw() for _ in range(10)]
                await here.gateway.drain()
                for raw in raws:
                    await raw.leave()
                await eventually(lambda: here.gateway._context.connections.total == 0)
                with contextlib.suppress(AssertionError):
                    await eventually(lambda: not left() - before, 30)
                return left() - before
            finally:
                gc.enable()

    with only_new_objects():
        found = asyncio.run(all_at_once())
    gc.collect()
    assert found == Counter()


async def test_each_connection_counts_as_work_for_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where connections take the place of others, Python itself sees no new objects."""
    pieces: list[int] = []
    monkeypatch.setattr(garbage, "worked", lambda count=1: pieces.append(count))
    async with serving() as here:
        for _ in range(3):
            await normal(here)
    assert pieces.count(PIECES_OF_CONNECTION) == 3
