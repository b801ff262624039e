"""ZMTP without a socket; against libzmq in test_frame_sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common.bus.zeromq.zmtp import (
    GREETING,
    GREETING_BYTES,
    READ_BYTES,
    ZmtpConnection,
    command,
    encode_subscription,
    message_head,
    ready,
)
from watchout.common.errors import BusError

PUSH = GREETING + ready(b"PUSH")
SUB = GREETING + ready(b"SUB")


class End:
    """One end with what it got and said."""

    def __init__(self, kind: bytes = b"PULL", max_bytes: int = 1 << 20, skip: int = 0, *, views: bool = False) -> None:
        self.kinds: set[type] = set()
        self.got: list[bytes] = []
        self.said: list[bytes] = []
        self.topics: list[tuple[bytes, bool]] = []
        self.connection = ZmtpConnection(
            kind, max_bytes, self.take, send=self.said.append, skip=skip, views=views,
            subscribed=lambda topic, wanted: self.topics.append((topic, wanted)),
        )  # fmt: skip

    def take(self, message: bytes | memoryview) -> None:
        self.kinds.add(type(message))
        self.got.append(bytes(message))

    def read(self, data: bytes, *, at_once: int = 1 << 30, enough: bool = False) -> bool:
        more = False
        while data:
            room = self.connection.buffer()
            assert len(room) > 0
            count = min(len(room), len(data), at_once)
            room[:count] = data[:count]
            data = data[count:]
            more = self.connection.parse(count, lambda: enough)
            assert not (more and data), "the test would have to pause reading"
        return more


def message(body: bytes) -> bytes:
    return message_head(len(body)) + body


def test_a_greeting_has_the_bytes_of_the_specification() -> None:
    assert len(GREETING) == GREETING_BYTES == 64
    assert GREETING[:12] == bytes.fromhex("ff00000000000000007f0300")
    assert GREETING[12:33] == b"NULL" + bytes(17)
    assert ready(b"PULL") == b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL"
    assert encode_subscription(b"12345678") == b"\x00\x09\x0112345678"


@pytest.mark.parametrize(("size", "head"), [(0, "0000"), (255, "00ff"), (256, "020000000000000100")])
def test_a_message_has_a_short_head_or_a_long_one(size: int, head: str) -> None:
    assert message_head(size) == bytes.fromhex(head)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([0, 1, 255, 256, 40_000, READ_BYTES - 9, READ_BYTES, 700_000]), max_size=5),
    st.sampled_from([1_000, 4_096, 65_536, READ_BYTES, 1 << 30]),
)
def test_messages_come_out_as_they_went_in_however_they_are_cut(sizes: list[int], at_once: int) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    end = End()
    end.read(PUSH + b"".join(map(message, bodies)), at_once=at_once)
    assert end.got == bodies


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 9))
def test_small_messages_come_out_byte_by_byte(bodies: list[bytes], at_once: int) -> None:
    end = End()
    end.read(PUSH + b"".join(map(message, bodies)), at_once=at_once)
    assert end.got == bodies
    assert end.connection.ready


@pytest.mark.parametrize(("views", "kind"), [(True, memoryview), (False, bytes)])
def test_messages_are_delivered_without_a_copy_where_that_is_wanted(views: bool, kind: type) -> None:
    end = End(skip=2, views=views)
    end.read(PUSH + message(b"__one") + message(b"__two") + message(b"__" + b"3" * 70_000), at_once=50_000)
    assert end.got == [b"one", b"two", b"3" * 70_000]
    assert end.kinds == {kind}


def test_it_stops_where_enough_was_done_and_goes_on_from_there() -> None:
    end = End()
    assert end.read(PUSH + message(b"1") + message(b"2") + message(b"3"), enough=True)
    assert end.got == [b"1"]
    assert end.connection.parse(0, lambda: True)
    assert not end.connection.parse(0, lambda: False)
    assert end.got == [b"1", b"2", b"3"]


def test_a_large_message_has_a_buffer_of_its_own_that_is_let_go() -> None:
    end = End()
    end.read(PUSH + message(bytes(500_000))[:-1])
    assert len(end.connection.buffer()) == 1
    end.read(b"\0" + message(b"next"))
    assert [len(body) for body in end.got] == [500_000, 4]
    assert len(end.connection.buffer()) > 1000


@pytest.mark.parametrize("size", [1001, 1 << 40, 2**64 - 1])
def test_a_message_over_its_bound_is_refused_by_its_head(size: int) -> None:
    end = End(max_bytes=1000)
    with pytest.raises(BusError, match=f"a message of {size} bytes, expected at most 1000"):
        end.read(PUSH + struct.pack(">BQ", 2, size))


def test_a_message_at_its_bound_is_taken() -> None:
    end = End(max_bytes=1000)
    end.read(PUSH + message(bytes(1000)))
    assert len(end.got) == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak ZMTP"),
        (b"\xff" + bytes(8) + b"\x7e", "does not speak ZMTP"),
        (b"\xff" + bytes(8) + b"\x7f\x01", "version 1, expected 3"),
        (GREETING.replace(b"NULL\0", b"CURVE"), "another mechanism"),
        (GREETING + ready(b"PULL"), "the peer is a PULL, expected b'PUSH'"),
        (GREETING + ready(b""), r"the peer is a \?"),
        (GREETING + command(b"READY"), r"the peer is a \?"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0"), "ends within a property"),
        (GREETING + command(b"ERROR", b"\x04nope"), "expected READY"),
        (GREETING + b"\x04\x00", "expected READY"),
        (GREETING + message(b"early"), "before READY"),
        (GREETING + message(bytes(400_000)), "in parts|before READY"),
        (PUSH + b"\x06" + struct.pack(">Q", 600), "600 bytes"),
    ],
)
def test_a_peer_that_does_not_speak_the_protocol_is_a_fault(data: bytes, what: str) -> None:
    with pytest.raises(BusError, match=what):
        End().read(data)


def test_a_message_in_parts_is_passed_over_and_counted_once() -> None:
    end = End()
    end.read(PUSH + b"\x01\x01a" + b"\x01\x01b" + b"\x00\x01c" + message(b"whole"))
    assert end.got == [b"whole"]
    assert end.connection.malformed == 1


@pytest.mark.parametrize("kind", [b"PUB", b"XPUB"])
def test_a_sub_accepts_a_pub_and_an_xpub(kind: bytes) -> None:
    end = End(b"SUB", skip=8)
    end.read(GREETING + ready(kind) + message(b"12345678frame") + message(b"12345678" + bytes(300_000)))
    assert end.got == [b"frame", bytes(300_000)]


def test_a_pub_accepts_subscriptions_in_both_forms() -> None:
    end = End(b"PUB")
    end.read(SUB + encode_subscription(b"12345678") + message(b"\x0012345678") + message(b"\x07what"))
    end.read(command(b"SUBSCRIBE", b"abcdefgh") + command(b"CANCEL", b"abcdefgh") + command(b"OTHER"))
    wanted = [(b"12345678", True), (b"12345678", False), (b"abcdefgh", True), (b"abcdefgh", False)]
    assert end.topics == wanted
    assert end.got == []


def test_messages_of_a_sub_are_bounded() -> None:
    with pytest.raises(BusError, match="a message of 600 bytes"):
        End(b"PUB").read(SUB + message(bytes(600)))


def test_a_ping_is_answered_with_its_context() -> None:
    end = End()
    end.read(PUSH + command(b"PING", b"\x00\x64context"))
    assert end.said == [command(b"PONG", b"context")]


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans(), st.sampled_from([b"PULL", b"PUB"]))
def test_any_bytes_are_messages_or_one_fault(chunks: Iterable[bytes], greeted: bool, kind: bytes) -> None:
    end = End(kind)
    try:
        if greeted:
            end.read(PUSH if kind == b"PULL" else SUB)
        for chunk in chunks:
            end.read(chunk)
    except BusError:
        pass
