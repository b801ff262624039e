"""Tests of a client's protocol as dialogues: ``>>`` reports an event, ``<<`` expects the next command.

::

    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["video-frame"])
        << FindStream("door")
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId="door")
        << watches("door", status="streaming", owner="ann")
    )

All commands of an event must be expected before the next event; `assert` on the playbook fails when one is left over.
Replies are compared as decoded JSON without their timestamp, which must be the time of the event.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, Final
from unittest.mock import ANY

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from watchout.common.bus.messages import StreamStatus
from watchout.common.errors import CloseCode
from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.client.accepted_client import AcceptedClient
from watchout.gateway.client.commands import BeginSubscription, Close, Command, Reply
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import IgnoredCookie, Owner, SocketPath, StreamState
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds
from watchout.identity import Identity

START_MS: Final = 1_729_943_200_000
ANN: Final = Identity("ann", "session-of-ann", 2e9)
BOB: Final = Identity("bob", "session-of-bob", 2e9)

#: Reports an event to a protocol at `now` (seconds) and `now_ms`, and returns the commands.
Event = Callable[[ClientProtocol, float, int], list[Command]]


def unwrap(wire: bytes) -> tuple[Opcode, bytes]:
    """Return opcode and payload of exactly one complete, unmasked, uncompressed WebSocket frame, read by websockets."""
    reader = StreamReader()
    reader.feed_data(wire)
    reader.feed_eof()
    parsing = WebSocketFrame.parse(reader.read_exact, mask=False)
    try:
        next(parsing)
    except StopIteration as stop:
        frame: WebSocketFrame = stop.value
    else:
        raise AssertionError("the frame is not whole")
    assert not reader.buffer, "bytes after the frame"
    assert frame.fin
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)
    return frame.opcode, bytes(frame.data)


def read(wire: bytes) -> dict[str, Any]:
    """Return the JSON object in a ready-made text message."""
    opcode, payload = unwrap(wire)
    assert opcode is Opcode.TEXT
    value = json.loads(payload)
    assert isinstance(value, dict)
    return value


class Playbook:
    """A client's protocol, its clock, and the commands of the last event that were not expected yet."""

    def __init__(self, session: ClientProtocol, now: float = 0.0) -> None:
        self.session = session
        self.now = now
        self._commands: list[Command] = []
        self._last: object = "the beginning"

    @property
    def now_ms(self) -> int:
        """The clock in milliseconds since the epoch."""
        return START_MS + round(self.now * 1000)

    def __rshift__(self, event: Event | float) -> Playbook:
        """Report an event; a number lets so many seconds pass."""
        self._expect_no_more()
        if isinstance(event, int | float):
            self.now += event
            return self
        self._last = event.__doc__
        self._commands = list(event(self.session, self.now, self.now_ms))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        """Expect the next command; a dict stands for a `Reply` with this JSON object."""
        assert self._commands, f"after {self._last}: no command, expected {expected}"
        command = self._commands.pop(0)
        if isinstance(expected, dict):
            assert isinstance(command, Reply), f"after {self._last}: {command}, expected the reply {expected}"
            reply = read(command.wire)
            assert reply.pop("timestamp") == self.now_ms
            if reply["type"] == "error" and "streamId" not in expected:
                reply.pop("streamId", None)
            assert reply == expected
        else:
            assert command == expected, f"after {self._last}"
        return self

    def __bool__(self) -> bool:
        self._expect_no_more()
        return True

    def _expect_no_more(self) -> None:
        assert self._commands == [], f"after {self._last}: commands that were not expected"


# ── protocols ────────────────────────────────────────────────────────────────────────────────────────────────────


def camera(
    identity: Identity | None = ANN, settings: Settings | None = None, ignored: IgnoredCookie | None = None
) -> ClientProtocol:
    """Return a protocol on the register path."""
    return _session(SocketPath.REGISTER, identity, settings, ignored)


def viewer(
    identity: Identity | None = ANN, settings: Settings | None = None, ignored: IgnoredCookie | None = None
) -> ClientProtocol:
    """Return a protocol on the subscribe path."""
    return _session(SocketPath.SUBSCRIBE, identity, settings, ignored)


class NumberedIds(StreamIds):
    """Stream ids that a test knows in advance."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._numbers = itertools.count(1)

    def new(self, user: str, now_ms: int) -> str:
        del user
        return f"stream_{now_ms}_made{next(self._numbers)}"


def _session(
    path: SocketPath, identity: Identity | None, settings: Settings | None, ignored: IgnoredCookie | None
) -> ClientProtocol:
    settings = settings or Settings()
    client = AcceptedClient(
        path=path,
        settings=settings,
        authorization=Authorization(settings),
        now=0.0,
        stream_ids=NumberedIds(bytes(KEY_BYTES)),
        identity=identity,
        ignored_cookie=ignored,
    )
    return ClientProtocol(client)


# ── >> events ──────────────────────────────────────────────────────────────────────────────────────────────


def _event(text: str, run: Event) -> Event:
    def event(session: ClientProtocol, now: float, now_ms: int) -> list[Command]:
        return run(session, now, now_ms)

    event.__doc__ = text
    return event


def says(**fields: Any) -> Event:
    """The client sends this JSON object."""
    return sends_text(json.dumps(fields).encode())


def sends_text(data: bytes) -> Event:
    """The client sends a text message of these bytes."""
    return _event(f"text {data[:200]!r}", lambda s, now, now_ms: s.receive_text(data, now, now_ms))


def sends_binary(data: bytes) -> Event:
    """The client sends a binary message."""
    return _event(f"binary {data[:40]!r}", lambda s, now, now_ms: s.receive_binary(data, now, now_ms))


def pings(size_bytes: int = 0) -> Event:
    """The client sends a ping."""
    return _event("a ping", lambda s, now, now_ms: s.receive_control(size_bytes, now, now_ms))


def store_says(identity: Identity | None) -> Event:
    """The session store replies; None: the token is not valid."""
    return _event(f"the store replied {identity}", lambda s, _, now_ms: s.on_verified(identity, now_ms))


def store_is_away() -> Event:
    """The session store cannot be reached."""
    return _event("the store is away", lambda s, _, now_ms: s.on_store_unavailable(now_ms))


def renewed_as(identity: Identity | None) -> Event:
    """The session store replies to a renewal; None: the token is not valid."""
    return _event(f"the store replied {identity}", lambda s, now, now_ms: s.on_renewed(identity, now, now_ms))


def renewal_is_unavailable() -> Event:
    """The session store cannot be reached for a renewal."""
    return _event("the store is away", lambda s, now, now_ms: s.on_renewal_unavailable(now, now_ms))


def time_to_authenticate_is_over() -> Event:
    """The time for authentication ends."""
    return _event("the time to authenticate is over", lambda s, _, now_ms: s.on_auth_timeout(now_ms))


def too_many(what: str) -> Event:
    """A limit of connections is reached."""
    return _event("too many connections", lambda s, _, now_ms: s.on_connection_limit(what, now_ms))


def router_grants(term: int = 7, first_frame_id: int = 1) -> Event:
    """The router grants the claim."""
    return _event("the router granted", lambda s, _, now_ms: s.on_claimed(term, first_frame_id, now_ms))


def router_refuses(code: str, message: str = "no") -> Event:
    """The router refuses the claim."""
    return _event(f"the router refused: {code}", lambda s, now, now_ms: s.on_refused(code, message, now, now_ms))


def router_is_silent() -> Event:
    """The router did not answer in time."""
    return _event("the router is silent", lambda s, now, now_ms: s.on_router_unavailable(now, now_ms))


def owned_by(user: str | None, *organizations: str) -> Owner | None:
    """Return the owner of a stream; None for a stream without one."""
    return None if user is None else Owner(user, frozenset(organizations))


def owner_is(user: str | None, status: StreamStatus = "offline", *organizations: str) -> Event:
    """Owner and status of the stream are found."""
    owner = owned_by(user, *organizations)
    return _event(f"the owner is {owner}", lambda s, now, now_ms: s.on_found(StreamState(status, owner), now, now_ms))


def alerts_failed(message: str = "the router is away") -> Event:
    """An alert did not reach the router, or recent ones are not available."""
    return _event("alerts failed", lambda s, now, now_ms: s.on_alert_failed(message, now, now_ms))


def alerts_fetched(missing_before: int | None) -> Event:
    """The recent alerts for `alertsSince` are there; None: nothing is missing."""
    return _event("alerts fetched", lambda s, _, now_ms: s.on_alerts_fetched(missing_before, now_ms))


def another_socket_takes(stream: str) -> Event:
    """Another socket registers the stream."""
    return _event(f"{stream} taken over", lambda s, _, now_ms: s.on_taken_over(stream, now_ms))


def right_is_lost(stream: str) -> Event:
    """The viewer loses the permission for a stream."""
    return _event(f"right to {stream} lost", lambda s, now, now_ms: s.on_permission_lost(stream, now, now_ms))


def session_renewed(identity: Identity) -> Event:
    """The auth session is renewed with a changed identity."""
    return _event(f"renewed as {identity}", lambda s, _, now_ms: s.on_identity_changed(identity, now_ms))


def session_ends() -> Event:
    """The auth session ends."""
    return _event("the session ended", lambda s, _, now_ms: s.on_session_ended(now_ms))


def lane_is_full() -> Event:
    """The outbound queue of this client is full."""
    return _event("the lane is full", lambda s, _, now_ms: s.on_slow_consumer(now_ms))


def gateway_restarts() -> Event:
    """The gateway restarts and closes its clients."""
    return _event("the gateway restarts", lambda s, _, __: s.close(CloseCode.RESTART, "restart"))


# ── << commands ──────────────────────────────────────────────────────────────────────────────────────────────


class _Text:
    """Equal to every text that is not blank."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other.strip())

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<text>"


SOME_TEXT: Final = _Text()


def error(code: str, **fields: Any) -> dict[str, Any]:
    """Return an error reply with this code, any message and these fields; without `streamId`, any stream."""
    return {"type": "error", "code": code, "message": SOME_TEXT, **fields}


def success(message: str, **fields: Any) -> dict[str, Any]:
    """Return a success reply, with the event that belongs to its text."""
    event = {
        "Authentication": "authenticated",
        "Registration": "registered",
        "Subscription": "subscribed",
        "Unsubscription": "unsubscribed",
        "Alert": "alert-accepted",
    }
    return {"type": "success", "message": message, "event": event[message.split()[0]], **fields}


def closes(code: CloseCode) -> Close:
    """Return the command to close with this code and any reason."""
    return Close(code, ANY)


class _Watching:
    def __init__(self, watch: Callable[[BeginSubscription], bool], text: str) -> None:
        self._watch = watch
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BeginSubscription) and self._watch(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return self._text


def watches(
    stream: str,
    *,
    status: StreamStatus = "offline",
    owner: str | None = None,
    organizations: tuple[str, ...] = (),
    alerts_since: int | None = None,
    **wishes: Any,
) -> object:
    """Return what equals a `BeginSubscription` of a stream whose subscription has these attributes."""

    expected_owner = owned_by(owner, *organizations)

    def fits(watch: BeginSubscription) -> bool:
        subscription: Subscription = watch.subscription
        return (
            subscription.stream == stream
            and (watch.state, watch.alerts_since) == (StreamState(status, expected_owner), alerts_since)
            and all(getattr(subscription, name) == value for name, value in wishes.items())
        )

    return _Watching(fits, f"BeginSubscription({stream}, {status}, {owner}, {alerts_since}, {wishes})")
