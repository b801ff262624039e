"""Who the caller is: one file a way of verifying, one interface.

`SessionStore` is what the gateway asks. `open_store` picks the store that the settings name. Later ways (JWT,
introspection) stand beside the stores as further implementations of the same interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common import embedded_store
from common.settings import Settings


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


def open_store(settings: Settings) -> SessionStore:
    """The store that the settings name: PostgreSQL, or a SQLite file, embedded when none is named."""
    # The stores need `Identity`, so they can be imported only once this module stands.
    from gateway.auth.postgres import PostgresStore
    from gateway.auth.sqlite import SqliteStore

    url, timeout_s = settings.database_url, settings.store_timeout_s
    if url is None:
        embedded = settings.home / embedded_store.FILE_NAME
        return SqliteStore(embedded, timeout_s=timeout_s, ensure=embedded_store.ensure)
    if url.startswith("sqlite:"):
        return SqliteStore(Path(url.removeprefix("sqlite:")), timeout_s=timeout_s)
    return PostgresStore(url, timeout_s=timeout_s, connections=settings.store_connections)
