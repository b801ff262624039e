"""What a gateway stamps, counts and sends on: frames of its cameras, frames of other gateways, alerts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertStamps
from watchout.common.bus.router_clock import RouterClock
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import LatencyLedger, Objectives
from watchout.common.latency.rows import histograms_of
from watchout.common.media.frames import Frame
from watchout.gateway.hub.delivery import TOLD_TOGETHER
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.streams import Publication, PublisherSocket
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.latency.clock_offset import ClockOffset
from watchout.gateway.latency.recorder import LatencyRecorder
from watchout.gateway.latency.timed_message import TimedMessage
from watchout.gateway.model import Owner, StreamState
from watchout.identity import Identity

AHEAD_MS = 3_000
OLD_MS = 40


#: The clocks stand still, so that nothing depends on how long a test takes.
MONOTONIC_S, WALL_S = 50_000.0, 1_790_000_000.0


@pytest.fixture(autouse=True)
def standing_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = SimpleNamespace(monotonic=lambda: MONOTONIC_S, time=lambda: WALL_S, time_ns=lambda: 7)
    monkeypatch.setattr("watchout.gateway.latency.recorder.time", clocks)


def wall() -> float:
    return WALL_S * 1000


def recorder() -> LatencyRecorder:
    return LatencyRecorder(LatencyLedger(Objectives(1_000.0, 1_000.0)))


def counted(of: LatencyRecorder) -> dict[Hop, tuple[int, float | None]]:
    """How many durations of each hop, and their median."""
    return {hop: (found.count, found.quantile_ms(0.5)) for hop, found in histograms_of(of.ledger.since_start()).items()}


def published(of: LatencyRecorder) -> tuple[Hub, Publication]:
    """A stream whose camera's clock is 3 s ahead, which is known."""
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None, latency=of)
    publisher = cast("PublisherSocket", SimpleNamespace(send_ping=lambda _: None, send_message=lambda _: None))
    publication = hub.publish(
        "cam", Owner("ann"), publisher, term=1, first_frame_id=1, producing=True, wants_alerts=False, now=0.0,
        now_ms=int(wall()),
    )  # fmt: skip
    camera, now = publication.camera_clock, MONOTONIC_S * 1000
    camera.has_own_time = True
    for before in (2_000.0, 900.0, 100.0):
        camera.offset.on_frame(int(wall() + AHEAD_MS - before), now - before, now - before - 1)
    camera.ping_at = 1e12
    return hub, publication


def frame(stamp: float) -> Frame:
    return Frame("cam", 7, int(stamp), text=b'"/9j/"', is_base64=True)


def alert(frame_id: int | None = None, timestamp: int = 0, name: str = "a1") -> Alert:
    return Alert(id=name, stream_id="cam", severity="high", message="a person", timestamp=timestamp, frame_id=frame_id)


def test_a_frame_of_a_camera_that_is_ahead_was_captured_when_it_was() -> None:
    of = recorder()
    _, publication = published(of)
    now = wall()
    shown = frame(now + AHEAD_MS - OLD_MS)
    of.on_frame_in(publication, shown, 5.0, int(now))
    assert shown.stamps is not None
    assert shown.stamps.captured == pytest.approx(now - OLD_MS, abs=4)
    assert shown.stamps.gateway_in == pytest.approx(now, abs=0.1)
    assert publication.sample_at > 5.0
    of.on_frame_written(shown, 50)
    found = counted(of)
    assert found[Hop.CAPTURE_TO_GATEWAY] == (1, pytest.approx(OLD_MS, abs=4))
    assert found[Hop.GLASS_TO_GLASS] == (50, pytest.approx(OLD_MS, abs=5))
    assert found[Hop.GATEWAY_TO_VIEWER][0] == 50


def test_stamps_reach_another_gateway_whose_clock_is_apart() -> None:
    """Each converts by the router's clock: here the sender is 10 s behind it, the receiver 20 s ahead."""
    here, there, shown = recorder(), recorder(), frame(0)
    _, publication = published(here)
    here.on_frame_in(publication, shown, 5.0, 1)
    sender, receiver = RouterClock(), RouterClock()
    sender.observe(10_000, 0)
    receiver.observe(10_000, 0)
    stamp, arrived = here.stamp_of(shown, sender), frame(0)
    there.on_stamp(arrived, stamp, receiver)
    assert shown.stamps is not None
    assert arrived.stamps is not None
    assert arrived.stamps.gateway_in == pytest.approx(shown.stamps.gateway_in, abs=0.2)
    assert here.stamp_of(frame(0), sender) == b"", "a frame that was not sampled"


def test_a_frame_without_a_known_capture_counts_as_unknown_and_in_no_whole_way() -> None:
    of = recorder()
    hub, publication = published(of)
    publication.camera_clock.has_own_time = False
    now = int(wall())
    shown = frame(now)
    of.on_frame_in(publication, shown, 5.0, now)
    of.on_frame_written(shown)
    assert counted(of).keys() == {Hop.GATEWAY_TO_VIEWER}
    total = of.ledger.totals(MONOTONIC_S).total
    assert total is not None
    assert total.unknown == 1
    reports = of.ledger.reports(MONOTONIC_S, lambda stream: of.update_clock(stream, hub.publication(stream)))
    clocks = [row.clock for row in reports]
    assert [clock is not None and bool(clock.unknown) for clock in clocks] == [True]


def test_the_newest_frame_that_a_later_viewer_gets_is_no_latency() -> None:
    of = recorder()
    hub, publication = published(of)
    now = wall()
    message = b'\x81\x1c{"type":"video","data":"/9j/"}'
    hub.delivery.on_plain_frame(publication, message, 26, 30, int(now + AHEAD_MS), -1, b"", 9.0, int(now))
    newest = hub.delivery.newest_frame("cam")
    assert newest is not None
    assert newest.stamps is not None

    class Viewer:
        def send_message(self, message: bytes) -> None: ...

        def send_alert(self, subscription: object, message: bytes) -> None: ...

        def send_frame(self, subscription: object, sent: Frame, now: float) -> None:
            of.on_frame_written(sent)

        def on_permission_lost(self, stream: str) -> None: ...

    subscription = Subscription("cam", Identity(user_id="ann"), video=True, alerts=False)
    hub.subscribe(subscription, Viewer(), StreamState("streaming", Owner("ann"), 1), 60.0, 1)
    assert Hop.GATEWAY_TO_VIEWER not in counted(of)


def test_an_alert_counts_from_the_capture_of_its_frame_to_each_socket() -> None:
    of, now = recorder(), int(wall())
    message = of.timed(b"alert", alert(), AlertStamps(now - 250, now - 240, now - 230, now - 30, now - 5))
    assert message == b"alert"
    of.on_alert_written(message)
    of.on_alert_written(message, 2)
    found = counted(of)
    assert found[Hop.GLASS_TO_ALERT] == (3, pytest.approx(250, rel=0.03))
    assert found[Hop.ACCEPTED_TO_WRITTEN] == (3, pytest.approx(5, rel=0.03))


def test_an_alert_to_many_viewers_counts_for_each_socket_that_took_it_and_later_for_one_where_it_waited() -> None:
    of, now = recorder(), int(wall())
    hub, _ = published(of)
    calls: list[int] = []
    tell = of.on_alert_written
    of.on_alert_written = lambda message, times=1: (calls.append(times), tell(message, times))[0]  # type: ignore[method-assign,assignment,func-returns-value]
    waits: list[TimedMessage] = []
    written: list[bytes] = []

    class Viewer:
        full = False

        def send_message(self, message: bytes) -> None: ...

        def send_alert(self, subscription: Subscription, message: bytes) -> None:
            assert isinstance(message, TimedMessage)
            assert message.is_fanned_out
            if self.full:  # as a socket does
                waits.append(message)
            else:
                message.written += 1
                hub.delivery.start_direct_alerts(subscription, written.append)

        def send_frame(self, subscription: object, sent: Frame, now: float) -> None: ...

        def on_permission_lost(self, stream: str) -> None: ...

    for number in range(300):
        subscription = Subscription("cam", Identity(user_id="ann"), video=False, alerts=True)
        viewer = Viewer()
        viewer.full = number == 7
        hub.subscribe(subscription, viewer, StreamState("streaming", Owner("ann"), 1), 60.0, 1)
    hub.delivery.on_alert(alert(), 0.0, stamps=AlertStamps(now - 250, now - 240, now - 230, now - 30, now - 5))
    assert counted(of)[Hop.GLASS_TO_ALERT][0] == 299
    assert calls == [TOLD_TOGETHER, TOLD_TOGETHER, 299 - 2 * TOLD_TOGETHER]
    (waited,) = waits
    assert not waited.is_fanned_out
    calls.clear()
    hub.delivery.on_alert(alert(name="a2"), 0.0, stamps=waited.stamps)
    assert len(written) == 299, "directly"
    assert calls == [TOLD_TOGETHER, TOLD_TOGETHER, 299 - 2 * TOLD_TOGETHER]
    assert counted(of)[Hop.GLASS_TO_ALERT][0] == 2 * 299


def test_an_alert_over_http_finds_the_capture_of_its_frame_here_and_where_frames_of_the_stream_come() -> None:
    here, there, shown, now = recorder(), recorder(), frame(wall() + AHEAD_MS - OLD_MS), wall()
    _, publication = published(here)
    here.on_frame_in(publication, shown, 5.0, int(now))
    there.on_stamp(frame(shown.timestamp), here.stamp_of(shown, RouterClock()), RouterClock())
    about = alert(frame_id=shown.frame_id)
    given = here.stamps_of(about)
    assert (given.captured, given.answered) == (pytest.approx(now - OLD_MS, abs=4), int(now))
    here.on_alert_accepted(about, given, int(now) + 8)
    assert counted(here)[Hop.ML_TO_ACCEPTED] == (1, pytest.approx(8, rel=0.03))
    assert recorder().stamps_of(about).captured is None, "no frame of the stream comes there"
    unknown = AlertStamps(answered=int(now), accepted=int(now))
    for gateway in (here, there):  # the alert came in at another one, which did not know
        gateway.on_alert_written(gateway.timed(b"a", about, unknown))
        assert counted(gateway)[Hop.GLASS_TO_ALERT] == (1, pytest.approx(OLD_MS, abs=4))
    there.on_alert_written(there.timed(b"b", alert(frame_id=shown.frame_id + 50), unknown))
    there.on_alert_written(there.timed(b"c", about, AlertStamps(accepted=int(now))))
    assert counted(there)[Hop.GLASS_TO_ALERT][0] == 1, "of a frame that is not known, and of a camera"


def test_an_alert_of_a_camera_and_one_that_names_no_frame_are_measured_from_their_acceptance_alone() -> None:
    of, now = recorder(), int(wall())
    of.on_alert_written(of.timed(b"a", alert(), AlertStamps(accepted=now)))
    of.on_alert_written(of.timed(b"b", alert(), AlertStamps(answered=now, accepted=now)))
    total = of.ledger.totals(MONOTONIC_S).total
    assert total is not None
    assert (counted(of).keys(), total.unknown) == ({Hop.ACCEPTED_TO_WRITTEN}, 1), "one of them is of the ML service"


def test_the_time_that_the_size_of_a_frame_costs_is_a_part_of_its_age() -> None:
    """Its bytes came over 70 ms, on a network with a short round trip."""
    of = recorder()
    _, publication = published(of)
    clock, now = ClockOffset(), MONOTONIC_S * 1000
    for before in (2_000.0, 900.0, 100.0):  # each arrived whole 71 ms after it was sent
        clock.on_frame(int(wall() + AHEAD_MS - before - 71), now - before, now - before - 72)
    clock.on_round_trip(now - 2, now)
    publication.camera_clock.offset = clock
    for _ in range(3):
        publication.began_at = MONOTONIC_S - 0.07
        of.on_frame_in(publication, frame(wall() + AHEAD_MS - 71), 5.0, 1)
    assert counted(of)[Hop.CAPTURE_TO_GATEWAY] == (3, pytest.approx(71, rel=0.06))
