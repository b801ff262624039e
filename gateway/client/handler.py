"""Carries out the commands of one client's `ClientProtocol`: at the session store, the router, the hub and the socket.

It reports each result to the protocol, which returns the next commands. All rules are in `gateway.client.protocol`.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import assert_never

from watchout.common import log, metric_names
from watchout.common.bus.messages import GrantedReply, RefusedReply
from watchout.common.clock import now_ms
from watchout.common.errors import RESTART, CloseCode, RouterUnavailable, StoreUnavailable
from watchout.gateway import fastpath
from watchout.gateway.client.alert_commands import AlertCommands
from watchout.gateway.client.asked_replies import PendingReply
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.client.commands import (
    AcknowledgeAlert,
    AcknowledgeFrame,
    BeginSubscription,
    ChangeOwner,
    ChangePublication,
    ClaimStream,
    Close,
    Command,
    EndSubscription,
    FindStream,
    PingSilence,
    PublicationOptions,
    Publish,
    PublishFrame,
    RenewSession,
    Reply,
    SubmitAlert,
    Unpublish,
    VerifyToken,
    WriteWaiting,
)
from watchout.gateway.client.error_replies import ABUSE
from watchout.gateway.client.frame_acks import FrameAcks
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.client.viewing import Viewing
from watchout.gateway.context import Context
from watchout.gateway.hub.streams import Publication
from watchout.gateway.model import Owner
from watchout.identity import Identity, Token

_log = log.get("gateway.client.handler")


class ClientHandler:
    """The handler of one client, from the accepted upgrade until its connection is lost.

    `WebSocket` makes one after the upgrade and reports messages and the connection's state to it; the hub and
    `Revalidation` report lost permissions and changed auth sessions.

    Args:
        context: What the gateway's connections share.
        socket: The client's socket.
        protocol: The client's protocol state.
    """

    __slots__ = (
        "_acks",
        "_alerts",
        "_audited",
        "_auth_timer",
        "_context",
        "_loop",
        "_socket",
        "_user",
        "_viewing",
        "protocol",
        "publication",
    )

    def __init__(self, context: Context, socket: ClientSocket, protocol: ClientProtocol) -> None:
        self.protocol = protocol
        self._context = context
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        #: The stream that this client publishes now.
        self.publication: Publication | None = None
        #: The user under which the connection is counted and present.
        self._user: str | None = None
        self._auth_timer: asyncio.TimerHandle | None = None
        #: A request without permission was logged; once per identity is enough.
        self._audited = False
        self._viewing: Viewing | None = None
        #: Acknowledgements of frames; None: the camera never asked for them.
        self._acks: FrameAcks | None = None
        self._alerts: AlertCommands | None = None

    # ── from the socket ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def user_id(self) -> str | None:
        """The id of the authenticated user; None: the client is not authenticated."""
        identity = self.protocol.identity
        return None if identity is None else identity.user_id

    @property
    def is_waiting(self) -> bool:
        """Whether a reply is pending: the socket holds the client's messages back."""
        return self.protocol.pending is not None

    def begin(self, *, limit: str | None, store_unavailable: bool) -> None:
        """Begin after the upgrade response was sent.

        Args:
            limit: The limit of connections that is reached, as the end of a sentence; the client is closed. None: none.
            store_unavailable: The upgrade carried a token that could not be verified; the client is closed.
        """
        if limit is not None:
            self.run(self.protocol.on_connection_limit(limit, now_ms()))
        elif store_unavailable:
            self.run(self.protocol.on_store_unavailable(now_ms()))
        elif self._context.closed:
            self.end()
        elif self.protocol.identity is None:
            self._auth_timer = self._loop.call_later(self._context.settings.auth_timeout_s, self._on_auth_timeout)
        else:
            self._join(self.protocol.identity)

    def receive(self, data: bytes, now: float, *, text: bool) -> None:
        """Process a complete message; `now` is the loop's time in seconds."""
        clock_ms = now_ms()
        protocol, publication = self.protocol, self.publication
        if (
            text
            and publication is not None
            and fastpath.take_payload is not None
            and protocol.may_send_plain
            and (
                taken := fastpath.take_payload(
                    data, publication.json_head, publication.name, publication.next_frame_id, clock_ms
                )
            )
        ):
            self._publish_plain(publication, taken, now, now, clock_ms)
            return
        self._context.metrics.values[metric_names.MESSAGES_IN] += 1
        commands = (protocol.receive_text if text else protocol.receive_binary)(data, now, clock_ms)
        if len(commands) == 1 and type(command := commands[0]) is PublishFrame:  # nearly always
            self._publish_frame(command, now, clock_ms)
        else:
            self.run(commands)

    def receive_plain(
        self, reader: FrameReader, count: int, publication: Publication, now: float, began_at: float
    ) -> bool:
        """Process the last `count` bytes in the reader's buffer if they are exactly one plain frame.

        Returns False when they are anything else; the caller then processes them in another way. `now` is the loop's
        time in seconds, `began_at` that of the frame's first bytes.
        """
        if not self.protocol.may_send_plain:
            return False
        clock_ms = now_ms()
        taken = reader.plain(count, publication.json_head, publication.name, publication.next_frame_id, clock_ms)
        if taken is None:
            return False
        self._publish_plain(publication, taken, now, began_at, clock_ms)
        return True

    def receive_next_plain(self, reader: FrameReader, publication: Publication, now: float) -> bool:
        """Process the plain frame with which the reader's bytes begin; return whether they do. `now` in seconds."""
        if not self.protocol.may_send_plain:
            return False
        clock_ms = now_ms()
        taken = reader.next_plain(publication.json_head, publication.name, publication.next_frame_id, clock_ms)
        if taken is None:
            return False
        self._publish_plain(publication, taken, now, now, clock_ms)
        return True

    def _publish_plain(
        self, publication: Publication, taken: fastpath.Taken, now: float, began_at: float, clock_ms: int
    ) -> None:
        """Count a plain frame and deliver it, unless it is over a rate."""
        message, begin, end, timestamp, codec, size_bytes, more = taken
        self._context.metrics.values[metric_names.MESSAGES_IN] += 1
        if (commands := self.protocol.receive_plain(size_bytes, now, clock_ms)) is not None:
            self.run(commands)
        else:
            publication.began_at = began_at
            self._context.hub.delivery.on_plain_frame(
                publication, message, begin, end, timestamp, codec, more, now, clock_ms
            )
        if self._acks is not None:
            self._acks.add(publication.next_frame_id - 1, timestamp)

    def receive_control(self, size_bytes: int) -> None:
        """Count a ping, a pong or a group of fragments as a message of `size_bytes`."""
        self.run(self.protocol.receive_control(size_bytes, self._loop.time(), now_ms()))

    def on_pong(self, data: bytes) -> None:
        """Handle a pong, which has the bytes of the ping that it answers."""
        if self.publication is not None:
            self._context.router.latency.on_pong(self.publication, data)

    def on_writing_paused(self) -> None:
        """Let frames pass through the outbound queue, because the kernel takes no more."""
        for subscription in self.protocol.subscriptions():
            self._context.hub.delivery.stop_direct_writes(subscription)

    def on_slow_consumer(self, reason: str | None) -> None:
        """Close a client that does not read its messages; `reason`: see `ClientSocket.close_slow`."""
        self.run(self.protocol.on_slow_consumer(now_ms(), reason))

    def on_message_timeout(self) -> None:
        """Close a client whose message stalls."""
        self.run(self.protocol.on_message_timeout(now_ms()))

    def end(self, reason: str = RESTART) -> None:
        """Close with the code that asks the client to reconnect, because the gateway restarts."""
        self.run(self.protocol.close(CloseCode.RESTART, reason))

    def leave(self) -> None:
        """End the publication and all subscriptions, because the socket is closing."""
        self._count_limited()
        self._unpublish()
        if self._viewing is not None:
            for subscription in self.protocol.subscriptions():
                self._viewing.end(subscription)

    def on_connection_lost(self) -> None:
        """Release everything that this client holds."""
        self.leave()
        if self._auth_timer is not None:
            self._auth_timer.cancel()
        self._leave_identity()
        if self._alerts is not None:
            self._alerts.cancel()
        if self._viewing is not None:
            self._viewing.release()
        self._viewing = self._alerts = self._acks = None  # they refer to this handler or its socket

    def last_direct_write_at(self) -> float:
        """Return when a frame was last written directly to this viewer, in seconds of the loop's clock."""
        written_at = self._context.hub.delivery.direct_write_at
        return max((written_at(each) for each in self.protocol.subscriptions()), default=-math.inf)

    def count_dropped(self) -> None:
        """Report the frames dropped for this viewer since the last call to the metrics."""
        for subscription in self.protocol.subscriptions():
            self._context.count_dropped(subscription)
        self._count_limited()

    def _count_limited(self) -> None:
        """Remember the messages over the rates since the last call."""
        if self.protocol.limited:
            stream = "" if self.publication is None else self.publication.stream
            self._context.recorder.limited(self._socket.tally, self.user_id, stream, self.protocol.limited)
            self.protocol.limited = 0

    # ── from the hub and the revalidation ────────────────────────────────────────────────────────────────────────

    def on_identity_changed(self, identity: Identity) -> None:
        """Apply a changed identity, and end the subscriptions that it may not have any more."""
        self.run(self.protocol.on_identity_changed(identity, now_ms()))
        self._end_lost_subscriptions()

    def _end_lost_subscriptions(self) -> None:
        """End the subscriptions for which the client has no permission any more."""
        for subscription in self.protocol.subscriptions():
            owner = self._context.hub.last_known_owner(subscription.stream)
            if not self._context.authorization.allows(subscription, owner):
                self.on_permission_lost(subscription.stream)

    def on_session_ended(self) -> None:
        """Close, because the auth session has ended."""
        self.run(self.protocol.on_session_ended(now_ms()))

    def on_permission_lost(self, stream: str) -> None:
        """End the subscription to a stream that this viewer may not receive any more."""
        waited = self.is_waiting
        self.run(self.protocol.on_permission_lost(stream, self._loop.time(), now_ms()))
        if waited and not self.is_waiting:
            self._socket.resume_messages()

    def on_taken_over(self, stream: str) -> None:
        """Close, because another socket registered the stream."""
        self._let_go()
        self.run(self.protocol.on_taken_over(stream, now_ms()))

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, commands: list[Command]) -> None:
        """Carry out commands of the protocol, in order."""
        for command in commands:
            match command:
                case PublishFrame():
                    self._publish_frame(command, self._loop.time(), now_ms())
                case Reply():
                    self._socket.send_message(command.wire)
                case Close() | WriteWaiting() | PingSilence() | AcknowledgeFrame():
                    self._use_socket(command)
                case RenewSession():
                    self._context.tasks.start(self._renew(command.token), "renew")
                case VerifyToken() | ClaimStream() | FindStream():
                    self._request(command)
                case Publish() | ChangePublication() | ChangeOwner() | Unpublish():
                    self._change_stream(command)
                case SubmitAlert() | AcknowledgeAlert():
                    self._alert(command)
                case BeginSubscription():
                    self._views().begin(command)
                case EndSubscription():
                    self._views().end(command.subscription)
                case _:
                    assert_never(command)
        if self.protocol.unauthorized:
            self._count_unauthorized()

    def _publish_frame(self, command: PublishFrame, now: float, clock_ms: int) -> None:
        if self.publication is not None:
            self.publication.began_at = now
            if command.request_id is not None:
                self.publication.remember_request(command.request_id)
            self._context.hub.delivery.on_frame(
                self.publication,
                text=command.text,
                picture=command.picture,
                codec=command.codec,
                more=command.more,
                timestamp=command.timestamp,
                now=now,
                now_ms=clock_ms,
            )
            self._acknowledge(command.timestamp)

    def _acknowledge(self, timestamp: int) -> None:
        """Acknowledge a frame to a camera that has a window; `timestamp` is the camera's, in ms since the epoch."""
        if self._acks is not None and self.publication is not None:
            self._acks.add(self.publication.next_frame_id - 1, timestamp)

    def _begin_acks(self, stream: str, options: PublicationOptions) -> None:
        """Acknowledge the frames of the registered stream from now on, or none."""
        if options.acknowledges and self._acks is None:
            self._acks = FrameAcks(self._socket)
        if self._acks is not None:
            self._acks.stream = stream if options.acknowledges else None
            self._acks.times.window = options.window

    def _time_acks(self, publication: Publication) -> None:
        """Let the acknowledgements tell of the camera's clock."""
        acks = self._acks if self._acks is not None and self._acks.stream is not None else None
        publication.camera_clock.acks = None if acks is None else acks.times

    def _use_socket(self, command: Close | WriteWaiting | PingSilence | AcknowledgeFrame) -> None:
        match command:
            case Close():
                if command.code is CloseCode.POLICY and command.reason == ABUSE:
                    self._context.metrics.count(metric_names.CLOSED_ABUSE)
                elif command.code is CloseCode.SESSION_ENDED:
                    self._context.metrics.count(metric_names.CLOSED_SESSION_ENDED)
                self._socket.close(command.code, command.reason)
            case WriteWaiting():
                self._socket.write_waiting()
            case PingSilence():
                self._socket.ping_silence(command.every_s)
            case AcknowledgeFrame():
                self._acknowledge(command.timestamp)

    def _count_unauthorized(self) -> None:
        """Count requests without permission in the metrics, and log the first of an identity."""
        self._context.metrics.count(metric_names.UNAUTHORIZED, self.protocol.unauthorized)
        self.protocol.unauthorized = 0
        if not self._audited and (user := self.user_id) is not None:
            self._audited = True
            _log.info("request refused: no permission", user=user, path=str(self.protocol.path))

    def _request(self, command: VerifyToken | ClaimStream | FindStream) -> None:
        """Start a request to the store or the router; the client's next messages are held back until its reply."""
        self._socket.hold_messages()
        match command:
            case VerifyToken():
                self._leave_identity()  # the end of the former auth session must not close this socket
                self._context.tasks.start(self._verify(command.token), "verify")
            case ClaimStream():
                self._context.tasks.start(self._claim(command), "claim")
            case FindStream():
                self._context.tasks.start(self._views().find(command.stream), "find")

    # ── authentication ───────────────────────────────────────────────────────────────────────────────────────────

    async def _verify(self, token: str) -> None:
        try:
            identity = await self._context.authenticator.verify(Token(token), fresh=True)
        except StoreUnavailable:
            self._context.metrics.count(metric_names.AUTH_UNAVAILABLE)
            self.run(self.protocol.on_store_unavailable(now_ms()))
            return
        if identity is None:
            self._context.metrics.count(metric_names.AUTH_REFUSED)
        if self._socket.closing:
            return
        self.run(self.protocol.on_verified(identity, now_ms()))
        if identity is not None:
            self._join(identity)
        self._socket.resume_messages()

    async def _renew(self, token: str) -> None:
        """Verify the token of a renewal; from then on the socket lives by its session."""
        try:
            identity = await self._context.authenticator.verify(Token(token), fresh=True)
        except StoreUnavailable:
            self._context.metrics.count(metric_names.AUTH_UNAVAILABLE)
            self.run(self.protocol.on_renewal_unavailable(self._loop.time(), now_ms()))
            return
        if self._socket.closing:
            return
        commands = self.protocol.on_renewed(identity, self._loop.time(), now_ms())
        if identity is None or self.protocol.identity is not identity:
            self._context.metrics.count(metric_names.AUTH_REFUSED)
        else:
            self._context.presence.add(self, identity, now=time.time())
        self.run(commands)
        self._end_lost_subscriptions()

    def _join(self, identity: Identity) -> None:
        """Count the connection for its user and make it present, or close it when the user has too many."""
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None
        self._socket.on_authenticated()
        limit = self._context.connections.add_socket(identity.user_id)
        if limit is None:
            self._user = identity.user_id
            self._context.presence.add(self, identity, time.time())
        else:
            self.run(self.protocol.on_connection_limit(limit.what, now_ms()))

    def _leave_identity(self) -> None:
        """Count the connection for nobody any more."""
        if self._user is not None:
            self._context.connections.remove_socket(self._user)
            self._user = None
        self._context.presence.remove(self)
        self._audited = False

    def _on_auth_timeout(self) -> None:
        self._auth_timer = None
        if self.protocol.pending is not PendingReply.STORE:  # a verification has a deadline of its own
            self.run(self.protocol.on_auth_timeout(now_ms()))

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _claim(self, command: ClaimStream) -> None:
        stream, floor = command.stream, self._context.hub.last_frame_id(command.stream)
        try:
            reply: GrantedReply | RefusedReply | None = await self._context.router.claim(
                stream,
                command.owner,
                producing=command.producing,
                floor=floor,
                granted=command.granted,
                info=command.info,
            )
        except RouterUnavailable:
            reply = None
        now = self._loop.time()
        if isinstance(reply, GrantedReply) and self._socket.closing:
            self._context.router.release(stream, reply.term)
            return
        if isinstance(reply, GrantedReply):
            owner = None if reply.user is None else Owner(reply.user, frozenset(reply.organizations))
            self.run(self.protocol.on_claimed(reply.term, reply.first_frame_id, now_ms(), owner))
        elif isinstance(reply, RefusedReply):
            self.run(self.protocol.on_refused(reply.code, reply.message, now, now_ms()))
        else:
            self.run(self.protocol.on_router_unavailable(now, now_ms()))
        self._socket.resume_messages()

    def _change_stream(self, command: Publish | ChangePublication | ChangeOwner | Unpublish) -> None:
        match command:
            case Publish():
                self._publish(command)
            case ChangePublication():
                self._change_publication(command.options)
            case ChangeOwner():
                self._change_owner(command)
            case Unpublish():
                self._unpublish()

    def _publish(self, command: Publish) -> None:
        options = command.options
        self._let_go()
        self._socket.tally.name_stream(command.stream)
        self._end_foreign_subscriptions(command.stream, command.owner)
        self._begin_acks(command.stream, options)
        self.publication = self._context.hub.publish(
            command.stream,
            command.owner,
            self._socket,
            term=command.term,
            first_frame_id=command.first_frame_id,
            producing=options.producing,
            wants_alerts=options.wants_alerts,
            wants_demand=options.wants_demand,
            wants_status=options.wants_status,
            info=options.info,
            now=self._loop.time(),
            now_ms=now_ms(),
        )
        self._time_acks(self.publication)

    def _change_publication(self, options: PublicationOptions) -> None:
        if self.publication is not None:
            self._begin_acks(self.publication.stream, options)
            self._time_acks(self.publication)
            self._context.hub.change_publication(
                self.publication,
                producing=options.producing,
                wants_alerts=options.wants_alerts,
                wants_demand=options.wants_demand,
                wants_status=options.wants_status,
                info=options.info,
                now=self._loop.time(),
                now_ms=now_ms(),
            )

    def _unpublish(self) -> None:
        if self.publication is not None:
            self._context.hub.release(self.publication, now_ms())
            self._let_go()

    def _let_go(self) -> None:
        """Count what the client published, which has ended."""
        if self.publication is not None:
            self._socket.tally.add_publication(self.publication)
            self.publication = None

    def _change_owner(self, command: ChangeOwner) -> None:
        if self.publication is not None:
            self._end_foreign_subscriptions(self.publication.stream, command.owner)
            self._context.hub.change_owner(self.publication, command.owner)

    def _end_foreign_subscriptions(self, stream: str, owner: Owner) -> None:
        """End the subscriptions of viewers here that may not receive the stream of this owner."""
        for _, viewer in self._context.authorization.not_permitted(self._context.hub.viewers_of(stream), owner):
            viewer.on_permission_lost(stream)

    # ── parts that most clients do not need ──────────────────────────────────────────────────────────────────────

    def _views(self) -> Viewing:
        """Return what this client views; made at the first call."""
        if self._viewing is None:
            self._viewing = Viewing(self._context, self._socket, self.protocol, self.run)
        return self._viewing

    def _alert(self, command: SubmitAlert | AcknowledgeAlert) -> None:
        if self._alerts is None:
            self._alerts = AlertCommands(self._context, self.protocol, self.run)
        self._socket.tally.alerts_in += isinstance(command, SubmitAlert)
        self._alerts.handle(command)
