"""What the edge rooms of one gateway share; built by `gateway.app`, changed by nobody after."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client.frame_reader import SCRATCH_BYTES
from watchout.gateway.client.turns import Turns
from watchout.gateway.client.unfinished import Unfinished
from watchout.gateway.hub.outbound_queue import Subscription
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.waiting_frames import WaitingFrames
from watchout.gateway.presence import Presence
from watchout.gateway.quotas import AlertRates, Connections
from watchout.gateway.router_client import RouterClient
from watchout.gateway.stream_ids import StreamIds
from watchout.identity import Authenticator

if TYPE_CHECKING:
    from watchout.gateway.client.handler import ClientHandler
    from watchout.gateway.client.socket import WebSocket
    from watchout.gateway.http.caller import Caller
    from watchout.gateway.http.mjpeg import Mjpeg


#: Replays of recent alerts that are under way at once, each with what the router keeps of a stream in memory; and of
#: one user.
MAX_REPLAYING: Final = 32
MAX_REPLAYING_OF_USER: Final = 4


@dataclass(slots=True)
class Context:
    """One gateway."""

    settings: Settings
    metrics: Metrics
    tasks: Tasks
    authenticator: Authenticator
    access: Authorization
    presence: Presence[ClientHandler | Mjpeg | Caller]
    connections: Connections
    hub: Hub
    link: RouterClient
    stream_ids: StreamIds
    #: Alerts of cameras, by user; and of `POST /alerts`, all services together.
    alert_rates: AlertRates
    service_alert_rate: AlertRates
    #: Where bytes are read into, of one socket after another.
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH_BYTES)))
    sockets: set[WebSocket] = field(default_factory=set)
    moving_pictures: set[Mjpeg] = field(default_factory=set)
    draining: bool = False
    replaying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REPLAYING))
    _replaying_of: WeakValueDictionary[str, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)
    all_gone: asyncio.Event = field(default_factory=asyncio.Event)

    #: What clients have begun and not finished.
    unfinished: Unfinished = field(init=False)
    #: Clients that go on in turn with what came from them.
    turns: Turns = field(init=False)
    #: Frames that viewers have not taken.
    waiting_frames: WaitingFrames = field(init=False)

    def __post_init__(self) -> None:
        self.unfinished = Unfinished(self.settings, self.metrics)
        self.turns = Turns(lambda work: asyncio.get_running_loop().call_soon(work))
        self.waiting_frames = WaitingFrames(self.settings.waiting_frame_bytes)

    def replaying_of(self, user: str) -> asyncio.Semaphore:
        """The turns of one user's replays; there while somebody has or awaits one."""
        found = self._replaying_of.get(user)
        if found is None:
            found = self._replaying_of[user] = asyncio.Semaphore(MAX_REPLAYING_OF_USER)
        return found

    def count_skipped(self, subscription: Subscription) -> None:
        """Bring into the figures what a viewer's lanes have counted since last time."""
        skipped = subscription.newly_skipped()
        if skipped:
            self.hub.missed(subscription.stream, skipped)
            for why, count in skipped.items():
                self.metrics.values[why.metric] += count
