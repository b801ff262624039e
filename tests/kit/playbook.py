"""A conversation as a dialogue: ``>>`` is what happens, ``<<`` is what the session says to it.

::

    assert (
        Playbook(viewer())
        >> says(type="subscribe", streamId="door", consumes=["video-frame"])
        << AskOwner("door")
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId="door")
        << watches("door", status="streaming", owner="ann")
    )

Each event must have its whole answer before the next one; `assert` on the playbook wants nothing left over. Replies are
compared as decoded JSON without their timestamp, which must be the time of the event.
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
from watchout.gateway.client.protocol import ClientProtocol, Close, Command, Path, Reply, Watch
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import IgnoredCookie, Owner, StreamState
from watchout.gateway.stream_ids import KEY_BYTES, StreamIds
from watchout.identity import Identity

START_MS: Final = 1_729_943_200_000
ANN: Final = Identity("ann", "session-of-ann", 2e9)
BOB: Final = Identity("bob", "session-of-bob", 2e9)

#: What happens to a session at `now` and `now_ms`.
Event = Callable[[ClientProtocol, float, int], list[Command]]


def unwrap(wire: bytes) -> tuple[Opcode, bytes]:
    """Opcode and payload of exactly one whole, unmasked, uncompressed WebSocket frame, as websockets reads it."""
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
    """The JSON object in a finished text message."""
    opcode, payload = unwrap(wire)
    assert opcode is Opcode.TEXT
    value = json.loads(payload)
    assert isinstance(value, dict)
    return value


class Playbook:
    """One session, its clock, and what it said that was not expected yet."""

    def __init__(self, session: ClientProtocol, now: float = 0.0) -> None:
        self.session = session
        self.now = now
        self._said: list[Command] = []
        self._last: object = "the beginning"

    @property
    def now_ms(self) -> int:
        """The time on the wire."""
        return START_MS + round(self.now * 1000)

    def __rshift__(self, event: Event | float) -> Playbook:
        """Something happens; a number lets so many seconds pass."""
        self._all_said()
        if isinstance(event, int | float):
            self.now += event
            return self
        self._last = event.__doc__
        self._said = list(event(self.session, self.now, self.now_ms))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        """The session says this: a dict is a reply, everything else a command."""
        assert self._said, f"after {self._last}: nothing was said, expected {expected}"
        came = self._said.pop(0)
        if isinstance(expected, dict):
            assert isinstance(came, Reply), f"after {self._last}: {came}, expected the reply {expected}"
            reply = read(came.wire)
            assert reply.pop("timestamp") == self.now_ms
            assert reply == expected
        else:
            assert came == expected, f"after {self._last}"
        return self

    def __bool__(self) -> bool:
        self._all_said()
        return True

    def _all_said(self) -> None:
        assert self._said == [], f"after {self._last}: this too was said"


# ── who talks ────────────────────────────────────────────────────────────────────────────────────────────────────


def camera(
    identity: Identity | None = ANN, settings: Settings | None = None, ignored: IgnoredCookie | None = None
) -> ClientProtocol:
    """A session on the register path."""
    return _session(Path.REGISTER, identity, settings, ignored)


def viewer(
    identity: Identity | None = ANN, settings: Settings | None = None, ignored: IgnoredCookie | None = None
) -> ClientProtocol:
    """A session on the subscribe path."""
    return _session(Path.SUBSCRIBE, identity, settings, ignored)


class NumberedIds(StreamIds):
    """Makes ids that a test can foretell."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._numbers = itertools.count(1)

    def new(self, user: str, now_ms: int) -> str:
        del user
        return f"stream_{now_ms}_made{next(self._numbers)}"


def _session(
    path: Path, identity: Identity | None, settings: Settings | None, ignored: IgnoredCookie | None
) -> ClientProtocol:
    settings = settings or Settings()
    return ClientProtocol(
        path,
        settings,
        Authorization(settings),
        now=0.0,
        stream_ids=NumberedIds(bytes(KEY_BYTES)),
        identity=identity,
        ignored=ignored,
    )


# ── >> what happens ──────────────────────────────────────────────────────────────────────────────────────────────


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
    return _event(f"text {data[:200]!r}", lambda s, now, now_ms: s.text(data, now, now_ms))


def sends_binary(data: bytes) -> Event:
    """The client sends a binary message."""
    return _event(f"binary {data[:40]!r}", lambda s, now, now_ms: s.binary(data, now, now_ms))


def pings(size_bytes: int = 0) -> Event:
    """The client sends a ping."""
    return _event("a ping", lambda s, now, now_ms: s.ping(size_bytes, now, now_ms))


def store_says(identity: Identity | None) -> Event:
    """The session store answers."""
    return _event(f"the store said {identity}", lambda s, _, now_ms: s.verified(identity, now_ms))


def store_is_away() -> Event:
    """The session store cannot be asked."""
    return _event("the store is away", lambda s, _, now_ms: s.store_unavailable(now_ms))


def time_to_authenticate_is_over() -> Event:
    """The authentication timer rings."""
    return _event("the time to authenticate is over", lambda s, _, now_ms: s.auth_timeout(now_ms))


def too_many(what: str) -> Event:
    """A limit of connections is reached."""
    return _event("too many connections", lambda s, _, now_ms: s.too_many(what, now_ms))


def router_grants(term: int = 7, first_frame_id: int = 1) -> Event:
    """The router gives the stream."""
    return _event("the router granted", lambda s, _, now_ms: s.granted(term, first_frame_id, now_ms))


def router_refuses(code: str, message: str = "no") -> Event:
    """The router refuses."""
    return _event(f"the router refused: {code}", lambda s, now, now_ms: s.refused(code, message, now, now_ms))


def router_is_silent() -> Event:
    """The router did not answer in time."""
    return _event("the router is silent", lambda s, now, now_ms: s.router_unavailable(now, now_ms))


def owned_by(user: str | None, *organizations: str) -> Owner | None:
    """Whose a stream is."""
    return None if user is None else Owner(user, frozenset(organizations))


def owner_is(user: str | None, status: StreamStatus = "offline", *organizations: str) -> Event:
    """It is known whose the stream is, and how it stands."""
    owner = owned_by(user, *organizations)
    return _event(f"the owner is {owner}", lambda s, now, now_ms: s.found(StreamState(status, owner), now, now_ms))


def alerts_failed(message: str = "the router is away") -> Event:
    """An alert could not be handed on, or recent ones not be had."""
    return _event("alerts failed", lambda s, now, now_ms: s.alerts_failed(message, now, now_ms))


def another_socket_takes(stream: str) -> Event:
    """The stream is taken over."""
    return _event(f"{stream} taken over", lambda s, _, now_ms: s.taken_over(stream, now_ms))


def right_is_lost(stream: str) -> Event:
    """The viewer may see the stream no more."""
    return _event(f"right to {stream} lost", lambda s, now, now_ms: s.right_lost(stream, now, now_ms))


def session_renewed(identity: Identity) -> Event:
    """The session was looked up again and says something else."""
    return _event(f"renewed as {identity}", lambda s, _, now_ms: s.renewed(identity, now_ms))


def session_ends() -> Event:
    """The session behind the socket is no more."""
    return _event("the session ended", lambda s, _, now_ms: s.session_ended(now_ms))


def lane_is_full() -> Event:
    """The message lane of this client is full."""
    return _event("the lane is full", lambda s, _, now_ms: s.slow(now_ms))


def gateway_restarts() -> Event:
    """The gateway lets its clients go."""
    return _event("the gateway restarts", lambda s, _, __: s.close(CloseCode.RESTART, "restart"))


# ── << what is said ──────────────────────────────────────────────────────────────────────────────────────────────


class _Text:
    """Equal to every text with something in it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other.strip())

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<text>"


SOME_TEXT: Final = _Text()


def error(code: str) -> dict[str, Any]:
    """An error reply with this code and some message."""
    return {"type": "error", "code": code, "message": SOME_TEXT}


def success(message: str, **fields: Any) -> dict[str, Any]:
    """A success reply, with the event that goes with its text."""
    event = {"Authentication": "authenticated", "Registration": "registered", "Subscription": "subscribed"}
    return {"type": "success", "message": message, "event": event[message.split()[0]], **fields}


def closes(code: CloseCode) -> Close:
    """The socket closes with this code, whatever the reason says."""
    return Close(code, ANY)


class _Watching:
    def __init__(self, watch: Callable[[Watch], bool], text: str) -> None:
        self._watch = watch
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watch) and self._watch(other)

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
    """A `Watch` of a stream, with these attributes of its subscription."""

    expected_owner = owned_by(owner, *organizations)

    def fits(watch: Watch) -> bool:
        subscription: Subscription = watch.subscription
        return (
            subscription.stream == stream
            and (watch.word, watch.alerts_since) == (StreamState(status, expected_owner), alerts_since)
            and all(getattr(subscription, name) == value for name, value in wishes.items())
        )

    return _Watching(fits, f"Watch({stream}, {status}, {owner}, {alerts_since}, {wishes})")
