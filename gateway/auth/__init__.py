"""Who the caller is: one file a way of verifying, one interface.

`SessionStore` is what the gateway asks. `open_store` picks the store that the settings name. Later ways (JWT,
introspection) stand beside the stores as further implementations of the same interface.
"""

from __future__ import annotations

from pathlib import Path

from common import embedded_store
from common.settings import Settings
from gateway.auth.identity import Identity, SessionStore
from gateway.auth.postgres import PostgresStore
from gateway.auth.sqlite import SqliteStore

__all__ = ["Identity", "SessionStore", "open_store"]


def open_store(settings: Settings) -> SessionStore:
    """The store that the settings name: PostgreSQL, or a SQLite file, embedded when none is named."""
    url, timeout_s = settings.database_url, settings.store_timeout_s
    if url is None:
        embedded = settings.home / embedded_store.FILE_NAME
        return SqliteStore(embedded, timeout_s=timeout_s, ensure=embedded_store.ensure)
    if url.startswith("sqlite:"):
        return SqliteStore(Path(url.removeprefix("sqlite:")), timeout_s=timeout_s)
    return PostgresStore(url, timeout_s=timeout_s, connections=settings.store_connections)
