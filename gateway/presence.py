"""The authenticated clients of a gateway, by what ends their access: session, expiry, token introspection. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from watchout.identity import Identity, Organizations

M = TypeVar("M", bound=Hashable)


class Presence(Generic[M]):
    """Index of the authenticated clients of one gateway, with their identities. Times in seconds since the epoch.

    Client handlers and HTTP requests add and remove themselves. `Revalidation` fetches the clients that are due for a
    check, verifies them, and passes the results to the methods here, which return the clients whose session ended or
    whose identity changed. Several clients may share a session.
    """

    def __init__(self) -> None:
        self._clients: dict[M, Identity] = {}
        self._by_session: dict[str, set[M]] = {}
        self._by_user: dict[str, set[M]] = {}
        self._by_share: dict[str, set[M]] = {}
        self._without_session: set[M] = set()
        self._ending: set[M] = set()
        self._introspected_at: dict[M, float] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: M, identity: Identity, now: float) -> None:
        """Add a client, or replace its identity, which was verified just now."""
        self.remove(client)
        self._clients[client] = identity
        self._by_user.setdefault(identity.user_id, set()).add(client)
        if identity.session_id is not None:
            self._by_session.setdefault(identity.session_id, set()).add(client)
        else:
            self._without_session.add(client)
        if identity.introspected is not None:
            self._introspected_at[client] = now
        if identity.share is not None:
            self._by_share.setdefault(identity.share, set()).add(client)
        if identity.ends_at < math.inf:
            self._ending.add(client)

    def remove(self, client: M) -> None:
        """Remove a client, if it is there."""
        identity = self._clients.pop(client, None)
        if identity is None:
            return
        self._without_session.discard(client)
        self._introspected_at.pop(client, None)
        self._ending.discard(client)
        _discard(self._by_user, identity.user_id, client)
        if identity.share is not None:
            _discard(self._by_share, identity.share, client)
        if identity.session_id is not None:
            _discard(self._by_session, identity.session_id, client)

    # ── sessions in the store ────────────────────────────────────────────────────────────────────────────────────

    def sessions(self) -> list[str]:
        """Return the ids of all sessions that clients have."""
        return list(self._by_session)

    def sessions_of(self, session_id: str | None, user_id: str | None) -> set[str]:
        """Return the ids of the sessions of clients that a change of this session, or of this user, may affect."""
        clients = self._by_user.get(user_id, set()) if user_id is not None else set()
        found = {self._clients[client].session_id for client in clients} | {session_id}
        return {session for session in found if session is not None and session in self._by_session}

    def update_sessions(
        self, asked: Iterable[str], live: Mapping[str, Identity]
    ) -> tuple[list[M], list[tuple[M, Identity]]]:
        """Apply the result of a lookup of sessions.

        Args:
            asked: Ids of the sessions that were looked up.
            live: Identity by id, for those of them that are valid.

        Returns:
            The clients whose session has ended, and those whose identity changed, with the new one.
        """
        ended: list[M] = []
        renewed: list[tuple[M, Identity]] = []
        for session_id in asked:
            found = live.get(session_id)
            for client in self._by_session.get(session_id, ()):
                identity = self._clients[client]
                if found is None or found.user_id != identity.user_id:
                    ended.append(client)
                elif found != identity:  # the store knows the session and the user, not what the token grants
                    now_is = replace(
                        found, introspected=identity.introspected, ends_at=identity.ends_at, grants=identity.grants
                    )
                    if now_is != identity:
                        renewed.append((client, now_is))
        self._clients.update(renewed)
        return ended, renewed

    # ── shares ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def shares(self) -> list[Identity]:
        """Return the identity of each share that clients signed in with, once."""
        return [self._clients[next(iter(clients))] for clients in self._by_share.values()]

    def of_shares(self, shares: Iterable[str]) -> list[M]:
        """Return the clients of some shares.

        Args:
            shares: Ids of shares.
        """
        return [client for share in shares for client in self._by_share.get(share, ())]

    # ── without a session in the store ──────────────────────────────────────────────────────────────────────────────

    def expired(self, now: float) -> list[M]:
        """Return the clients whose credential has expired for good."""
        return [client for client in self._ending if self._clients[client].ends_at <= now]

    def due_introspections(self, now: float, every_s: float) -> list[tuple[M, str]]:
        """Return clients and tokens to introspect: every `every_s` seconds, and when the token expires."""
        due: list[tuple[M, str]] = []
        for client, asked_at in self._introspected_at.items():
            identity = self._clients[client]
            ends = identity.session_id is None and asked_at < identity.expires_at <= now
            if identity.introspected is not None and (ends or now - asked_at >= every_s):
                due.append((client, identity.introspected))
        return due

    def update_introspected(
        self, client: M, found: Identity | None, now: float, *, token: str | None = None
    ) -> tuple[list[M], list[tuple[M, Identity]]]:
        """Apply the result of an introspection: the identity of the token, None when it is not valid.

        With `token`, nothing is applied when the client has renewed its identity with another one meanwhile.
        Returns as `update_sessions`.
        """
        identity = self._clients.get(client)
        if identity is None or identity.introspected is None or token not in (None, identity.introspected):
            return [], []
        if found is None or found.user_id != identity.user_id:
            return [client], []
        self._introspected_at[client] = now
        if identity.session_id is not None or identity.ends_at < math.inf:
            return [], []  # the token only had to be valid: the identity comes from elsewhere
        renewed = replace(found, organizations=identity.organizations)
        self._clients[client] = renewed
        return [], [(client, renewed)] if renewed != identity else []

    def users_without_session(self) -> list[str]:
        """Return the users of clients without a session, whose organizations have to be looked up separately."""
        return list({self._clients[client].user_id for client in self._without_session})

    def update_organizations(
        self, user_ids: Iterable[str], found: Mapping[str, Organizations]
    ) -> list[tuple[M, Identity]]:
        """Apply the result of that lookup; return the clients whose identity changed, with the new one."""
        renewed: list[tuple[M, Identity]] = []
        for user_id in user_ids:
            now_in = found.get(user_id, {})
            renewed += [
                (client, replace(self._clients[client], organizations=now_in))
                for client in self._by_user.get(user_id, set()) & self._without_session
                if self._clients[client].organizations != now_in
            ]
        self._clients.update(renewed)
        return renewed


def _discard(index: dict[str, set[M]], key: str, client: M) -> None:
    clients = index[key]
    clients.discard(client)
    if not clients:
        del index[key]
