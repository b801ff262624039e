"""Direct writes: viewers that take every frame bypass their outbound queue."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.kit.hub import DirectViewer, FakePublisher, HubHarness, ms, remote, subscribe_directly
from tests.kit.playbook import read
from watchout.gateway.hub.subscription import DropReason
from watchout.gateway.model import Owner, StreamState


def test_a_viewer_that_takes_all_frames_is_asked_once_and_gets_the_shared_bytes() -> None:
    harness = HubHarness()
    door = harness.publish(FakePublisher())
    first, second, binary = DirectViewer(harness.hub), DirectViewer(harness.hub), DirectViewer(harness.hub, "binary")
    subscribe_directly(harness, first, second, binary)
    for _ in range(5):
        harness.frame(door)
    assert [viewer.queued for viewer in (first, second, binary)] == [1, 1, 1]
    assert [read(wire)["frameId"] for wire in first.got] == [1, 2, 3, 4, 5]
    assert all(one is other for one, other in zip(first.got, second.got, strict=True))
    assert len(binary.got) == 5
    assert harness.hub.delivery.frames_out == 12  # what was written when asked is counted by the socket
    assert harness.hub.delivery.frame_bytes_out == sum(map(len, [*first.got[1:], *second.got[1:], *binary.got[1:]]))


def test_a_viewer_whose_socket_is_full_is_asked_again_and_misses_only_what_a_newer_one_replaced() -> None:
    harness = HubHarness()
    door = harness.publish(FakePublisher())
    slow, other = DirectViewer(harness.hub, room=3), DirectViewer(harness.hub)
    subscribe_directly(harness, slow, other)
    for _ in range(6):
        harness.frame(door)
    assert [read(wire)["frameId"] for wire in slow.got] == [1, 2, 3]
    assert slow.dropped == {DropReason.SLOW: 2}
    slow.drained(100)
    for _ in range(3):
        harness.frame(door)
    assert [read(wire)["frameId"] for wire in slow.got] == [1, 2, 3, 6, 7, 8, 9]
    assert [read(wire)["frameId"] for wire in other.got] == list(range(1, 10))
    assert (slow.queued, other.queued) == (1 + 3 + 1, 1)


def test_who_left_gets_no_more_frames_and_who_was_not_up_to_date_does_not_flow() -> None:
    harness = HubHarness()
    door = harness.publish(FakePublisher())
    viewer = DirectViewer(harness.hub)
    subscribe_directly(harness, viewer)
    harness.frame(door)
    late = DirectViewer(harness.hub)
    harness.hub.delivery.start_direct_writes(late.subscription, late.write)  # nobody's yet
    harness.hub.delivery.stop_direct_writes(late.subscription)
    subscribe_directly(harness, late)
    late.subscription.last_frame_id = 0
    harness.hub.unsubscribe(viewer.subscription)
    harness.hub.delivery.stop_direct_writes(viewer.subscription)
    harness.hub.delivery.start_direct_writes(viewer.subscription, viewer.write)
    harness.frame(door)
    assert len(viewer.got) == 1
    assert [read(wire)["frameId"] for wire in late.got] == [1, 2]


def test_a_frame_that_cannot_be_had_in_a_format_is_skipped_by_each_who_wants_it_so() -> None:
    harness = HubHarness()
    door = harness.publish(FakePublisher())
    binary, plain = DirectViewer(harness.hub, "binary"), DirectViewer(harness.hub)
    subscribe_directly(harness, binary, plain)
    for text in (b'"/9j/"', b'"?"', b'"/9j/"', b'"/9j/"'):
        harness.frame(door, text=text)
    assert [struct.unpack_from(">I", wire, 2 + 4)[0] for wire in binary.got] == [1, 3, 4]
    assert binary.dropped == {DropReason.UNDECODABLE: 1}
    assert len(plain.got) == 4


def test_an_old_frame_of_elsewhere_goes_to_nobody_who_flows() -> None:
    harness = HubHarness()
    viewer = DirectViewer(harness.hub)
    harness.hub.subscribe(viewer.subscription, viewer, StreamState("streaming", Owner("ann"), 5), 0.0, ms(0))
    for number in (1, 3, 2, 3, 4):
        harness.hub.delivery.on_remote_frame(remote(number), 0.0)
    assert [read(wire)["frameId"] for wire in viewer.got] == [1, 3, 4]
    assert viewer.dropped == {}, "nobody misses what came before"
    assert harness.hub.delivery.repeated_frames == 2


STEPS = st.one_of(st.just("frame"), st.tuples(st.integers(0, 2), st.integers(0, 3)), st.integers(0, 2))


@given(st.lists(STEPS, max_size=60))
def test_flowing_or_not_every_frame_is_sent_once_in_order_or_waits_or_is_counted(
    steps: list[str | int | tuple[int, int]],
) -> None:
    harness = HubHarness()
    door = harness.publish(FakePublisher())
    viewers = [DirectViewer(harness.hub, room=room) for room in (1, 2, 50)]
    subscribe_directly(harness, *viewers)
    sent = 0
    for step in steps:
        if step == "frame":
            harness.frame(door)
            sent += 1
        elif isinstance(step, tuple):
            viewers[step[0]].drained(step[1] + 1)
        else:
            harness.hub.delivery.stop_direct_writes(viewers[int(step)].subscription)
    for viewer in viewers:
        numbers = [read(wire)["frameId"] for wire in viewer.got]
        assert numbers == sorted(set(numbers))
        assert sent == len(numbers) + (viewer.subscription.waiting_frame is not None) + sum(viewer.dropped.values())
