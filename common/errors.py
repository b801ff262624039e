"""The errors that cross modules, as one tree; each says what its caller does.

::

    WatchoutError
    ├── SettingsError       settings that cannot be used: print all faults, exit 2
    ├── StartError          this process cannot start here: print the text, exit 1
    │   └── CurveFault      a key of the bus, or its file, that cannot be used
    ├── BusError            a bus message that does not fit: drop and count
    ├── RouterUnavailable   no answer from the router in time: tell the caller to try again
    ├── StoreUnavailable    the session store cannot be asked: tell the caller to try again
    └── ClientError         a client's message that is refused: send code and message, see `ErrorCode`
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final


class ErrorCode(enum.StrEnum):
    """Error codes that clients receive over WebSocket and HTTP (docs/protocol.md, "Errors")."""

    AUTH_REQUIRED = "AUTH_REQUIRED"
    AUTH_FAILED = "AUTH_FAILED"
    AUTH_TIMEOUT = "AUTH_TIMEOUT"
    AUTH_UNAVAILABLE = "AUTH_UNAVAILABLE"
    ALREADY_AUTHENTICATED = "ALREADY_AUTHENTICATED"
    SESSION_ENDED = "SESSION_ENDED"
    UNAUTHORIZED = "UNAUTHORIZED"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_MESSAGE_TYPE = "UNKNOWN_MESSAGE_TYPE"
    ROUTING_ERROR = "ROUTING_ERROR"
    STREAM_TAKEN_OVER = "STREAM_TAKEN_OVER"
    RATE_LIMITED = "RATE_LIMITED"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    MESSAGE_TIMEOUT = "MESSAGE_TIMEOUT"


class CloseCode(enum.IntEnum):
    """WebSocket close codes that watchout sends by itself (RFC 6455 section 7.4, docs/protocol.md)."""

    GOING_AWAY = 1001
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013
    SLOW_CONSUMER = 4400
    MESSAGE_TIMEOUT = 4408
    SESSION_ENDED = 4500
    TAKEN_OVER = 4501


#: Reason of a close with `CloseCode.RESTART`.
RESTART: Final = "restart"
#: The same by a gateway of which others take over the clients, a few at a time: who
#: reads it need not wait before it connects again (docs/protocol.md).
RECONNECT_NOW: Final = "restart, reconnect now"


class WatchoutError(Exception):
    """Base class of the errors that watchout raises by itself; each subclass says who raises it and what follows."""


class SettingsError(WatchoutError):
    """Settings that cannot be used; raised by `common.settings.load`.

    `faults` has one sentence per setting. A process prints them and exits with 2.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class StartError(WatchoutError):
    """This process cannot start with its settings or on this machine. Raised while a process starts.

    The text says why. `common.service.run` prints it and exits with 1.
    """


class CurveFault(StartError):
    """A key of the bus over TCP, or its file, cannot be used; the text says why. Raised by `common.bus.zeromq.curve`.

    A router or bridge that is starting exits with 1; ``watchout-ctl keys`` prints the text.
    """


class BusError(WatchoutError):
    """A message of the bus violates docs/bus.md. Raised by the decoders; the receiver drops and counts the message."""


class RouterUnavailable(WatchoutError):
    """The router did not reply within the deadline, or too many requests wait for it. Raised by `BusClient.request`.

    The gateway asks its client to try again: over HTTP with status 503, over a WebSocket with an error message.
    """


class RouterRefused(RouterUnavailable):
    """The router replied that it cannot do what was asked now, such as store a share. Its text is for clients.

    Raised by the requests of `gateway.shares`; the gateway passes the text on, and asks its client to try again.
    """


class StoreUnavailable(WatchoutError):
    """The session store, or another source of identities, cannot be used now. Raised by the sources in
    `identity.sources`.

    The gateway keeps connections that are authenticated, and asks new clients to try again (503 over HTTP). `public` is
    the text for `/health`, which anyone may read.
    """

    public = "the session store is unreachable"


class ClientError(WatchoutError):
    """A message of a client is refused; raised by `gateway.wire` and `ClientProtocol`.

    `ClientProtocol` sends `code` and the text to the client as an error. It closes the connection only after many
    errors.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)
