"""`Identity`, what is known about a verified user, and `SessionStore`, the interface of session databases. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from watchout.identity.grants import Grants

#: Organization id → the user's roles in it, as Better Auth's organization plugin stores them.
Organizations = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified user. Created by the sources in `identity.sources`, kept with each authenticated connection.

    Two identities are equal when they grant the same: the times and `introspected` take no part, as a session may be
    prolonged.

    Attributes:
        user_id: The user's id in the app.
        session_id: Id of the session's row in the session store, which is looked up again while the connection lives.
            None when there is no such row: a JWT without a session, or an introspected token.
        expires_at: When the session ends, in seconds since the Unix epoch; infinite when nothing says so. It may be
            prolonged.
        roles: The user's own roles.
        organizations: The organizations of the user, with the roles in each.
        introspected: The token, when only introspection can tell later whether it is still valid.
        ends_at: An end that nothing prolongs, in seconds since the Unix epoch: that of a JWT without a session.
        share: Id of the share that the token belongs to; None: it is no share's. The gateway looks it up again while
            the connection lives.
        grants: What the token itself permits, in place of the user's rights; None: those count.
    """

    user_id: str
    session_id: str | None = None
    expires_at: float = field(default=math.inf, compare=False)
    roles: frozenset[str] = frozenset()
    organizations: Organizations = field(default_factory=dict)
    introspected: str | None = field(default=None, repr=False, compare=False)
    ends_at: float = field(default=math.inf, compare=False)
    grants: Grants | None = None
    share: str | None = None


class ShareSource(Protocol):
    """Verifies the tokens of shared streams; implemented by the gateway, whose router knows the shares."""

    def recognizes(self, token: str) -> bool:
        """Return whether a token is that of a share that this home once made; no other method gets it then.

        Args:
            token: The text of the token.
        """

    async def find(self, token: str) -> Identity | None:
        """Return the identity of a token that `recognizes` accepts; None when its share has ended.

        Args:
            token: The text of the token.

        Raises:
            StoreUnavailable: The shares cannot be asked for. The caller asks the client to try again.
        """


class SessionStore(Protocol):
    """A database with sessions and users, looked up many at a time. Called by `Authenticator`.

    All methods but `open` and `close` raise `common.errors.StoreUnavailable` when the database does not respond
    within its deadline; the caller then keeps authenticated connections and asks new clients to try again.
    """

    async def open(self) -> None:
        """Prepare, and read the schema when the database can be reached; otherwise that happens later.

        Raises:
            StartError: The embedded store cannot be created, or the database can never be used with these settings
                (a timestamp without time zone and no `NAIVE_TIMEZONE`).
        """

    async def find(self, tokens: Iterable[str]) -> dict[str, Identity]:
        """Return the users of session tokens, by token.

        Only tokens of live sessions are in the result: not expired, and the user exists and is not banned. Any text
        may be passed; one that cannot be a token is not found.
        """

    async def live(self, session_ids: Iterable[str]) -> dict[str, Identity]:
        """Return the users of sessions as they are now, by session id; a session that is missing has ended."""

    async def organizations(self, user_ids: Iterable[str]) -> dict[str, Organizations]:
        """Return the organizations of users, by user id, without users that are in none.

        Empty, without a query, unless `STREAM_ACCESS` is ``organization``.
        """

    async def redeem(self, ticket: str) -> Identity | None:
        """Use up a one-time token (Better Auth's one-time-token plugin) and return the user of its session.

        Returns:
            None only when the ticket is invalid. A database in which tickets cannot be deleted (read-only, missing
            right, no table) says nothing about the ticket: it raises `StoreUnavailable`.
        """

    async def check(self) -> None:
        """Run one query, to see whether the database can be used.

        Raises:
            StoreUnavailable: It cannot be used now.
        """

    async def close(self) -> None:
        """Close all connections. Calls that are under way or follow raise `StoreUnavailable`."""
