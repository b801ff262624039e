"""Who a verified caller is, and what a session store looks like from outside. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

#: Organization id → the member's roles in it, as Better Auth's organization plugin has them.
Organizations = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller.

    `expires_at` is in seconds since the epoch, infinite where nothing says when it ends; a session may be prolonged,
    so it takes no part in comparing. `session_id` is the row in the session store that keeps the caller in; None:
    there is no such row (a JWT without one, introspection). `ends_at` is an end that nothing prolongs: of a JWT that
    counts by itself.
    `roles` are the user's own, `organizations` those that the user belongs to. `introspected` is the token, where
    nothing else can tell later whether it is still good.
    """

    user_id: str
    session_id: str | None = None
    expires_at: float = field(default=math.inf, compare=False)
    roles: frozenset[str] = frozenset()
    organizations: Organizations = field(default_factory=dict)
    introspected: str | None = field(default=None, repr=False, compare=False)
    ends_at: float = field(default=math.inf, compare=False)


class SessionStore(Protocol):
    """Where sessions are looked up, many at a time. Each method but `open` and `close` raises
    `common.errors.StoreUnavailable` when the store cannot be asked within its deadline.
    """

    async def open(self) -> None:
        """Prepare, and find out the schema when the store can be asked now; it may also come later.

        Raises `common.errors.StartError` when the embedded store cannot be made here, or when the database is one
        that can never be used with these settings (a naive timestamp without `NAIVE_TIMEZONE`).
        """

    async def find(self, tokens: Iterable[str]) -> dict[str, Identity]:
        """The callers of those tokens that are live sessions now, by token: not expired, the user not banned.

        Anything may be asked for: what cannot be a token is not found.
        """

    async def live(self, session_ids: Iterable[str]) -> dict[str, Identity]:
        """The same by the session's id, as it is now: who is not in the answer has no session any more."""

    async def organizations(self, user_ids: Iterable[str]) -> dict[str, Organizations]:
        """What organizations these users belong to now; who belongs to none is left out.

        Only with ``STREAM_ACCESS=organization``; otherwise it is empty and asks nothing.
        """

    async def redeem(self, ticket: str) -> Identity | None:
        """Use up a one-time token of Better Auth's plugin; the caller of the session that it was made in.

        None only for a ticket that is no good. Where tickets cannot be deleted (read-only, no right, no table) it
        raises `StoreUnavailable`: that says nothing about the ticket.
        """

    async def check(self) -> None:
        """Raise `common.errors.StoreUnavailable` when the store cannot be asked."""

    async def close(self) -> None:
        """Let go of connections; whoever asks afterwards gets `common.errors.StoreUnavailable`."""
