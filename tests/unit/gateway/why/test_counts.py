"""What is counted without counting each frame agrees with what viewers got; the first end of a connection counts."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, ms, remote, word
from watchout.common.settings import Settings
from watchout.common.why.incident import IncidentKind
from watchout.common.why.memory import IncidentMemory
from watchout.gateway import wire
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.why.recorder import ENDS_IN_TURN, PEAK_OVER_S, Recorder, note_rates
from watchout.gateway.why.tally import MAX_STREAMS, Ending, Tally


@given(
    st.lists(st.sampled_from(["frame", "block", "drain", "again"]), max_size=40),
    st.sampled_from([None, 2.0]), st.sampled_from([None, 1, 3]), st.integers(0, 3),
)  # fmt: skip
def test_the_frames_written_are_those_that_arrived_less_those_dropped_and_waiting(
    steps: list[str], max_fps: float | None, window: int | None, before: int
) -> None:
    harness = HubHarness()
    other, viewer = FakeViewer(harness.hub), FakeViewer(harness.hub)
    other.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    now, number = 0.0, 0

    def frame(step: int = 1) -> None:
        nonlocal now, number
        now, number = now + 0.1, max(1, number + step)
        harness.hub.delivery.on_remote_frame(remote(number), now)

    for _ in range(before):
        frame()
    viewer.subscribe("door", "streaming", "ann", max_fps=max_fps, window=window, now=now)
    (subscription,) = viewer.subscriptions
    stream = harness.hub.stream("door")
    assert stream is not None
    for step in steps:
        if step == "frame":
            frame()
        elif step == "block":
            viewer.queue.blocked = True
        elif step == "again":
            frame(0)
        else:
            viewer.queue.blocked = False
            while (written := viewer.queue.next(now)) is not None:
                viewer.frames.append(("door", 0)) if b"video-frame" in written else None
        assert subscription.frames_written(stream.arrived) == len(viewer.frames)
    viewer.leave()
    assert subscription.written == len(viewer.frames)


def test_the_first_cause_of_an_end_counts() -> None:
    tally = Tally("gw/1.1", "::1", 0)
    tally.end(4400, "SLOW_CONSUMER", "gateway")
    tally.end(1000, "", "client")
    assert tally.ending == Ending(4400, "SLOW_CONSUMER", "gateway")


def test_a_connection_names_a_bounded_number_of_streams() -> None:
    tally = Tally("gw/1.1", "::1", 0)
    for number in range(MAX_STREAMS + 5):
        tally.name_stream(f"cam-{number}")
        tally.name_stream("cam-0")
    assert (len(tally.streams), tally.more_streams) == (MAX_STREAMS, 5)


def test_the_highest_rate_of_a_camera_is_that_over_some_seconds() -> None:
    harness = HubHarness()
    publication = harness.publish(FakePublisher())
    hub = harness.hub
    for rate in (30, 4):
        for second in range(int(PEAK_OVER_S)):
            del second
            for _ in range(rate):
                publication.meter.add(0.0)
        note_rates(hub.publications(), hub.streams, publication.noted_at + PEAK_OVER_S)
    assert publication.peak_fps == 30
    for _ in range(40):  # a burst is no rate
        publication.meter.add(0.0)
    note_rates(hub.publications(), hub.streams, publication.noted_at + 0.1)
    note_rates(hub.publications(), hub.streams, publication.noted_at + PEAK_OVER_S)
    assert publication.peak_fps == 30


def test_only_viewers_behind_a_queue_are_looked_at() -> None:
    harness = HubHarness()
    harness.publish(FakePublisher())
    viewer = FakeViewer(harness.hub)
    viewer.subscribe("door", "streaming", "ann")
    hub = harness.hub
    assert note_rates(hub.publications(), hub.streams, 1.0) == viewer.subscriptions
    hub.delivery.start_direct_writes(viewer.subscriptions[0], lambda _: None)
    assert note_rates(hub.publications(), hub.streams, 2.0) == []


def recorder() -> Recorder:
    return Recorder(Settings(access_log=False), IncidentMemory(), "gw")


def test_an_error_is_remembered_by_client_and_stream_and_errors_alike_are_counted() -> None:
    found = recorder()
    tally = found.begin("::1")
    subject = wire.Subject(stream_id="cam")
    for text in ("first", "second"):
        found.error(tally, "ann", wire.error("UNAUTHORIZED", text, 5, subject))  # type: ignore[arg-type]
    found.error(tally, "ann", b"\x81\x02no")
    (one,) = found.memory.about("cam", found.started_ms)
    assert (one.what, one.count, one.reason) == (IncidentKind.ERROR, 2, "UNAUTHORIZED: first")
    assert found.memory.about(tally.connection, found.started_ms) == [one]
    assert one.user == "ann"


def end(found: Recorder, count: int) -> list[str]:
    """End so many connections in one turn; their ids."""
    tallies = [found.begin(f"::{number}") for number in range(count)]
    for tally in tallies:
        found.closed(tally, user="ann", path="/", tcp=None)
    return [tally.connection for tally in tallies]


def recorded(found: Recorder) -> list[str]:
    return [each.connection for each in found.memory.about("ann", found.started_ms)]


async def test_ends_of_many_connections_are_recorded_in_several_turns_in_their_order() -> None:
    found = recorder()
    ended = end(found, ENDS_IN_TURN + 1)
    assert recorded(found) == ended[:ENDS_IN_TURN]
    ended += end(found, ENDS_IN_TURN)
    assert recorded(found) == ended[:ENDS_IN_TURN]
    await asyncio.sleep(0)
    assert recorded(found) == ended[: 2 * ENDS_IN_TURN]
    await asyncio.sleep(0)
    assert recorded(found) == ended
    await asyncio.sleep(0)
    ended += end(found, 1)
    assert recorded(found) == ended, "one by itself does not wait"


async def test_a_gateway_that_ends_records_the_ends_that_wait() -> None:
    found = recorder()
    ended = end(found, 3 * ENDS_IN_TURN)
    found.record_all_ends()
    assert recorded(found) == ended
    await asyncio.sleep(0)
    assert recorded(found) == ended, "each once"


def test_drops_are_one_incident_for_each_viewer_and_minute() -> None:
    found = recorder()
    viewer = FakeViewer(HubHarness().hub)
    viewer.subscribe("door")
    subscription: Subscription = viewer.subscriptions[0]
    subscription.connection = "gw/1.1"
    for _ in range(3):
        for reason in ("slow", "slow", "rate"):
            subscription.drop(next(each for each in _reasons() if each == reason))
        found.dropped(subscription, subscription.take_newly_dropped())
    found.dropped(subscription, subscription.take_newly_dropped())
    (one,) = found.memory.about("door", found.started_ms)
    assert (one.numbers, one.count) == ({"slow": 6.0, "rate": 3.0}, 3)


def _reasons() -> list:  # type: ignore[type-arg]
    from watchout.gateway.hub.subscription import DropReason

    return list(DropReason)


def test_messages_over_the_rates_are_added_to_the_tally_and_remembered_with_their_stream() -> None:
    found = recorder()
    tally = found.begin("::1")
    for count in (3, 4):
        found.limited(tally, "ann", "cam", count)
    (one,) = found.memory.about("cam", found.started_ms)
    assert (one.what, one.count, one.user, one.connection) == (IncidentKind.LIMITED, 7, "ann", tally.connection)
    assert tally.limited == 7


def test_refused_handshakes_and_logins_are_remembered_by_address_and_counted() -> None:
    found = recorder()
    for _ in range(3):
        found.refused_request("10.0.0.1", "POST /alerts", "no service token")
    (one,) = found.memory.about("10.0.0.1", found.started_ms)
    assert (one.what, one.code, one.count) == (IncidentKind.REFUSED, 401, 3)
    assert one.reason == "POST /alerts: AUTH_FAILED: no service token"


def test_a_view_that_is_hidden_again_and_again_is_one_incident() -> None:
    found = recorder()
    viewer = FakeViewer(HubHarness().hub)
    viewer.subscribe("door")
    for _ in range(3):
        found.unsubscribed(viewer.subscriptions[0])
    (one,) = found.memory.about("ann", found.started_ms)
    assert (one.what, one.count, one.streams) == (IncidentKind.UNSUBSCRIBED, 3, ("door",))


def test_connections_have_ids_of_their_own() -> None:
    found = recorder()
    ids = [found.begin("").connection for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(each.startswith("gw/") for each in ids)
