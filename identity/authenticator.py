"""Verifies credentials by the methods that the settings name, and re-checks users that are connected.

The form of a token decides which method gets it: a JWT goes to the JWT verifier, a session token to the session store,
and introspection gets what no other method accepts. Concurrent look-ups of one token share a query, as do look-ups of
different tokens, and a verified token is cached for a short time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from watchout.common import log
from watchout.common.errors import StoreUnavailable
from watchout.common.media.rate import TokenBucket
from watchout.common.settings import Settings
from watchout.identity.caller import Identity, Organizations, SessionStore, ShareSource
from watchout.identity.coalescing import Coalescer
from watchout.identity.credentials import Cookie, Credential, Ticket, Token, session_token
from watchout.identity.grants import GrantsFault
from watchout.identity.recently_verified import RecentlyVerified
from watchout.identity.sources.claims import MAX_JWT_BYTES, MAX_OPAQUE_BYTES, Claims
from watchout.identity.sources.jwt_claims import looks_like_jwt

if TYPE_CHECKING:  # `make_authenticator` loads what the settings name
    from watchout.identity.sources.introspection import Introspection
    from watchout.identity.sources.jwt import JwtVerifier

#: Most queries for session tokens at the same time.
LOOKUPS_AT_ONCE: Final = 2
#: Tokens with malformed grants that are logged: lines at once, and lines per second after that.
LOG_BURST: Final = 5
LOG_RATE: Final = 0.2

_log = log.get("identity.authenticator")


class Authenticator:
    """Verifies users for one gateway process. Created by `make_authenticator`.

    The gateway calls `verify` for each credential that a client presents, and `live`, `organizations` and `introspect`
    to re-check clients that are connected.

    Args:
        settings: Which methods are used, in which order and combination (`AUTH_METHODS`, `AUTH_COMBINE`), and limits.
        store: The session database, None when no method needs it.
        jwt: The JWT verifier, None when JWTs are not accepted.
        introspection: The introspection client, None when there is no endpoint.
    """

    def __init__(
        self,
        settings: Settings,
        store: SessionStore | None,
        jwt: JwtVerifier | None,
        introspection: Introspection | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._jwt = jwt
        self._introspection = introspection
        self._methods = auth_methods(settings)
        self._sessions = RecentlyVerified(settings.auth_cache_s, settings.auth_cache_tokens)
        self._introspected = RecentlyVerified(settings.auth_cache_s, settings.auth_cache_tokens)
        #: Verifies the tokens of shared streams; set by the gateway.
        self.shares: ShareSource | None = None
        self._by_token = self._by_id = None
        self._log_allowance = TokenBucket(LOG_RATE, LOG_BURST, time.monotonic())
        self._by_user: Coalescer[Organizations] | None = None
        if store is not None:
            timeout_s, most = settings.store_timeout_s, settings.store_waiting
            self._by_token = Coalescer(store.find, workers=LOOKUPS_AT_ONCE, timeout_s=timeout_s, max_waiting=most)
            self._by_id = Coalescer(store.live, workers=1, timeout_s=timeout_s, max_waiting=most)
            if settings.stream_access == "organization":
                self._by_user = Coalescer(store.organizations, workers=1, timeout_s=timeout_s, max_waiting=most)

    async def open(self) -> None:
        """Open all sources; they need not be reachable yet. Raises `StartError` for settings that cannot be used."""
        for way in (self._store, self._jwt, self._introspection):
            if way is not None:
                await way.open()

    async def close(self) -> None:
        """Close all sources. Calls that are under way or follow raise `StoreUnavailable`."""
        for way in (self._by_token, self._by_id, self._by_user, self._introspection, self._jwt, self._store):
            if way is not None:
                await way.close()

    async def check(self) -> None:
        """Run one query on the session store, if there is one. Raises `StoreUnavailable`; `/health` reports it."""
        if self._store is not None:
            await self._store.check()

    # ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────

    async def verify(self, credential: Credential, *, fresh: bool) -> Identity | None:
        """Return the user of a credential. A ticket is used up.

        Args:
            credential: What the client presented.
            fresh: Look the session up even when the token is in the cache, unless the store is busy. For a WebSocket,
                which stays open: a user who has signed out must not get one. A single HTTP request may use the cache.

        Returns:
            None when the credential is not valid.

        Raises:
            StoreUnavailable: No method accepted the credential, and one that might have cannot be used now. The
                caller asks the client to try again.
        """
        if isinstance(credential, Ticket):
            return await self._redeem(credential)
        if self.shares is not None and isinstance(credential, Token) and self.shares.recognizes(credential.text):
            return await self.shares.find(credential.text)
        try:
            if self._settings.auth_combine == "all":
                return await self._verify_all(credential, fresh)
            return await self._verify_any(credential, fresh)
        except GrantsFault as fault:
            if self._log_allowance.take(time.monotonic()):
                _log.warning("a token was refused: what it grants is malformed", reason=str(fault))
            return None

    async def _verify_any(self, credential: Token | Cookie, fresh: bool) -> Identity | None:
        """Return the identity of the first method that accepts the credential."""
        unavailable: StoreUnavailable | None = None
        for method in self._methods:
            try:
                identity = await self._ask(method, credential, fresh)
            except StoreUnavailable as exc:
                unavailable = exc
                continue
            if identity is not None:
                return identity
        if unavailable is not None:
            raise unavailable
        return None

    async def _redeem(self, ticket: Ticket) -> Identity | None:
        """Redeem a ticket, where a session alone is enough to sign in: a ticket proves no more than its session."""
        alone = self._settings.auth_combine == "any" or len(self._methods) == 1
        if self._store is None or "session" not in self._methods or not alone:
            return None
        return await self._store.redeem(ticket.text)

    async def _verify_all(self, credential: Token | Cookie, fresh: bool) -> Identity | None:
        """Require that every method accepts the credential. For a JWT, the session that it names has to be live."""
        found: list[Identity] = []
        for method in self._methods:
            if method == "session" and self._is_jwt(credential) and "jwt" in self._methods:
                continue
            identity = await self._ask(method, credential, fresh)
            if identity is None:
                return None
            found.append(identity)
        caller = _combined(found)
        if caller is not None and caller.session_id is None and "session" in self._methods:
            return None
        return caller

    async def _ask(self, method: str, credential: Token | Cookie, fresh: bool) -> Identity | None:
        match method:
            case "session":
                return await self._by_session(credential, fresh)
            case "jwt":
                return await self._by_jwt(credential)
            case _:
                return await self._by_introspection(credential, fresh)

    async def _by_session(self, credential: Token | Cookie, fresh: bool) -> Identity | None:
        if self._is_jwt(credential):
            return None
        settings = self._settings
        token = session_token(credential, settings.better_auth_secret, require_signed=settings.require_signed_tokens)
        if token is None or self._by_token is None:
            return None
        identity = self._remembered(self._sessions, token) if self._by_token.busy or not fresh else None
        if identity is None and (identity := await self._by_token.get(token)) is not None:
            self._sessions.put(token, identity, asyncio.get_running_loop().time())
        return identity

    async def _by_jwt(self, credential: Token | Cookie) -> Identity | None:
        if self._jwt is None or not isinstance(credential, Token) or not looks_like_jwt(credential.text):
            return None
        claims = await self._jwt.verify(credential.text)
        if claims is None:
            return None
        if claims.session_id is not None and self._by_id is not None and self._settings.database_url is not None:
            # From now on the session decides, not the expiry of the JWT: the JWT proved it once, as a ticket does.
            session = await self._by_id.get(claims.session_id)
            if session is None or session.user_id != claims.user_id:
                return None
            return replace(session, grants=claims.grants)
        if self._settings.jwt_require_session:
            return None
        return await self._with_organizations(replace(_identity(claims), ends_at=claims.expires_at))

    async def _by_introspection(self, credential: Token | Cookie, fresh: bool) -> Identity | None:
        if self._introspection is None:
            return None
        if isinstance(credential, Cookie):
            # The endpoint gets the signed token, which the bearer plugin accepts.
            if session_token(credential, self._settings.better_auth_secret, require_signed=True) is None:
                return None
            text = unquote(credential.value)
        else:
            text = credential.text
        identity = None if fresh else self._remembered(self._introspected, text)
        if identity is None and (identity := await self.introspect(text)) is not None:
            identity = await self._with_organizations(identity)
            self._introspected.put(text, identity, asyncio.get_running_loop().time())
        return identity

    @staticmethod
    def _remembered(memory: RecentlyVerified, key: str) -> Identity | None:
        identity = memory.get(key, asyncio.get_running_loop().time())
        return None if identity is None or identity.expires_at <= time.time() else identity

    def _is_jwt(self, credential: Credential) -> bool:
        return self._jwt is not None and isinstance(credential, Token) and looks_like_jwt(credential.text)

    async def _with_organizations(self, identity: Identity) -> Identity:
        """Return the identity with the organizations that the session store has for its user."""
        if self._by_user is None:
            return identity
        return replace(identity, organizations=await self._by_user.get(identity.user_id) or {})

    # ── re-checks ────────────────────────────────────────────────────────────────────────────────────────────────

    async def live(self, session_ids: Iterable[str]) -> dict[str, Identity]:
        """Return the live ones of these sessions (see `SessionStore.live`), and drop cached tokens of the others.

        Raises:
            StoreUnavailable: The store cannot be queried; the caller keeps all sessions.
        """
        asked = frozenset(session_ids)
        if self._store is None or not asked:
            return {}
        found = await self._store.live(asked)
        self._sessions.drop_changed(asked, found)
        return found

    async def listen(self, channel: str, on_change: Callable[[str | None, str | None], None]) -> None:
        """Report sessions and users that changed in PostgreSQL, until cancelled; see `PostgresStore.listen`."""
        from watchout.identity.sources.postgres import PostgresStore

        assert isinstance(self._store, PostgresStore), "the settings are checked together"
        await self._store.listen(channel, on_change)

    async def organizations(self, user_ids: Iterable[str]) -> Mapping[str, Organizations]:
        """Return the organizations of users, by user id; as `SessionStore.organizations`. Raises `StoreUnavailable`."""
        asked = list(user_ids)
        return (
            {} if self._by_user is None or self._store is None or not asked else await self._store.organizations(asked)
        )

    async def introspect(self, token: str, *, recheck: bool = False) -> Identity | None:
        """Return the user of a token by the introspection endpoint, None when the token is not valid any more.

        Args:
            token: The token as the client sent it.
            recheck: Whether it belongs to an authenticated connection; see `Introspection.verify`.

        Raises:
            StoreUnavailable: The endpoint gave no usable response.
        """
        if self._introspection is None or (claims := await self._introspection.verify(token, recheck=recheck)) is None:
            return None
        return replace(_identity(claims), introspected=token)


def auth_methods(settings: Settings) -> tuple[str, ...]:
    """Return the methods in use, in their order: `AUTH_METHODS`, or those for which there are settings."""
    if settings.auth_methods:
        return settings.auth_methods
    found = ["session"]
    if settings.jwt_secret or settings.jwt_public_key or settings.jwt_jwks_url:
        found.append("jwt")
    if settings.introspection_url:
        found.append("introspection")
    return tuple(found)


def longest_token(settings: Settings) -> int:
    """Return the most characters of a token with the methods in use; nobody is asked about a longer one."""
    return MAX_JWT_BYTES if "jwt" in auth_methods(settings) else MAX_OPAQUE_BYTES


def _identity(claims: Claims) -> Identity:
    return Identity(claims.user_id, expires_at=claims.expires_at, roles=claims.roles, grants=claims.grants)


def _combined(found: list[Identity]) -> Identity | None:
    """Combine the results of several methods: None unless all name the same user; the earliest end counts.

    What one of them grants counts; None for two that grant different rights.
    """
    grants = {identity.grants for identity in found} - {None}
    if not found or len({identity.user_id for identity in found}) > 1 or len(grants) > 1:
        return None
    session = next((identity for identity in found if identity.session_id is not None), found[0])
    tokens = [identity.introspected for identity in found if identity.introspected is not None]
    return replace(
        session,
        expires_at=min(identity.expires_at for identity in found),
        ends_at=min(identity.ends_at for identity in found),
        introspected=tokens[0] if tokens else None,
        grants=next(iter(grants), None),
    )
