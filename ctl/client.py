"""What `publish` and `watch` share: how they connect with `watchout.client`, and its errors as ends of a command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from watchout.client import (
    Client,
    ConnectionPhase,
    NotAGateway,
    NoToken,
    PhaseChanged,
    Problem,
    Refused,
    TokenRefused,
    Unreachable,
    WatchoutClientError,
    connect,
)
from watchout.ctl.doctor.gateway_port import held_ports
from watchout.ctl.environment import Environment, Failure, edge_url, token_origin, token_source
from watchout.ctl.terminal import printable

Message = dict[str, Any]

#: Seconds between two looks whether a gateway is there, within the time of `--wait`; and for one look.
WAIT_STEP_S: Final = 0.25
PROBE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Where and how to connect.

    Attributes:
        url: the gateway, as ``ws://`` or ``wss://`` without a path.
        token: returns the session token; called for the first connection. It may raise `Failure`.
        max_message_bytes: ``MAX_MESSAGE_BYTES`` of the gateway.
        token_origin: where the token comes from, a sentence for when it is refused; empty: the user gave it.
        wait_s: seconds in which the first connection is tried again.
        home: ``WATCHOUT_HOME`` when the address comes from the settings; None when the user gave it.
    """

    url: str
    token: Callable[[], str]
    max_message_bytes: int
    token_origin: str = ""
    wait_s: float = 0.0
    home: Path | None = None

    @classmethod
    def chosen(cls, environment: Environment, *, url: str | None, token: str | None, wait_s: float) -> Self:
        """The gateway of the options ``--url``, ``--token`` and ``--wait``; what is not given, the settings say.

        Args:
            environment: The settings, and ``WATCHOUT_TOKEN``.
            url: ``--url``; None takes the gateway of the settings.
            token: ``--token``; None takes ``WATCHOUT_TOKEN``, or creates one in the embedded session store.
            wait_s: Seconds in which the first connection is tried again.

        Raises:
            click.UsageError: The URL is not that of a gateway.
            Failure: There is no token, or it cannot be one.
        """
        settings = environment.settings
        return cls(
            url=edge_url(url, settings),
            token=token_source(token, environment),
            token_origin=token_origin(token, environment),
            max_message_bytes=settings.max_message_bytes,
            wait_s=wait_s,
            home=settings.home if url is None else None,
        )

    @property
    def elsewhere(self) -> str:
        """Where a gateway of the same home listens instead, as the end of a sentence; empty when none does. Blocks."""
        if self.home is None:
            return ""
        held = held_ports(self.home)
        ports = sorted(port for port, has in held.items() if has and port != urlsplit(self.url).port)
        if not ports:
            return ""
        return (
            f"; a gateway of WATCHOUT_HOME={self.home} listens on port {', '.join(map(str, ports))}: set "
            f"WATCHOUT_PORT={ports[0]}, or give --url"
        )


@contextlib.asynccontextmanager
async def connected(
    edge: Edge, notify: Callable[[str], None], on_problem: Callable[[Problem], None]
) -> AsyncIterator[Client]:
    """A client of the gateway for the time of a command.

    Args:
        edge: where and how to connect.
        notify: gets a line on each lost connection, with the pause before the next attempt.
        on_problem: gets what the gateway reports without ending anything.

    Raises:
        Failure: no gateway responds within `edge.wait_s`, or it refuses the client for good.
    """
    responded = False

    def on_phase(change: PhaseChanged) -> None:
        nonlocal responded
        responded = responded or change.phase is ConnectionPhase.ONLINE
        if change.phase is ConnectionPhase.WAITING and responded:
            notify(f"{printable(change.reason)}; trying again in {change.delay_s:.1f} s")

    client = connect(
        edge.url,
        token=_Token(edge).get,
        wait_s=edge.wait_s,
        max_message_bytes=edge.max_message_bytes,
        on_phase=on_phase,
        on_problem=on_problem,
    )
    try:
        async with client:
            yield client
    except WatchoutClientError as error:
        raise failure_of(error, edge) from None


def failure_of(error: WatchoutClientError, edge: Edge) -> Failure:
    """Return the end of a command for an error of the client.

    Args:
        error: the error.
        edge: how the command connects.
    """
    if isinstance(error.__cause__, Failure):  # the token could not be had
        return error.__cause__
    text = printable(error)
    if isinstance(error, Unreachable | NotAGateway):
        return Failure(text + edge.elsewhere)
    if isinstance(error, TokenRefused):
        return Failure(f"the token was refused ({text}){f': {edge.token_origin}' if edge.token_origin else ''}")
    return Failure(f"{printable(error.code)}: {printable(error.message)}" if isinstance(error, Refused) else text)


class _Token:
    """The token of a command: had once, when a gateway is there; so a missing gateway is what is reported first."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._loop = asyncio.get_running_loop()
        self._give_up_at = self._loop.time() + edge.wait_s

    async def get(self, why: str) -> str:
        if why != "connect":
            raise NoToken("this command has one token")
        while True:
            try:
                return self._edge.token()
            except Failure as fault:
                if await self._is_listening():
                    raise NoToken(fault.message) from fault
            if self._loop.time() >= self._give_up_at:
                text = f"nothing is running at {self._edge.url} (is `honcho start` up?){self._edge.elsewhere}"
                raise NoToken(text) from Failure(text)
            await asyncio.sleep(WAIT_STEP_S)

    async def _is_listening(self) -> bool:
        parts = urlsplit(self._edge.url)
        try:
            async with asyncio.timeout(PROBE_S):
                _, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80)
                )
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
