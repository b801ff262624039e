"""What the parts of one gateway share: settings, metrics, the hub, the router client, budgets and open connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakValueDictionary

from watchout.common.errors import RESTART
from watchout.common.metrics import Metrics
from watchout.common.service import Tasks
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client.frame_reader import SCRATCH_BYTES
from watchout.gateway.client.turns import Turns
from watchout.gateway.client.unfinished import Unfinished
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.hub.waiting_frames import WaitingFrames
from watchout.gateway.presence import Presence
from watchout.gateway.quotas import AlertRates, Connections
from watchout.gateway.revalidation import RevalidatedClient
from watchout.gateway.router_client import RouterClient
from watchout.gateway.shares.tokens import ShareTokens
from watchout.gateway.silence import SilenceTable
from watchout.gateway.stream_ids import StreamIds
from watchout.gateway.why.recorder import Recorder
from watchout.identity import Authenticator

#: Replays of recent alerts that run at once, each holding the alerts that the router keeps of one stream; on the whole
#: gateway, and for one user.
MAX_RUNNING_REPLAYS: Final = 32
MAX_RUNNING_REPLAYS_PER_USER: Final = 4
#: Seconds for which who asks whether this gateway can serve waits for the router, and then for the session store.
HEALTH_TIMEOUT_S: Final = 1.0


class OpenSocket(Protocol):
    """An open WebSocket of this gateway, as `Context` lists it; implemented by `client.socket`.

    `Sweep` calls `sweep` every few seconds; `end` and `abort` are called when the gateway shuts down.
    """

    def __hash__(self) -> int: ...

    def end(self, reason: str = RESTART) -> None:
        """Close with the code that asks the client to reconnect, because the gateway restarts.

        `reason`: text of the close frame.
        """

    def abort(self) -> None:
        """Drop the connection at once, without a close frame."""

    def sweep(self, now: float, *, halted_s: float = 0.0) -> None:
        """Ping a quiet client, close one that stalls or is gone, and report drops to the metrics.

        `now` is the loop's time in seconds, `halted_s` the time in which this process did not run since the last
        sweep. Called every few seconds.
        """


class PingedSocket(Protocol):
    """A WebSocket whose client asked for a `ping` in every silence; implemented by `client.socket_writer`.

    `Housekeeping` calls `ping_if_silent` when it is due in `Context.silences`.
    """

    def __hash__(self) -> int: ...

    def ping_if_silent(self, now: float) -> None:
        """Send a `ping` if nothing was sent for the time that the client asked for, and enter `Context.silences` again.

        `now` is the loop's time in seconds.
        """


class MovingPicture(Protocol):
    """An MJPEG response under way, as `Context` lists it; implemented by `http.mjpeg`.

    `Sweep` calls `count_dropped` every few seconds; `end` is called when the gateway shuts down.
    """

    def __hash__(self) -> int: ...

    @property
    def subscription(self) -> Subscription:
        """The subscription that its pictures are of."""

    def end(self) -> None:
        """Send no more pictures and finish the response."""

    def count_dropped(self) -> None:
        """Report the frames dropped since the last call to the metrics."""


@dataclass(slots=True)
class Context:
    """Everything that the connections of one gateway share.

    Built once by `gateway.app`. The attributes are not replaced afterwards, `draining` and `closed` excepted.
    """

    settings: Settings
    metrics: Metrics
    tasks: Tasks
    authenticator: Authenticator
    authorization: Authorization
    presence: Presence[RevalidatedClient]
    connections: Connections
    hub: Hub
    router: RouterClient
    stream_ids: StreamIds
    #: Rate of the alerts that publishers send, by user.
    alert_rates: AlertRates
    #: Rate of `POST /alerts`, for all ML services together.
    service_alert_rate: AlertRates
    #: Makes and reads the tokens of shared streams.
    share_tokens: ShareTokens
    #: What is remembered for `watchout-ctl why`, and the access log.
    recorder: Recorder
    #: Read buffer that all sockets share; empty between two callbacks of the event loop.
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH_BYTES)))
    #: Open WebSockets.
    sockets: set[OpenSocket] = field(default_factory=set)
    #: MJPEG responses under way.
    moving_pictures: set[MovingPicture] = field(default_factory=set)
    #: True once the gateway is about to end, and asks its clients to reconnect elsewhere.
    draining: bool = False
    #: True once a drain has asked all of them: a further one is asked at once.
    closed: bool = False
    #: Set when the last WebSocket has closed during a drain.
    all_gone: asyncio.Event = field(default_factory=asyncio.Event)
    #: Permits for replays of recent alerts on this gateway; those of one user come from `replays_of`.
    replays: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_RUNNING_REPLAYS))
    _replays_by_user: WeakValueDictionary[str, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)

    #: Budget for request heads and messages that clients have begun and not finished.
    unfinished: Unfinished = field(init=False)
    #: Order in which clients get processing time when their bytes are expensive.
    turns: Turns = field(init=False)
    #: Budget for frames that viewers have not read yet.
    waiting_frames: WaitingFrames = field(init=False)

    #: Sockets whose clients asked for a `ping` in every silence.
    silences: SilenceTable[PingedSocket] = field(default_factory=SilenceTable)

    def __post_init__(self) -> None:
        self.unfinished = Unfinished(self.settings, self.metrics)
        self.turns = Turns(lambda work: asyncio.get_running_loop().call_soon(work))
        self.waiting_frames = WaitingFrames(self.settings.waiting_frame_bytes)

    def replays_of(self, user: str) -> asyncio.Semaphore:
        """Return the permits for replays of one user; freed when nobody holds or awaits one."""
        found = self._replays_by_user.get(user)
        if found is None:
            found = self._replays_by_user[user] = asyncio.Semaphore(MAX_RUNNING_REPLAYS_PER_USER)
        return found

    def count_dropped(self, subscription: Subscription) -> None:
        """Add the frames that a subscription dropped since the last call to the metrics and the hub's report."""
        dropped = subscription.take_newly_dropped()
        if dropped:
            self.hub.reports.count_dropped(subscription.stream, dropped)
            self.recorder.dropped(subscription, dropped)
            for why, count in dropped.items():
                self.metrics.values[why.metric] += count
