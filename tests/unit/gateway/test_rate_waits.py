"""Frames that wait until a frame rate permits them: the table of who waits, and what viewers get of a burst."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.clients import JPEG, PNG
from tests.kit.hub import ANN, FakePublisher, FakeViewer, HubHarness, ms, remote, word
from tests.unit.common.test_rate import most_in_any_window
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.gateway.client.socket_writer import ClientSocketWriter
from watchout.gateway.http.mjpeg import Mjpeg
from watchout.gateway.http.mjpeg_parts import AcceptedPictures
from watchout.gateway.hub.outbound_queue import OutboundQueue
from watchout.gateway.hub.rate_waits import RateWaits
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.hub.waiting_frames import WaitingFrames

# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class Waiter:
    name: int

    def release_waiting(self, now: float) -> float | None:
        """Nothing: the table does not call it."""


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.integers(0, 5), st.floats(0, 10)),
            st.tuples(st.just("remove"), st.integers(0, 5), st.just(0.0)),
            st.tuples(st.just("look"), st.just(0), st.floats(0, 3)),
        ),
        max_size=80,
    )
)
def test_each_looks_once_at_the_earliest_of_its_times(steps: list[tuple[str, int, float]]) -> None:
    waits, waiters, now = RateWaits(), [Waiter(n) for n in range(6)], 0.0
    expected: dict[Waiter, float] = {}
    alarms: list[float] = []
    waits.on_earlier = alarms.append
    for what, number, value in steps:
        waiter = waiters[number]
        if what == "enter":
            first = min(expected.values(), default=float("inf"))
            alarms.clear()
            waits.enter(waiter, now + value)
            if now + value < expected.get(waiter, float("inf")):
                expected[waiter] = now + value
            assert bool(alarms) is (expected[waiter] < first) or expected[waiter] == first
        elif what == "remove":
            waits.remove(waiter)
            expected.pop(waiter, None)
        else:
            now += value
            due = waits.take_due(now)
            assert set(due) == {each for each, at in expected.items() if at <= now}
            assert len(due) == len(set(due))
            times = [expected.pop(each) for each in due]
            assert times == sorted(times)
        assert len(waits) == len(expected)
        assert waits.next_at() == min(expected.values(), default=None)


def test_what_is_entered_again_and_again_takes_no_more_memory() -> None:
    waits, waiter = RateWaits(), Waiter(0)
    for turn in range(10_000):
        waits.remove(waiter)
        waits.enter(waiter, 1e6 - turn)
    assert len(waits._heap) < 200


# ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(name="burst")
def _burst(harness: HubHarness) -> tuple[HubHarness, FakeViewer]:
    """A viewer with two frames a second, and a camera that sent three in 0.3 s."""
    publication = harness.publish(FakePublisher())
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", max_fps=2)
    for number in (1, 2, 3):
        harness.frame(publication, 10 + number / 10)
    assert screen.frames == [("door", 1)]
    return harness, screen


def test_the_last_frame_of_a_burst_comes_when_the_rate_permits_it(burst: tuple[HubHarness, FakeViewer]) -> None:
    harness, screen = burst
    harness.pass_time(10.3)
    assert screen.frames == [("door", 1)]
    harness.pass_time(10.8)
    assert screen.frames == [("door", 1), ("door", 3)]
    assert screen.subscriptions[0].dropped == {DropReason.RATE: 1}
    harness.pass_time(99)
    assert (len(screen.frames), len(harness.hub.delivery.rate_waits)) == (2, 0)


@pytest.mark.parametrize("end", ["left", "released", "revoked", "taken over", "unsubscribed"])
def test_nothing_comes_after_the_end(burst: tuple[HubHarness, FakeViewer], end: str) -> None:
    harness, screen = burst
    hub, publication = harness.hub, harness.hub.publication("door")
    assert publication is not None
    subscription = screen.subscriptions[0]
    if end == "left":
        screen.leave()
    elif end == "unsubscribed":
        screen.queue.remove(subscription)
        hub.unsubscribe(subscription)
    elif end == "released":
        hub.release(publication, ms(10.4))
    elif end == "revoked":
        hub.revoke("door", 9)
    else:
        harness.publish(FakePublisher(), term=2, now=10.4)
    harness.pass_time(99)
    assert screen.frames == [("door", 1)]
    gone = DropReason.GONE if end in ("left", "unsubscribed") else DropReason.RATE
    assert subscription.dropped == ({DropReason.RATE: 2} if gone is DropReason.RATE else {DropReason.RATE: 1, gone: 1})


@pytest.mark.parametrize("after", [word("offline"), word("streaming", term=6), word("streaming", term=6, user="bob")])
def test_nothing_comes_after_the_end_of_a_camera_elsewhere(harness: HubHarness, after: object) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", max_fps=2)
    harness.hub.on_status(word("streaming"), 0.0, 0)
    for number in (1, 2):
        harness.hub.delivery.on_remote_frame(remote(number), 10 + number / 10)
    harness.hub.on_status(after, 10.3, 0)  # type: ignore[arg-type]
    harness.pass_time(99)
    assert screen.frames == [("door", 1)]


def test_a_status_of_the_same_term_takes_nothing_away(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", max_fps=2)
    harness.hub.on_status(word("streaming"), 0.0, 0)
    for number in (1, 2):
        harness.hub.delivery.on_remote_frame(remote(number), 10 + number / 10)
    harness.hub.on_status(word("online"), 10.3, 0)
    harness.pass_time(99)
    assert screen.frames == [("door", 1), ("door", 2)]


def test_a_picture_that_waits_is_dropped_with_the_newest_frame_that_counts_its_bytes() -> None:
    """Other frames count as those that wait for slow viewers do."""
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None, newest_bytes=100)
    screen = FakeViewer(hub)
    screen.subscribe("door", max_fps=2)
    screen.subscribe("yard", max_fps=2)
    for stream in ("door", "yard"):
        hub.on_status(word("streaming", stream=stream), 0.0, 0)
    for number in (1, 2):
        picture = Frame("door", number, 0, term=5, picture=b"\xff\xd8\xff" + bytes(60))
        hub.delivery.on_remote_frame(picture, number / 10)
    door = screen.subscriptions[0]
    assert door.waiting_frame is not None
    hub.delivery.on_remote_frame(Frame("yard", 1, 0, term=5, picture=b"\xff\xd8\xff" + bytes(60)), 0.3)
    assert (door.waiting_frame, door.dropped) == (None, {DropReason.RATE: 1})


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=50),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 7.5]), min_size=1, max_size=3),
)
def test_of_any_schedule_each_viewer_gets_the_last_frame_within_an_interval(
    schedule: list[tuple[float, bool]], rates: list[float]
) -> None:
    """Frames come at any time, and are pictures or not: viewers in JSON get each of them."""
    harness = HubHarness()
    publication = harness.publish(FakePublisher())
    screens = [FakeViewer(harness.hub) for _ in rates]
    seen: list[list[tuple[float, int]]] = [[] for _ in rates]
    for screen, rate in zip(screens, rates, strict=True):
        screen.subscribe("door", max_fps=rate)
    now = 10.0

    def note(at: float) -> None:
        for screen, got in zip(screens, seen, strict=True):
            got += [(at, number) for _, number in screen.frames[len(got) :]]

    def pass_time(until: float) -> None:
        waits = harness.hub.delivery.rate_waits
        while (at := waits.next_at()) is not None and at <= until:
            harness.pass_time(at)
            note(at)

    for gap, is_picture in schedule:
        pass_time(now := now + gap)
        harness.frame(publication, now, b'"/9j/"' if is_picture else b'"!!!"')
        note(now)
    for screen, rate, got in zip(screens, rates, seen, strict=True):
        pass_time(now + (1 + 1e-6) / rate)
        assert got[-1][1] == len(schedule)
        numbers = [number for _, number in got]
        assert numbers == sorted(set(numbers))
        assert most_in_any_window([at for at, _ in got], rate) <= 2 + 1e-6
        (subscription,) = screen.subscriptions
        assert sum((subscription.dropped or {}).values()) == len(schedule) - len(got)
        assert set(subscription.dropped or {}) <= {DropReason.RATE}


def test_a_steady_stream_costs_a_look_or_two_per_interval(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    screen = FakeViewer(harness.hub)
    screen.subscribe("door", max_fps=10)
    looks = 0
    waits = harness.hub.delivery.rate_waits
    for number in range(300):
        now = 10 + number / 30
        while (at := waits.next_at()) is not None and at <= now:
            looks += 1
            harness.pass_time(at)
        harness.frame(publication, now)
    gaps = {after[1] - before[1] for before, after in itertools.pairwise(screen.frames)}
    assert (len(screen.frames), gaps) == (100, {3})  # each as it came, in its turn
    assert looks <= 200


# ── what the receiver cannot have ────────────────────────────────────────────────────────────────────────────────

#: Base64 that begins as that of a JPEG does; the second has an end that is none.
GOOD, BROKEN = b'"%b"' % pybase64.b64encode(JPEG), b'"/9j/4AAQ!!!"'
#: A JPEG with a size in its head, and one without.
SIZED = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(
    50
)
HEADLESS = b"\xff\xd8\xff\xe0" + bytes(50)


@pytest.fixture(name="context")
def _context() -> SimpleNamespace:
    settings = Settings()
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    hub.on_status(word("streaming"), 0.0, 0)
    router = SimpleNamespace(report_undecodable=lambda *_: None)
    return SimpleNamespace(
        settings=settings, hub=hub, metrics=Metrics(), router=router, waiting_frames=WaitingFrames(10_000)
    )


class Socket(ClientSocketWriter):
    """A client's socket that is open and never full."""

    _user_id = "ann"
    closing = False

    def __init__(self, context: SimpleNamespace) -> None:
        super().__init__(context)  # type: ignore[arg-type]
        self.written: list[bytes] = []
        self._transport = SimpleNamespace(write=self.written.append)  # type: ignore[assignment]

    def close_slow(self, reason: str | None = None) -> None:
        del reason

    def _last_sent_at(self) -> float:
        return 0.0


async def test_of_a_binary_viewer_a_frame_that_cannot_be_decoded_hides_none_and_counts_against_no_rate(
    context: SimpleNamespace,
) -> None:
    socket = Socket(context)
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary", max_fps=1)
    began = asyncio.get_running_loop().time() - 10
    for number, (after, text) in enumerate([(0, BROKEN), (0.1, GOOD), (0.2, GOOD), (1.2, BROKEN)], 1):
        socket.send_frame(subscription, Frame("door", number, 0, text=text, is_base64=True), began + after)
    assert subscription.dropped == {DropReason.UNDECODABLE: 2}
    assert subscription.waiting_frame is not None
    waits = context.hub.delivery.rate_waits
    assert waits.take_due(began + 2) == [socket]
    assert socket.release_waiting(began + 2) is None
    assert [data[-len(JPEG) :] == JPEG for data in socket.written] == [True, True]
    assert (subscription.last_frame_id, subscription.waiting_frame) == (3, None)


async def test_a_moving_picture_that_is_repeated_takes_none_that_waits(context: SimpleNamespace) -> None:
    """Its writer wakes up in each silence."""
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary", max_fps=0.5)
    picture = Mjpeg(context, subscription, AcceptedPictures(), None)  # type: ignore[arg-type]
    picture.send_frame(subscription, Frame("door", 1, 0, picture=JPEG), 10.0)
    first = picture._take_waiting(10.0)
    assert first is not None
    picture.send_frame(subscription, Frame("door", 2, 0, picture=JPEG), 10.1)
    assert picture._take_waiting(11.0) is None
    assert subscription.waiting_frame is not None
    second = picture._take_waiting(12.0)
    assert second is not None
    assert (first.frame_id, second.frame_id, picture._take_waiting(99.0)) == (1, 2, None)


async def test_a_moving_picture_that_has_ended_sends_nothing_that_comes_before_it_is_unsubscribed(
    context: SimpleNamespace,
) -> None:
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary")
    picture = Mjpeg(context, subscription, AcceptedPictures(), None)  # type: ignore[arg-type]
    picture.end("UNAUTHORIZED")
    picture.send_frame(subscription, Frame("door", 1, 0, picture=JPEG), 10.0)
    assert picture._take_waiting(10.0) is None


@pytest.mark.parametrize("bad", [b"null", HEADLESS, PNG], ids=["none", "headless", "png"])
async def test_of_a_moving_picture_what_its_reader_cannot_show_hides_none_and_counts_against_no_rate(
    context: SimpleNamespace, bad: bytes
) -> None:
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary", max_fps=1)
    accepted = AcceptedPictures(frozenset({Codec.JPEG}), sized=True)
    picture = Mjpeg(context, subscription, accepted, None)  # type: ignore[arg-type]
    began = asyncio.get_running_loop().time()
    waits = context.hub.delivery.rate_waits
    for number, payload in enumerate((bad, SIZED, bad), 1):
        picture.send_frame(subscription, Frame("door", number, 0, picture=payload), began)
    (dropped,) = (subscription.dropped or {}).items()
    assert dropped == (DropReason.CODEC if bad is PNG else DropReason.UNDECODABLE, 2)
    assert subscription.waiting_frame is not None
    assert subscription.waiting_frame.frame_id == 2
    assert not subscription.waits_for_rate
    assert len(waits) == 0, "it is written at once"


async def test_a_picture_that_waits_and_is_not_the_newest_any_more_counts_with_the_waiting_frames(
    context: SimpleNamespace,
) -> None:
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary", max_fps=1)
    subscription.take_rate(10.0)
    accepted = AcceptedPictures(frozenset({Codec.JPEG}))
    picture = Mjpeg(context, subscription, accepted, None)  # type: ignore[arg-type]
    picture.send_frame(subscription, Frame("door", 1, 0, picture=JPEG), 10.1)
    assert (context.waiting_frames.total_bytes, len(context.hub.delivery.rate_waits)) == (0, 1)
    picture.send_frame(subscription, Frame("door", 2, 0, picture=PNG), 10.2)
    assert context.waiting_frames.total_bytes == len(JPEG)
    assert picture.release_waiting(10.2) == pytest.approx(10.75)
    assert picture.release_waiting(10.75) is None
    picture.end()
    assert (context.waiting_frames.total_bytes, subscription.waiting_frame) == (0, None)


async def test_what_waits_and_is_no_picture_counts_with_the_waiting_frames() -> None:
    waiting_frames = WaitingFrames(10_000)
    queue = OutboundQueue(Settings(), lambda _, frame: frame.to_json(), waiting_frames)
    subscription = Subscription("door", ANN, video=True, alerts=False, max_fps=1)
    for number, text in enumerate((GOOD, GOOD), 1):
        queue.offer_frame(subscription, Frame("door", number, 0, text=text), number / 10)
    assert waiting_frames.total_bytes == 0
    queue.offer_frame(subscription, Frame("door", 3, 0, text=b'"!!!"'), 0.3)
    assert waiting_frames.total_bytes > 0
    queue.offer_frame(subscription, Frame("door", 4, 0, text=GOOD), 0.4)
    assert waiting_frames.total_bytes == 0
