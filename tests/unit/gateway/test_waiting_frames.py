"""What frames hold that viewers have not taken: counted once for all who wait, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway.test_outbound_queue import drain, encode, frame, wish
from watchout.common.settings import Settings
from watchout.gateway.hub.outbound_queue import OutboundQueue
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.hub.waiting_frames import WaitingFrames


class Holder:
    def __init__(self) -> None:
        self.evicted = 0

    def on_frame_evicted(self) -> None:
        self.evicted += 1


def test_a_frame_counts_once_however_many_wait_for_it() -> None:
    frames, body = WaitingFrames(100), b"x"
    holders = [Holder() for _ in range(10)]
    for number, holder in enumerate(holders):
        frames.hold(holder, f"user{number % 3}", body, 60)
    assert frames.total_bytes == 60
    for holder in holders:
        frames.release(holder)
    assert (frames.total_bytes, len(frames)) == (0, 0)
    assert not any(holder.evicted for holder in holders)


def test_who_holds_the_most_loses_his_oldest_and_others_nothing() -> None:
    frames, small, large = WaitingFrames(100), Holder(), [Holder() for _ in range(4)]
    frames.hold(small, "ann", object(), 10)
    for each in large:
        frames.hold(each, "mallory", object(), 30)
    assert [each.evicted for each in large] == [1, 0, 0, 0]
    assert (small.evicted, frames.total_bytes, frames.evicted) == (0, 100, 1)


def test_all_who_wait_for_the_oldest_give_way() -> None:
    frames, body = WaitingFrames(100), object()
    both, other = [Holder(), Holder()], Holder()
    for each in both:
        frames.hold(each, "mallory", body, 60)
    frames.hold(other, "mallory", object(), 60)
    assert [each.evicted for each in both] == [1, 1]
    assert (other.evicted, frames.total_bytes) == (0, 60)


def test_there_is_always_room_for_one() -> None:
    frames, holder = WaitingFrames(10), Holder()
    frames.hold(holder, "ann", object(), 1000)
    assert (holder.evicted, frames.total_bytes) == (0, 1000)


def test_a_newer_frame_of_a_holder_takes_the_place_of_its_older_one() -> None:
    frames, holder = WaitingFrames(100), Holder()
    for size in (60, 90, 30):
        frames.hold(holder, "ann", object(), size)
        assert frames.total_bytes == size
    frames.release(holder)
    frames.release(holder)
    assert frames.total_bytes == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=60
    )
)  # fmt: skip
def test_the_total_is_that_of_all_that_is_held_and_within_the_bound(steps: list[tuple[int, int, int, bool]]) -> None:
    frames, bodies = WaitingFrames(50), [(object(), 10 + 7 * number) for number in range(6)]
    held: dict[Holder, tuple[int, int]] = {}

    class Told(Holder):
        def on_frame_evicted(self) -> None:
            del held[self]

    holders = [Told() for _ in range(8)]
    for number, user, body, hold in steps:
        holder = holders[number]
        if hold:
            held[holder] = user, body
            frames.hold(holder, user, *bodies[body])
        else:
            held.pop(holder, None)
            frames.release(holder)
        distinct = {at for _, at in held.values()}
        assert frames.total_bytes == sum(bodies[at][1] for at in distinct)
        assert len(frames) == len(distinct)
        assert frames.total_bytes <= 50 or len(distinct) == 1
    for holder in holders:
        frames.release(holder)
    assert (frames.total_bytes, len(frames)) == (0, 0)


def _slow(frames: WaitingFrames, stream: str) -> tuple[OutboundQueue, Subscription]:
    queue, subscription = OutboundQueue(Settings(), encode, frames), wish(stream)
    queue.blocked = True
    return queue, subscription


def test_slots_are_counted_and_give_way_as_skipped_by_a_slow_viewer() -> None:
    one = frame(1, "a").size_bytes
    frames = WaitingFrames(2 * one)
    viewers = [_slow(frames, name) for name in "abc"]
    for (queue, subscription), name in zip(viewers, "abc", strict=True):
        assert not queue.offer_frame(subscription, frame(1, name), 0.0)
    assert frames.total_bytes == 2 * one
    assert viewers[0][1].dropped == {DropReason.SLOW: 1}
    assert drain(viewers[0][0]) == []
    assert drain(viewers[1][0]) == [b"b 1"]
    assert frames.total_bytes == one
    viewers[2][0].remove(viewers[2][1])
    assert frames.total_bytes == 0


def test_a_socket_that_is_gone_counts_no_more() -> None:
    frames = WaitingFrames(100)
    queue, subscription = _slow(frames, "a")
    queue.offer_frame(subscription, frame(1, "a"), 0.0)
    queue.close()
    assert frames.total_bytes == 0
