"""Options, steps, requests and time limits of a connection. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from watchout.client.commands import ConnectionPhase

#: Seconds after which a connection counts as stable: the back-off then starts from the beginning, and another token is
#: fetched when the session ends.
STEADY_S: Final = 10.0
#: Upper bound of the pause before a reconnect, in seconds, when the gateway said that others take over its clients; and
#: how often that counts until a connection is stable again: one that is sent on again and again backs off.
AT_ONCE_S: Final = 0.1
MOST_AT_ONCE: Final = 8
#: Seconds after which a connection whose gateway does not reply to a request counts as lost.
REPLY_S: Final = 15.0
#: Codes for why a connection was lost that the client sets; all others are error codes of the gateway.
CONNECTION_LOST: Final = "CONNECTION_LOST"
NETWORK_SILENT: Final = "NETWORK_SILENT"
#: Bounds of `pingEvery`, in seconds.
PING_BOUNDS_S: Final = (5.0, 60.0)
#: A token is renewed this long before it expires, in seconds, but at the earliest after this share of its time.
RENEW_BEFORE_S: Final = 60.0
RENEW_AFTER_SHARE: Final = 0.7
#: Shortest time between two renewals, in seconds.
LEAST_RENEWAL_S: Final = 1.0
#: First and longest pause before a renewal is tried again, in seconds.
RENEW_RETRY_S: Final = (2.0, 30.0)


class Step(enum.Enum):
    """What the connection waits for: a token, the socket, the reply to `auth`, or the end of a pause; `PHASES` says
    which of them the program sees as one phase.
    """

    IDLE = enum.auto()
    TOKEN = enum.auto()
    OPENING = enum.auto()
    SIGN_IN = enum.auto()
    ONLINE = enum.auto()
    PAUSE = enum.auto()
    CLOSED = enum.auto()


PHASES: Final = {
    Step.IDLE: ConnectionPhase.IDLE,
    Step.TOKEN: ConnectionPhase.CONNECTING,
    Step.OPENING: ConnectionPhase.CONNECTING,
    Step.SIGN_IN: ConnectionPhase.CONNECTING,
    Step.ONLINE: ConnectionPhase.ONLINE,
    Step.PAUSE: ConnectionPhase.WAITING,
    Step.CLOSED: ConnectionPhase.CLOSED,
}


#: Requests without whose reply the connection counts as lost.
ASKING: Final = ("auth", "register", "subscribe")
#: The request that a success without a request id answers, by its `event`.
KINDS: Final = {
    "authenticated": "auth",
    "registered": "register",
    "subscribed": "subscribe",
    "unsubscribed": "unsubscribe",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How a connection behaves; made by `connect`.

    Attributes:
        silence_s: seconds without a message after which a connection counts as lost. The gateway is asked to send a
            ping in each silence of a third of that, and the client sends a ping after half of it.
        backoff_first_s: upper bound of the first pause before a reconnect, in seconds; it doubles with each attempt.
        backoff_most_s: upper bound of the longest pause. The pause itself is any part of the bound, at random.
        refreshable: whether the token comes from a callback, which may return a new one.
        impatient: whether a caller waits for the first connection; until it is established pauses are short.
    """

    silence_s: float = 15.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    refreshable: bool = False
    impatient: bool = False

    @property
    def ping_every(self) -> int:
        """Seconds of silence after which the gateway is asked to send a ping."""
        least_s, most_s = PING_BOUNDS_S
        return int(min(most_s, max(least_s, self.silence_s // 3)))


@dataclass(slots=True)
class Request:
    """A message to the gateway that waits for its reply, kept by `ConnectionCore` until then.

    Past `deadline` (monotonic seconds) the connection counts as lost when it is of a kind in `ASKING`; any other
    request is forgotten.
    """

    kind: str
    target: Any
    deadline: float
    stream_id: str | None = None
