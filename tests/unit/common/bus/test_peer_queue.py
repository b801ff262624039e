"""The queue of one peer: newest wins per queue key, fair turns, bounds in bytes and frames, sent as the credit goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.peer_queue import Parts, PeerQueue


class Peer:
    """A peer that takes as many frames as it is told to; the first byte of a frame is its queue key."""

    def __init__(self, *, max_bytes: int = 1 << 20, max_frames: int = 1 << 20) -> None:
        self.taken: list[bytes] = []
        #: Frames that the credit still allows.
        self.allowed = 0
        #: Whether the connection takes what the credit allows.
        self.connected = True
        self.spent = 0
        self.queue = PeerQueue(
            lambda part: bytes(part[:1]), self._write, self, max_bytes=max_bytes, max_frames=max_frames
        )

    @property
    def exhausted(self) -> bool:
        return self.allowed == 0

    def spend(self, size: int) -> None:
        self.allowed -= 1
        self.spent += size

    def _write(self, parts: Parts, size: int) -> bool:
        if not self.connected:
            return False
        self.taken.append(b"".join(parts))
        assert len(self.taken[-1]) == size
        return True

    def offer(self, *frames: bytes) -> None:
        for frame in frames:
            self.queue.offer((frame,))

    def take(self, count: int = 1) -> list[bytes]:
        """Let the peer take so many frames; those that it took."""
        self.taken.clear()
        self.allowed = count
        self.queue.pump()
        self.allowed = 0
        return list(self.taken)


def test_a_frame_goes_at_once_while_there_is_credit() -> None:
    peer = Peer()
    peer.allowed = 2
    peer.offer(b"a1", b"a2", b"a3", b"b1")
    assert peer.taken == [b"a1", b"a2"]
    assert (peer.queue.sent, peer.spent, len(peer.queue)) == (2, 4, 2)


def test_a_frame_does_not_overtake_those_that_are_queued() -> None:
    peer = Peer()
    peer.offer(b"a1")
    peer.allowed = 1
    peer.offer(b"b1")
    assert peer.taken == [b"a1"]
    assert len(peer.queue) == 1


def test_a_delayed_frame_waits_for_the_next_pump_though_there_is_credit() -> None:
    peer = Peer()
    peer.allowed = 9
    peer.queue.offer((b"a1",), delayed=True)
    peer.queue.offer((b"b1",), delayed=True)
    assert peer.taken == []
    peer.queue.pump()
    assert peer.taken == [b"a1", b"b1"]


def test_a_frame_that_the_connection_did_not_take_stays_first() -> None:
    peer = Peer()
    peer.connected = False
    peer.allowed = 5
    peer.offer(b"a1", b"b1")
    assert (peer.queue.sent, peer.queue.dropped, len(peer.queue), peer.queue.bytes) == (0, 0, 2, 4)
    peer.connected = True
    assert peer.take(5) == [b"a1", b"b1"]
    assert peer.queue.bytes == 0


def test_the_newest_of_a_stream_waits_and_keeps_the_turn_of_the_older() -> None:
    peer = Peer()
    peer.offer(b"a1", b"b1", b"a2")
    assert (len(peer.queue), peer.queue.bytes, peer.queue.replaced) == (2, 4, 1)
    assert peer.take(2) == [b"a2", b"b1"]
    assert peer.queue.bytes == 0


def test_turns_are_fair_for_a_stream_that_never_pauses() -> None:
    peer = Peer()
    peer.offer(b"a", b"b", b"c")
    turns = []
    for _ in range(9):
        (frame,) = peer.take()
        turns.append(frame)
        peer.offer(frame, b"a")
    assert turns == [b"a", b"b", b"c"] * 3


def test_past_its_bytes_the_frame_whose_turn_is_next_is_dropped() -> None:
    peer = Peer(max_bytes=30)
    peer.offer(*[stream * 10 for stream in (b"a", b"b", b"c", b"d")])
    assert (len(peer.queue), peer.queue.dropped) == (3, 1)
    assert [frame[:1] for frame in peer.take(9)] == [b"b", b"c", b"d"]


def test_past_its_number_of_frames_the_frame_whose_turn_is_next_is_dropped() -> None:
    peer = Peer(max_frames=3)
    peer.offer(b"a", b"b", b"c", b"d", b"e")
    assert (len(peer.queue), peer.queue.dropped) == (3, 2)
    assert peer.take(9) == [b"c", b"d", b"e"]


def test_the_newest_has_room_even_where_its_turn_is_next_and_where_it_is_too_large() -> None:
    peer = Peer(max_bytes=30)
    peer.offer(b"a1" + bytes(8), b"b1" + bytes(8), b"a2" + bytes(23))
    assert [frame[:2] for frame in peer.take(9)] == [b"a2"]
    peer.offer(b"b2", b"c1" + bytes(98))
    assert (len(peer.queue), peer.queue.bytes) == (1, 100)
    assert [frame[:2] for frame in peer.take(9)] == [b"c1"]


def test_nothing_is_sent_where_nothing_waits() -> None:
    peer = Peer()
    assert peer.take(5) == []
    assert (peer.queue.sent, peer.queue.bytes, len(peer.queue)) == (0, 0, 0)


OFFERS = st.tuples(st.integers(0, 9), st.integers(5, 40))


@given(st.lists(OFFERS | st.just("take") | st.just("clear") | st.just("lost"), max_size=200))
def test_whatever_comes_and_goes_the_queue_is_bounded_and_every_frame_is_counted_once(
    steps: list[tuple[int, int] | str],
) -> None:
    peer = Peer(max_bytes=100, max_frames=6)
    newest: dict[bytes, bytes] = {}
    offered = 0
    for number, step in enumerate(steps):
        if step in ("take", "lost"):
            peer.connected = step == "take"
            for frame in peer.take():
                assert frame == newest[frame[:1]]  # never an older one than the newest that was offered
            peer.connected = True
        elif step == "clear":
            peer.queue.clear()
        else:
            assert not isinstance(step, str)
            stream, size = step
            frame = bytes((stream,)) + number.to_bytes(4, "big") + bytes(size - 5)
            peer.offer(frame)
            newest[frame[:1]] = frame
            offered += 1
            assert peer.queue.bytes <= 100
            assert len(peer.queue) <= 6
        queue = peer.queue
        assert offered == queue.sent + queue.replaced + queue.evicted + len(queue)
        assert queue.dropped == queue.replaced + queue.evicted
        assert (queue.bytes == 0) == (len(queue) == 0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 5))
def test_the_newest_of_each_stream_always_gets_through(streams: list[int], every: int) -> None:
    peer = Peer()
    arrived: dict[int, int] = {}
    for number, stream in enumerate(streams):
        peer.offer(bytes((stream, number)))
        if number % every == 0:
            arrived.update((frame[0], frame[1]) for frame in peer.take())
    arrived.update((frame[0], frame[1]) for frame in peer.take(99))
    assert arrived == {stream: number for number, stream in enumerate(streams)}


def test_frames_without_a_stream_have_a_queue_key_too() -> None:
    taken: list[Parts] = []
    peer = Peer()
    queue = PeerQueue(lambda _: None, lambda parts, _: taken.append(parts) is None, peer)
    queue.offer((b"what is this",))
    queue.offer((b"and this",))
    peer.allowed = 9
    queue.pump()
    assert taken == [(b"and this",)]
