"""The tree of watchout's own errors. Each class says what its catcher does.

::

    WatchoutError
    ├── SettingsError       wrong environment: report every fault, exit 2
    ├── StartError          cannot start here (lock taken, port taken): report, exit 1
    │   └── CurveFault      a key of the bus, or its file, that cannot be used
    ├── BusError            a bus message that does not fit: drop and count
    ├── RouterUnavailable   no answer from the router in time: tell the caller to try again
    ├── StoreUnavailable    the session store cannot be asked: tell the caller to try again
    └── ClientError         a client's message that is refused: send code and message, see `ErrorCode`
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class ErrorCode(enum.StrEnum):
    """Error codes of the edge protocol (docs/protocol.md, "Errors")."""

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


class WatchoutError(Exception):
    """Root of the tree."""


class SettingsError(WatchoutError):
    """Settings that cannot be used; `faults` has one sentence per wrong name."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class StartError(WatchoutError):
    """This process cannot start here; the text says what stands in the way."""


class CurveFault(StartError):
    """A key of the bus over TCP, or its file, that cannot be used; the text says what is wrong with it."""


class BusError(WatchoutError):
    """A message from the bus that does not fit the contract of docs/bus.md."""


class RouterUnavailable(WatchoutError):
    """The router gave no answer within the deadline."""


class StoreUnavailable(WatchoutError):
    """The session store cannot be asked now. `public` is what strangers may read of it, in `/health`."""

    public = "the session store is unreachable"


class ClientError(WatchoutError):
    """A client's message that is refused; `code` and the text go to the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)
