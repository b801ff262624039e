"""Alerts that are written directly: viewers whose sockets take them bypass their outbound queue."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.kit.hub import DirectViewer, FakePublisher, HubHarness, alert, ms, subscribe_directly
from tests.kit.playbook import read
from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.gateway.hub.streams import LocalStream
from watchout.gateway.model import Owner, StreamState
from watchout.gateway.why.tally import Tally


def door(harness: HubHarness) -> LocalStream:
    found = harness.hub.stream("door")
    assert found is not None
    return found


def lane(viewer: DirectViewer) -> list[str]:
    """The alerts and acknowledgements that were written to a viewer, by id, and the statuses."""
    messages = [read(wire) for wire in viewer.got]
    of = {"alert": "id", "alert-acknowledged": "alertId", "status": "status"}
    return [message[of[message["type"]]] for message in messages if message["type"] in of]


def told(harness: HubHarness, viewer: DirectViewer) -> int:
    return viewer.subscription.alerts_told(door(harness).alerts_written)


def test_a_viewer_is_asked_for_its_first_alert_and_shares_the_bytes_of_the_later_ones() -> None:
    harness = HubHarness()
    viewers = [DirectViewer(harness.hub, alerts=True) for _ in range(3)]
    subscribe_directly(harness, *viewers)
    for number in range(4):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    harness.hub.delivery.on_acknowledged(alert(3), Acknowledgement(user="bob", at=1), 0.0)
    for viewer in viewers:
        assert lane(viewer) == ["streaming", "a0", "a1", "a2", "a3", "a3"]
        assert (viewer.alerts_asked, told(harness, viewer)) == (1, 5)
        assert all(mine is first for mine, first in zip(viewer.got[2:], viewers[0].got[2:], strict=True))
    assert harness.hub.delivery.alerts_out == 15


def test_a_viewer_whose_socket_is_full_is_asked_again_and_gets_all_in_order_before_waiting_frames() -> None:
    harness = HubHarness()
    publication = harness.publish(FakePublisher())
    slow, other = DirectViewer(harness.hub, room=3, alerts=True), DirectViewer(harness.hub, alerts=True)
    subscribe_directly(harness, slow, other)
    for number in range(3):  # the status, two alerts, and one that waits
        harness.hub.delivery.on_alert(alert(number), 0.0)
    harness.frame(publication)
    harness.hub.delivery.set_status(door(harness), "online", ms(0))
    harness.hub.delivery.on_alert(alert(3), 0.0)
    assert lane(slow) == ["streaming", "a0", "a1"]
    assert lane(other) == ["streaming", "a0", "a1", "a2", "online", "a3"]
    assert told(harness, slow) == told(harness, other) == 4
    slow.drained(100)
    assert lane(slow) == ["streaming", "a0", "a1", "a2", "online", "a3"]
    assert read(slow.got[-1])["type"] == "video-frame"
    asked = slow.alerts_asked
    for number in (4, 5):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    assert lane(slow)[-3:] == ["a3", "a4", "a5"]
    assert (slow.alerts_asked - asked, other.alerts_asked) == (1, 1)
    assert harness.hub.delivery.alerts_out == 12


def test_a_repeated_alert_is_only_for_those_who_were_there_and_had_it_in_no_replay() -> None:
    harness = HubHarness()
    before, after, replayed = (DirectViewer(harness.hub, alerts=True) for _ in range(3))
    subscribe_directly(harness, before, after, replayed)
    harness.hub.delivery.on_alert(alert(0), 0.0)
    after.subscription.subscribed_s = 2.0
    replayed.subscription.replayed = frozenset({"a1"})
    harness.hub.delivery.on_alert(alert(1), 0.0, accepted_s=1.0)
    assert [lane(viewer)[1:] for viewer in (before, after, replayed)] == [["a0", "a1"], ["a0"], ["a0"]]
    assert [told(harness, viewer) for viewer in (before, after, replayed)] == [2, 1, 1]
    assert harness.hub.delivery.alerts_out == 4


def test_who_left_gets_no_more_alerts_and_its_counts_are_whole() -> None:
    harness = HubHarness()
    viewer, other, late = (DirectViewer(harness.hub, alerts=True) for _ in range(3))
    subscribe_directly(harness, viewer, other)
    for number in range(3):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    harness.hub.unsubscribe(viewer.subscription)
    harness.hub.delivery.stop_direct_writes(viewer.subscription)
    for each in (viewer, late):  # it has ended, and has not begun
        harness.hub.delivery.start_direct_alerts(each.subscription, each.write)
    harness.hub.delivery.on_alert(alert(3), 0.0)
    assert (len(lane(viewer)), len(lane(other)), lane(late)) == (4, 5, [])
    tally = Tally("gw/1.1", "::1", 0)
    tally.add_subscription(viewer.subscription)
    assert (tally.alerts_out, told(harness, other), harness.hub.delivery.alerts_out) == (3, 4, 7)


def test_who_takes_the_place_of_a_viewer_that_held_back_gets_the_alerts() -> None:
    harness = HubHarness()
    viewer, holds = DirectViewer(harness.hub, alerts=True), DirectViewer(harness.hub, alerts=True)
    viewer.subscription.held_alerts = {}
    state = StreamState("streaming", Owner("ann"), 1)
    harness.hub.subscribe(viewer.subscription, holds, state, 0.0, ms(0), held=True)
    harness.hub.delivery.on_alert(alert(1), 0.0)
    harness.hub.begin_delivery(viewer.subscription, viewer, 0.0, ms(0))
    harness.hub.delivery.on_alert(alert(2), 0.0)
    assert list(viewer.subscription.held_alerts) == ["a1", "a2"]
    viewer.subscription.held_alerts = None
    for number in (3, 4):
        harness.hub.delivery.on_alert(alert(number), 0.0)
    assert (lane(viewer), lane(holds)) == (["streaming", "a3", "a4"], [])
    assert (viewer.alerts_asked, told(harness, viewer)) == (1, 4)


def test_an_alert_ends_a_silence_and_a_frame_that_came_later_counts_too() -> None:
    harness = HubHarness()
    publication = harness.publish(FakePublisher())
    viewer, deaf = DirectViewer(harness.hub, alerts=True), DirectViewer(harness.hub)
    subscribe_directly(harness, viewer, deaf)
    at = harness.hub.delivery.direct_write_at
    harness.hub.delivery.on_alert(alert(1), 4.0)
    harness.hub.delivery.on_alert(alert(2), 5.0)
    assert (at(viewer.subscription), at(deaf.subscription)) == (5.0, -math.inf)
    harness.frame(publication, now=6.0)
    assert at(viewer.subscription) == at(deaf.subscription) == 6.0
    harness.hub.delivery.on_alert(alert(3), 7.0)
    assert (at(viewer.subscription), at(deaf.subscription)) == (7.0, 6.0)
    harness.hub.delivery.stop_direct_writes(viewer.subscription)
    assert at(viewer.subscription) == -math.inf


STEPS = st.one_of(st.sampled_from(["frame", "alert", "alert", "repeated", "online", "streaming"]),
                  st.tuples(st.integers(0, 2), st.integers(0, 3)), st.integers(0, 2))  # fmt: skip


@given(st.lists(STEPS, max_size=60))
def test_flowing_or_not_every_message_is_sent_once_in_order_or_waits_and_frames_lose_nothing_by_it(
    steps: list[str | int | tuple[int, int]],
) -> None:
    harness = HubHarness()
    publication = harness.publish(FakePublisher())
    viewers = [DirectViewer(harness.hub, room=room, alerts=True) for room in (1, 2, 50)]
    subscribe_directly(harness, *viewers)
    frames, alerts, expected = 0, 0, ["streaming"]
    for step in steps:
        if step == "frame":
            if door(harness).status != "streaming":
                expected.append("streaming")
            harness.frame(publication)
            frames += 1
        elif step in ("alert", "repeated"):
            alerts += 1
            accepted_s = 0.0 if step == "repeated" else None
            harness.hub.delivery.on_alert(alert(alerts), 0.0, accepted_s=accepted_s)
            expected.append(f"a{alerts}")
        elif isinstance(step, str):
            if door(harness).status != step:
                expected.append(step)
            harness.hub.delivery.set_status(door(harness), step, ms(0))  # type: ignore[arg-type]
        elif isinstance(step, tuple):
            viewers[step[0]].drained(step[1] + 1)
        else:
            harness.hub.delivery.stop_direct_writes(viewers[step].subscription)
    assert harness.hub.delivery.alerts_out == 3 * alerts
    for viewer in viewers:
        got = lane(viewer)
        assert got == expected[: len(got)]
        assert len(expected) == len(got) + viewer.queue.pending[0]
        assert told(harness, viewer) == alerts
        numbers = [message["frameId"] for message in map(read, viewer.got) if message["type"] == "video-frame"]
        assert numbers == sorted(set(numbers))
        assert frames == len(numbers) + (viewer.subscription.waiting_frame is not None) + sum(viewer.dropped.values())
        stream = door(harness)
        assert (viewer.subscription in stream.alerts_queued) != (viewer.subscription in stream.alerts_direct)
        if viewer.queue.blocked:
            assert viewer.subscription in stream.alerts_queued
