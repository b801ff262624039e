"""Checks periodically whether clients are still authenticated: sessions in batches, tokens one by one, expiry by time.

`Presence` decides who is due and what a result means; this module does the I/O. While the session store cannot be asked
no client is closed; the first round after it is back checks all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from watchout.common import log, metric_names, supervisor
from watchout.common.errors import StoreUnavailable
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.common.supervisor import Periodic
from watchout.gateway.presence import Presence
from watchout.gateway.shares.source import GatewayShares
from watchout.identity import Authenticator, Identity

#: Most sessions, or users, in one query.
BATCH: Final = 1000
#: Longest time between two checks of shares, in seconds.
SHARES_EVERY_S: Final = 1.0
#: Most introspections at once.
INTROSPECTIONS: Final = 16
_log = log.get("gateway.revalidation")


class RevalidatedClient(Protocol):
    """A client whose authentication is checked again: a WebSocket's handler, or an HTTP request that awaits something.

    Called by `Revalidation`; implemented by `ClientHandler`, `Mjpeg` and `Caller`.
    """

    def __hash__(self) -> int: ...

    def on_session_ended(self) -> None:
        """Handle that the client is no longer authenticated: end it. It has left `Presence` already."""

    def on_identity_changed(self, identity: Identity) -> None:
        """Handle a changed identity, such as other roles or organizations: judge all permissions again."""


class Revalidation:
    """Runs the periodic checks of one gateway, and checks at once what the session store reports as changed.

    Args:
        settings: `RECHECK_S`, `INTROSPECTION_RECHECK_S`.
        metrics: Counts checks and rounds that failed.
        presence: The clients.
        authenticator: Looks sessions, tokens and organizations up. Its `StoreUnavailable` ends a round, not the task.
        shares: Looks the shares up that clients signed in with.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        presence: Presence[Any],
        authenticator: Authenticator,
        shares: GatewayShares,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._presence: Presence[RevalidatedClient] = presence
        self._authenticator = authenticator
        self._shares = shares
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._all = False

    def on_changed(self, session_id: str | None, user_id: str | None) -> None:
        """Handle a notification of the database that a session or a user changed; with neither, anything may have."""
        if session_id is None and user_id is None:
            self._all = True
        else:
            self._changed |= self._presence.sessions_of(session_id, user_id)
        self._wake.set()

    def begin(self) -> list[Periodic]:
        """Start the periodic checks, each every `RECHECK_S` until its `Periodic` is closed. Run `check_changed` too."""
        every, recheck_s = supervisor.current().every, self._settings.recheck_s
        checks = {
            "sessions": self._sessions,
            "ends of sessions": self._ends,
            "memberships": self._memberships,
            "introspections": self._introspections,
        }
        shares = every(min(recheck_s, SHARES_EVERY_S), self._round_of(self._check_shares), "shares", first_s=0)
        return [shares, *(every(recheck_s, self._round_of(check), name, first_s=0) for name, check in checks.items())]

    def _round_of(
        self, check: Callable[[float], Coroutine[Any, Any, None]]
    ) -> Callable[[], Coroutine[Any, Any, None] | None]:
        """Return what begins a round: nothing while nobody is here."""
        loop, recheck_s = asyncio.get_running_loop(), self._settings.recheck_s
        return lambda: self._guarded(check, loop.time() + recheck_s) if self._presence else None

    async def check_changed(self) -> None:
        """Check the sessions that `on_changed` named, as soon as it does. Runs until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            everything, self._all = self._all, False
            await self._guarded(self._check, self._presence.sessions() if everything else list(changed))

    async def _guarded(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run a check; an unreachable store, which `identity` logs, is only counted."""
        try:
            await work(*arguments)
        except StoreUnavailable:
            self._metrics.count(metric_names.REVALIDATION_FAILED)

    async def _sessions(self, due: float) -> None:
        await self._check(self._presence.sessions(), due)

    async def _check(self, sessions: Sequence[str], due: float = 0.0) -> None:
        batches = [sessions[at : at + BATCH] for at in range(0, len(sessions), BATCH)]
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            live = await self._authenticator.live(batch)
            self._metrics.count(metric_names.SESSIONS_REVALIDATED, len(batch))
            ended, renewed = self._presence.update_sessions(batch, live)
            self._end(ended)
            self._renew(renewed)
            if left:  # spread the batches over the time until the next round
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()) / (left + 1))

    async def _ends(self, due: float) -> None:
        del due
        self._end(self._presence.expired(time.time()))

    async def _memberships(self, due: float) -> None:
        del due
        users = self._presence.users_without_session()
        for at in range(0, len(users), BATCH):
            batch = users[at : at + BATCH]
            self._renew(self._presence.update_organizations(batch, await self._authenticator.organizations(batch)))

    async def _introspections(self, due: float) -> None:
        del due
        tokens = self._presence.due_introspections(time.time(), self._settings.introspection_recheck_s)
        turn = asyncio.Semaphore(INTROSPECTIONS)

        async def one(client: RevalidatedClient, token: str) -> None:
            async with turn:
                found = await self._authenticator.introspect(token, recheck=True)
            ended, renewed = self._presence.update_introspected(client, found, time.time(), token=token)
            self._end(ended)
            self._renew(renewed)

        guarding = supervisor.current().guarding

        async def guarded(client: RevalidatedClient, token: str) -> None:
            with guarding("introspection of a token"):
                await self._guarded(one, client, token)

        await asyncio.gather(*(guarded(client, token) for client, token in tokens))

    async def _check_shares(self, due: float) -> None:
        del due
        shares = self._presence.shares()
        unknown = 0
        for at in range(0, len(shares), BATCH):
            ended, of_batch = await self._shares.ended(shares[at : at + BATCH])
            self._end(self._presence.of_shares(ended))
            unknown += of_batch
        if unknown:
            raise StoreUnavailable(f"of {unknown} shares it is not known whether they have ended")

    def _end(self, clients: Sequence[RevalidatedClient]) -> None:
        for client in clients:
            self._presence.remove(client)
            try:
                client.on_session_ended()
            except Exception:  # a failure of one client must not keep another open
                _log.exception("closing a client whose session has ended failed")

    def _renew(self, renewed: Sequence[tuple[RevalidatedClient, Identity]]) -> None:
        for client, identity in renewed:
            try:
                client.on_identity_changed(identity)
            except Exception:  # nor leave another with permissions that it lost
                _log.exception("changing the identity of a client failed")
