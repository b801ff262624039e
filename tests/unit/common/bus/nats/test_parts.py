"""Control messages in parts: what is split is joined, a loss costs the message alone, and nothing is unbounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.messages import MAX_CONTROL_BYTES, Hello, encode
from watchout.common.bus.nats import parts
from watchout.common.bus.nats.parts import HEADER, MARK, MAX_PART_BYTES, PartJoiner, split
from watchout.common.errors import BusError

#: A payload that few messages fit into.
SMALL = 4096
PAYLOADS = st.sampled_from([SMALL, SMALL + 1, 10_000, 1 << 20, 64 << 20])
SIZES = st.one_of(st.integers(0, 20_000), st.sampled_from([MAX_PART_BYTES, MAX_PART_BYTES + 1, 3 * MAX_PART_BYTES]))


def message(size: int, salt: int = 0) -> bytes:
    return (b"\x94" + bytes(range(salt, salt + 100)) * (size // 100 + 1))[:size]


@given(SIZES, PAYLOADS)
def test_what_is_split_fits_and_is_joined_again(size: int, max_payload: int) -> None:
    whole = message(size)
    sent = list(split(whole, max_payload, 7))
    assert all(len(part) <= max_payload for part in sent)
    joiner = PartJoiner()
    joined = [joiner.join("a", part) for part in sent]
    assert joined == [None] * (len(sent) - 1) + [whole]
    assert (joiner.bytes, joiner.lost) == (0, 0)


def test_a_message_that_fits_is_sent_as_it_is() -> None:
    whole = message(SMALL)
    (sent,) = split(whole, SMALL, 1)
    assert sent is whole


def test_the_largest_message_fits_into_the_numbers_of_the_header_at_the_least_payload() -> None:
    whole = message(MAX_CONTROL_BYTES)
    joiner = PartJoiner()
    joined = [joiner.join(1, part) for part in split(whole, SMALL, 2**32 + 5)]
    assert joined[-1] == whole
    assert set(joined[:-1]) == {None}


def test_no_message_of_the_bus_begins_as_a_part() -> None:
    assert encode(5, 1, Hello(kind="ctl", name="c", pid=1))[0] == 0x94 != MARK


@given(st.data())
def test_after_any_loss_no_wrong_message_comes_and_the_next_one_does(data: st.DataObject) -> None:
    """Messages of several senders, their parts mixed; some are lost. What is joined was sent, in order, whole."""
    joiner = PartJoiner()
    waiting: dict[str, list[tuple[int, bytes]]] = {}
    sent: dict[str, list[bytes]] = {"a": [], "b": []}
    got: dict[str, list[bytes]] = {"a": [], "b": []}
    for sender in sent:
        waiting[sender] = []
        for number in range(data.draw(st.integers(1, 4))):
            whole = message(data.draw(st.integers(1, 20_000)), number)
            sent[sender].append(whole)
            waiting[sender] += [(number, part) for part in split(whole, SMALL, number)]
    lost: dict[str, set[int]] = {"a": set(), "b": set()}
    while any(waiting.values()):
        sender = data.draw(st.sampled_from([name for name, left in waiting.items() if left]))
        number, part = waiting[sender].pop(0)
        if data.draw(st.integers(0, 5)) == 0:
            lost[sender].add(number)
        elif (joined := joiner.join(sender, part)) is not None:
            got[sender].append(joined)
    for sender, messages in sent.items():
        assert got[sender] == [whole for number, whole in enumerate(messages) if number not in lost[sender]]


def test_a_repeated_and_a_foreign_part_drop_the_message() -> None:
    first, second, third = split(message(10_000), SMALL, 1)
    for wrong in (first[:5] + b"\0\2" + first[7:], next(split(message(20_000), SMALL, 2))):
        joiner = PartJoiner()
        assert joiner.join("a", first) is None
        assert joiner.join("a", wrong) is None
        assert joiner.join("a", second) is None
        assert joiner.join("a", third) is None
    assert joiner.lost >= 1


@pytest.mark.parametrize(
    "payload",
    [
        bytes([MARK]), HEADER.pack(MARK, 1, 0, 10), HEADER.pack(MARK, 1, 0, 0) + b"x",
        HEADER.pack(MARK, 1, 0, MAX_CONTROL_BYTES + 1) + b"x",
    ],
)  # fmt: skip
def test_a_part_with_an_invalid_header_is_an_error_that_says_what_came(payload: bytes) -> None:
    with pytest.raises(BusError, match=r"a part of .* bytes, expected"):
        PartJoiner().join("a", payload)


def test_more_bytes_than_the_header_said_drop_the_message() -> None:
    joiner = PartJoiner()
    assert joiner.join("a", HEADER.pack(MARK, 1, 0, 3) + b"xxxx") is None
    assert (joiner.bytes, joiner.lost) == (0, 1)


def test_unfinished_messages_are_bounded_in_bytes_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_UNFINISHED_BYTES", 20_000)
    joiner = PartJoiner()
    for sender in range(100):
        joiner.join(sender, next(split(message(9_000), SMALL, 1)))
        assert joiner.bytes <= 20_000
    assert joiner.lost == 96
    monkeypatch.setattr(parts, "MAX_SENDERS", 2)
    joiner = PartJoiner()
    for sender in range(5):
        joiner.join(sender, next(split(message(9_000), SMALL, 1)))
    assert joiner.lost == 3


def test_a_whole_message_drops_the_unfinished_one_of_its_sender_alone() -> None:
    joiner = PartJoiner()
    for sender in ("a", "b"):
        joiner.join(sender, next(split(message(9_000), SMALL, 1)))
    assert joiner.join("a", b"\x94whole") == b"\x94whole"
    assert joiner.lost == 1
