"""TLS of connections as machines: what each peer gets, with all sessions over the same buffers."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.certificates import make_certificate, make_key, pem
from watchout.gateway.listen.tls import load
from watchout.gateway.listen.tls_session import PIECE_BYTES, TlsBuffers, TlsFault, TlsSession

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
#: Header, type of the content and tag of a record of TLS 1.3 (RFC 8446 section 5.2).
RECORD_EXTRA = 5 + 1 + 16


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """Those of the server and of a client that trusts it."""
    directory: Path = tmp_path_factory.mktemp("tls")
    key = make_key()
    cert = make_certificate(key)
    (directory / "cert.pem").write_bytes(cert)
    (directory / "key.pem").write_bytes(pem(key))
    return load(directory / "cert.pem", directory / "key.pem"), ssl.create_default_context(cadata=cert.decode())


class Pair:
    """A session and its peer, which has buffers of its own."""

    def __init__(self, contexts: Contexts, buffers: TlsBuffers, complete: bool = True) -> None:
        self.buffers = buffers
        self.session = TlsSession(contexts[0], buffers)
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = contexts[1].wrap_bio(self.into, self.out, server_hostname="127.0.0.1")
        #: Application data that each side was given, has sent and has got.
        self.to_peer = self.to_server = self.at_peer = self.at_server = b""
        if complete:
            while not self.step():
                pass
            self.peer_reads()  # tickets

    def step(self) -> bool:
        """One flight in each direction; whether the server's handshake is complete."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.peer.do_handshake()
        complete, reply = self.session.shake(self.out.read())
        self.into.write(reply)
        return complete

    def peer_writes(self, data: bytes) -> None:
        self.to_server += data
        rest = memoryview(data)
        while rest:
            rest = rest[self.peer.write(rest) :]

    def peer_reads(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.peer.read(65536):
                self.at_peer += got

    def server_writes(self, data: bytes) -> None:
        self.to_peer += data
        self.into.write(self.session.encrypt(data))

    def server_reads(self, received: bytes, room: int) -> None:
        """What was received, into buffers of this size."""
        buffer = memoryview(bytearray(room))
        while True:
            count, reply = self.session.decrypt(received, buffer)
            self.into.write(reply)
            self.at_server += bytes(buffer[:count])
            self.idle()
            if not self.session.has_more:
                return
            received = b""

    def idle(self) -> None:
        assert not self.buffers.incoming.pending, "bytes of one peer are left for the next"
        assert not self.buffers.outgoing.pending, "bytes for one peer are left for the next"


@pytest.fixture
def pair(contexts: Contexts) -> Pair:
    return Pair(contexts, TlsBuffers())


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(["server writes", "peer writes", "server reads", "peer reads"]),
            st.integers(1, 70_000), st.integers(1, 70_000),
        ), max_size=24,
    )
)  # fmt: skip
def test_every_peer_gets_its_own_bytes_in_order_whatever_the_others_do(
    contexts: Contexts, steps: list[tuple[int, str, int, int]]
) -> None:
    buffers = TlsBuffers()
    pairs = [Pair(contexts, buffers) for _ in range(3)]
    for number, what, size, other in steps:
        pair = pairs[number]
        if what == "server writes":
            pair.server_writes(os.urandom(size))
        elif what == "peer writes":
            pair.peer_writes(os.urandom(size))
        elif what == "peer reads":
            pair.peer_reads()
        else:
            pair.server_reads(pair.out.read(size), other)
        pair.idle()
    for pair in pairs:
        pair.server_reads(pair.out.read(), 300_000)
        pair.peer_reads()
        assert pair.at_server == pair.to_server
        assert pair.at_peer == pair.to_peer


@pytest.mark.parametrize("cut", [1, 5, 100, 100_000])
def test_a_handshake_in_pieces_is_completed(contexts: Contexts, cut: int) -> None:
    pair = Pair(contexts, TlsBuffers(), complete=False)
    complete = False
    while not complete:
        with contextlib.suppress(ssl.SSLWantReadError):
            pair.peer.do_handshake()
        while not complete and (piece := pair.out.read(cut)):
            complete, reply = pair.session.shake(piece)
            pair.into.write(reply)
            pair.idle()
    assert pair.session.tls.version() == "TLSv1.3"


def test_bytes_that_come_with_the_end_of_the_handshake_are_kept(contexts: Contexts) -> None:
    pair = Pair(contexts, TlsBuffers(), complete=False)
    assert not pair.step()
    pair.peer.do_handshake()
    pair.peer_writes(b"GET / HTTP/1.1\r\n")
    complete, _ = pair.session.shake(pair.out.read())
    assert complete
    assert pair.session.has_more
    pair.idle()
    pair.server_reads(b"", 1000)
    assert pair.at_server == pair.to_server


def test_a_frame_is_encrypted_in_as_few_records_as_there_can_be(pair: Pair) -> None:
    encrypted = pair.session.encrypt(bytes(40_000))
    sizes = []
    while encrypted:
        size = 5 + int.from_bytes(encrypted[3:5], "big")
        sizes.append(size - RECORD_EXTRA)
        encrypted = encrypted[size:]
    assert sizes == [16384, 16384, 40_000 - 2 * 16384]


def test_what_may_be_encrypted_at_once_bounds_the_shared_buffer(pair: Pair) -> None:
    assert len(pair.session.encrypt(bytes(PIECE_BYTES))) == PIECE_BYTES + PIECE_BYTES // 16384 * RECORD_EXTRA


def test_a_whole_frame_is_decrypted_into_one_buffer(pair: Pair) -> None:
    pair.peer_writes(os.urandom(40_000))
    buffer = memoryview(bytearray(65536))
    assert pair.session.decrypt(pair.out.read(), buffer) == (40_000, b"")
    assert not pair.session.has_more


def test_the_end_of_the_peer_is_told_and_ours_is_what_it_expects(pair: Pair) -> None:
    pair.peer_writes(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        pair.peer.unwrap()
    pair.server_reads(pair.out.read() + b"after the end", 1000)
    assert (pair.at_server, pair.session.ended) == (b"last", True)
    pair.into.write(pair.session.end())
    pair.idle()
    pair.peer.unwrap()  # raises when the end is missing


def test_our_end_comes_first_and_the_answer_of_the_peer_is_told(pair: Pair) -> None:
    pair.into.write(pair.session.end())
    pair.idle()
    assert pair.peer.read(100) == b""
    pair.peer.unwrap()
    pair.server_reads(pair.out.read(), 1000)
    assert pair.session.ended


def broken_record(pair: Pair) -> bytes:
    pair.peer_writes(b"good")
    good = pair.out.read()
    pair.peer_writes(b"evil")
    bad = bytearray(pair.out.read())
    bad[-1] ^= 1
    return good + bytes(bad)


def test_a_record_that_was_changed_is_a_fault_after_what_came_before_it(contexts: Contexts, pair: Pair) -> None:
    other = Pair(contexts, pair.buffers)
    buffer = memoryview(bytearray(1000))
    assert pair.session.decrypt(broken_record(pair), buffer)[0] == 4
    assert bytes(buffer[:4]) == b"good"
    assert pair.session.has_more
    pair.idle()
    for _ in range(2):
        with pytest.raises(TlsFault, match=r"(?i)mac") as fault:
            pair.session.decrypt(b"", buffer)
    assert fault.value.alert, "the peer is told"
    pair.into.write(fault.value.alert)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        pair.peer.read(1)
    other.server_writes(b"unharmed")
    other.peer_reads()
    assert other.at_peer == b"unharmed"


@pytest.mark.parametrize(
    "make", [lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", lambda: bytes(100), lambda: os.urandom(100)]
)
def test_what_is_no_handshake_is_a_fault_and_leaves_nothing_for_others(
    contexts: Contexts, pair: Pair, make: Callable[[], bytes]
) -> None:
    stranger = TlsSession(contexts[0], pair.buffers)
    with pytest.raises(TlsFault):
        stranger.shake(b"\x16\x03\x01\x00\x05" + make())
    pair.idle()
    pair.server_writes(b"unharmed")
    pair.peer_reads()
    assert pair.at_peer == b"unharmed"


def test_nothing_is_encrypted_after_the_end(pair: Pair) -> None:
    pair.session.end()
    with pytest.raises(TlsFault):
        pair.session.encrypt(b"late")
    pair.idle()
