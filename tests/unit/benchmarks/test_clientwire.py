"""The load's own WebSocket client, tried against the implementation of `websockets`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from benchmarks.clientwire import (
    BINARY,
    PING,
    TEXT,
    Inbox,
    LengthInbox,
    WebSocketInbox,
    WireFault,
    check_upgraded,
    masked,
    message,
    upgrade,
)

KEY = bytes(range(16))
masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: b"x" * n))


def parsed(parser):
    """The result of one of the parsers of `websockets` that has all its bytes."""
    try:
        next(parser)
    except StopIteration as done:
        return done.value
    raise AssertionError("the message is not whole")


def unmasked(opcode: int, payload: bytes) -> bytes:
    return Frame(Opcode(opcode), payload).serialize(mask=False)


def fed(inbox: Inbox, data: bytes, sizes: list[int]) -> list[tuple[int, bytes]]:
    """What comes out when `data` arrives in chunks of these sizes, and the rest as there is space."""
    out = []
    sizes = [*reversed(sizes)]
    while data:
        space = inbox.space()
        assert len(space) > 0
        chunk = data[: min(len(space), sizes.pop() if sizes else len(space))]
        space[: len(chunk)] = chunk
        data = data[len(chunk) :]
        out += [(opcode, bytes(inbox.buffer[begin:end])) for opcode, begin, end in inbox.filled(len(chunk))]
    return out


# Opening


def test_the_upgrade_is_one_that_a_server_accepts_and_its_answer_fits():
    server = ServerProtocol()
    reader = StreamReader()
    reader.feed_data(upgrade("127.0.0.1", "/streams/register", KEY))
    request = parsed(Request.parse(reader.read_line))
    assert request.path == "/streams/register"
    check_upgraded(server.accept(request).serialize(), KEY)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "'HTTP/1.1 401 Unauthorized'"),
        (b"\r\n\r\n", "answered with ''"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "no Sec-WebSocket-Accept"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", "no Sec-WebSocket-Accept"),
    ],
)
def test_any_other_answer_is_a_fault_that_says_what_came(head, said):
    with pytest.raises(WireFault, match=said):
        check_upgraded(head, KEY)


# Out


@given(payloads, masks)
def test_a_message_is_the_frame_that_a_server_reads(payload, mask):
    reader = StreamReader()
    reader.feed_data(message(BINARY, payload, mask))
    frame = parsed(Frame.parse(reader.read_exact, mask=True, max_size=None))
    assert frame == Frame(Opcode.BINARY, payload)


@given(st.binary(max_size=200), st.integers(0, 200), masks)
def test_a_message_may_be_masked_in_parts(data, cut, mask):
    cut = min(cut, len(data))
    assert masked(data[:cut], mask) + masked(data[cut:], mask, cut) == masked(data, mask)


@given(st.binary(max_size=200), masks, st.integers(0, 9))
def test_masking_twice_is_masking_never(data, mask, at):
    assert masked(masked(data, mask, at), mask, at) == data


# In


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=120)), max_size=30),
    st.lists(st.integers(1, 200), max_size=60),
    st.integers(256, 700),
)
def test_messages_come_out_as_they_went_in_however_the_socket_cuts_them(messages, sizes, room):
    data = b"".join(unmasked(opcode, payload) for opcode, payload in messages)
    assert fed(WebSocketInbox(room), data, sizes) == messages


@given(st.lists(st.binary(max_size=200), max_size=30), st.lists(st.integers(1, 200), max_size=60))
def test_messages_with_their_length_in_front_come_out_as_they_went_in(payloads, sizes):
    data = b"".join(len(payload).to_bytes(4, "big") + payload for payload in payloads)
    assert fed(LengthInbox(256), data, sizes) == [(BINARY, payload) for payload in payloads]


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536, 70_000])
def test_each_way_of_writing_a_length_is_read(length):
    payload = b"x" * length
    assert fed(WebSocketInbox(70_100), unmasked(BINARY, payload), [1] * 20) == [(BINARY, payload)]


def test_a_message_that_fills_the_buffer_wholly_is_read_time_and_again():
    inbox = WebSocketInbox(130)
    data = unmasked(TEXT, b"y" * 126)
    assert len(data) == 130
    assert fed(inbox, data * 5, [7, 123, 1, 129, 64]) == [(TEXT, b"y" * 126)] * 5


def test_a_message_larger_than_the_buffer_is_a_fault_with_both_sizes():
    with pytest.raises(WireFault, match="a message of 200 bytes, expected at most 128"):
        fed(WebSocketInbox(128), unmasked(TEXT, b"y" * 200), [])
    with pytest.raises(WireFault, match="4294967295 bytes"):
        fed(LengthInbox(128), b"\xff\xff\xff\xff", [])


@pytest.mark.parametrize("first", [0x01, 0xC1, 0x83, 0x80])
def test_fragments_compression_and_unknown_opcodes_are_faults(first):
    with pytest.raises(WireFault, match=f"{first:#04x}"):
        fed(WebSocketInbox(128), bytes([first, 0]), [])


def test_a_masked_message_from_a_server_is_a_fault():
    with pytest.raises(WireFault, match="without mask"):
        fed(WebSocketInbox(128), message(TEXT, b"", b"abcd"), [])


@given(st.lists(st.integers(1, 40), max_size=40))
def test_what_comes_behind_the_head_is_the_first_message(sizes):
    inbox = WebSocketInbox(256)
    data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + unmasked(TEXT, b"hello")
    sizes = [*reversed(sizes)]
    head = None
    while head is None:
        space = inbox.space()
        chunk = data[: sizes.pop() if sizes else len(data)]
        space[: len(chunk)] = chunk
        data = data[len(chunk) :]
        head = inbox.until(b"\r\n\r\n", len(chunk))
    assert head == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    found = [(opcode, bytes(inbox.buffer[begin:end])) for opcode, begin, end in inbox.filled(0)]
    assert found + fed(inbox, data, []) == [(TEXT, b"hello")]


def test_a_head_without_an_end_is_a_fault():
    inbox = WebSocketInbox(256)
    inbox.space()[:200] = b"x" * 200
    assert inbox.until(b"\r\n\r\n", 200) is None
    inbox.space()[:56] = b"x" * 56
    with pytest.raises(WireFault, match="does not end"):
        inbox.until(b"\r\n\r\n", 56)
