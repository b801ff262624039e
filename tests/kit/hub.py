"""A `Hub` with fake viewers and publishers around it, for tests of the hub."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.playbook import START_MS, owned_by, read
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    Interest,
    PublicationState,
    Release,
    StatusUpdate,
    StreamStatus,
)
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.streams import DirectReceiver, Publication
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.model import Owner, StreamState
from watchout.gateway.wire import Format, frame_message
from watchout.identity import Identity

ANN = Identity("ann", "1")


class FakeViewer:
    """A viewer with a real outbound queue, which keeps what is written to it, decoded."""

    def __init__(self, hub: Hub, **limits: int) -> None:
        self.hub = hub
        self.queue = OutboundQueue(Settings(**limits), lambda subscription, frame: frame.to_json())  # type: ignore[arg-type]
        self.frames: list[tuple[str, int]] = []
        self.messages: list[dict[str, Any]] = []
        self.subscriptions: list[Subscription] = []
        self.order: list[str] = []

    def subscribe(
        self,
        stream: str,
        found: StreamStatus = "offline",
        owner: str | None = None,
        *,
        now: float = 0.0,
        video: bool = True,
        alerts: bool = True,
        **options: Any,
    ) -> bool:
        """Subscribe; whether the newest frame is to be asked of the router."""
        subscription = Subscription(stream, ANN, video=video, alerts=alerts, **options)
        self.subscriptions.append(subscription)
        return self.hub.subscribe(subscription, self, StreamState(found, owned_by(owner)), now, ms(now))

    def leave(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self.subscriptions:
            self.queue.remove(subscription)
            self.hub.unsubscribe(subscription)
        self.subscriptions.clear()

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        self.order.append("frame")
        if self.queue.offer_frame(subscription, frame, now):
            self.frames.append((frame.stream_id, frame.frame_id))
        elif subscription.waiting_frame is not None and (at := subscription.release_at()) > now:
            self.hub.delivery.rate_waits.enter(self, at)

    def release_waiting(self, now: float) -> float | None:
        """Write what the rates permit now, as a socket does."""
        while not self.queue.blocked and (wire := self.queue.next(now)) is not None:
            written = json.loads(wire)
            self.frames.append((written["streamId"], written["frameId"]))
        return self.queue.release_at(now)

    def send_message(self, message: bytes) -> None:
        self.order.append("message")
        try:
            self.queue.offer_message(message)
        except OutboundQueueFull:
            self.leave()
        else:
            self.messages.append(read(message))

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        self.send_message(message)

    def on_permission_lost(self, stream: str) -> None:
        """Nothing: the room that asks for it is tested elsewhere."""

    @property
    def statuses(self) -> list[str]:
        return [m["status"] for m in self.messages if m["type"] == "status"]

    @property
    def alerts(self) -> list[str]:
        return [m["id"] for m in self.messages if m["type"] == "alert"]


class FakePublisher:
    """A publisher that keeps the messages it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.lost: list[str] = []

    def send_message(self, message: bytes) -> None:
        self.messages.append(read(message))

    def on_taken_over(self, stream: str) -> None:
        self.lost.append(stream)


class HubHarness:
    """A hub without a router: keeps the ids of the frames for the bus, and counts the calls of `wake`.

    `direct` has an (address, frame id) for each frame that was sent to another member directly.
    """

    def __init__(self) -> None:
        self.pushed: list[int] = []
        self.direct: list[tuple[str, int]] = []
        self.woken = 0
        self.hub = Hub(
            wake=self._wake, to_bus=lambda frame: self.pushed.append(frame.frame_id), to_members=self._to_members
        )

    def _to_members(self, frame: Frame, receivers: list[DirectReceiver]) -> None:
        self.direct += [(receiver.at, frame.frame_id) for receiver in receivers]

    def _wake(self) -> None:
        self.woken += 1

    def publish(
        self,
        phone: FakePublisher,
        stream: str = "door",
        *,
        user: str = "ann",
        term: int = 1,
        first: int = 1,
        producing: bool = True,
        wants_alerts: bool = False,
        wants_demand: bool = False,
        now: float = 0.0,
    ) -> Publication:
        return self.hub.publish(
            stream,
            Owner(user),
            phone,
            term=term,
            first_frame_id=first,
            producing=producing,
            wants_alerts=wants_alerts,
            wants_demand=wants_demand,
            now=now,
            now_ms=ms(now),
        )

    def frame(self, publication: Publication, now: float = 0.0, text: bytes = b'"/9j/"') -> None:
        self.hub.delivery.on_frame(
            publication, text=text, picture=None, codec=None, timestamp=ms(now), now=now, now_ms=ms(now)
        )

    def pass_time(self, until: float) -> None:
        """Let the time pass: what waits for a rate is sent when it is due, as `Housekeeping` has it."""
        waits = self.hub.delivery.rate_waits
        while (at := waits.next_at()) is not None and at <= until:
            for waiter in waits.take_due(at):
                if (again_at := waiter.release_waiting(at)) is not None:
                    assert again_at > at
                    waits.enter(waiter, again_at)

    def changes(self, now: float = 0.0) -> list[PublicationState | Interest | Release]:
        """What changed, as it is told to the router."""
        return list(self.hub.reports.changes(now))


def ms(now: float) -> int:
    return START_MS + round(now * 1000)


def remote(number: int, *, stream: str = "door", term: int = 5) -> Frame:
    return Frame(stream, number, 0, term=term, text=b'"/9j/"')


def word(status: StreamStatus, *, stream: str = "door", term: int = 5, user: str | None = "ann") -> StatusUpdate:
    return StatusUpdate(stream=stream, status=status, timestamp=0, term=term, user=user)


def alert(number: int = 1, stream: str = "door") -> Alert:
    return Alert(id=f"a{number}", stream_id=stream, severity="low", message="m", timestamp=number)


class DirectViewer:
    """A viewer as `gateway.client.socket` is one: asked once, it flows until its socket is full.

    Its socket takes `room` more messages and frames. Those of `send_message` are dropped, unless it has alerts.
    """

    def __init__(self, hub: Hub, format: Format = "json", room: int = 10**9, *, alerts: bool = False) -> None:
        self.hub = hub
        self.room = room
        self.queue = OutboundQueue(Settings(), lambda subscription, frame: frame_message(frame, subscription.format))
        self.subscription = Subscription("door", Identity("ann", None), video=True, alerts=alerts, format=format)
        self.got: list[bytes] = []
        self.queued = self.alerts_asked = 0

    def write(self, wire: bytes) -> None:
        assert not self.queue.blocked
        self.got.append(wire)
        self.room -= 1
        if self.room <= 0:
            self.queue.blocked = True
            self.hub.delivery.stop_direct_writes(self.subscription)

    def drained(self, room: int) -> None:
        self.room, self.queue.blocked = room, False
        while not self.queue.blocked and (wire := self.queue.next(0.0)) is not None:
            self.write(wire)

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        self.queued += 1
        if subscription.format == "binary" and not frame.has_binary:
            subscription.drop(DropReason.UNDECODABLE)
            return
        if self.queue.offer_frame(subscription, frame, now):
            self.write(frame_message(frame, subscription.format))
            if not self.queue.blocked:
                self.hub.delivery.start_direct_writes(subscription, self.write)

    def send_message(self, message: bytes) -> None:
        if self.subscription.alerts and self.queue.offer_message(message):
            self.write(message)

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        self.alerts_asked += 1
        self.send_message(message)
        if not self.queue.blocked:
            self.hub.delivery.start_direct_alerts(subscription, self.write)

    def on_permission_lost(self, stream: str) -> None:
        """Not here."""

    @property
    def dropped(self) -> dict[DropReason, int]:
        return self.subscription.dropped or {}


def subscribe_directly(harness: HubHarness, *viewers: DirectViewer) -> None:
    for viewer in viewers:
        harness.hub.subscribe(viewer.subscription, viewer, StreamState("streaming", Owner("ann"), 1), 0.0, ms(0))
