"""Fragments become one message; their number is bounded, and they count against the rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from watchout.gateway.client import message_assembler
from watchout.gateway.client.message_assembler import FRAGMENTS_PER_MESSAGE, MessageAssembler, TooManyFragments


@given(st.binary(max_size=50), st.lists(st.binary(max_size=50), min_size=1, max_size=40))
def test_fragments_are_joined_in_order(first: bytes, others: list[bytes]) -> None:
    assembler = MessageAssembler()
    assembler.begin(Opcode.BINARY, first)
    assert assembler.is_open
    counted = [assembler.append(each) for each in others]
    assert assembler.held_bytes == len(first) + sum(map(len, others))
    assert (assembler.opcode, assembler.finish()) == (Opcode.BINARY, b"".join([first, *others]))
    assert sum(counted) == (1 + len(others)) // FRAGMENTS_PER_MESSAGE
    assert (assembler.is_open, assembler.held_bytes) == (False, 0)


def test_a_message_in_too_many_fragments_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_assembler, "MAX_FRAGMENTS", 3)
    assembler = MessageAssembler()
    assembler.begin(Opcode.TEXT, b"a")
    assembler.append(b"b")
    assembler.append(b"c")
    with pytest.raises(TooManyFragments):
        assembler.append(b"d")
    assert (assembler.is_open, assembler.held_bytes) == (False, 0)


def test_a_first_fragment_may_stand_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_assembler, "MAX_FRAGMENTS", FRAGMENTS_PER_MESSAGE)
    assembler = MessageAssembler()
    assembler.begin(Opcode.TEXT, b"ab", FRAGMENTS_PER_MESSAGE - 1)
    assert assembler.append(b"c"), "they count as one message"
    with pytest.raises(TooManyFragments):
        assembler.append(b"d")


def test_a_cleared_message_holds_nothing() -> None:
    assembler = MessageAssembler()
    assembler.begin(Opcode.TEXT, b"a")
    assembler.clear()
    assert (assembler.is_open, assembler.held_bytes) == (False, 0)
