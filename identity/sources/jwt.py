"""Verifies JWTs with the keys of the settings or with those that their issuer publishes.

`identity.sources.jwt_claims` reads the claims, `identity.sources.keys` decides which algorithms a key accepts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from watchout.common import log
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import Settings
from watchout.identity.sources.claims import Claims, TokenRefused
from watchout.identity.sources.jwks import IssuerKeys
from watchout.identity.sources.jwt_claims import JwtPolicy, is_symmetric, looks_like_jwt, read_jwt
from watchout.identity.sources.keys import KeyFault, VerificationKey, pem_key, secret_key

__all__ = ["Claims", "JwtVerifier", "looks_like_jwt"]

_log = log.get("identity.sources.jwt")


class JwtVerifier:
    """Verifies JWTs with `JWT_SECRET`, `JWT_PUBLIC_KEY` and the keys at `JWT_JWKS_URL`, whichever are set.

    A token that names HS256, HS384 or HS512 is verified with the secret only, any other with public keys only, so that
    a public key can never be used as a secret (RFC 8725 section 3.1). Created by `make_authenticator`.

    Args:
        settings: The ``JWT_*`` settings.
        now: Returns seconds since the Unix epoch; for tests.
        clock: Returns monotonic seconds, for the cache of published keys; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._policy = JwtPolicy.of(settings, published=False)
        self._published_policy = JwtPolicy.of(settings, published=True)
        self._now = now
        self._secret: VerificationKey | None = None
        self._public: VerificationKey | None = None
        self._is_open = False
        self._issuer = None if settings.jwt_jwks_url is None else IssuerKeys(settings.jwt_jwks_url, clock=clock)

    async def open(self) -> None:
        """Read the keys of the settings; published keys are fetched later.

        Raises:
            StartError: A key cannot be used, or none is set.
        """
        settings = self._settings
        if settings.jwt_public_key is not None:
            self._public = _usable("JWT_PUBLIC_KEY", pem_key, settings.jwt_public_key)
        if settings.jwt_secret is not None:
            self._secret = _usable("JWT_SECRET", secret_key, settings.jwt_secret)
        if self._issuer is not None:
            await self._issuer.open()
        elif self._public is None and self._secret is None:
            raise StartError("JWTs cannot be verified: neither JWT_SECRET, JWT_PUBLIC_KEY nor JWT_JWKS_URL is set")
        if settings.jwt_jwks_url is not None and settings.jwt_issuer is None and settings.jwt_audience is None:
            _log.warning(
                "JWTs of the issuer are accepted whatever service they are for: set JWT_ISSUER or JWT_AUDIENCE"
            )
        self._is_open = True

    async def verify(self, token: str) -> Claims | None:
        """Return the claims of a JWT, None when it is malformed, expired, not for this server or wrongly signed.

        Raises:
            StoreUnavailable: The issuer's keys cannot be fetched. The caller asks the client to try again.
            GrantsFault: It is genuine, but what it grants is malformed: nobody else may accept it.
        """
        try:
            if is_symmetric(token):
                return read_jwt(token, self._policy, self._now()).verify(self._held(self._secret))
            return await self._verify_public(token)
        except TokenRefused as refused:
            _log.debug("JWT refused", reason=str(refused))
            return None

    async def _verify_public(self, token: str) -> Claims:
        """Verify with the public key of the settings, or else with the issuer's keys. Raises `TokenRefused`."""
        fixed = self._held(self._public)
        if fixed or self._issuer is None:
            try:
                return read_jwt(token, self._policy, self._now()).verify(fixed)
            except TokenRefused:
                if self._issuer is None:
                    raise
        assert self._issuer is not None, "else it was refused above"
        unproven = read_jwt(token, self._published_policy, self._now())
        return unproven.verify(await self._issuer.find(unproven.kid, len(token)))

    async def check(self) -> None:
        """Raise `StoreUnavailable` when there is no key to verify with, and none can be fetched."""
        if self._issuer is not None:
            await self._issuer.check()
        else:
            self._held(None)

    async def close(self) -> None:
        """Close the connections. Afterwards `verify` raises `StoreUnavailable` unless the keys are known."""
        self._is_open = False
        if self._issuer is not None:
            await self._issuer.close()

    def _held(self, key: VerificationKey | None) -> tuple[VerificationKey, ...]:
        if not self._is_open and self._issuer is None:
            raise StoreUnavailable("JWTs are not verified any more")
        return () if key is None else (key,)


def _usable(name: str, read: Callable[[str], VerificationKey], text: str) -> VerificationKey:
    try:
        return read(text)
    except KeyFault as fault:
        raise StartError(f"{name} is {fault}") from None
