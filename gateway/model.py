"""The values that all parts of the gateway share: the owner of a stream, and what is known of a stream. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from watchout.common.bus.messages import StreamStatus
from watchout.common.errors import ErrorCode
from watchout.identity import Identity


class SocketPath(enum.StrEnum):
    """The two URL paths of WebSockets: a client registers a stream on one, and subscribes to streams on the other."""

    REGISTER = "/streams/register"
    SUBSCRIBE = "/streams/subscribe"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a stream: the user who publishes it, and the ids of the organizations that this user belongs to.

    Made from an `identity.Identity` when a publisher registers, or from a reply of the router.
    """

    user_id: str
    organizations: frozenset[str] = frozenset()

    @classmethod
    def of(cls, identity: Identity) -> Owner:
        """Return the owner of the streams that this identity publishes."""
        return cls(identity.user_id, frozenset(identity.organizations))


@dataclass(frozen=True, slots=True)
class StreamState:
    """Status, owner and term of a stream; of two states of one stream, the one with the higher term holds.

    The hub returns it for streams of this gateway, `RouterClient.find` for all others. `owner` is None while nobody
    has registered the stream. `info` is what its camera says of itself, as JSON; "": nothing. `alerts_after` is set in
    the reply of a router: its epoch, and the number of the last alert that it had accepted then.
    """

    status: StreamStatus = "offline"
    owner: Owner | None = None
    term: int = 0
    info: str = ""
    alerts_after: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream is published: the name of the machine, and the URL at which clients reach it, if that is known."""

    host: str
    url: str | None


@dataclass(frozen=True, slots=True)
class IgnoredCookie:
    """Why the session cookie of a request was not used to sign in; made by `requests.sign_in`.

    `reason` is the end of a sentence for the client. With the code `AUTH_REQUIRED` the cookie is of no use. With any
    other code the cookie may be good later (the session store is away, a limit is reached): a client that sends
    anything but `auth` then gets this code and a close that asks it to reconnect.
    """

    reason: str
    code: ErrorCode = ErrorCode.AUTH_REQUIRED
