"""State machine of one client: every rule of docs/protocol.md about which message may come when. Pure.

Its caller, `ClientHandler`, reports events by calling methods, with the time as arguments, and carries out the commands
that they return, in order. While `pending` is set, a reply of the session store or of the router is awaited, and the
caller holds the client's next messages back. After a `Close` all methods return nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, assert_never

import msgspec

from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.common.media.frames import FrameFault, parse_binary
from watchout.common.settings import Settings
from watchout.gateway import wire
from watchout.gateway.authorization import VIEWER_PERMISSIONS, Authorization, Permission
from watchout.gateway.client import first_message
from watchout.gateway.client.commands import (
    AcknowledgeAlert,
    AcknowledgeFrame,
    BeginSubscription,
    ChangeOwner,
    ChangePublication,
    ClaimStream,
    Command,
    EndSubscription,
    FindStream,
    Publish,
    PublishFrame,
    Reply,
    SubmitAlert,
    Unpublish,
    VerifyToken,
    WriteWaiting,
)
from watchout.gateway.client.refused_message import RefusedMessage, read_refused
from watchout.gateway.client.session_replies import SessionReplies, pings_asked
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import IgnoredCookie, Owner, SocketPath, StreamState
from watchout.gateway.progress import LEAST_BYTES_PER_S, OVER_S
from watchout.gateway.stream_ids import StreamIds
from watchout.gateway.wire import Subject
from watchout.identity import Identity

#: A publisher that consumes any of these receives the stream's status as well.
_CONSUMABLE: Final = frozenset({"video-frame", "alert", "demand"})
#: A message over the rates that is longer is not read: it is taken for a frame of the registered stream.
MAX_OVER_RATE_BYTES: Final = 64 * 1024
#: A message that is answered after a reply of the session store or of the router.
AskedMessage = wire.Auth | wire.Register | wire.Subscribe


class PendingReply(enum.Enum):
    """The reply that a `ClientProtocol` waits for; the client's next messages are handled after it.

    STORE: of the session store, for `auth`. CLAIM: of the router, for `register`. OWNER: of the router, for
    `subscribe`. ALERTS: of the router, for `subscribe` with `alertsSince`.
    """

    STORE = enum.auto()
    CLAIM = enum.auto()
    OWNER = enum.auto()
    ALERTS = enum.auto()


@dataclass(frozen=True, slots=True)
class Registration:
    """The stream that a publisher has registered on its socket; kept by its `ClientProtocol`.

    `producing`: the publisher sends frames; `may_alert`: its user may raise alerts for the stream. `foreign`: the
    stream belongs to another user, and the publisher's token grants it. `acknowledges`: the publisher has a window, and
    waits for acknowledgements of its frames.
    """

    stream: str
    producing: bool
    may_alert: bool
    foreign: bool = False
    acknowledges: bool = False


class ClientProtocol(SessionReplies):
    """The protocol state of one WebSocket client, from the accepted upgrade on; made by `accept_upgrade`.

    `ClientHandler` calls a method for each message, result or event, and carries out the `Command`s that it returns, in
    their order. Wherever a method takes them, `now` is the loop's time in seconds and `now_ms` the time in milliseconds
    since the epoch.

    Args:
        path: The path of the upgrade, which decides whether the client may publish or subscribe.
        settings: The gateway's settings: rates, limits, time-outs.
        authorization: The policy that decides what an identity may do.
        now: The loop's time in seconds.
        stream_ids: Makes the ids of streams that are registered without one.
        identity: Who signed in with the upgrade request; None: an `auth` message is needed.
        ignored_cookie: Why the session cookie of the upgrade request was not used; None when there was none.
    """

    __slots__ = (
        "_asked",
        "_authorization",
        "_plain_frames",
        "_stream_ids",
        "_subscriptions",
        "path",
        "pending",
        "registration",
    )  # fmt: skip

    def __init__(
        self,
        path: SocketPath,
        settings: Settings,
        authorization: Authorization,
        *,
        now: float,
        stream_ids: StreamIds,
        identity: Identity | None = None,
        ignored_cookie: IgnoredCookie | None = None,
    ) -> None:
        super().__init__(settings, now, identity, ignored_cookie)
        self.path = path
        self.registration: Registration | None = None
        #: What is awaited; None: the client's next message may be processed.
        self.pending: PendingReply | None = None
        self._authorization = authorization
        self._stream_ids = stream_ids
        self._plain_frames = wire.PlainFrames() if path is SocketPath.REGISTER else None
        self._subscriptions: dict[str, Subscription] = {}
        #: The message that `pending` is about; after a failed reply, which closes, the one that the error answers.
        self._asked: AskedMessage | None = None

    # ── messages of the client ───────────────────────────────────────────────────────────────────────────────────

    def receive_text(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """Process a text message.

        Args:
            data: The payload, unmasked and complete.
            now: The loop's time in seconds.
            now_ms: Milliseconds since the epoch.
        """
        if self._closed:
            return []
        if not self._is_free_ping(data, now) and (limit := self._allowance.count_message(now, len(data))) is not None:
            readable = len(data) <= MAX_OVER_RATE_BYTES
            refused = self._read_refused(data) if readable else RefusedMessage(self._own_stream(), is_frame=True)
            return self._acknowledged(self._rate_limited(limit, now, now_ms, refused.subject), refused, now_ms)
        try:
            if self.identity is None:
                return self._auth(first_message.read_auth(data), now_ms)
            if (
                self._plain_frames is not None
                and self.registration is not None
                and (plain := self._plain_frames.read(data)) is not None
            ):
                stream, timestamp = plain.stream_id, plain.timestamp
                if not self.registration.producing or (stream is not None and stream != self.registration.stream):
                    self._check_frame(stream)
                at = now_ms if timestamp is None else timestamp
                return [PublishFrame(data, None, None, at, plain.span, is_base64=True)]
            return self._authenticated(wire.parse_text(data), now_ms)
        except ClientError as error:
            refused = self._read_refused(data)
            answer = self._error(error.code, error.message, now, now_ms, refused.subject)
            return self._acknowledged(answer, refused, now_ms)
        except UnicodeDecodeError:
            return self._close(CloseCode.INVALID_DATA, "text is not UTF-8")

    def receive_plain(self, size_bytes: int, now: float, now_ms: int) -> list[Command] | None:
        """Count a plain frame (`gateway.fastpath`); allowed only while `may_send_plain` is set.

        Args:
            size_bytes: Size of the message's payload.
            now: The loop's time in seconds.
            now_ms: Milliseconds since the epoch.

        Returns:
            None: the caller delivers the frame. Commands: the frame is over a rate and is dropped.
        """
        if (limit := self._allowance.count_message(now, size_bytes)) is not None:
            return self._rate_limited(limit, now, now_ms, self._own_stream())
        return None

    def receive_binary(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """Process a binary message; the arguments are those of `receive_text`."""
        if self._closed:
            return []
        refused = RefusedMessage(wire.NOTHING, is_frame=True)
        if (limit := self._allowance.count_message(now, len(data))) is not None:
            return self._acknowledged(self._rate_limited(limit, now, now_ms, self._own_stream()), refused, now_ms)
        named: str | None = None
        try:
            if self.identity is None:
                raise first_message.refuse_binary(data)
            try:
                frame = parse_binary(data)
            except FrameFault as fault:
                text = first_message.JSON_AS_BINARY if first_message.is_json(data) else str(fault)
                raise ClientError(ErrorCode.INVALID_MESSAGE, text) from None
            named = frame.stream_id
            self._check_frame(named)
        except ClientError as error:
            subject = self._own_stream() if named is None else Subject(stream_id=named)
            return self._acknowledged(self._error(error.code, error.message, now, now_ms, subject), refused, now_ms)
        timestamp = now_ms if frame.timestamp is None else frame.timestamp
        return [PublishFrame(None, frame.picture, frame.codec, timestamp)]

    def receive_control(self, size_bytes: int, now: float, now_ms: int) -> list[Command]:
        """Count a ping, a pong or a group of fragments against the rates, as a message of `size_bytes`."""
        if self._closed:
            return []
        limit = self._allowance.count_message(now, size_bytes)
        return self._rate_limited(limit, now, now_ms) if limit is not None else []

    # ── results of commands ──────────────────────────────────────────────────────────────────────────────────────

    def on_verified(self, identity: Identity | None, now_ms: int) -> list[Command]:
        """Handle the session store's answer to `VerifyToken`; None: the token is not valid."""
        if self._closed:
            return []
        if identity is None:
            self.pending = None
            return self._error_and_close(
                ErrorCode.AUTH_FAILED, "the token is not valid, sign in again", CloseCode.POLICY, now_ms
            )
        asked, self.identity = self._take_asked(), identity
        success = wire.success("Authentication successful", "authenticated", now_ms, _subject(asked))
        return [Reply(success), *pings_asked(asked)]

    def on_store_unavailable(self, now_ms: int) -> list[Command]:
        """Handle that the session store cannot be reached: close, and let the client reconnect."""
        self.pending = None
        return self._error_and_close(
            ErrorCode.AUTH_UNAVAILABLE, "sessions cannot be checked now, try again", CloseCode.TRY_LATER, now_ms
        )

    def on_connection_limit(self, what: str, now_ms: int) -> list[Command]:
        """Handle that a limit of connections is reached; `what` ends the sentence "too many connections …"."""
        return self._error_and_close(
            ErrorCode.TOO_MANY_CONNECTIONS, f"too many connections {what}", CloseCode.TRY_LATER, now_ms
        )

    def on_claimed(self, term: int, first_frame_id: int, now_ms: int, owner: Owner | None = None) -> list[Command]:
        """Handle that the router granted the stream of `ClaimStream`.

        Args:
            term: Number of the grant; frames of the stream carry it on the bus.
            first_frame_id: The first frame gets this id, so that ids do not fall when the publisher changes.
            now_ms: See the class.
            owner: Another user, who stays the stream's owner; None: it belongs to this client's user.
        """
        asked = self._take_asked()
        if self._closed or self.identity is None or not isinstance(asked, wire.Register) or asked.stream_id is None:
            return []
        former: list[Command] = [Unpublish()] if self.registration is not None else []
        self._register_stream(asked.stream_id, asked, foreign=owner is not None)
        owner = owner or Owner.of(self.identity)
        publish = Publish(asked.stream_id, owner, term, first_frame_id, *_wishes(asked))
        if not self._authorization.may_publish(self.identity, asked.stream_id):  # it ended while the router decided
            return [*former, publish, *self._unpublish(now_ms, asked.request_id)]
        return [*former, self._registered_reply(asked, now_ms), publish, *pings_asked(asked)]

    def on_refused(self, code: str, message: str, now: float, now_ms: int) -> list[Command]:
        """Handle that a claim or a subscription was refused, by the router or by a limit of the gateway.

        Args:
            code: An `ErrorCode`, or a code of a newer router, which is reported as `ROUTING_ERROR`.
            message: The reason, for the client.
            now: See the class.
            now_ms: See the class.
        """
        subject, known = _subject(self._take_asked()), code in ErrorCode.__members__
        return self._error(ErrorCode(code) if known else ErrorCode.ROUTING_ERROR, message, now, now_ms, subject)

    def on_router_unavailable(self, now: float, now_ms: int) -> list[Command]:
        """Handle that the router did not answer `ClaimStream` or `FindStream` in time."""
        return self.on_refused(ErrorCode.ROUTING_ERROR, "the router did not answer in time, try again", now, now_ms)

    def on_found(self, state: StreamState, now: float, now_ms: int) -> list[Command]:
        """Handle the state of the stream of `FindStream`: subscribe, if the viewer has the permission."""
        asked = self._take_asked()
        if self._closed or self.identity is None or not isinstance(asked, wire.Subscribe):
            return []
        subject = _subject(asked)
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
        success = wire.success("Subscription successful", "subscribed", now_ms, _subject(asked), **more)
        return [Reply(success), *pings_asked(asked)]

    # ── events from elsewhere ────────────────────────────────────────────────────────────────────────────────────

    def on_auth_timeout(self, now_ms: int) -> list[Command]:
        """Handle that `AUTH_TIMEOUT_S` is over; does nothing when the client is authenticated, or about to be."""
        if self.identity is not None or self.pending is PendingReply.STORE:
            return []
        text = f"no authentication within {self._settings.auth_timeout_s:g} s"
        if (ignored := self._ignored_cookie) is not None:
            if ignored.code is not ErrorCode.AUTH_REQUIRED:
                return self._error_and_close(ignored.code, ignored.reason, CloseCode.TRY_LATER, now_ms)
            text = f"{text}; {ignored.reason}"
        return self._error_and_close(ErrorCode.AUTH_TIMEOUT, text, CloseCode.POLICY, now_ms)

    def on_taken_over(self, stream: str, now_ms: int) -> list[Command]:
        """Handle that another socket registered the stream of this publisher: close."""
        if self.registration is None or self.registration.stream != stream:
            return []
        self.registration, self.may_send_plain = None, False
        text, subject = f"another socket registered {stream}", Subject(stream_id=stream)
        return self._error_and_close(ErrorCode.STREAM_TAKEN_OVER, text, CloseCode.TAKEN_OVER, now_ms, subject)

    def on_permission_lost(self, stream: str, now: float, now_ms: int) -> list[Command]:
        """Handle that the viewer may not receive this stream any more; the socket stays open."""
        subscription = self._subscriptions.pop(stream, None)
        if subscription is None:
            return []
        text, subject = f"you may not view stream {stream} any more", Subject(stream_id=stream)
        if isinstance(asked := self._asked, wire.Subscribe) and asked.stream_id == stream:
            subject = _subject(asked)
            if self.pending is PendingReply.ALERTS:  # the error answers it
                self._take_asked()
        error = self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms, subject)
        return [EndSubscription(subscription), *error]

    def on_identity_changed(self, identity: Identity, now_ms: int) -> list[Command]:
        """Handle that the auth session's end, or its user's roles or organizations, have changed.

        Covers publishing and the identity of the subscriptions. Which streams the viewer may still receive depends on
        their owners: the caller checks that and calls `on_permission_lost`.
        """
        if self._closed or self.identity is None:
            return []
        before, self.identity = self.identity, identity
        for subscription in self._subscriptions.values():
            subscription.identity = identity
        if self.registration is None:
            return []
        if not self._authorization.may_publish(identity, self.registration.stream):
            return self._unpublish(now_ms)
        changed = Owner.of(before) != Owner.of(identity) and not self.registration.foreign
        return [ChangeOwner(Owner.of(identity))] if changed else []

    def on_slow_consumer(self, now_ms: int, reason: str | None = None) -> list[Command]:
        """Handle that the client does not read its messages: close. `reason`: None when its outbound queue is full."""
        full = (
            f"more than {self._settings.alert_queue_messages} messages or {self._settings.alert_queue_bytes} bytes of "
            "alerts and status wait for this socket"
        )
        return self._error_and_close(ErrorCode.SLOW_CONSUMER, reason or full, CloseCode.SLOW_CONSUMER, now_ms)

    def on_message_timeout(self, now_ms: int) -> list[Command]:
        """Handle that a message which the client has begun stalls, or arrives too slowly: close."""
        text = f"a message arrived slower than {LEAST_BYTES_PER_S} bytes/s over {OVER_S:g} s, or not at all: reconnect"
        return self._error_and_close(ErrorCode.MESSAGE_TIMEOUT, text, CloseCode.MESSAGE_TIMEOUT, now_ms)

    def close(self, code: CloseCode, reason: str) -> list[Command]:
        """Close the socket for a reason of the gateway, such as its restart.

        Args:
            code: The close code that the client gets.
            reason: Text of the close frame.
        """
        return self._close(code, reason)

    def subscriptions(self) -> list[Subscription]:
        """Return the subscriptions of this viewer, as a new list."""
        return list(self._subscriptions.values())

    # ── messages by type ─────────────────────────────────────────────────────────────────────────────────────────

    def _auth(self, message: wire.Auth, now_ms: int) -> list[Command]:
        """Process the first `auth` message. A client that signed in with its upgrade has the token's identity then."""
        token = message.token
        if not token or len(token) > first_message.MAX_AUTH_BYTES:
            text = f"the token is {'too long' if token else 'empty'}, sign in again"
            return self._error_and_close(ErrorCode.AUTH_FAILED, text, CloseCode.POLICY, now_ms, _subject(message))
        self._auth_received, self.identity = True, None
        self._ask(message, PendingReply.STORE)
        return [VerifyToken(token)]

    def _auth_again(self, message: wire.Auth, now_ms: int) -> list[Command]:
        """Process an `auth` of a client that is signed in. Raises `ClientError`."""
        self._check_no_renewal()
        if message.renew:
            return self._renew(message)
        if self._auth_received:
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, "this socket is already authenticated")
        if self.registration is not None or self._subscriptions:
            text = (
                "this socket was authenticated at the upgrade and has registered or subscribed since: open another "
                "socket for another token"
            )
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, text)
        return self._auth(first_message.clean_auth(message), now_ms)

    def _authenticated(self, message: wire.AnyClientMessage, now_ms: int) -> list[Command]:
        """Process a message of an authenticated client. Raises `ClientError`."""
        match message:
            case wire.VideoFrame():
                self._check_frame(message.stream_id)
                timestamp = now_ms if message.timestamp is None else int(message.timestamp)
                return [PublishFrame(message.data, None, None, timestamp, more=message.more)]
            case wire.Ack():
                self._require_path(SocketPath.SUBSCRIBE, "ack")
                subscription = self._subscriptions.get(message.stream_id)
                if subscription is None:
                    return []
                subscription.acknowledge(message.frame_id)
                return [WriteWaiting()]
            case wire.Auth():
                return self._auth_again(message, now_ms)
            case wire.Register():
                return self._register(message, now_ms)
            case wire.Subscribe():
                return self._subscribe(message)
            case wire.Unsubscribe():
                self._require_path(SocketPath.SUBSCRIBE, "unsubscribe")
                former = self._subscriptions.pop(message.stream_id, None)
                subject = _subject(message)
                done = Reply(wire.success("Unsubscription successful", "unsubscribed", now_ms, subject))
                return [EndSubscription(former), done] if former is not None else [done]
            case wire.Acknowledge():
                return [AcknowledgeAlert(message.stream_id, message.alert_id, message.note, message.request_id)]
            case wire.Ping():
                return [Reply(wire.pong(now_ms, message.request_id))]
            case wire.PublisherAlert():
                return self._alert(message)
            case _:
                assert_never(message)

    def _register(self, message: wire.Register, now_ms: int) -> list[Command]:
        self._require_path(SocketPath.REGISTER, "register")
        assert self.identity is not None
        granted = self.identity.grants is not None
        if not self._authorization.may_publish(self.identity, message.stream_id):
            text = "your token does not permit to publish this stream" if granted else "you may not publish streams"
            raise ClientError(ErrorCode.UNAUTHORIZED, text)
        if self.registration is not None and message.stream_id in (None, self.registration.stream):
            stream = self.registration.stream
            self._register_stream(stream, message, foreign=self.registration.foreign)
            reply = self._registered_reply(msgspec.structs.replace(message, stream_id=stream), now_ms)
            return [reply, ChangePublication(*_wishes(message)), *pings_asked(message)]
        if message.stream_id is None:
            new_id = self._stream_ids.new(self.identity.user_id, now_ms)
            if not self._authorization.may_publish(self.identity, new_id):
                text = "your token permits streams of certain ids only: send `streamId`"
                raise ClientError(ErrorCode.UNAUTHORIZED, text)
            message = msgspec.structs.replace(message, stream_id=new_id)
        assert message.stream_id is not None
        if not granted and self._stream_ids.belongs_to_other(message.stream_id, self.identity.user_id):
            raise ClientError(ErrorCode.UNAUTHORIZED, "this stream belongs to another user")
        self._ask(message, PendingReply.CLAIM)
        producing = "video-frame" in (message.produces or [])
        return [ClaimStream(message.stream_id, Owner.of(self.identity), producing, granted, message.info or "")]

    def _register_stream(self, stream: str, message: wire.Register, *, foreign: bool) -> None:
        """Replace the registration of this socket by that of the message."""
        produces = message.produces or []
        self.registration = Registration(
            stream,
            producing="video-frame" in produces,
            may_alert="alert" in produces,
            foreign=foreign,
            acknowledges=message.window is not None,
        )
        self.may_send_plain = self.registration.producing
        self._plain_frames = wire.PlainFrames()

    def _registered_reply(self, message: wire.Register, now_ms: int) -> Reply:
        text = f"Registration successful. Stream ID: {message.stream_id}"
        return Reply(wire.success(text, "registered", now_ms, _subject(message)))

    def _subscribe(self, message: wire.Subscribe) -> list[Command]:
        self._require_path(SocketPath.SUBSCRIBE, "subscribe")
        limit = self._settings.max_subscriptions
        if message.stream_id not in self._subscriptions and len(self._subscriptions) >= limit:
            raise ClientError(ErrorCode.RATE_LIMITED, f"this socket has {limit} subscriptions, the limit of one socket")
        self._ask(message, PendingReply.OWNER)
        return [FindStream(message.stream_id)]

    def _alert(self, message: wire.PublisherAlert) -> list[Command]:
        self._require_path(SocketPath.REGISTER, "alert")
        registration = self.registration
        if registration is None or message.draft.stream_id not in (None, registration.stream):
            raise ClientError(ErrorCode.UNAUTHORIZED, "an alert is for the stream that this socket registered")
        if not registration.may_alert:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "alert" in `produces` to send alerts')
        return [SubmitAlert(message.draft, registration.stream, message.request_id)]

    def _unpublish(self, now_ms: int, request_id: str | None = None) -> list[Command]:
        subject = Subject(request_id, self._own_stream().stream_id)
        self.registration, self.may_send_plain = None, False
        text = "you may not publish streams any more"
        return [Unpublish(), Reply(wire.error(ErrorCode.UNAUTHORIZED, text, now_ms, subject))]

    def _check_frame(self, stream_id: str | None) -> None:
        """Raise `ClientError` unless this socket may send frames, and frames of this stream if one is named."""
        self._require_path(SocketPath.REGISTER, "video-frame")
        registration = self.registration
        if registration is None:
            if stream_id is None:
                raise ClientError(ErrorCode.INVALID_MESSAGE, "a frame before `register`: register a stream first")
            raise ClientError(ErrorCode.UNAUTHORIZED, f"stream {stream_id} is not registered on this socket")
        if stream_id is not None and stream_id != registration.stream:
            raise ClientError(
                ErrorCode.UNAUTHORIZED,
                f"stream {stream_id} is not registered on this socket, which registered {registration.stream}",
            )
        if not registration.producing:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "video-frame" in `produces` to send frames')

    def _is_free_ping(self, data: bytes, now: float) -> bool:
        """Whether a message is a `ping` that does not count against the rates."""
        return self.identity is not None and wire.is_ping(data) and self._allowance.take_ping(now)

    # ── what answers are about ───────────────────────────────────────────────────────────────────────────────────

    def _ask(self, message: AskedMessage, reply: PendingReply) -> None:
        """Await the reply of the store or the router that a message needs."""
        self._asked, self.pending = message, reply

    def _take_asked(self) -> AskedMessage | None:
        """Return the message whose reply has come, and await nothing any more."""
        asked, self._asked, self.pending = self._asked, None, None
        return asked

    def _awaited_request_id(self) -> str | None:
        return None if self._asked is None else self._asked.request_id

    def _own_stream(self) -> Subject:
        """Return the registered stream as the subject of an answer."""
        return wire.NOTHING if self.registration is None else Subject(stream_id=self.registration.stream)

    def _read_refused(self, data: bytes) -> RefusedMessage:
        return read_refused(data, self._own_stream().stream_id)

    def _acknowledged(self, answer: list[Command], refused: RefusedMessage, now_ms: int) -> list[Command]:
        """Return the answer to a refused message, with the acknowledgement of a frame where the camera has a window."""
        if self._closed or self.registration is None or not self.registration.acknowledges or not refused.is_frame:
            return answer
        timestamp = now_ms if refused.timestamp is None else refused.timestamp
        return [*answer, AcknowledgeFrame(timestamp)]

    def _require_path(self, path: SocketPath, message_type: str) -> None:
        """Raise `ClientError` when this socket is not on the path that a type of message belongs to."""
        if self.path is not path:
            text = f"`{message_type}` is for {path}, this socket is on {self.path}"
            raise ClientError(ErrorCode.INVALID_MESSAGE, text)


def _subject(message: AskedMessage | wire.Unsubscribe | None) -> Subject:
    """Return what the answer to a message is about."""
    if message is None or isinstance(message, wire.Auth):
        return wire.NOTHING if message is None else Subject(message.request_id)
    return Subject(message.request_id, message.stream_id)


def _wishes(message: wire.Register) -> tuple[bool, bool, bool, bool, bool, str]:
    """Return whether a registration produces frames, consumes alerts, demand and status, has a window; and its info."""
    consumes = set(message.consumes or [])
    producing = "video-frame" in (message.produces or [])
    wants_status, acknowledges = bool(consumes & _CONSUMABLE), message.window is not None
    return producing, "alert" in consumes, "demand" in consumes, wants_status, acknowledges, message.info or ""
