"""A codec with key frames through every place that drops frames: no delta frame arrives without its predecessor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.fake_codec import FAKE, Decoder, frame, payload, registered
from watchout.common.bus.credit import WindowCredit
from watchout.common.bus.frames import decode_frame
from watchout.common.bus.peer_queue import PeerQueue
from watchout.common.bus.zeromq.control import queue_key
from watchout.common.bus.zeromq.frame_connection import FrameSender
from watchout.common.media.codecs import Codec, known_pictures, sniff, sniff_base64
from watchout.common.media.drop_policy import MAX_AWAITED, STANDALONE, AwaitedKeyFrames
from watchout.common.media.frames import BinaryFrame, Frame, FrameFault, kind_on_bus, parse_binary
from watchout.common.settings import Settings
from watchout.ctl.client import Edge
from watchout.ctl.commands.publish import Publisher
from watchout.ctl.sources.open import Source
from watchout.gateway.authorization import Owner
from watchout.gateway.http.mjpeg import Mjpeg
from watchout.gateway.http.mjpeg_parts import AcceptedPictures
from watchout.gateway.hub.outbound_queue import OutboundQueue
from watchout.gateway.hub.registry import Hub, StreamState
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.hub.waiting_frames import WaitingFrames
from watchout.identity import Identity
from watchout.mlbridge.commands import OfferOutcome, SendFrame
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler

ANN = Identity("ann", "1", 0.0)
#: What happens in turn: a key frame, a delta frame, a frame that another place dropped, the receiver is ready, or full.
EVENTS = st.lists(st.sampled_from(["key", "delta", "delta", "delta", "lost", "ready", "full"]), max_size=60)


@pytest.fixture(autouse=True, scope="module")
def fake_codec() -> Iterator[None]:
    with registered():
        yield


def numbered(events: list[str]) -> Iterator[tuple[str, Frame | None]]:
    """The events with the frame of each, numbered from 1."""
    number = 0
    for event in events:
        number += event in ("key", "delta", "lost")
        yield event, frame(number, key=event == "key") if event in ("key", "delta") else None


# ── the codec by itself ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_registered_codec_is_known_everywhere() -> None:
    key, delta = payload(1, key=True), payload(2, key=False)
    assert sniff(key) is sniff(delta) is FAKE
    assert known_pictures() == "JPEG, PNG, WebP, GIF, AVIF, HEIC or fake"
    made = frame(2, key=False)
    assert (made.codec, made.is_picture, made.is_key) == (FAKE, True, False)
    assert parse_binary(made.to_binary()) == BinaryFrame("door", 2, None, FAKE, delta)
    for sent in (made, Frame("door", 2, 0, text=bytes(made.text), is_base64=True)):
        assert kind_on_bus(sent.bus_parts()) == kind_on_bus([sent.to_bus()]) == FAKE.kind_of(delta)
        assert Frame.from_bus(decode_frame(sent.to_bus())).codec is FAKE
    assert AcceptedPictures.of(["video/x-fake"], "").accepts(FAKE)
    text = bytes(made.text)
    assert sniff_base64(text, 1, len(text) - 1) is FAKE


def test_a_number_between_two_codecs_is_not_one() -> None:
    message = bytearray(frame(1, key=True).to_binary())
    message[16] = 5
    with pytest.raises(FrameFault, match="codec 5, expected one of 0, 1, 2, 3, 7"):
        parse_binary(bytes(message))


def test_a_jpeg_stands_alone() -> None:
    jpeg = Frame("door", 5, 0, picture=b"\xff\xd8\xff")
    assert jpeg.codec is Codec.JPEG
    assert jpeg.is_key
    assert jpeg.kind is kind_on_bus(jpeg.bus_parts()) is STANDALONE


def test_the_keys_that_wait_for_a_key_frame_are_bounded() -> None:
    awaited = AwaitedKeyFrames()
    kind = FAKE.kind_of(payload(1, key=False))
    for key in range(MAX_AWAITED + 10):
        awaited.dropped(key, kind)
        awaited.dropped(-1 - key, STANDALONE)
    assert len(awaited.keys) == MAX_AWAITED


# ── the bus ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Receiver:
    """The far end of a bus connection: what is written arrives at once, unless it is full."""

    def __init__(self) -> None:
        self.decoder = Decoder(after=0)
        self.full = False

    def write_frame(self, parts: tuple[bytes, ...]) -> None:
        self.decoder.decode(b"".join(parts))

    def gather(self) -> None:
        pass

    def write_gathered(self) -> None:
        pass


def without_lost(events: list[str]) -> list[str]:
    return [event for event in events if event != "lost"]


class Credit:
    """The credit of a peer that takes frames, or takes none."""

    exhausted = True

    def spend(self, size: int) -> None:
        pass


@given(EVENTS.map(without_lost), st.sampled_from([80, 1000]))
def test_the_queue_of_a_bus_peer(events: list[str], max_bytes: int) -> None:
    """With a second stream beside it, which makes it drop frames for lack of room too."""
    decoder, credit = Decoder(after=0), Credit()

    def send(parts: tuple[bytes | memoryview, ...], _size: int) -> bool:
        data = b"".join(parts)
        if decode_frame(data).stream == "door":
            decoder.decode(Frame.from_bus(decode_frame(data)).picture)
        return True

    queue, offered = PeerQueue(queue_key, send, credit, max_bytes=max_bytes), 0
    for event, came in numbered(events):
        if came is not None:
            queue.offer(came.bus_parts())
            if came.frame_id % 3:
                queue.offer(Frame("yard", came.frame_id, 1, term=1, picture=b"\xff\xd8\xff").bus_parts())
                offered += 1
            offered += 1
        elif event == "full":
            queue.clear()
        elif event == "ready":
            credit.exhausted = False
            queue.pump()
            credit.exhausted = True
    assert offered == queue.sent + queue.dropped + len(queue)


@given(EVENTS.map(without_lost))
def test_a_frame_socket(events: list[str]) -> None:
    outlet, receiver = FrameSender(queue_key), Receiver()
    outlet.connection = receiver  # type: ignore[assignment]
    for event, came in numbered(events):
        if came is not None:
            outlet.offer(came.bus_parts())
        else:
            receiver.full = event == "full"
            outlet.pump()


@given(EVENTS.map(without_lost))
def test_a_bus_connection_with_credit(events: list[str]) -> None:
    decoder, sent = Decoder(after=0), 0

    def send(parts: tuple[bytes | memoryview, ...], _size: int) -> bool:
        nonlocal sent
        decoder.decode(b"".join(parts))
        sent += sum(map(len, parts))
        return True

    credit = WindowCredit(limit_bytes=100)
    credit.open(1)
    queue = PeerQueue(queue_key, send, credit)
    for event, came in numbered(events):
        if came is not None:
            queue.offer(came.bus_parts())
        elif event == "ready" and credit.acknowledge(1, sent):
            queue.pump()


# ── the gateway ──────────────────────────────────────────────────────────────────────────────────────────────────


class Viewer:
    """A viewer's socket, as `gateway.client.socket` drives its queue and the hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.decoder = Decoder()
        self.queue = OutboundQueue(Settings(), lambda _, frame: frame.picture)

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        if self.queue.offer_frame(subscription, frame, now):
            self.decoder.decode(frame.picture)
            if subscription.window is None and not self.queue.blocked:
                self.hub.delivery.start_direct_writes(subscription, self.decoder.decode)

    def send_message(self, message: bytes) -> None:
        """Nothing."""

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """Nothing."""

    def on_permission_lost(self, stream: str) -> None:
        """Nothing."""


@given(EVENTS, st.sampled_from([None, 1, 3]), st.booleans())
def test_a_viewer(events: list[str], window: int | None, last_frame: bool) -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    viewer = Viewer(hub)
    subscription = Subscription(
        "door",
        ANN,
        video=True,
        alerts=False,
        format="binary",
        window=window,
        last_frame=last_frame,
    )
    hub.subscribe(subscription, viewer, StreamState("streaming", Owner("ann"), 1), 0.0, 0)
    for event, came in numbered(events):
        if came is not None:
            hub.delivery.on_remote_frame(came, 0.0)
        elif event == "full":
            viewer.queue.blocked = True
            hub.delivery.stop_direct_writes(subscription)
        else:
            viewer.queue.blocked = False
            subscription.acknowledge(1 << 32)
            while (data := viewer.queue.next(0.0)) is not None:
                viewer.decoder.decode(data)


def test_a_delta_frame_is_neither_the_newest_frame_nor_a_fault() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    viewer = Viewer(hub)
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary")
    hub.subscribe(subscription, viewer, StreamState("streaming", Owner("ann"), 1), 0.0, 0)
    for number in (1, 2, 4):
        hub.delivery.on_remote_frame(frame(number, key=number == 1), 0.0)
    newest = hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 1
    assert viewer.decoder.decoded == [1, 2]
    assert subscription.dropped == {DropReason.UNDECODABLE: 1}


@given(EVENTS)
def test_a_moving_picture(events: list[str]) -> None:
    """Each part of it is a picture by itself: it is made of key frames."""
    subscription = Subscription("door", ANN, video=True, alerts=False, format="binary")
    mjpeg = Mjpeg(SimpleNamespace(waiting_frames=WaitingFrames(1000)), subscription, AcceptedPictures(), None)  # type: ignore[arg-type]
    for event, came in numbered(events):
        if came is not None:
            mjpeg.send_frame(subscription, came, 0.0)
        elif event == "full":
            subscription.on_frame_evicted()
        assert subscription.waiting_frame is None or subscription.waiting_frame.is_key


# ── the bridge and the operator's tool ───────────────────────────────────────────────────────────────────────────


@given(EVENTS)
def test_the_scheduler(events: list[str]) -> None:
    """Its frames go one by one, to any endpoint: they are key frames, and the newest of these wins."""
    scheduler = Scheduler[Frame](
        Failover(1, 2, chance=lambda: 0.0), max_fps=1e6, max_age_s=1e6, timeout_s=1e6, max_streams=10
    )
    tickets: list[int] = []
    now, newest_key = 0.0, 0
    for event, came in numbered(events):
        now += 1.0
        if came is not None:
            offered = scheduler.offer("door", (1, came.frame_id), came, 20, now, kind=came.kind)
            assert (offered is OfferOutcome.DEPENDENT) is not came.is_key
            newest_key = came.frame_id if came.is_key else newest_key
        elif event == "ready" and tickets:
            scheduler.on_result(tickets.pop(), now)
        for command in scheduler.due(now):
            assert isinstance(command, SendFrame)
            assert command.frame.frame_id == newest_key
            tickets.append(command.ticket)
    counts = scheduler.counts
    assert counts.offered == counts.sent + counts.not_sent + scheduler.waiting


class Socket:
    """A publisher's camera whose gateway reads only when it is let."""

    stream_id = "door"
    connection = 1
    sent_bytes = 0
    has_room = True

    def __init__(self) -> None:
        self.decoder = Decoder(after=0)
        self.ready = asyncio.Event()

    async def room(self) -> None:
        """There is always room."""

    async def send(self, picture: bytes, *, timestamp: int) -> bool:
        await self.ready.wait()
        self.decoder.decode(Frame("door", 0, timestamp, picture=picture).to_binary())
        return True


@given(EVENTS.map(without_lost))
def test_publish(events: list[str]) -> None:
    """`lost` is not for it: it numbers nothing, its source is the first to have the frames."""
    asyncio.run(publish(events))


async def publish(events: list[str]) -> None:
    edge = Edge(url="ws://gateway", token=str, max_message_bytes=1000)
    publisher, socket = Publisher(edge, Source("a source", None, lambda: _no_pictures()), binary=True), Socket()
    sender = asyncio.create_task(publisher._send(socket))  # type: ignore[arg-type]
    for event, came in numbered(events):
        if came is not None:
            publisher._put(came.picture)
        elif event == "full":
            socket.ready.clear()
        else:
            socket.ready.set()
        await asyncio.sleep(0)
    assert not sender.done() or sender.exception() is None, sender.exception()
    sender.cancel()
    under_way = publisher._slot is not None
    put = sum(event in ("key", "delta") for event in events)
    assert put - publisher.sent - publisher.dropped - under_way in (0, 1)  # one that the socket had not taken


def test_publish_drops_what_depends_on_a_lost_connection() -> None:
    edge = Edge(url="ws://gateway", token=str, max_message_bytes=1000)
    publisher = Publisher(edge, Source("a source", None, lambda: _no_pictures()), binary=True)
    publisher._last_kind = FAKE.kind_of(payload(1, key=True))
    publisher._put(payload(2, key=False))
    publisher._begin_connection()
    publisher._put(payload(3, key=False))
    assert (publisher._slot, publisher.dropped) == (None, 2)
    publisher._put(payload(4, key=True))
    assert publisher._slot is not None


def _no_pictures() -> Any:
    yield from ()
