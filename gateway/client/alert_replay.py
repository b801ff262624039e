"""Replays recent alerts to one viewer that subscribed with `alertsSince`, then the live ones that arrived meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.acknowledgement import acknowledged_json, acknowledged_message
from watchout.common.alerts.model import Alert
from watchout.common.bus.reply_records import RecentAlertRow
from watchout.common.clock import now_ms
from watchout.common.errors import RouterUnavailable
from watchout.common.media.frames import Frame
from watchout.gateway import wire
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.context import Context
from watchout.gateway.hub.delivery import acknowledged_key
from watchout.gateway.hub.streams import Viewer
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.wire import Subject

#: Most replays of one socket that run or wait for their turn.
MAX_REPLAYS: Final = 64
#: Seconds that a replay waits for its turn: two thousand viewers who reconnect at once have theirs within that.
REPLAY_TURN_S: Final = 30.0
#: Seconds within which a viewer has to read a replay.
REPLAY_S: Final = 30.0
#: What the router accepted so long before a subscription, in ms, may seem later than it when it is repeated: the
#: message was under way, or this process stood still.
REPEATED_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ReplayedMessage:
    """One message of a replay, made by `replay_of`: an alert, or its acknowledgement.

    `key` is that of `Subscription.held_alerts`, `at` when the router accepted it (ms), `owner` that of the alert.
    """

    key: str
    at: int
    owner: str | None
    row: RecentAlertRow
    stream: str | None = None

    def json(self) -> bytes:
        """Return the message."""
        row = self.row
        if self.stream is None or row.acknowledgement is None:
            return acknowledged_json(row.json, row.acknowledgement)
        return acknowledged_message(self.stream, row.id, row.acknowledgement)


def replay_of(rows: list[RecentAlertRow], stream: str, since_ms: int) -> list[ReplayedMessage]:
    """Return the messages of a replay: alerts, and what was acknowledged since, in the order in which it happened.

    Of an older alert only the acknowledgement is replayed. Pure.

    Args:
        rows: The router's reply, which has older alerts only when they were acknowledged since.
        stream: The stream of them.
        since_ms: The time from which the viewer asks, in ms since the epoch.
    """
    found: list[ReplayedMessage] = []
    for row in rows:
        given = row.acknowledgement
        if given is None or max(row.at, Alert.from_json(row.json).timestamp) >= since_ms:
            found.append(ReplayedMessage(row.id, row.at, row.owner, row))
        if given is not None and given.at >= since_ms:
            found.append(ReplayedMessage(acknowledged_key(row.id), max(given.at, row.at), row.owner, row, stream))
    return sorted(found, key=lambda each: each.at)


class HeldViewer:
    """A `Viewer` that takes the place of another one in the hub while recent alerts are fetched for it.

    Made by `ClientHandler` for a subscription with `alertsSince`; `Hub.begin_delivery` puts the real viewer in its
    place and sends the present status. Until then nothing is sent, except that a lost permission ends the subscription.

    Args:
        viewer: The viewer that subscribes.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """Send nothing: the hub offers no frames before `Hub.begin_delivery`."""

    def send_message(self, message: bytes) -> None:
        """Send nothing: `Hub.begin_delivery` sends the present status."""

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """Send nothing: the hub holds alerts back, in `Subscription.held_alerts`."""

    def on_permission_lost(self, stream: str) -> None:
        """End the subscription of the viewer."""
        self._viewer.on_permission_lost(stream)


class AlertReplays:
    """The replays of one viewer; made by its `ClientHandler` at the first subscription that asks for one.

    The hub holds live alerts in `Subscription.held_alerts` while a replay runs. A replay ends by sending them, except
    those that it has sent itself: so each alert arrives once.

    Args:
        context: What the gateway's connections share; its permits bound how many replays run at once.
        socket: The viewer's socket.
        protocol: The viewer's protocol, which knows its subscriptions.
        confirm: Called once for each replay, before its first alert, with the time of the oldest alert that is kept, in
            ms since the epoch; None: nothing is missing since the time that the viewer named.
        report_failure: Called with the text for the client, and its subject, when a replay is not possible.
    """

    def __init__(
        self,
        context: Context,
        socket: ClientSocket,
        protocol: ClientProtocol,
        *,
        confirm: Callable[[Subscription, int | None], None],
        report_failure: Callable[[str, Subject], None],
    ) -> None:
        self._context = context
        self._socket = socket
        self._protocol = protocol
        self._confirm = confirm
        self._report_failure = report_failure
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def begin(self, subscription: Subscription, since_ms: int) -> None:
        """Replay the alerts of a stream since `since_ms`, in milliseconds since the epoch, as soon as it is its turn.

        With `MAX_REPLAYS` under way nothing is replayed; the client gets an error and the live alerts.
        """
        tasks = self._tasks
        if len(tasks) >= MAX_REPLAYS:
            self._give_up(subscription, f"{MAX_REPLAYS} replays of this socket are under way")
            return
        tasks[subscription] = task = self._context.tasks.start(
            self._replay_in_turn(subscription, since_ms), "replay of alerts"
        )
        task.add_done_callback(lambda _: tasks.pop(subscription, None))

    def cancel(self, subscription: Subscription) -> None:
        """Cancel the replay of a subscription that has ended; does nothing when there is none."""
        if (task := self._tasks.pop(subscription, None)) is not None:
            task.cancel()

    async def _replay_in_turn(self, subscription: Subscription, since_ms: int) -> None:
        """Wait for the turn, request the alerts from the router, and send them.

        One at a time on a socket, few of one user, and not too many on the gateway: each holds the alerts in memory
        until the viewer has read them.
        """
        of_user = self._context.replays_of(subscription.identity.user_id)
        async with contextlib.AsyncExitStack() as permits:
            try:
                async with asyncio.timeout(REPLAY_TURN_S):
                    for permit in (self._turn, of_user, self._context.replays):
                        await permits.enter_async_context(permit)
                since_ms = self._context.router.queries.meant_here(subscription.stream, since_ms)
                kept = await self._context.router.queries.alerts_since(subscription.stream, since_ms)
            except TimeoutError:
                self._give_up(subscription, "too many replays are under way")
                return
            except RouterUnavailable:
                self._give_up(subscription, "the router did not answer in time")
                return
            self._confirm(subscription, kept.missing_before)
            try:
                async with asyncio.timeout(REPLAY_S):
                    await self._replay(subscription, replay_of(kept.alerts, subscription.stream, since_ms))
            except TimeoutError:
                self._socket.close_slow(f"the recent alerts of a stream were not read within {REPLAY_S:g} s")

    def _give_up(self, subscription: Subscription, reason: str) -> None:
        """Report that the recent alerts are not available, and go on with the live ones."""
        self._confirm(subscription, now_ms())
        text = f"recent alerts of {subscription.stream} are not available, subscribe again: {reason}"
        self._report_failure(text, Subject(stream_id=subscription.stream))
        self._release_held(subscription, set())

    async def _replay(self, subscription: Subscription, replay: list[ReplayedMessage]) -> None:
        """Send the messages that the viewer may receive, in their order, then the held ones."""
        replayed: set[str] = set()
        repeatable_ms = subscription.subscribed_ms - REPEATED_MS
        subscription.replayed = frozenset(each.key for each in replay if each.at >= repeatable_ms)
        for each in replay:
            await self._socket.wait_until_written()
            if not self._is_active(subscription):
                return
            owner = self._context.hub.last_known_owner(subscription.stream)
            if self._context.authorization.may_receive_stored_alert(
                subscription.identity, each.owner, owner, subscription.stream
            ):
                replayed.add(each.key)
                subscription.alerts_counted += 1
                self._socket.send_message(wire.text_message(each.json()))
        self._release_held(subscription, replayed)

    def _release_held(self, subscription: Subscription, replayed: set[str]) -> None:
        """Send the live alerts that were held, except those of these ids; from now on live ones are sent at once.

        A viewer for which more were held than the hub keeps is closed: it reconnects and asks for them again.
        """
        if not self._is_active(subscription):
            return
        held, subscription.held_alerts = subscription.held_alerts or {}, None
        if subscription.held_alerts_overflowed:
            self._socket.close_slow("too many alerts arrived while the recent ones were sent")
            return
        for alert_id, message in held.items():
            if alert_id not in replayed:
                self._socket.send_message(message)

    def _is_active(self, subscription: Subscription) -> bool:
        """Whether the subscription still stands and its socket is not closing."""
        return not self._socket.closing and subscription in self._protocol.subscriptions()
