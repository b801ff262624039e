"""The authenticated clients of a gateway, by what ends their access: session, expiry, token introspection. Pure."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from watchout.identity import Identity, Organizations

M = TypeVar("M", bound=Hashable)


class Presence(Generic[M]):
    """Index of the authenticated clients ("members") of one gateway, with their identities. Times in s since the epoch.

    Client handlers and HTTP requests add and remove themselves. `Revalidation` fetches the members that are due for a
    check, verifies them, and passes the results to the methods here, which return the members whose session ended or
    whose identity changed. Several members may share a session.
    """

    def __init__(self) -> None:
        self._members: dict[M, Identity] = {}
        self._by_session: dict[str, set[M]] = {}
        self._by_user: dict[str, set[M]] = {}
        self._by_share: dict[str, set[M]] = {}
        self._without_session: set[M] = set()
        self._ending: set[M] = set()
        self._introspected_at: dict[M, float] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: M, identity: Identity, now: float) -> None:
        """Add a member, or replace its identity, which was verified just now."""
        self.remove(member)
        self._members[member] = identity
        self._by_user.setdefault(identity.user_id, set()).add(member)
        if identity.session_id is not None:
            self._by_session.setdefault(identity.session_id, set()).add(member)
        else:
            self._without_session.add(member)
        if identity.introspected is not None:
            self._introspected_at[member] = now
        if identity.share is not None:
            self._by_share.setdefault(identity.share, set()).add(member)
        if identity.ends_at < math.inf:
            self._ending.add(member)

    def remove(self, member: M) -> None:
        """Remove a member, if it is there."""
        identity = self._members.pop(member, None)
        if identity is None:
            return
        self._without_session.discard(member)
        self._introspected_at.pop(member, None)
        self._ending.discard(member)
        _discard(self._by_user, identity.user_id, member)
        if identity.share is not None:
            _discard(self._by_share, identity.share, member)
        if identity.session_id is not None:
            _discard(self._by_session, identity.session_id, member)

    # ── sessions in the store ────────────────────────────────────────────────────────────────────────────────────

    def sessions(self) -> list[str]:
        """Return the ids of all sessions that members have."""
        return list(self._by_session)

    def sessions_of(self, session_id: str | None, user_id: str | None) -> set[str]:
        """Return the ids of the sessions of members that a change of this session, or of this user, may affect."""
        members = self._by_user.get(user_id, set()) if user_id is not None else set()
        found = {self._members[member].session_id for member in members} | {session_id}
        return {session for session in found if session is not None and session in self._by_session}

    def update_sessions(
        self, asked: Iterable[str], live: Mapping[str, Identity]
    ) -> tuple[list[M], list[tuple[M, Identity]]]:
        """Apply the result of a lookup of sessions.

        Args:
            asked: Ids of the sessions that were looked up.
            live: Identity by id, for those of them that are valid.

        Returns:
            The members whose session has ended, and those whose identity changed, with the new one.
        """
        ended: list[M] = []
        renewed: list[tuple[M, Identity]] = []
        for session_id in asked:
            found = live.get(session_id)
            for member in self._by_session.get(session_id, ()):
                identity = self._members[member]
                if found is None or found.user_id != identity.user_id:
                    ended.append(member)
                else:  # the store knows the session and the user, not what the token grants
                    now_is = replace(
                        found, introspected=identity.introspected, ends_at=identity.ends_at, grants=identity.grants
                    )
                    if now_is != identity:
                        renewed.append((member, now_is))
        self._members.update(renewed)
        return ended, renewed

    # ── shares ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def shares(self) -> list[str]:
        """Return the ids of all shares that members signed in with."""
        return list(self._by_share)

    def of_ended_shares(self, asked: Iterable[str], live: Container[str]) -> list[M]:
        """Return the members whose share has ended.

        Args:
            asked: Ids of the shares that were looked up.
            live: Those of them that have not ended.
        """
        return [member for share in asked if share not in live for member in self._by_share.get(share, ())]

    # ── without a session in the store ──────────────────────────────────────────────────────────────────────────────

    def expired(self, now: float) -> list[M]:
        """Return the members whose credential has expired for good."""
        return [member for member in self._ending if self._members[member].ends_at <= now]

    def due_introspections(self, now: float, every_s: float) -> list[tuple[M, str]]:
        """Return members and tokens to introspect: every `every_s` seconds, and when the token expires."""
        due: list[tuple[M, str]] = []
        for member, asked_at in self._introspected_at.items():
            identity = self._members[member]
            ends = identity.session_id is None and asked_at < identity.expires_at <= now
            if identity.introspected is not None and (ends or now - asked_at >= every_s):
                due.append((member, identity.introspected))
        return due

    def update_introspected(
        self, member: M, found: Identity | None, now: float, *, token: str | None = None
    ) -> tuple[list[M], list[tuple[M, Identity]]]:
        """Apply the result of an introspection: the identity of the token, None when it is not valid.

        With `token`, nothing is applied when the member has renewed its identity with another one meanwhile.
        Returns as `update_sessions`.
        """
        identity = self._members.get(member)
        if identity is None or identity.introspected is None or token not in (None, identity.introspected):
            return [], []
        if found is None or found.user_id != identity.user_id:
            return [member], []
        self._introspected_at[member] = now
        if identity.session_id is not None or identity.ends_at < math.inf:
            return [], []  # the token only had to be valid: the identity comes from elsewhere
        renewed = replace(found, organizations=identity.organizations)
        self._members[member] = renewed
        return [], [(member, renewed)] if renewed != identity else []

    def users_without_session(self) -> list[str]:
        """Return the users of members without a session, whose organizations have to be looked up separately."""
        return list({self._members[member].user_id for member in self._without_session})

    def update_organizations(
        self, user_ids: Iterable[str], found: Mapping[str, Organizations]
    ) -> list[tuple[M, Identity]]:
        """Apply the result of that lookup; return the members whose identity changed, with the new one."""
        renewed: list[tuple[M, Identity]] = []
        for user_id in user_ids:
            now_in = found.get(user_id, {})
            renewed += [
                (member, replace(self._members[member], organizations=now_in))
                for member in self._by_user.get(user_id, set()) & self._without_session
                if self._members[member].organizations != now_in
            ]
        self._members.update(renewed)
        return renewed


def _discard(index: dict[str, set[M]], key: str, member: M) -> None:
    members = index[key]
    members.discard(member)
    if not members:
        del index[key]
