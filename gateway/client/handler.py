"""Carries out what one client's `ClientProtocol` says: asks the store and the router, tells the hub, answers the
socket.

Decides nothing; every rule is in `gateway.client.protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Final, assert_never

from watchout.common import log, metric_names
from watchout.common.alerts import model
from watchout.common.bus.messages import GrantedReply, RefusedReply
from watchout.common.bus.reply_records import RecentAlertRow
from watchout.common.clock import now_ms
from watchout.common.errors import CloseCode, ErrorCode, RouterUnavailable, StoreUnavailable
from watchout.gateway import wire
from watchout.gateway.client.client_socket import ClientSocket
from watchout.gateway.client.frame_reader import FrameReader
from watchout.gateway.client.protocol import (
    Acknowledged,
    AskClaim,
    AskOwner,
    ChangeOwner,
    ChangePublication,
    ClientProtocol,
    Close,
    Command,
    Publish,
    Reply,
    SendAlert,
    SendFrame,
    Unpublish,
    Unwatch,
    Verify,
    Waiting,
    Watch,
)
from watchout.gateway.context import Context
from watchout.gateway.hub.streams import Publication
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.model import Owner
from watchout.identity import Identity, Token

ABUSE: Final = "repeated abuse"

#: Streams of one socket whose recent alerts are on their way, or wait for their turn.
MAX_REPLAYS: Final = 64
#: How long they wait for it, and how long a viewer may take to read them, in seconds.
REPLAY_TURN_S: Final = 5.0
REPLAY_S: Final = 30.0

#: Skipped for another reason than that the viewer wished it so.
_WORTH_A_LINE: Final = frozenset({DropReason.SLOW, DropReason.WINDOW, DropReason.UNDECODABLE})

_log = log.get("gateway.client.handler")


class ClientHandler:
    """One client's conversation, from the accepted handshake on."""

    __slots__ = (
        "_audited",
        "_auth_timer",
        "_context",
        "_loop",
        "_replaying",
        "_replays",
        "_socket",
        "_user",
        "publication",
        "session",
    )

    def __init__(self, context: Context, socket: ClientSocket, session: ClientProtocol) -> None:
        self.session = session
        self._context = context
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self.publication: Publication | None = None
        self._user: str | None = None
        self._auth_timer: asyncio.TimerHandle | None = None
        self._audited = False
        self._replays: dict[Subscription, asyncio.Task[None]] | None = None
        self._replaying: asyncio.Lock | None = None

    # ── from the socket ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, *, refused: str | None, store_away: bool) -> None:
        """The handshake was accepted. `refused`: a limit of connections that is reached."""
        if refused is not None:
            self.run(self.session.too_many(refused, now_ms()))
        elif store_away:
            self.run(self.session.store_unavailable(now_ms()))
        elif self._context.draining:
            self.end()
        elif self.session.identity is None:
            self._auth_timer = self._loop.call_later(self._context.settings.auth_timeout_s, self._auth_timeout)
        else:
            self._joined(self.session.identity)

    def hear(self, data: bytes, now: float, *, text: bool) -> None:
        """A whole message came."""
        self._context.metrics.values[metric_names.MESSAGES_IN] += 1
        clock_ms = now_ms()
        self._heard((self.session.text if text else self.session.binary)(data, now, clock_ms), now, clock_ms)

    def hear_plain(self, intake: FrameReader, count: int, publication: Publication, now: float) -> bool:
        """So many bytes came into the buffer of `intake`: whether they were one plain frame, which is then on its way.

        False: they are still to be looked at.
        """
        session = self.session
        if not session.may_send_plain:
            return False
        clock_ms = now_ms()
        taken = intake.plain(count, publication.json_head, publication.name, publication.next_frame_id, clock_ms)
        if taken is None:
            return False
        message, begin, end, timestamp, codec, size_bytes, more = taken
        self._context.metrics.values[metric_names.MESSAGES_IN] += 1
        if (commands := session.plain(size_bytes, now, clock_ms)) is not None:
            self.run(commands)
        else:
            self._context.hub.delivery.on_plain_frame(
                publication, message, begin, end, timestamp, codec, more, now, clock_ms
            )
        return True

    def _heard(self, commands: list[Command], now: float, clock_ms: int) -> None:
        if len(commands) == 1 and type(command := commands[0]) is SendFrame:  # nearly always
            self._send_frame(command, now, clock_ms)
        else:
            self.run(commands)

    def ping(self, size_bytes: int) -> None:
        """A ping came."""
        self.run(self.session.ping(size_bytes, self._loop.time(), now_ms()))

    def end(self) -> None:
        """The gateway restarts: say so."""
        self.run(self.session.close(CloseCode.RESTART, "restart"))

    def leave(self) -> None:
        """The socket ends: let go of what this client publishes and watches."""
        self._unpublish()
        for subscription in self.session.subscriptions():
            self._unwatch(subscription)

    def gone(self) -> None:
        """The connection is gone."""
        self.leave()
        if self._auth_timer is not None:
            self._auth_timer.cancel()
        self._leave_identity()

    def on_identity_changed(self, identity: Identity) -> None:
        """The session was looked up again, and something of it has changed."""
        self.run(self.session.renewed(identity, now_ms()))
        for subscription in self.session.subscriptions():
            owner = self._context.hub.last_known_owner(subscription.stream)
            if not self._context.authorization.allows(subscription, owner):
                self.right_lost(subscription.stream)

    def on_session_ended(self) -> None:
        """The session behind this socket is no more."""
        self._context.metrics.count(metric_names.CLOSED_SESSION_ENDED)
        self.run(self.session.session_ended(now_ms()))

    def right_lost(self, stream: str) -> None:
        """This viewer may watch a stream no more."""
        self.run(self.session.right_lost(stream, self._loop.time(), now_ms()))

    def taken_over(self, stream: str) -> None:
        """Another socket has this camera's stream."""
        self.publication = None
        self.run(self.session.taken_over(stream, now_ms()))

    def count_dropped(self) -> None:
        """Move what the lanes counted into the figures."""
        for subscription in self.session.subscriptions():
            self._context.count_dropped(subscription)

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, commands: list[Command]) -> None:
        """Carry out what the session said, in order."""
        for command in commands:
            match command:
                case SendFrame():
                    self._send_frame(command, self._loop.time(), now_ms())
                case Acknowledged():
                    self._socket.drain()
                case Reply():
                    self._socket.send_message(command.wire)
                case Close():
                    self._close(command)
                case Verify() | AskClaim() | AskOwner():
                    self._ask(command)
                case Publish() | ChangePublication():
                    self._publish(command)
                case Unpublish():
                    self._unpublish()
                case ChangeOwner():
                    self._change_owner(command)
                case SendAlert():
                    self._send_alert(command)
                case Watch():
                    self._watch(command)
                case Unwatch():
                    self._unwatch(command.subscription)
                case _:
                    assert_never(command)
        if self.session.unauthorized:
            self._refused()

    def _send_frame(self, command: SendFrame, now: float, clock_ms: int) -> None:
        if self.publication is not None:
            self._context.hub.delivery.on_frame(
                self.publication,
                text=command.text,
                span=command.span,
                picture=command.picture,
                codec=command.codec,
                is_base64=command.is_base64,
                more=command.more,
                timestamp=command.timestamp,
                now=now,
                now_ms=clock_ms,
            )

    def _ask(self, command: Verify | AskClaim | AskOwner) -> None:
        """Begin what takes time; the client's next messages wait for its answer."""
        self._socket.hold()
        match command:
            case Verify():
                self._leave_identity()  # the end of the former session must not end this socket
                self._context.tasks.start(self._verify(command.token), "verify")
            case AskClaim():
                self._context.tasks.start(self._claim(command), "claim")
            case AskOwner():
                self._context.tasks.start(self._find(command.stream), "find")

    def _refused(self) -> None:
        """Leave a trace of who tried what he has no right to: all of it in the figures, once a socket in the log."""
        self._context.metrics.count(metric_names.UNAUTHORIZED, self.session.unauthorized)
        self.session.unauthorized = 0
        if not self._audited and self.session.identity is not None:
            self._audited = True
            _log.info("refused for want of rights", user=self.session.identity.user_id, path=str(self.session.path))

    def _close(self, command: Close) -> None:
        if command.code is CloseCode.POLICY and command.reason == ABUSE:
            self._context.metrics.count(metric_names.CLOSED_ABUSE)
        self._socket.close(command.code, command.reason)

    def _unwatch(self, subscription: Subscription) -> None:
        if self._replays is not None and (replay := self._replays.pop(subscription, None)) is not None:
            replay.cancel()
        if subscription.counted:
            subscription.counted = False
            self._context.connections.remove_subscription(subscription.identity.user_id)
        if subscription.awaits_owner:
            subscription.awaits_owner = False
            self._context.connections.remove_awaited(subscription.identity.user_id)
        self._socket.drop(subscription)
        self._context.count_dropped(subscription)
        if subscription.dropped and subscription.dropped.keys() & _WORTH_A_LINE:
            skipped = {str(why): count for why, count in subscription.dropped.items()}
            _log.info("viewer missed frames", stream=subscription.stream, user=subscription.identity.user_id, **skipped)
        self._context.hub.unsubscribe(subscription)

    def _auth_timeout(self) -> None:
        self._auth_timer = None
        if self.session.waiting is not Waiting.STORE:  # the store has its own deadline
            self.run(self.session.auth_timeout(now_ms()))

    async def _verify(self, token: str) -> None:
        try:
            identity = await self._context.authenticator.verify(Token(token), fresh=True)
        except StoreUnavailable:
            self._context.metrics.count(metric_names.AUTH_UNAVAILABLE)
            self.run(self.session.store_unavailable(now_ms()))
            return
        if identity is None:
            self._context.metrics.count(metric_names.AUTH_REFUSED)
        if self._socket.closing:
            return
        self.run(self.session.verified(identity, now_ms()))
        if identity is not None:
            self._joined(identity)
        self._socket.resume()

    def _joined(self, identity: Identity) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None
        self._socket.trust()
        full = self._context.connections.add_socket(identity.user_id)
        if full is None:
            self._user = identity.user_id
            self._context.presence.add(self, identity, time.time())
        else:
            self.run(self.session.too_many(full.what, now_ms()))

    def _leave_identity(self) -> None:
        if self._user is not None:
            self._context.connections.remove_socket(self._user)
            self._user = None
        self._context.presence.remove(self)
        self._audited = False

    async def _claim(self, command: AskClaim) -> None:
        stream, floor = command.stream, self._context.hub.last_frame_id(command.stream)
        try:
            reply: GrantedReply | RefusedReply | None = await self._context.router.claim(
                stream, command.owner, producing=command.producing, floor=floor
            )
        except RouterUnavailable:
            reply = None
        now = self._loop.time()
        if isinstance(reply, GrantedReply) and self._socket.closing:
            self._context.router.release(stream, reply.term)
            return
        if isinstance(reply, GrantedReply):
            self.run(self.session.granted(reply.term, reply.first_frame_id, now_ms()))
        elif isinstance(reply, RefusedReply):
            self.run(self.session.refused(reply.code, reply.message, now, now_ms()))
        else:
            self.run(self.session.router_unavailable(now, now_ms()))
        self._socket.resume()

    async def _find(self, stream: str) -> None:
        try:
            word = await self._context.router.find(stream)
            user = self.session.identity.user_id if self.session.identity is not None else ""
            if not self._context.connections.may_subscribe(user):
                most = self._context.settings.max_subscriptions_per_user
                text = f"there are {most} subscriptions, which is the most of one user"
                commands = self.session.refused(ErrorCode.RATE_LIMITED, text, self._loop.time(), now_ms())
            elif word.owner is None and not self._context.connections.may_await_stream(user):
                text = (
                    f"{self._context.settings.max_waits_per_user} streams are waited for, which is the most of one user"
                )
                commands = self.session.refused(ErrorCode.RATE_LIMITED, text, self._loop.time(), now_ms())
            else:
                commands = self.session.found(word, self._loop.time(), now_ms())
        except RouterUnavailable:
            commands = self.session.router_unavailable(self._loop.time(), now_ms())
        if self._socket.closing:
            return
        self.run(commands)
        self._socket.resume()

    def _publish(self, command: Publish | ChangePublication) -> None:
        if isinstance(command, ChangePublication):
            self._change_publication(command)
            return
        hub = self._context.hub
        self._let_strangers_go(command.stream, command.owner)
        self.publication = hub.publish(
            command.stream,
            command.owner,
            self._socket,
            term=command.term,
            first_frame_id=command.first_frame_id,
            producing=command.producing,
            wants_alerts=command.wants_alerts,
            wants_demand=command.wants_demand,
            wants_status=command.wants_status,
            now=self._loop.time(),
            now_ms=now_ms(),
        )

    def _change_publication(self, command: ChangePublication) -> None:
        if self.publication is not None:
            self._context.hub.change_publication(
                self.publication,
                producing=command.producing,
                wants_alerts=command.wants_alerts,
                wants_demand=command.wants_demand,
                wants_status=command.wants_status,
                now=self._loop.time(),
                now_ms=now_ms(),
            )

    def _unpublish(self) -> None:
        if self.publication is not None:
            self._context.hub.release(self.publication, now_ms())
            self.publication = None

    def _change_owner(self, command: ChangeOwner) -> None:
        if self.publication is not None:
            self._let_strangers_go(self.publication.stream, command.owner)
            self._context.hub.change_owner(self.publication, command.owner)

    def _let_strangers_go(self, stream: str, owner: Owner) -> None:
        for _, viewer in self._context.authorization.not_permitted(self._context.hub.viewers_of(stream), owner):
            viewer.on_permission_lost(stream)

    def _send_alert(self, command: SendAlert) -> None:
        now, identity = self._loop.time(), self.session.identity
        if identity is not None and self._context.alert_rates.take(identity.user_id, now):
            self._context.tasks.start(self._alert(command), "camera alert")
        else:
            self._context.metrics.count(metric_names.ALERTS_OVER_RATE)
            self.run(self.session.alerts_over_rate(now, now_ms()))

    async def _alert(self, command: SendAlert) -> None:
        try:
            alert = model.complete(
                command.draft, alert_id=uuid.uuid4().hex, timestamp=now_ms(), stream_id=command.stream
            )
            await self._context.router.raise_alert(alert)
        except RouterUnavailable:
            text = "the alert was not handed on: the router did not answer in time, try again"
            self.run(self.session.alerts_failed(text, self._loop.time(), now_ms()))

    def _watch(self, command: Watch) -> None:
        subscription = command.subscription
        subscription.counted = True
        self._context.connections.add_subscription(subscription.identity.user_id)
        if command.word.owner is None:
            subscription.awaits_owner = True
            self._context.connections.add_awaited(subscription.identity.user_id)
        subscription.held_alerts = {} if command.alerts_since is not None else None
        ask = self._context.hub.subscribe(subscription, self._socket, command.word, self._loop.time(), now_ms())
        if ask:
            self._context.router.ask_newest(subscription.stream)
        if command.alerts_since is not None:
            self._replay_later(subscription, command.alerts_since)

    def _stands(self, subscription: Subscription) -> bool:
        """Whether the viewer still wants it, and may have it."""
        return not self._socket.closing and subscription in self.session.subscriptions()

    def _replay_later(self, subscription: Subscription, since: int) -> None:
        if self._replays is None or self._replaying is None:  # most sockets never ask
            self._replays, self._replaying = {}, asyncio.Lock()
        if len(self._replays) >= MAX_REPLAYS:
            self._not_replayed(subscription, f"those of {MAX_REPLAYS} streams are on their way already")
            return
        replays, task = (
            self._replays,
            self._context.tasks.start(self._replay_in_turn(subscription, since, self._replaying), "replay of alerts"),
        )
        replays[subscription] = task
        task.add_done_callback(lambda _: replays.pop(subscription, None))

    async def _replay_in_turn(self, subscription: Subscription, since: int, turn: asyncio.Lock) -> None:
        """One after another on a socket, few of a user, and not too many on the gateway: each holds in memory what its
        reader has not read. Who has no turn in time goes on without them.
        """
        of_user = self._context.replays_of(subscription.identity.user_id)
        async with contextlib.AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(REPLAY_TURN_S):
                    for each in (turn, of_user, self._context.replays):
                        await turns.enter_async_context(each)
                kept = await self._context.router.alerts(subscription.stream, since=since)
            except TimeoutError:
                self._not_replayed(subscription, "too many ask for theirs at once")
                return
            except RouterUnavailable:
                self._not_replayed(subscription, "the router did not answer in time")
                return
            try:
                async with asyncio.timeout(REPLAY_S):
                    await self._replay(subscription, kept)
            except TimeoutError:
                self._socket.too_slow(f"the recent alerts of a stream were not read within {REPLAY_S:g} s")

    def _not_replayed(self, subscription: Subscription, why: str) -> None:
        text = f"recent alerts of {subscription.stream} cannot be had now, subscribe again: {why}"
        self.run(self.session.alerts_failed(text, self._loop.time(), now_ms()))
        self._release_held(subscription, set())

    async def _replay(self, subscription: Subscription, kept: list[RecentAlertRow]) -> None:
        # What is kept comes first, then the live ones that came meanwhile: none is lost, none comes twice.
        replayed: set[str] = set()
        subscription.replayed = frozenset(alert.id for alert in kept if alert.at >= subscription.subscribed_ms)
        for alert in kept:
            await self._socket.drained()
            if not self._stands(subscription):
                return
            owner = self._context.hub.last_known_owner(subscription.stream)
            if self._context.authorization.may_receive_stored_alert(subscription.identity, alert.owner, owner):
                replayed.add(alert.id)
                self._socket.send_message(wire.text_message(alert.json))
        self._release_held(subscription, replayed)

    def _release_held(self, subscription: Subscription, replayed: set[str]) -> None:
        if not self._stands(subscription):
            return
        held, subscription.held_alerts = subscription.held_alerts or {}, None
        if subscription.held_alerts_overflowed:
            self._socket.too_slow("too many alerts came while the recent ones were sent")
            return
        for alert_id, message in held.items():
            if alert_id not in replayed:
                self._socket.send_message(message)
