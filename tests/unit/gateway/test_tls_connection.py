"""A connection with TLS between its socket and its protocol: what is passed on, what waits where, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.kit.certificates import make_certificate, make_key, pem
from watchout.gateway.listen import tls_connection
from watchout.gateway.listen.tls import load
from watchout.gateway.listen.tls_connection import MAX_REPLY_BYTES, SecuredProtocol, TlsConnection
from watchout.gateway.listen.tls_session import PIECE_BYTES, TlsBuffers, TlsSession

LONG_S = 60.0


class Socket(asyncio.Transport):
    """The transport of the socket: what is written, and what it is told."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 7)})
        self.written: list[bytes] = []
        self.calls: list[str] = []
        self.size = 0
        self.ended = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append("writelines")
        self.written.append(b"".join(list_of_data))

    def taken(self) -> bytes:
        found, self.written = b"".join(self.written), []
        return found

    def get_write_buffer_size(self) -> int:
        return self.size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"limits {high} {low}")

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")
        self.ended.set()

    def abort(self) -> None:
        self.calls.append("abort")
        self.ended.set()


class Owner(SecuredProtocol):
    """Takes the connection, and what comes over it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.got: list[bytes] = []
        self.heard: list[str] = []
        self.failed: Exception | None = None
        self.answers = False
        self.on_data: Callable[[], None] = lambda: None

    def on_secured(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def on_handshake_failed(self, error: Exception) -> None:
        self.failed = error

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        self.on_data()

    def eof_received(self) -> bool | None:
        self.heard.append("eof")
        return self.answers

    def pause_writing(self) -> None:
        self.heard.append("full")

    def resume_writing(self) -> None:
        self.heard.append("free")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")


class Buffered(asyncio.BufferedProtocol):
    """As a WebSocket: bytes come into its own memory."""

    def __init__(self, room: int = 65536) -> None:
        self.memory = bytearray(room)
        self.got: list[bytes] = []

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.memory)

    def buffer_updated(self, nbytes: int) -> None:
        self.got.append(bytes(self.memory[:nbytes]))


class Place:
    """A connection, its socket, its owner and a client."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext], handshake_s: float = LONG_S) -> None:
        self.socket, self.owner = Socket(), Owner()
        self.scratch = memoryview(bytearray(256 * 1024))
        session = TlsSession(contexts[0], TlsBuffers())
        self.made = TlsConnection(self.socket, session, contexts[0], self.owner, self.scratch, handshake_s)
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = contexts[1].wrap_bio(self.into, self.out, server_hostname="127.0.0.1")

    def shake_hands(self) -> None:
        while self.owner.transport is None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.peer.do_handshake()
            self.deliver()
            self.into.write(self.socket.taken())

    def deliver(self, data: bytes | None = None) -> None:
        """To the connection, what the client has sent."""
        data = self.out.read() if data is None else data
        self.made.get_buffer(-1)[: len(data)] = data
        self.made.buffer_updated(len(data))

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 16384):
            self.peer.write(data[at : at + 16384])
        self.deliver()

    def read(self) -> bytes:
        """What the client reads of what was written."""
        self.into.write(self.socket.taken())
        found = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.peer.read(65536):
                found += got
        return found


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    directory: Path = tmp_path_factory.mktemp("tls")
    key = make_key()
    cert = make_certificate(key)
    (directory / "cert.pem").write_bytes(cert + pem(key))
    return load(directory / "cert.pem", None), ssl.create_default_context(cadata=cert.decode())


@pytest_asyncio.fixture
async def place(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Place]:
    made = Place(contexts)
    made.shake_hands()
    made.read()
    yield made
    made.made.connection_lost(None)


async def test_bytes_pass_in_both_directions_and_who_secured_it_is_told(place: Place) -> None:
    place.send(b"to the gateway")
    place.made.write(b"to the client")
    assert place.owner.got == [b"to the gateway"]
    assert place.read() == b"to the client"
    assert place.owner.transport is place.made
    assert place.made.get_extra_info("peername") == ("192.0.2.1", 7)
    assert isinstance(place.made.get_extra_info("sslcontext"), ssl.SSLContext)
    assert place.made.get_extra_info("ssl_object").cipher()
    assert place.made.get_extra_info("nothing", 5) == 5


async def test_a_frame_is_one_write_to_the_socket_and_one_buffer_for_a_websocket(place: Place) -> None:
    websocket = Buffered()
    place.made.set_protocol(websocket)
    assert place.made.get_protocol() is websocket
    frame = os.urandom(40_000)
    place.made.write(frame)
    assert len(place.socket.written) == 1
    assert place.read() == frame
    place.send(frame)
    assert websocket.got == [frame]


async def test_a_small_buffer_is_filled_again_and_again(place: Place) -> None:
    websocket = Buffered(1000)
    place.made.set_protocol(websocket)
    data = os.urandom(20_500)
    place.send(data)
    assert b"".join(websocket.got) == data
    assert max(map(len, websocket.got)) == 1000


async def test_a_message_beyond_what_is_encrypted_at_once_is_still_one_write(place: Place) -> None:
    data = os.urandom(2 * PIECE_BYTES + 1)
    place.made.write(memoryview(data))
    assert place.socket.calls == ["writelines"]
    assert place.read() == data
    place.made.writelines([b"a", b"", b"b"])
    place.made.write(b"")
    assert len(place.socket.written) == 1
    assert place.read() == b"ab"


async def test_what_the_kernel_did_not_take_and_its_limits_are_those_of_the_socket(place: Place) -> None:
    """Frames wait in no second place, where no newer one could replace them."""
    place.made.set_write_buffer_limits(high=1)
    assert place.socket.calls == ["limits 1 None"]
    place.socket.size = 77
    assert place.made.get_write_buffer_size() == 77
    place.made.pause_writing()
    place.made.write(b"at once")
    assert len(place.socket.written) == 1, "an alert before a close is encrypted and given to the socket"
    place.made.resume_writing()
    assert place.owner.heard == ["full", "free"]


async def test_a_paused_protocol_gets_nothing_and_then_everything_in_order(place: Place) -> None:
    place.owner.on_data = place.made.pause_reading
    data = os.urandom(150_000)
    place.send(data)
    assert 0 < len(b"".join(place.owner.got)) <= tls_connection.PLAIN_BYTES
    assert not place.made.is_reading()
    place.owner.on_data = lambda: None
    place.made.resume_reading()
    assert len(place.owner.got) == 1, "not within the call"
    place.send(b"later")
    while len(b"".join(place.owner.got)) < len(data) + 5:
        await asyncio.sleep(0)
    assert b"".join(place.owner.got) == data + b"later"
    assert place.socket.calls == ["pause", "resume"]


async def test_what_was_held_back_comes_without_further_bytes(place: Place) -> None:
    place.owner.on_data = place.made.pause_reading
    place.send(bytes(150_000))
    place.owner.on_data = lambda: None
    place.made.resume_reading()
    while len(b"".join(place.owner.got)) < 150_000:
        await asyncio.sleep(0)


async def test_a_close_ends_tls_and_waits_for_the_answer_of_the_peer(place: Place) -> None:
    place.made.write(b"last words")
    place.made.close()
    place.made.write(b"too late")
    assert place.made.is_closing()
    assert not place.socket.ended.is_set()
    assert place.read() == b"last words"
    place.send(b"still talking")
    assert place.owner.got == []
    place.peer.unwrap()  # the end of TLS was sent
    place.deliver()
    assert place.socket.calls[-1] == "close"


async def test_a_peer_that_does_not_answer_the_end_is_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_connection, "SHUTDOWN_S", 0.0)
    place.made.pause_reading()
    place.made.close()
    assert place.socket.calls == ["pause", "resume"], "else its answer would not be read"
    await asyncio.wait_for(place.socket.ended.wait(), LONG_S)
    assert place.socket.calls[-1] == "abort"


async def test_the_end_of_the_peer_is_told_and_answered(place: Place) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        place.peer.unwrap()
    place.deliver()
    assert place.owner.heard == ["eof"]
    assert place.socket.calls[-1] == "close"
    place.into.write(place.socket.taken())
    place.peer.unwrap()


async def test_a_peer_that_ended_its_side_gets_the_answer_that_is_still_to_come(place: Place) -> None:
    place.owner.answers = True
    with contextlib.suppress(ssl.SSLWantReadError):
        place.peer.unwrap()
    place.deliver()
    assert place.owner.heard == ["eof"]
    assert place.made.eof_received() is True, "the end of its bytes follows that of TLS"
    assert not place.made.is_closing()
    place.made.write(b"the answer")
    place.made.close()
    assert place.socket.calls[-1] == "close"
    assert place.made.eof_received() is False
    place.into.write(place.socket.taken())
    assert place.peer.read(100) == b"the answer"
    place.peer.unwrap()


async def test_the_end_of_the_bytes_alone_ends_the_connection(place: Place) -> None:
    assert place.made.eof_received() is False
    assert place.owner.heard == []


async def test_a_changed_record_ends_the_connection_and_the_peer_is_told(place: Place) -> None:
    place.peer.write(b"evil")
    bad = bytearray(place.out.read())
    bad[-1] ^= 1
    place.deliver(bytes(bad))
    assert place.socket.calls[-1] == "close"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        place.read()
    place.deliver(bytes(bad))
    assert place.socket.calls[-1] == "abort"


async def test_what_is_no_handshake_is_told_and_ends_the_connection(contexts: Any) -> None:
    place = Place(contexts)
    place.deliver(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(place.owner.failed, ssl.SSLError)
    assert place.socket.calls == ["close"]
    assert place.owner.transport is None
    place.made.connection_lost(None)
    assert place.owner.heard == ["lost"]


async def test_a_handshake_has_its_time(contexts: Any) -> None:
    place = Place(contexts, handshake_s=0.0)
    await asyncio.wait_for(place.socket.ended.wait(), LONG_S)
    assert isinstance(place.owner.failed, TimeoutError)
    assert place.socket.calls == ["abort"]


async def test_after_the_handshake_its_time_does_not_count(contexts: Any) -> None:
    place = Place(contexts, handshake_s=0.0)
    place.shake_hands()
    for _ in range(3):
        await asyncio.sleep(0)
    assert place.socket.calls == []
    place.made.connection_lost(None)


class Replying:
    """A session whose peer asks for a reply of TLS itself with every byte."""

    ended = has_more = False

    def shake(self, data: memoryview) -> tuple[bool, bytes]:
        del data
        return True, b""

    def decrypt(self, data: memoryview, buffer: memoryview) -> tuple[int, bytes]:
        del data, buffer
        return 0, bytes(100)

    def encrypt(self, data: bytes) -> bytes:
        return bytes(data)


async def test_replies_to_a_peer_that_reads_nothing_are_bounded(contexts: Any) -> None:
    socket, owner = Socket(), Owner()
    session = cast("TlsSession", Replying())
    made = TlsConnection(socket, session, contexts[0], owner, memoryview(bytearray(10)), LONG_S)
    made.buffer_updated(1)
    for _ in range(MAX_REPLY_BYTES // 100 + 5):
        made.buffer_updated(1)
    assert not socket.ended.is_set(), "it reads"
    for _ in range(3):
        made.pause_writing()
        for _ in range(MAX_REPLY_BYTES // 100):
            made.buffer_updated(1)
        made.resume_writing()
    assert not socket.ended.is_set()
    made.pause_writing()
    for _ in range(MAX_REPLY_BYTES // 100 + 1):
        made.buffer_updated(1)
    assert socket.calls == ["abort"]
    made.connection_lost(None)


def connections() -> set[int]:
    return {id(each) for each in gc.get_objects() if isinstance(each, TlsConnection)}


async def test_a_lost_connection_is_told_and_nothing_of_it_stays(contexts: Any) -> None:
    gc.collect()
    before = connections()
    place = Place(contexts)
    place.shake_hands()
    place.made.close()
    owner = weakref.ref(place.owner)
    heard = place.owner.heard
    gc.disable()
    try:
        place.made.connection_lost(None)
        assert heard == ["lost"]
        place.made.write(b"nobody")
        place.made.abort()
        assert place.socket.calls == ["resume"]
        place.owner.transport = None
        del place
        assert owner() is None
        assert connections() <= before, "it is freed without the garbage collector"
    finally:
        gc.enable()


async def test_tls_has_no_half_of_a_connection(place: Place) -> None:
    assert not place.made.can_write_eof()
    with pytest.raises(NotImplementedError):
        place.made.write_eof()
