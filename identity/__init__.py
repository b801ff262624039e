"""Verifies users: `find_credential` finds the credential of a request, `Authenticator.verify` tells whose it is.

Each way of verifying (session database, JWT, introspection) is a group of modules in `identity.sources`, which is
loaded when the settings name it: a gateway without JWTs or without PostgreSQL loads nothing of them.
"""

from __future__ import annotations

from pathlib import Path

from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings
from watchout.identity import embedded_store
from watchout.identity.authenticator import Authenticator, auth_methods, longest_token
from watchout.identity.caller import Identity, Organizations, SessionStore, ShareSource
from watchout.identity.credentials import Cookie, Credential, Ticket, Token, clean_token, find_credential
from watchout.identity.grants import Grants
from watchout.identity.schema.catalogue import Layout

__all__ = [
    "Authenticator",
    "Cookie",
    "Credential",
    "Grants",
    "Identity",
    "Organizations",
    "SessionStore",
    "ShareSource",
    "Ticket",
    "Token",
    "clean_token",
    "find_credential",
    "longest_token",
    "make_authenticator",
    "open_store",
]


def make_authenticator(settings: Settings) -> Authenticator:
    """Create the authenticator that the settings describe. Call its `open` before anything else."""
    ways = auth_methods(settings)
    jwt = introspection = None
    if "jwt" in ways:
        from watchout.identity.sources.jwt import JwtVerifier

        jwt = JwtVerifier(settings)
    if "introspection" in ways:
        from watchout.identity.sources.introspection import Introspection

        introspection = Introspection(settings)
    store = open_store(settings) if "session" in ways or settings.database_url is not None else None
    return Authenticator(settings, store, jwt, introspection)


def open_store(settings: Settings) -> SessionStore:
    """Create the session store that the settings name: PostgreSQL, a SQLite file, or the embedded one. Not opened."""
    url, timeout_s, most = settings.database_url, settings.store_timeout_s, settings.store_waiting
    layout = Layout(
        session=settings.session_table,
        user=settings.user_table,
        member=settings.member_table,
        verification=settings.verification_table,
        naive_timezone=settings.naive_timezone,
        organizations=settings.stream_access == "organization",
    )
    if url is None or url.startswith("sqlite:"):
        from watchout.identity.sources.sqlite import SqliteStore

        if url is not None:
            return SqliteStore(Path(url.removeprefix("sqlite:")), layout, timeout_s=timeout_s, max_waiting=most)
        embedded = settings.home / SESSION_STORE_FILE
        return SqliteStore(embedded, layout, timeout_s=timeout_s, max_waiting=most, ensure=embedded_store.ensure)
    from watchout.identity.sources.postgres import PostgresStore

    return PostgresStore(url, layout, timeout_s=timeout_s, max_waiting=most, connections=settings.store_connections)
