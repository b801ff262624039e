"""How a client's protocol begins, confirms and ends the subscriptions of a viewer. Pure."""

from __future__ import annotations

from watchout.common.errors import ClientError, ErrorCode
from watchout.gateway import wire
from watchout.gateway.authorization import VIEWER_PERMISSIONS, Permission
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.asked_replies import PendingReply, subject_of
from watchout.gateway.client.commands import BeginSubscription, Command, EndSubscription, FindStream, Reply
from watchout.gateway.client.publishing_replies import PublishingReplies
from watchout.gateway.client.session_replies import pings_asked
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import SocketPath, StreamState
from watchout.gateway.wire import Subject


class SubscribingReplies(PublishingReplies):
    """The part of a client's protocol that is about what it views; base class of `ClientProtocol`.

    `ClientHandler` carries out the `Command`s that a method returns, in their order. Every method takes the time: `now`
    in seconds of the loop's clock, `now_ms` in ms since the epoch.

    Args:
        client: What is known of the client at its upgrade.
    """

    __slots__ = ("_subscriptions",)

    def __init__(self, client: AcceptedClient) -> None:
        super().__init__(client)
        self._subscriptions: dict[str, Subscription] = {}

    def subscriptions(self) -> list[Subscription]:
        """Return the subscriptions of this viewer, as a new list."""
        return list(self._subscriptions.values())

    def on_found(self, state: StreamState, now: float, now_ms: int) -> list[Command]:
        """Handle the state of the stream of `FindStream`: subscribe, if the viewer has the permission."""
        asked = self._take_asked()
        if self._closed or self.identity is None or not isinstance(asked, wire.Subscribe):
            return []
        subject = subject_of(asked)
        owner, consumes = state.owner, asked.consumes or []
        permissions = self._authorization.permissions(self.identity, owner, asked.stream_id)
        if not permissions & VIEWER_PERMISSIONS:
            text = "you may not view streams" if owner is None else "this stream belongs to another user"
            if self.identity.grants is not None:
                text = "your token does not permit to view this stream"
            return self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms, subject)
        if "video-frame" in consumes and Permission.VIEW not in permissions:
            text = 'you may receive the alerts of this stream, not its frames: leave "video-frame" out of `consumes`'
            return self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms, subject)
        if "alert" in consumes and Permission.ALERTS not in permissions:
            text = 'you may view this stream, not receive its alerts: leave "alert" out of `consumes`'
            return self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms, subject)
        commands: list[Command] = []
        former = self._subscriptions.pop(asked.stream_id, None)
        if former is not None:
            commands.append(EndSubscription(former))
        subscription = Subscription(
            asked.stream_id,
            self.identity,
            video="video-frame" in consumes,
            alerts="alert" in consumes,
            format=asked.format or "json",
            max_fps=asked.max_fps,
            last_frame=asked.last_frame is not False,
            window=asked.window,
        )
        self._subscriptions[asked.stream_id] = subscription
        if asked.alerts_since is not None and subscription.alerts:
            self._ask(asked, PendingReply.ALERTS)
            return [*commands, BeginSubscription(subscription, state, int(asked.alerts_since))]
        commands.append(Reply(wire.success("Subscription successful", "subscribed", now_ms, subject)))
        if subscription.video or subscription.alerts:
            commands.append(BeginSubscription(subscription, state, None))
        else:
            commands.append(Reply(wire.status(asked.stream_id, state.status, now_ms, state.info or None)))
        return [*commands, *pings_asked(asked)]

    def on_alerts_fetched(self, missing_before: int | None, now_ms: int) -> list[Command]:
        """Confirm the subscription with `alertsSince`, whose recent alerts were fetched, or are not available.

        Args:
            missing_before: The time of the oldest alert that is kept, in ms since the epoch; None: none is missing.
            now_ms: See the class.
        """
        asked = self._take_asked()
        if self._closed or asked is None:
            return []
        more = {"recovered": True} if missing_before is None else {"recovered": False, "from": missing_before}
        success = wire.success("Subscription successful", "subscribed", now_ms, subject_of(asked), **more)
        return [Reply(success), *pings_asked(asked)]

    def on_permission_lost(self, stream: str, now: float, now_ms: int) -> list[Command]:
        """Handle that the viewer may not receive this stream any more; the socket stays open."""
        subscription = self._subscriptions.pop(stream, None)
        if subscription is None:
            return []
        text, subject = f"you may not view stream {stream} any more", Subject(stream_id=stream)
        if isinstance(asked := self._asked, wire.Subscribe) and asked.stream_id == stream:
            subject = subject_of(asked)
            if self.pending is PendingReply.ALERTS:  # the error answers it
                self._take_asked()
        error = self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms, subject)
        return [EndSubscription(subscription), *error]

    def _subscribe(self, message: wire.Subscribe) -> list[Command]:
        self._require_path(SocketPath.SUBSCRIBE, "subscribe")
        limit = self._settings.max_subscriptions
        if message.stream_id not in self._subscriptions and len(self._subscriptions) >= limit:
            raise ClientError(ErrorCode.RATE_LIMITED, f"this socket has {limit} subscriptions, the limit of one socket")
        self._ask(message, PendingReply.OWNER)
        return [FindStream(message.stream_id)]

    def _unsubscribe(self, message: wire.Unsubscribe, now_ms: int) -> list[Command]:
        self._require_path(SocketPath.SUBSCRIBE, "unsubscribe")
        former = self._subscriptions.pop(message.stream_id, None)
        done = Reply(wire.success("Unsubscription successful", "unsubscribed", now_ms, subject_of(message)))
        return [EndSubscription(former), done] if former is not None else [done]
