"""The commands that a core returns to its driver. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


class ConnectionPhase(enum.StrEnum):
    """Phase of a connection, as `Client.state` returns it.

    IDLE: not needed yet. CONNECTING: from the request for a token to the success of `auth`. ONLINE: signed in. WAITING:
    lost; the client reconnects after a pause. CLOSED: for good.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Command to get a token. The driver reports the outcome by `on_token` or `on_token_failed`.

    `why`: ``connect``, ``rejected`` (the gateway refused the last token), ``ended`` (its session has ended) or
    ``expiring``.
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
    """Command to report that the phase changed.

    Attributes:
        phase: the new phase.
        reason: why the connection was lost or closed, as a clause; otherwise empty.
        delay_s: seconds until the next attempt; None: none is scheduled.
        code: the reason as a code: the gateway's error code, or ``CONNECTION_LOST``, ``NETWORK_SILENT`` or
            ``TOKEN_UNAVAILABLE``; otherwise empty.
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
    """Command to pass something to the program that ends nothing: a `Problem`, or a `Demand` or alert for a camera."""

    event: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """Command to raise this error to all callers that wait: it closed the connection for good."""

    error: Exception


Command: TypeAlias = FetchToken | OpenSocket | Send | CloseSocket | PhaseChanged | Wake | Done | Report | Failed
