"""The byte stream of a client, taken apart at the borders of frames: the messages are those that the protocol sees."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from watchout.gateway import fastpath
from watchout.gateway.client.deflate import EXTENSIONS
from watchout.gateway.client.frame_reader import FIRST_BYTES, MOST_FRAGMENTS, SCRATCH_BYTES, FrameReader

MAX = 5000
MASK = b"\x01\x80\xff\x37"


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(
    payload: bytes, first: int = 0x82, *, mask: bool = True, stretch: int = 0, length: int | None = None
) -> bytes:
    """A client's frame. `stretch` 1 and 2 use a longer form of the length than is needed; `length` lies about it."""
    size = len(payload) if length is None else length
    bit = 0x80 if mask else 0
    if size < 126 and not stretch:
        head = bytes((first, bit | size))
    elif size < 65536 and stretch < 2:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (MASK + masked(payload) if mask else payload)


def server(max_bytes: int) -> ServerProtocol:
    protocol = ServerProtocol(max_size=max_bytes)
    protocol.state = OPEN
    protocol.parser = protocol.parse()
    next(protocol.parser)
    return protocol


Event = tuple[int, bytes, bool]


class Taken:
    """An intake with the protocol behind it, as `gateway.client.socket` joins them."""

    def __init__(
        self, max_bytes: int = MAX, piece_bytes: int = 100, *, trusted: bool = True, longest_bytes: int = 0
    ) -> None:
        self.scratch = bytearray(SCRATCH_BYTES)
        self.intake = FrameReader(
            memoryview(self.scratch), max_bytes=max_bytes, piece_bytes=piece_bytes, longest_bytes=longest_bytes
        )
        self.intake.trusted = trusted
        self.protocol = server(max_bytes)
        self.events: list[Event] = []
        self.taken = 0
        self.pieces: list[bytes] = []

    def receive(self, data: bytes) -> None:
        while data:
            buffer = self.intake.buffer()
            size = min(len(buffer), len(data))
            assert size
            buffer[:size] = data[:size]
            data = data[size:]
            whole = self.intake.whole(size)
            if whole is not None:
                self.take(*whole)
            else:
                self.hear()

    def hear(self, most: int = 1 << 30) -> None:
        while most and (item := self.intake.next()) is not None:
            most -= 1
            opcode, data = item
            if opcode is not None:
                self.take(opcode, data)
                continue
            self.pieces.append(data)
            self.protocol.receive_data(data)
            self.events += [(e.opcode, bytes(e.data), e.fin) for e in self.protocol.events_received()]

    def take(self, opcode: Opcode, data: bytes) -> None:
        assert type(data) is bytes
        self.taken += 1
        if self.protocol.state is OPEN:  # afterwards it hears nothing
            self.events.append((opcode, data, True))


def expected(stream: bytes, max_bytes: int = MAX) -> tuple[list[Event], ServerProtocol]:
    protocol = server(max_bytes)
    protocol.receive_data(stream)
    return [(e.opcode, bytes(e.data), e.fin) for e in protocol.events_received() if isinstance(e, Frame)], protocol


def joined(events: list[Event]) -> list[Event]:
    """The same with each message in one event, where its last fragment was; one that does not end is left out."""
    found, began, parts = [], 0, b""
    for opcode, data, fin in events:
        if opcode >= Opcode.CLOSE:
            found.append((opcode, data, fin))
            continue
        began, parts = (began, parts + data) if opcode == Opcode.CONT else (opcode, data)
        if fin:
            found.append((began, parts, True))
    return found


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(edge % (len(stream) + 1) for edge in at)})
    return [stream[begin:end] for begin, end in pairwise(edges)]


PAYLOADS = st.one_of(st.binary(max_size=20), st.sampled_from([125, 126, 127, 300, MAX - 1, MAX]).map(bytes))
DATA = st.builds(frame, PAYLOADS, st.sampled_from([0x81, 0x82]), stretch=st.sampled_from([0, 0, 0, 1, 2]))
FRAMES = st.one_of(
    DATA,
    DATA,
    st.builds(frame, st.binary(max_size=125), st.sampled_from([0x89, 0x8A])),
    st.builds(frame, PAYLOADS, st.sampled_from([0x01, 0x02, 0x00, 0x80])),
)
BAD = st.one_of(
    st.builds(frame, st.binary(max_size=20), st.sampled_from([0x81, 0x82, 0x89]), mask=st.just(False)),
    st.builds(frame, st.binary(max_size=20), st.integers(0, 255)),
    st.builds(frame, st.just(bytes(MAX + 1)), st.sampled_from([0x81, 0x82, 0x01])),
    st.builds(frame, st.just(b"x"), st.just(0x82), length=st.sampled_from([2**31, 2**63, 2**64 - 1])),
    st.just(frame(b"\x03\xe8bye", 0x88)),
    st.binary(max_size=30),
)


@given(
    st.lists(FRAMES, max_size=8),
    st.one_of(st.just(b""), BAD),
    st.lists(FRAMES, max_size=2),
    st.lists(st.integers(0, 30_000), max_size=30),
)
def test_whatever_comes_in_whatever_pieces_the_messages_are_those_of_the_protocol_alone(
    frames: list[bytes], bad: bytes, after: list[bytes], at: list[int]
) -> None:
    stream = b"".join([*frames, bad, *after])
    events, alone = expected(stream)
    taken = Taken()
    for piece in cut(stream, at):
        taken.receive(piece)
    assert joined(taken.events) == joined(events)
    assert taken.protocol.state == alone.state
    assert taken.protocol.close_sent == alone.close_sent or (
        taken.protocol.close_sent is not None
        and alone.close_sent is not None
        and taken.protocol.close_sent.code == alone.close_sent.code
    )
    assert all(len(piece) <= 100 or piece[0] in (0x01, 0x02) for piece in taken.pieces), "but what was joined before"


@given(st.lists(DATA, min_size=1, max_size=6), st.lists(st.integers(0, 30_000), max_size=20))
def test_of_somebody_known_whole_plain_frames_never_reach_the_protocol(frames: list[bytes], at: list[int]) -> None:
    taken = Taken()
    for piece in cut(b"".join(frames), at):
        taken.receive(piece)
    assert taken.taken == len(frames)
    assert taken.pieces == []
    assert not taken.intake.unfinished


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 30_000), max_size=20), st.integers(0, 20))
def test_trust_may_begin_in_the_middle_of_a_frame(frames: list[bytes], at: list[int], trusted_after: int) -> None:
    stream = b"".join(frames)
    events, _ = expected(stream)
    taken = Taken(trusted=False)
    for number, piece in enumerate(cut(stream, at)):
        if number == trusted_after:
            assert not taken.taken
            taken.intake.trusted = True
        taken.receive(piece)
    assert joined(taken.events) == joined(events)


@given(
    st.lists(FRAMES, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 4)), max_size=20),
)
@example([frame(b"a"), frame(b"", 0x89), frame(bytes(300))], [(3, 0), (20, 1)])
def test_what_is_kept_for_later_is_heard_later_in_order(frames: list[bytes], turns: list[tuple[int, int]]) -> None:
    stream = b"".join(frames)
    events, _ = expected(stream)
    taken = Taken()
    quick = dict(turns)
    for number, piece in enumerate(cut(stream, list(quick))):
        for begin in range(0, len(piece), 1000):
            part = piece[begin : begin + 1000]
            buffer = taken.intake.buffer()
            part, rest = part[: len(buffer)], part[len(buffer) :]
            buffer[: len(part)] = part
            taken.intake.received(len(part))
            taken.hear(most=list(quick.values())[number % len(quick)] if quick else 0)
            taken.intake.keep()
            taken.scratch[:] = bytes(len(taken.scratch))  # another client's bytes
            if rest:
                taken.intake.add(memoryview(rest))
    taken.hear()
    assert joined(taken.events) == joined(events)
    assert not taken.intake.waiting


CONTROL = st.builds(frame, st.binary(max_size=125), st.sampled_from([0x89, 0x8A]))
PART = st.tuples(
    st.one_of(st.binary(max_size=20), st.sampled_from([126, 300, 1000, MAX - 1]).map(bytes)), st.booleans()
)


@given(
    st.sampled_from([0x01, 0x02]),
    st.lists(PART, min_size=2, max_size=MOST_FRAGMENTS + 3),
    st.one_of(CONTROL, st.just(b"")),
    st.one_of(st.just(b""), st.just(frame(b"", 0x80)), FRAMES, BAD),
    st.lists(st.integers(0, 30_000), max_size=10),
    st.booleans(),
)
def test_fragments_are_joined_or_left_to_the_protocol_with_the_same_outcome(
    first: int, parts: list[tuple[bytes, bool]], between: bytes, after: bytes, at: list[int], ends: bool
) -> None:
    frames = []
    for number, (payload, control) in enumerate(parts):
        fin = 0x80 if ends and number == len(parts) - 1 else 0
        frames += [frame(payload, fin | (0 if number else first)), between if control else b""]
    stream = b"".join([*frames, after])
    events, alone = expected(stream)
    taken = Taken()
    for piece in cut(stream, at):
        taken.receive(piece)
    assert joined(taken.events) == joined(events)
    assert taken.protocol.state == alone.state
    assert [taken.protocol.close_sent and taken.protocol.close_sent.code] == [
        alone.close_sent and alone.close_sent.code
    ]


@pytest.mark.parametrize("many", [2, 3, MOST_FRAGMENTS, MOST_FRAGMENTS + 1, 40])
@pytest.mark.parametrize("first", [0x01, 0x02])
def test_a_message_in_few_fragments_never_reaches_the_protocol(first: int, many: int) -> None:
    taken = Taken()
    for number in range(many):
        assert taken.intake.unfinished is (number > 0 and number <= MOST_FRAGMENTS)
        fin = 0x80 if number == many - 1 else 0
        taken.receive(frame(b"%d " % number, fin | (0 if number else first)) + frame(b"", 0x89) * (not fin))
    few = many <= MOST_FRAGMENTS
    pings = frame(b"", 0x89) * (many - 1)
    assert (b"".join(taken.pieces) == pings) is few
    assert taken.taken == few
    assert joined(taken.events)[-1] == (first, b"".join(b"%d " % number for number in range(many)), True)


def test_the_fragments_that_the_protocol_gets_as_one_are_told_once() -> None:
    taken = Taken()
    assert taken.intake.count_first_fragment() == 1
    taken.receive(frame(b"a", 0x01) + frame(b"b", 0x00) * MOST_FRAGMENTS)
    assert taken.intake.count_first_fragment() == MOST_FRAGMENTS
    assert taken.intake.count_first_fragment() == 1
    taken.receive(frame(b"", 0x80) + frame(b"a", 0x01) + frame(b"b", 0x00) + frame(b"c", 0x81))
    assert taken.intake.count_first_fragment() == 2


def test_the_bytes_of_fragments_count_as_held_until_their_message_ends_or_the_connection() -> None:
    taken = Taken()
    taken.receive(frame(bytes(3000), 0x02))
    assert taken.intake.held_bytes == 3000
    taken.receive(frame(bytes(1500), 0x00))
    assert taken.intake.held_bytes == 4500
    taken.receive(frame(bytes(10), 0x80))
    assert taken.intake.held_bytes == 0
    taken.receive(frame(bytes(3000), 0x02))
    taken.intake.close()
    assert taken.intake.held_bytes == 0
    assert not taken.intake.unfinished


def test_fragments_over_the_limit_are_refused_by_the_protocol() -> None:
    taken = Taken()
    taken.receive(frame(bytes(MAX - 1), 0x02) + frame(bytes(1), 0x00))
    assert taken.pieces == []
    taken.receive(frame(b"x", 0x80))
    assert taken.protocol.close_sent is not None
    assert taken.protocol.close_sent.code == 1009


def test_a_large_frame_takes_memory_as_it_comes_not_as_it_says() -> None:
    size = 4 << 20
    taken = Taken(max_bytes=size)
    data = frame(b"x" * size)
    taken.receive(data[:20])
    assert len(taken.intake._partial or b"") == FIRST_BYTES
    taken.receive(data[20 : FIRST_BYTES + 1])
    assert len(taken.intake._partial or b"") == 2 * FIRST_BYTES
    taken.receive(data[FIRST_BYTES + 1 :])
    assert taken.events == [(Opcode.BINARY, b"x" * size, True)]
    assert taken.intake._partial is None


@pytest.mark.parametrize("end", range(1, 16))
def test_a_frame_is_unfinished_until_its_last_byte(end: int) -> None:
    for data in (frame(b"0123456789"), frame(b"0123456789", 0x89), frame(b"0123456789", stretch=1)):
        taken = Taken()
        taken.receive(data[:end])
        assert taken.intake.unfinished is (end < len(data))


def test_compressed_frames_are_left_to_the_protocol() -> None:
    assert EXTENSIONS
    taken = Taken()
    data = frame(b"\x00" * 10, 0xC1)
    taken.receive(data + frame(b"plain"))
    assert b"".join(taken.pieces) == data
    assert taken.taken == 1


@pytest.mark.parametrize(
    "header",
    [
        b"\x83\x80",
        b"\xb1\x80",
        b"\x82\x01",
        b"\x80\x80",
        struct.pack("!BBQ", 0x82, 0xFF, MAX + 1),
    ],
    ids=repr,
)
def test_a_wrong_header_is_told_before_it_is_whole(header: bytes) -> None:
    alone = server(MAX)
    taken = Taken()
    for byte in header + MASK:
        taken.receive(bytes((byte,)))
        alone.receive_data(bytes((byte,)))
        assert taken.protocol.close_sent == alone.close_sent
    assert alone.close_sent is not None


@pytest.mark.parametrize("size", [1000, 40_000, 300_000])
@pytest.mark.parametrize("cuts", [[], [20], [999], [14, 500, 700, 1000], [16, 17, 18]], ids=str)
@pytest.mark.parametrize("after", [b"", b"\x89", frame(b"x")], ids=["", "a byte", "a frame"])
def test_a_plain_frame_is_taken_in_one_pass_however_it_was_cut(size: int, cuts: list[int], after: bytes) -> None:
    if fastpath.take is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    head, text = b'{"type":"video-frame","data":"', b"A" * size
    taken = Taken(max_bytes=1 << 20)
    intake, found = taken.intake, []
    whole = frame(head + text + b'","timestamp":5}', 0x81)
    for piece in [*cut(whole, cuts), after]:
        while piece:
            buffer = intake.buffer()
            part, piece = piece[: len(buffer)], piece[len(buffer) :]
            buffer[: len(part)] = part
            if (plainly := intake.plain(len(part), b"", b"", 1, 1)) is not None:
                held, begin, end, timestamp, codec, size_bytes, _ = plainly
                assert (held[begin:end], timestamp, codec) == (text, 5, fastpath.TEXT)
                assert size_bytes == len(head + text) + len('","timestamp":5}')
                found.append("in one pass")
            elif (message := intake.whole(len(part))) is not None:
                found.append("whole")
                taken.take(*message)
            else:
                taken.hear()
    assert found[0] == "in one pass"
    assert taken.events == ([(Opcode.BINARY, b"x", True)] if after == frame(b"x") else [])
    assert intake.unfinished is (after == b"\x89")


def plain(size: int) -> bytes:
    return frame(b'{"type":"video-frame","data":"' + b"A" * size + b'"}', 0x81)


PLAINS = [plain(size) for size in (8, 40, 300, MAX - 100)]
PLAIN = st.sampled_from(PLAINS)


@given(st.lists(st.one_of(PLAIN, PLAIN, FRAMES), max_size=8), st.lists(st.integers(0, 3 * MAX), max_size=3))
@example([plain(300), plain(8), frame(b"x"), plain(40), frame(b"hello", 0x89), plain(300)], [])
def test_plain_frames_that_come_together_are_each_taken_in_one_pass_and_nothing_else(
    frames: list[bytes], at: list[int]
) -> None:
    """Each message as the protocol has it, in order: here a plain frame counts as the size of its message."""
    if fastpath.take is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    stream = b"".join(frames)
    alone, _ = expected(stream)
    taken = Taken()
    intake, in_one_pass = taken.intake, 0
    for piece in cut(stream, at):
        while piece:
            buffer = intake.buffer()
            part, piece = piece[: len(buffer)], piece[len(buffer) :]
            buffer[: len(part)] = part
            found = intake.plain(len(part), b"", b"", 1, 1)
            if found is None and (message := intake.whole(len(part))) is not None:
                taken.take(*message)
                continue
            while found is not None or (found := intake.next_plain(b"", b"", 1, 1)) is not None or intake.waiting:
                if found is None:
                    taken.hear(1)
                    continue
                in_one_pass += 1
                taken.take(Opcode.TEXT, b'{"type":"video-frame","data":"' + found[0][found[1] : found[2]] + b'"}')
                found = None
    assert joined(taken.events) == joined(alone)
    if not at and all(each[0] in (0x81, 0x82) for each in frames) and taken.protocol.state is OPEN:
        assert in_one_pass == sum(each in PLAINS for each in frames)


LONGEST = 3 * MAX


@given(
    st.lists(DATA, max_size=3),
    st.sampled_from([0x81, 0x82]),
    st.integers(MAX + 1, LONGEST),
    st.integers(0, 2),
    st.lists(DATA, max_size=3),
    st.lists(st.integers(0, 30_000), max_size=30),
)
def test_a_strangers_message_that_is_too_long_for_one_is_passed_over_and_nothing_around_it(
    before: list[bytes], first: int, size: int, stretch: int, after: list[bytes], at: list[int]
) -> None:
    around, _ = expected(b"".join([*before, frame(b"", first), *after]))
    taken = Taken(trusted=False, longest_bytes=LONGEST)
    for piece in cut(b"".join([*before, frame(bytes(size), first, stretch=stretch), *after]), at):
        taken.receive(piece)
        assert taken.intake.held_bytes <= SCRATCH_BYTES + 14
        taken.intake.keep()
    assert taken.events == around
    assert taken.protocol.parser_exc is None


@pytest.mark.parametrize(
    "bad",
    [
        frame(bytes(LONGEST + 1)), frame(bytes(MAX + 1), 0x01), frame(bytes(MAX + 1), 0xC1),
        frame(bytes(MAX + 1), mask=False), frame(b"a", 0x01) + frame(bytes(MAX + 1), 0x80),
    ],
    ids=["too long for anybody", "fragment", "compressed", "unmasked", "last fragment"],
)  # fmt: skip
def test_what_else_is_too_long_of_a_stranger_is_the_protocols_to_refuse(bad):
    taken = Taken(trusted=False, longest_bytes=LONGEST)
    taken.receive(bad)
    assert taken.protocol.parser_exc is not None or taken.protocol.state is not OPEN


def test_of_a_stranger_no_byte_of_a_message_that_is_passed_over_is_held():
    taken = Taken(trusted=False, longest_bytes=LONGEST)
    taken.receive(frame(bytes(LONGEST))[:-1])
    assert taken.intake.held_bytes == 0
    assert taken.intake.unfinished
    taken.receive(frame(bytes(LONGEST))[-1:])
    assert not taken.intake.unfinished
    assert taken.events == [(Opcode.BINARY, b"", True)]
