"""One client's conversation: every rule of docs/protocol.md about what may be said when. Pure.

Events come in as method calls with `now` (seconds) and `now_ms`; commands go out as a list, to be carried out in
order. While `waiting` is set the client's next messages must be held back: the answer of the session store or of the
router comes first. After a `Close` nothing more is said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from watchout.common.alerts.model import AlertDraft
from watchout.common.errors import ClientError, CloseCode, ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import FrameFault, parse_binary
from watchout.common.settings import Settings
from watchout.gateway import wire
from watchout.gateway.authorization import Authorization, Permission
from watchout.gateway.client import first_message
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import IgnoredCookie, Owner, StreamState
from watchout.gateway.progress import LEAST_BYTES_PER_S, OVER_S
from watchout.gateway.quotas import Allowance
from watchout.gateway.stream_ids import StreamIds
from watchout.identity import Identity, clean_token


class Path(enum.StrEnum):
    """The two WebSocket paths."""

    REGISTER = "/streams/register"
    SUBSCRIBE = "/streams/subscribe"


class Waiting(enum.Enum):
    """Whose answer the conversation waits for."""

    STORE = enum.auto()
    CLAIM = enum.auto()
    OWNER = enum.auto()


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes, in order."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket."""

    code: CloseCode
    reason: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the session store; answer with `ClientProtocol.verified` or `ClientProtocol.store_unavailable`.

    Who the socket was until now, if it signed in at the upgrade, it is no more.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskClaim:
    """Ask the router for the stream; answer with `granted`, `refused` or `router_unavailable`."""

    stream: str
    owner: Owner
    producing: bool


@dataclass(frozen=True, slots=True)
class Publish:
    """The camera's stream begins."""

    stream: str
    owner: Owner
    term: int
    first_frame_id: int
    producing: bool
    wants_alerts: bool
    wants_demand: bool = False
    wants_status: bool = False


@dataclass(frozen=True, slots=True)
class ChangePublication:
    """The camera registered its stream again, with other wishes perhaps; its term and frame ids go on."""

    producing: bool
    wants_alerts: bool
    wants_demand: bool
    wants_status: bool


@dataclass(frozen=True, slots=True)
class Unpublish:
    """The camera's stream ends, although its socket stays."""


@dataclass(frozen=True, slots=True)
class ChangeOwner:
    """The organizations of the camera's user have changed."""

    owner: Owner


class SendFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame of the camera's stream: a text of which `span` is a JSON string token, or a picture with its codec."""

    text: bytes | None
    picture: bytes | None
    codec: Codec | None
    timestamp: int
    span: tuple[int, int] | None = None
    is_base64: bool = False
    more: bytes = b""


@dataclass(frozen=True, slots=True)
class SendAlert:
    """An alert of the camera; answer with `alerts_failed` when it could not be handed on."""

    draft: AlertDraft
    stream: str


@dataclass(frozen=True, slots=True)
class AskOwner:
    """Ask whose the stream is; answer with `found` or `router_unavailable`."""

    stream: str


@dataclass(frozen=True, slots=True)
class Watch:
    """The subscription begins; `alerts_since` in ms: replay what is kept since then first."""

    subscription: Subscription
    word: StreamState
    alerts_since: int | None


@dataclass(frozen=True, slots=True)
class Unwatch:
    """The subscription ends."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The window of a subscription may be open again."""


Command = (
    Reply | Close | Verify | AskClaim | Publish | Unpublish | ChangeOwner | SendFrame | SendAlert | AskOwner | Watch
    | Unwatch | Acknowledged | ChangePublication
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Registered:
    """What a camera registered."""

    stream: str
    producing: bool
    may_alert: bool


class ClientProtocol:
    """The conversation of one socket. `stream_ids` makes an id for a camera that brings none.

    `identity`: who signed in at the upgrade. `ignored`: why a cookie did not.
    """

    __slots__ = (
        "_allowance",
        "_asked",
        "_auth_came",
        "_authorization",
        "_closed",
        "_frames",
        "_ignored",
        "_settings",
        "_stream_ids",
        "_subscriptions",
        "identity",
        "may_send_plain",
        "path",
        "registered",
        "unauthorized",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        path: Path,
        settings: Settings,
        access: Authorization,
        *,
        now: float,
        stream_ids: StreamIds,
        identity: Identity | None = None,
        ignored: IgnoredCookie | None = None,
    ) -> None:
        self.path = path
        self.identity = identity
        self.registered: Registered | None = None
        #: How often this client asked for what it has no right to.
        self.unauthorized = 0
        self.waiting: Waiting | None = None
        #: Whether frames of this client may be taken without a look at its conversation: see `plain`.
        self.may_send_plain = False
        self._settings = settings
        self._authorization = access
        self._stream_ids = stream_ids
        self._allowance = Allowance(settings, now)
        self._frames = wire.PlainFrames() if path is Path.REGISTER else None
        self._subscriptions: dict[str, Subscription] = {}
        self._asked: wire.Register | wire.Subscribe | None = None
        self._closed = False
        self._auth_came = False
        self._ignored = ignored

    # ── from the client ──────────────────────────────────────────────────────────────────────────────────────────

    def text(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """A text message came."""
        if self._closed:
            return []
        if (broken := self._allowance.count_message(now, len(data))) is not None:
            return self._rate_limited(broken, now, now_ms)
        try:
            if self.identity is None:
                return self._auth(first_message.read_token(data), now_ms)
            if (
                self._frames is not None
                and self.registered is not None
                and (plain := self._frames.read(data)) is not None
            ):
                stream, timestamp = plain.stream_id, plain.timestamp
                if not self.registered.producing or (stream is not None and stream != self.registered.stream):
                    self._check_frame(stream)
                at = now_ms if timestamp is None else timestamp
                return [SendFrame(data, None, None, at, plain.span, is_base64=True)]
            return self._authenticated(wire.parse_text(data), now_ms)
        except ClientError as error:
            return self._error(error.code, error.message, now, now_ms)
        except UnicodeDecodeError:
            return self._close(CloseCode.INVALID_DATA, "text is not UTF-8")

    def plain(self, size_bytes: int, now: float, now_ms: int) -> list[Command] | None:
        """A plain frame came (`gateway.fastpath`) while `may_send_plain` was set.

        None: it goes on, as a `SendFrame` would.
        """
        if (broken := self._allowance.count_message(now, size_bytes)) is not None:
            return self._rate_limited(broken, now, now_ms)
        return None

    def binary(self, data: bytes, now: float, now_ms: int) -> list[Command]:
        """A binary message came."""
        if self._closed:
            return []
        if (broken := self._allowance.count_message(now, len(data))) is not None:
            return self._rate_limited(broken, now, now_ms)
        try:
            if self.identity is None:
                raise first_message.refuse_binary(data)
            try:
                frame = parse_binary(data)
            except FrameFault as fault:
                why = _JSON_AS_BINARY if first_message.is_json(data) else str(fault)
                raise ClientError(ErrorCode.INVALID_MESSAGE, why) from None
            self._check_frame(frame.stream_id)
        except ClientError as error:
            return self._error(error.code, error.message, now, now_ms)
        timestamp = now_ms if frame.timestamp is None else frame.timestamp
        return [SendFrame(None, frame.picture, frame.codec, timestamp)]

    def ping(self, size_bytes: int, now: float, now_ms: int) -> list[Command]:
        """A ping came: it counts as a message."""
        if self._closed:
            return []
        broken = self._allowance.count_message(now, size_bytes)
        return self._rate_limited(broken, now, now_ms) if broken is not None else []

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def verified(self, identity: Identity | None, now_ms: int) -> list[Command]:
        """The session store answered."""
        self.waiting = None
        if self._closed:
            return []
        if identity is None:
            return self._say_and_close(
                ErrorCode.AUTH_FAILED, "the token is not good, sign in again", CloseCode.POLICY, now_ms
            )
        self.identity = identity
        return [Reply(wire.success("Authentication successful", "authenticated", now_ms))]

    def store_unavailable(self, now_ms: int) -> list[Command]:
        """The session store cannot be asked."""
        self.waiting = None
        return self._say_and_close(
            ErrorCode.AUTH_UNAVAILABLE, "sessions cannot be checked now, try again", CloseCode.TRY_LATER, now_ms
        )

    def too_many(self, what: str, now_ms: int) -> list[Command]:
        """A limit of connections is reached."""
        return self._say_and_close(
            ErrorCode.TOO_MANY_CONNECTIONS, f"too many connections {what}", CloseCode.TRY_LATER, now_ms
        )

    def granted(self, term: int, first_frame_id: int, now_ms: int) -> list[Command]:
        """The router gave the stream to this camera."""
        self.waiting = None
        asked, self._asked = self._asked, None
        if self._closed or self.identity is None or not isinstance(asked, wire.Register) or asked.stream_id is None:
            return []
        let_go: list[Command] = [Unpublish()] if self.registered is not None else []
        self._registers(asked.stream_id, asked)
        wishes = _wishes(asked)
        publish = Publish(asked.stream_id, _owner(self.identity), term, first_frame_id, *wishes)
        if not self._authorization.may_publish(self.identity):  # the right went while the router was asked
            return [*let_go, publish, *self._unpublish(now_ms)]
        return [*let_go, self._success_of_register(asked.stream_id, now_ms), publish]

    def refused(self, code: str, message: str, now: float, now_ms: int) -> list[Command]:
        """The router refused what was asked of it."""
        self.waiting = self._asked = None
        known = code in ErrorCode.__members__
        return self._error(ErrorCode(code) if known else ErrorCode.ROUTING_ERROR, message, now, now_ms)

    def router_unavailable(self, now: float, now_ms: int) -> list[Command]:
        """The router did not answer in time."""
        return self.refused(ErrorCode.ROUTING_ERROR, "the router did not answer in time, try again", now, now_ms)

    def found(self, word: StreamState, now: float, now_ms: int) -> list[Command]:
        """It is known whose the stream is that the viewer wants."""
        self.waiting = None
        asked, self._asked = self._asked, None
        if self._closed or self.identity is None or not isinstance(asked, wire.Subscribe):
            return []
        owner, consumes = word.owner, asked.consumes or []
        rights = self._authorization.permissions(self.identity, owner)
        if not rights & _VIEWERS:
            text = "you may not view streams" if owner is None else "this stream belongs to another user"
            return self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms)
        if "video-frame" in consumes and Permission.VIEW not in rights:
            text = 'you may have the alerts of this stream, not its pictures: leave "video-frame" out of `consumes`'
            return self._error(ErrorCode.UNAUTHORIZED, text, now, now_ms)
        commands: list[Command] = []
        former = self._subscriptions.pop(asked.stream_id, None)
        if former is not None:
            commands.append(Unwatch(former))
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
        commands.append(Reply(wire.success("Subscription successful", "subscribed", now_ms, asked.stream_id)))
        if subscription.video or subscription.alerts:
            since = int(asked.alerts_since) if asked.alerts_since is not None and subscription.alerts else None
            commands.append(Watch(subscription, word, since))
        else:
            commands.append(Reply(wire.status(asked.stream_id, word.status, now_ms)))
        return commands

    def alerts_failed(self, message: str, now: float, now_ms: int) -> list[Command]:
        """An alert could not be handed on, or recent ones not be had; what is asked meanwhile goes on."""
        return self._error(ErrorCode.ROUTING_ERROR, message, now, now_ms)

    def alerts_over_rate(self, now: float, now_ms: int) -> list[Command]:
        """An alert was more than this client's user may bring to this gateway, over all his sockets: it is dropped."""
        return [] if self._closed else self._rate_limited("alerts", now, now_ms)

    # ── from elsewhere ───────────────────────────────────────────────────────────────────────────────────────────

    def auth_timeout(self, now_ms: int) -> list[Command]:
        """The time for authentication is over."""
        if self.identity is not None or self.waiting is Waiting.STORE:
            return []
        text = f"no authentication within {self._settings.auth_timeout_s:g} s"
        if self._ignored is not None:
            if self._ignored.code is not ErrorCode.AUTH_REQUIRED:
                return self._say_and_close(self._ignored.code, self._ignored.reason, CloseCode.TRY_LATER, now_ms)
            text = f"{text}; {self._ignored.reason}"
        return self._say_and_close(ErrorCode.AUTH_TIMEOUT, text, CloseCode.POLICY, now_ms)

    def taken_over(self, stream: str, now_ms: int) -> list[Command]:
        """Another socket has the camera's stream now."""
        if self.registered is None or self.registered.stream != stream:
            return []
        self.registered, self.may_send_plain = None, False
        return self._say_and_close(
            ErrorCode.STREAM_TAKEN_OVER, f"another socket registered {stream}", CloseCode.TAKEN_OVER, now_ms
        )

    def right_lost(self, stream: str, now: float, now_ms: int) -> list[Command]:
        """The viewer may see this stream no more."""
        subscription = self._subscriptions.pop(stream, None)
        if subscription is None:
            return []
        error = self._error(ErrorCode.UNAUTHORIZED, f"you may not watch stream {stream} any more", now, now_ms)
        return [Unwatch(subscription), *error]

    def renewed(self, identity: Identity, now_ms: int) -> list[Command]:
        """The session was looked up again: its end, or what its user may do, has changed.

        What the viewer may watch depends on the streams' owners, which the caller knows: see `right_lost`.
        """
        if self._closed or self.identity is None:
            return []
        before, self.identity = self.identity, identity
        for subscription in self._subscriptions.values():
            subscription.identity = identity
        if self.registered is None:
            return []
        if not self._authorization.may_publish(identity):
            return self._unpublish(now_ms)
        return [ChangeOwner(_owner(identity))] if _owner(before) != _owner(identity) else []

    def session_ended(self, now_ms: int) -> list[Command]:
        """The session behind this socket expired or was revoked, or its user was banned."""
        return self._say_and_close(
            ErrorCode.SESSION_ENDED, "the session has ended, sign in again", CloseCode.SESSION_ENDED, now_ms
        )

    def slow(self, now_ms: int, why: str | None = None) -> list[Command]:
        """This client does not take its messages; without `why` its message lane is full."""
        full = (
            f"more than {self._settings.alert_lane_messages} messages or {self._settings.alert_lane_bytes} bytes of "
            "alerts and status wait for this socket"
        )
        return self._say_and_close(ErrorCode.SLOW_CONSUMER, why or full, CloseCode.SLOW_CONSUMER, now_ms)

    def message_timeout(self, now_ms: int) -> list[Command]:
        """A message that this client began does not come on."""
        text = f"a message came slower than {LEAST_BYTES_PER_S} bytes/s over {OVER_S:g} s, or not at all: come back"
        return self._say_and_close(ErrorCode.MESSAGE_TIMEOUT, text, CloseCode.MESSAGE_TIMEOUT, now_ms)

    def close(self, code: CloseCode, reason: str) -> list[Command]:
        """The gateway ends this socket."""
        return self._close(code, reason)

    def subscriptions(self) -> list[Subscription]:
        """What the viewer is subscribed to."""
        return list(self._subscriptions.values())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _auth(self, token: str, now_ms: int) -> list[Command]:
        """The first `auth` message, also of who signed in at the upgrade: from now on the socket is that token's."""
        if not token or len(token) > first_message.MAX_AUTH_BYTES:
            text = f"the token is {'longer than any is' if token else 'empty'}, sign in again"
            return self._say_and_close(ErrorCode.AUTH_FAILED, text, CloseCode.POLICY, now_ms)
        self._auth_came, self.identity = True, None
        self.waiting = Waiting.STORE
        return [Verify(token)]

    def _auth_after_upgrade(self, message: wire.Auth, now_ms: int) -> list[Command]:
        if self._auth_came:
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, "this socket is already authenticated")
        if self.registered is not None or self._subscriptions:
            text = (
                "this socket was authenticated at the upgrade and has registered or subscribed since: open another "
                "socket for another token"
            )
            raise ClientError(ErrorCode.ALREADY_AUTHENTICATED, text)
        return self._auth(clean_token(message.token), now_ms)

    def _authenticated(self, message: wire.AnyClientMessage, now_ms: int) -> list[Command]:
        match message:
            case wire.VideoFrame():
                self._check_frame(message.stream_id)
                timestamp = now_ms if message.timestamp is None else int(message.timestamp)
                return [SendFrame(message.data, None, None, timestamp, more=message.more)]
            case wire.Ack():
                self._must_be(Path.SUBSCRIBE, "ack")
                subscription = self._subscriptions.get(message.stream_id)
                if subscription is None:
                    return []
                subscription.acknowledge(message.frame_id)
                return [Acknowledged()]
            case wire.Auth():
                return self._auth_after_upgrade(message, now_ms)
            case wire.Register():
                return self._register(message, now_ms)
            case wire.Subscribe():
                return self._subscribe(message)
            case wire.Unsubscribe():
                self._must_be(Path.SUBSCRIBE, "unsubscribe")
                former = self._subscriptions.pop(message.stream_id, None)
                done = Reply(wire.success("Unsubscription successful", "unsubscribed", now_ms, message.stream_id))
                return [Unwatch(former), done] if former is not None else [done]
            case wire.CameraAlert():
                return self._alert(message)
            case _:
                assert_never(message)

    def _register(self, message: wire.Register, now_ms: int) -> list[Command]:
        self._must_be(Path.REGISTER, "register")
        assert self.identity is not None
        if not self._authorization.may_publish(self.identity):
            raise ClientError(ErrorCode.UNAUTHORIZED, "you may not publish streams")
        if self.registered is not None and message.stream_id in (None, self.registered.stream):
            stream = self.registered.stream
            self._registers(stream, message)
            return [self._success_of_register(stream, now_ms), ChangePublication(*_wishes(message))]
        if message.stream_id is None:
            new_id = self._stream_ids.new(self.identity.user_id, now_ms)
            message = msgspec.structs.replace(message, stream_id=new_id)
        assert message.stream_id is not None
        if self._stream_ids.belongs_to_other(message.stream_id, self.identity.user_id):
            raise ClientError(ErrorCode.UNAUTHORIZED, "this stream belongs to another user")
        self._asked = message
        self.waiting = Waiting.CLAIM
        producing = "video-frame" in (message.produces or [])
        return [AskClaim(message.stream_id, _owner(self.identity), producing)]

    def _registers(self, stream: str, message: wire.Register) -> None:
        """From now on this socket has what this message says, in the place of what it had."""
        produces = message.produces or []
        self.registered = Registered(stream, producing="video-frame" in produces, may_alert="alert" in produces)
        self.may_send_plain = self.registered.producing
        self._frames = wire.PlainFrames()

    def _success_of_register(self, stream: str, now_ms: int) -> Reply:
        return Reply(wire.success(f"Registration successful. Stream ID: {stream}", "registered", now_ms, stream))

    def _subscribe(self, message: wire.Subscribe) -> list[Command]:
        self._must_be(Path.SUBSCRIBE, "subscribe")
        most = self._settings.max_subscriptions
        if message.stream_id not in self._subscriptions and len(self._subscriptions) >= most:
            raise ClientError(ErrorCode.RATE_LIMITED, f"{most} streams are subscribed, which is the most of one socket")
        self._asked = message
        self.waiting = Waiting.OWNER
        return [AskOwner(message.stream_id)]

    def _alert(self, message: wire.CameraAlert) -> list[Command]:
        self._must_be(Path.REGISTER, "alert")
        registered = self.registered
        if registered is None or message.draft.stream_id not in (None, registered.stream):
            raise ClientError(ErrorCode.UNAUTHORIZED, "an alert is for the stream that this socket registered")
        if not registered.may_alert:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "alert" in `produces` to send alerts')
        return [SendAlert(message.draft, registered.stream)]

    def _unpublish(self, now_ms: int) -> list[Command]:
        self.registered, self.may_send_plain = None, False
        return [Unpublish(), Reply(wire.error(ErrorCode.UNAUTHORIZED, "you may not publish streams any more", now_ms))]

    def _check_frame(self, stream_id: str | None) -> None:
        self._must_be(Path.REGISTER, "video-frame")
        registered = self.registered
        if registered is None:
            if stream_id is None:
                raise ClientError(ErrorCode.INVALID_MESSAGE, "a frame before `register`: register a stream first")
            raise ClientError(ErrorCode.UNAUTHORIZED, f"stream {stream_id} is not registered on this socket")
        if stream_id is not None and stream_id != registered.stream:
            raise ClientError(
                ErrorCode.UNAUTHORIZED, f"stream {stream_id} is not this socket's, which is {registered.stream}"
            )
        if not registered.producing:
            raise ClientError(ErrorCode.UNAUTHORIZED, 'register with "video-frame" in `produces` to send frames')

    def _must_be(self, path: Path, what: str) -> None:
        if self.path is not path:
            raise ClientError(ErrorCode.INVALID_MESSAGE, f"`{what}` is for {path}, this socket is on {self.path}")

    def _rate_limited(self, broken: str, now: float, now_ms: int) -> list[Command]:
        if not self._allowance.count_error(now):
            return self._close(CloseCode.POLICY, "repeated abuse")
        if not self._allowance.take_report(now):
            return []
        rates = {
            "messages": f"{self._settings.message_rate:g} messages per second",
            "bytes": f"{self._settings.byte_rate:g} bytes per second",
            "alerts": f"{self._settings.alert_rate:g} alerts per second, which is the most of one user",
        }
        text = f"this socket sent more than {rates[broken]}; what is over is dropped"
        return [Reply(wire.error(ErrorCode.RATE_LIMITED, text, now_ms))]

    def _error(self, code: ErrorCode, message: str, now: float, now_ms: int) -> list[Command]:
        if self._closed:
            return []
        if code is ErrorCode.UNAUTHORIZED:
            self.unauthorized += 1
        if code is ErrorCode.AUTH_REQUIRED and self._ignored is not None:
            if self._ignored.code is not ErrorCode.AUTH_REQUIRED:
                return self._say_and_close(self._ignored.code, self._ignored.reason, CloseCode.TRY_LATER, now_ms)
            message = f"{message}; {self._ignored.reason}"
        reply = Reply(wire.error(code, message, now_ms))
        if code in _STRIKES and not self._allowance.count_error(now):
            return [reply, *self._close(CloseCode.POLICY, "repeated abuse")]
        return [reply]

    def _say_and_close(self, code: ErrorCode, message: str, close: CloseCode, now_ms: int) -> list[Command]:
        if self._closed:
            return []
        return [Reply(wire.error(code, message, now_ms)), *self._close(close, str(code))]

    def _close(self, code: CloseCode, reason: str) -> list[Command]:
        if self._closed:
            return []
        self._closed = True
        self.may_send_plain = False
        return [Close(code, reason)]


_JSON_AS_BINARY: Final = (
    "JSON came as a binary message (opcode 2), it is sent as a text message (opcode 1); a binary message is a frame"
)
_STRIKES: Final = frozenset({ErrorCode.INVALID_MESSAGE, ErrorCode.RATE_LIMITED})
#: Who consumes any of these of a stream gets its status too.
_CONSUMABLE: Final = frozenset({"video-frame", "alert", "demand"})
_VIEWERS: Final = frozenset({Permission.VIEW, Permission.ALERTS})


def _wishes(message: wire.Register) -> tuple[bool, bool, bool, bool]:
    """What a registration says: whether it produces frames, and wants alerts, `demand`, and status."""
    consumes = set(message.consumes or [])
    producing = "video-frame" in (message.produces or [])
    return producing, "alert" in consumes, "demand" in consumes, bool(consumes & _CONSUMABLE)


def _owner(identity: Identity) -> Owner:
    return Owner(identity.user_id, frozenset(identity.organizations))
