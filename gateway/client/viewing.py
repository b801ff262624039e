"""Begins, confirms and ends the subscriptions of one viewer, at the router and the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from watchout.common import log
from watchout.common.clock import now_ms
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.gateway.client.alert_replay import AlertReplays, HeldViewer
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.client.commands import BeginSubscription, Command
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.context import Context
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.wire import Subject

#: Reasons of dropped frames that are logged when a subscription ends; the others are what the viewer asked for.
_LOGGED_DROPS: Final = frozenset({DropReason.SLOW, DropReason.WINDOW, DropReason.UNDECODABLE})

_log = log.get("gateway.client.viewing")


class Viewing:
    """What one client views; made by its `ClientHandler` at its first `subscribe`.

    Args:
        context: What the gateway's connections share.
        socket: The viewer's socket.
        protocol: The viewer's protocol, which decides what it may view.
        run: Carries out the protocol's commands.
    """

    __slots__ = ("_context", "_loop", "_protocol", "_replays", "_run", "_socket")

    def __init__(
        self,
        context: Context,
        socket: ClientSocket,
        protocol: ClientProtocol,
        run: Callable[[list[Command]], None],
    ) -> None:
        self._context = context
        self._socket = socket
        self._protocol = protocol
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._replays: AlertReplays | None = None

    async def find(self, stream: str) -> None:
        """Ask the router for the stream that the viewer wants to subscribe to, and report it to the protocol."""
        try:
            state = await self._context.router.find(stream)
            limit = self._subscription_limit(awaits_owner=state.owner is None)
            if limit is not None:
                commands = self._protocol.on_refused(ErrorCode.RATE_LIMITED, limit, self._loop.time(), now_ms())
            else:
                commands = self._protocol.on_found(state, self._loop.time(), now_ms())
        except RouterUnavailable:
            commands = self._protocol.on_router_unavailable(self._loop.time(), now_ms())
        if self._socket.closing:
            return
        self._run(commands)
        self._socket.resume_messages()

    def begin(self, command: BeginSubscription) -> None:
        """Begin to deliver a stream; with `alerts_since`, once the recent alerts have been fetched."""
        subscription = command.subscription
        subscription.counted = True
        subscription.connection = self._socket.tally.connection
        self._socket.tally.name_stream(subscription.stream)
        self._context.connections.add_subscription(subscription.identity.user_id)
        if command.state.owner is None:
            subscription.awaits_owner = True
            self._context.connections.add_awaited(subscription.identity.user_id)
        hub, now = self._context.hub, self._loop.time()
        if command.alerts_since is None:
            if hub.subscribe(subscription, self._socket, command.state, now, now_ms()):
                self._context.router.request_newest(subscription.stream)
            return
        subscription.held_alerts = {}
        hub.subscribe(subscription, HeldViewer(self._socket), command.state, now, now_ms(), held=True)
        if self._replays is None:  # most viewers never ask for one
            self._replays = AlertReplays(
                self._context,
                self._socket,
                self._protocol,
                confirm=self._confirm,
                report_failure=self._report_failure,
            )
        self._replays.begin(subscription, command.alerts_since)

    def end(self, subscription: Subscription) -> None:
        """Deliver nothing more of a subscription; does nothing when it has ended."""
        if self._replays is not None:
            self._replays.cancel(subscription)
        if is_first := subscription.counted:
            subscription.counted = False
            self._context.connections.remove_subscription(subscription.identity.user_id)
        if subscription.awaits_owner:
            subscription.awaits_owner = False
            self._context.connections.remove_awaited(subscription.identity.user_id)
        self._socket.discard_waiting(subscription)
        self._context.count_dropped(subscription)
        if subscription.dropped and subscription.dropped.keys() & _LOGGED_DROPS:
            dropped = {str(reason): count for reason, count in subscription.dropped.items()}
            _log.info(
                "frames dropped for a viewer", stream=subscription.stream, user=subscription.identity.user_id, **dropped
            )
        self._context.hub.unsubscribe(subscription)
        if is_first:
            self._socket.tally.add_subscription(subscription)
            if not self._socket.closing:
                self._context.recorder.unsubscribed(subscription)

    def release(self) -> None:
        """Let go of what refers to this object, because the connection is lost."""
        self._replays = None

    def _subscription_limit(self, *, awaits_owner: bool) -> str | None:
        """Return the limit of the user that one more subscription would exceed, as a text for the client, or None."""
        settings, connections = self._context.settings, self._context.connections
        identity = self._protocol.identity
        user = "" if identity is None else identity.user_id
        if not connections.may_subscribe(user):
            return f"this user has {settings.max_subscriptions_per_user} subscriptions, the limit of one user"
        if awaits_owner and not connections.may_await_stream(user):
            return (
                f"this user waits for {settings.max_waits_per_user} streams that are not registered, the limit of one "
                "user"
            )
        return None

    def _confirm(self, subscription: Subscription, missing_before: int | None) -> None:
        """Answer a `subscribe` with `alertsSince`, and begin to deliver; see `ClientProtocol.on_alerts_fetched`."""
        self._run(self._protocol.on_alerts_fetched(missing_before, now_ms()))
        if self._context.hub.begin_delivery(subscription, self._socket, self._loop.time(), now_ms()):
            self._context.router.request_newest(subscription.stream)
        self._socket.resume_messages()

    def _report_failure(self, message: str, subject: Subject) -> None:
        """Report recent alerts that are not available."""
        self._run(self._protocol.on_alert_failed(message, self._loop.time(), now_ms(), subject))
