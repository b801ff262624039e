"""Windows of frames: what is on its way is bounded, the newest waits, and nothing lost keeps a window shut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus import credit
from watchout.common.bus.credit import Receipt, WindowCredit
from watchout.common.bus.peer_queue import Parts, PeerQueue
from watchout.common.errors import BusError

LIMIT = 100


class Way:
    """A queue with the credit of a window, what it gave to the connection, and a connection that may refuse."""

    def __init__(self) -> None:
        self.gone: list[bytes] = []
        self.takes = True
        self.credit = WindowCredit(LIMIT)
        self.queue = PeerQueue(lambda part: bytes(part[:1]), self._send, self.credit)

    def _send(self, parts: Parts, _size: int) -> bool:
        if self.takes:
            self.gone.append(b"".join(parts))
        return self.takes

    def open(self, number: int) -> None:
        self.credit.open(number)
        self.queue.pump()

    def acknowledge(self, number: int, total: int) -> None:
        if self.credit.acknowledge(number, total):
            self.queue.pump()

    def offer(self, *frames: str) -> None:
        for frame in frames:
            self.queue.offer((frame.encode(),))


@pytest.fixture
def way() -> Way:
    return Way()


def test_before_the_window_is_opened_frames_wait_and_the_newest_of_a_stream_wins(way: Way) -> None:
    way.offer("a1", "b1", "a2")
    assert way.gone == []
    way.open(7)
    assert way.gone == [b"a2", b"b1"]
    assert (way.queue.sent, way.queue.dropped) == (2, 1)


def test_no_more_than_a_window_and_one_frame_is_on_its_way(way: Way) -> None:
    way.open(7)
    way.offer("a" * 60, "b" * 60, "c1", "c2")
    assert way.gone == [b"a" * 60, b"b" * 60]
    way.acknowledge(7, 60)
    assert way.gone[2:] == [b"c2"]


def test_a_frame_larger_than_the_window_goes_alone(way: Way) -> None:
    way.open(7)
    way.offer("a" * 1000, "b")
    assert way.gone == [b"a" * 1000]
    way.acknowledge(7, 1000)
    assert way.gone[1:] == [b"b"]


@pytest.mark.parametrize(("number", "total"), [(6, 60), (7, 0), (7, 61), (7, 2**63)])
def test_an_acknowledgement_of_another_window_or_of_bytes_never_sent_gives_no_credit(
    way: Way, number: int, total: int
) -> None:
    way.open(7)
    way.offer("a" * 60)
    way.acknowledge(number, total)
    way.offer("b" * 60, "c")
    assert len(way.gone) == 2


def test_a_new_window_counts_nothing_of_the_old_one(way: Way) -> None:
    way.open(7)
    way.offer("a" * 200, "b")
    way.open(8)
    assert way.gone[1:] == [b"b"]
    way.acknowledge(7, 200)
    way.offer("c" * 200, "d")
    assert len(way.gone) == 3


def test_a_frame_that_the_connection_did_not_take_waits_for_the_next_window(way: Way) -> None:
    way.open(7)
    way.takes = False
    way.offer("a1")
    way.takes = True
    way.open(8)
    assert way.gone == [b"a1"]
    assert (way.queue.sent, way.queue.dropped) == (1, 0)


def test_while_the_window_is_shut_nothing_goes(way: Way) -> None:
    way.open(7)
    way.credit.close()
    way.offer("a1")
    assert way.gone == []
    assert not way.credit.is_open
    way.queue.clear()
    way.open(8)
    assert way.gone == []
    assert way.queue.dropped == 1


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), st.integers(0, 3), st.just("new"))))
def test_bytes_on_their_way_are_bounded_and_every_frame_is_accounted_for(steps: list[object]) -> None:
    way, receipt = Way(), Receipt()
    way.open(0)
    receipt.open(0)
    number = offered = read = 0
    for step in steps:
        match step:
            case (str(key), int(size)):
                offered += 1
                way.offer(key * size)
            case "new":
                number += 1
                read = len(way.gone)
                way.open(number)
                receipt.open(number)
            case int(count):
                for frame in way.gone[read : read + count]:
                    receipt.took(len(frame))
                    read += 1
                said = receipt.due()
                if said is not None:
                    its, total = credit.decode(said)
                    assert total is not None
                    way.acknowledge(its, total)
        under_way = [len(frame) for frame in way.gone[read:]]
        assert sum(under_way) - (under_way[-1] if under_way else 0) < LIMIT
        assert offered == way.queue.sent + way.queue.dropped + len(way.queue)


def test_bytes_are_acknowledged_once() -> None:
    receipt = Receipt()
    receipt.took(5)
    assert receipt.due() is None, "no window was opened"
    receipt.open(3)
    receipt.took(5)
    receipt.took(6)
    assert receipt.due() == credit.encode_acknowledgement(3, 11)
    assert receipt.due() is None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_messages_of_a_window_are_read_as_they_were_written(number: int, total: int) -> None:
    assert credit.decode(credit.encode_opening(number)) == (number, None)
    assert credit.decode(credit.encode_acknowledgement(number, total)) == (number, total)


@given(st.binary(max_size=32))
def test_anything_else_is_refused_or_is_one(data: bytes) -> None:
    try:
        number, total = credit.decode(data)
    except BusError:
        return
    assert data == (credit.encode_opening(number) if total is None else credit.encode_acknowledgement(number, total))
