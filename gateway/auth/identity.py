"""Who a verified caller is, and what every way of verifying looks like from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `expires_at` is in seconds since the epoch."""

    user_id: str
    session_id: str
    expires_at: float


class SessionStore(Protocol):
    """Where sessions are looked up."""

    async def open(self) -> None:
        """Prepare; must not fail or wait because the store is away: it may come later.

        Raises `common.errors.StartError` when the embedded store cannot be made here.
        """

    async def verify(self, token: str) -> Identity | None:
        """The caller that this token stands for, or None when it stands for nobody now.

        Raises `common.errors.StoreUnavailable` when the store cannot be asked within its deadline.
        """

    async def check(self) -> None:
        """Raise `common.errors.StoreUnavailable` when the store cannot be asked."""

    async def close(self) -> None:
        """Let go of connections; whoever asks afterwards gets `common.errors.StoreUnavailable`."""
