"""What a core tells the code around it to do: commands, as values. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


class ConnectionPhase(enum.StrEnum):
    """Where a connection is, for people and for tests: `Client.state`.

    IDLE: nothing wants it yet. CONNECTING: from the token to the success of `auth`. ONLINE: signed in. WAITING: lost,
    the next attempt comes after a pause. CLOSED: for good.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Get a token; report it with `on_token` or `on_token_failed`.

    `why`: ``connect``, ``rejected`` (that one is no good), ``ended`` (its session is over) or ``expiring``.
    """

    why: str


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Command to open the WebSocket. The driver reports the outcome by `on_open` or `on_open_failed`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Command to send a message of the protocol, as JSON text, on the open socket."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Command to close the socket; the driver reports nothing more about it. `abort`: without a closing handshake."""

    abort: bool = False


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The phase changed.

    Attributes:
        phase: the new one.
        reason: why the connection was lost or closed, a clause for people; empty else.
        delay_s: seconds until the next attempt; None: there is none to wait for.
        code: the reason as a code: the gateway's error code, or ``CONNECTION_LOST``, ``NETWORK_SILENT`` or
            ``TOKEN_UNAVAILABLE``; empty else.
    """

    phase: ConnectionPhase
    reason: str = ""
    delay_s: float | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Wake:
    """Command to wake whoever waits for the subscription `key`: it has frames or alerts, was confirmed, or ended."""

    key: int


@dataclass(frozen=True, slots=True)
class Done:
    """Command to end the wait for the request `key`: the gateway confirmed it, or it failed with `error`, which is
    raised to the caller.
    """

    key: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the program about something that ends nothing: a `Problem`, or a `Demand` or an alert for a camera."""

    event: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is closed for good, because of this error, which is raised to everybody who waits."""

    error: Exception


Command: TypeAlias = FetchToken | OpenSocket | Send | CloseSocket | PhaseChanged | Wake | Done | Report | Failed
