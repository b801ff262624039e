"""JWTs, verified with the key of the settings or with those that their issuer publishes.

What a JWT says is read in `identity.claims`, which algorithms a key takes in `identity.keys`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from common import log
from common.errors import StartError, StoreUnavailable
from common.settings import Settings
from identity.claims import Claims, JwtPolicy, Refused, looks_like_jwt, read_jwt
from identity.jwks import IssuerKeys
from identity.keys import Key, KeyFault, pem_key, secret_key

__all__ = ["Claims", "JwtVerifier", "looks_like_jwt"]

_log = log.get("identity")


class JwtVerifier:
    """Who a JWT's bearer is, by `JWT_SECRET`, `JWT_PUBLIC_KEY` or `JWT_JWKS_URL`.

    `now` gives seconds since the epoch, `clock` is monotonic, in s.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._policy = JwtPolicy.of(settings)
        self._now = now
        self._fixed: tuple[Key, ...] | None = None
        self._issuer = None if settings.jwt_jwks_url is None else IssuerKeys(settings.jwt_jwks_url, clock=clock)

    async def open(self) -> None:
        """Read the key. Raises `StartError` when it is none that can be used, or none is set."""
        if self._issuer is not None:
            await self._issuer.open()
        elif self._settings.jwt_public_key is not None:
            self._fixed = (_usable("JWT_PUBLIC_KEY", pem_key, self._settings.jwt_public_key),)
        elif self._settings.jwt_secret is not None:
            self._fixed = (_usable("JWT_SECRET", secret_key, self._settings.jwt_secret),)
        else:
            raise StartError("JWTs cannot be verified: neither JWT_SECRET, JWT_PUBLIC_KEY nor JWT_JWKS_URL is set")

    async def verify(self, token: str) -> Claims | None:
        """The bearer's claims; None for whatever is not a JWT that is good now.

        Raises `StoreUnavailable` when the issuer's keys cannot be had.
        """
        try:
            unproven = read_jwt(token, self._policy, self._now())
            return unproven.proven(await self._keys(unproven.kid))
        except Refused as refused:
            _log.debug("JWT refused", reason=str(refused))
            return None

    async def check(self) -> None:
        """Raise `StoreUnavailable` when there is no key to verify with."""
        if self._issuer is not None:
            await self._issuer.check()
        else:
            await self._keys(None)

    async def close(self) -> None:
        """Let go of connections; whoever asks afterwards gets `StoreUnavailable`, unless the keys are known."""
        self._fixed = None
        if self._issuer is not None:
            await self._issuer.close()

    async def _keys(self, kid: str | None) -> tuple[Key, ...]:
        if self._issuer is not None:
            return await self._issuer.find(kid)
        if self._fixed is None:
            raise StoreUnavailable("JWTs are not verified any more")
        return self._fixed


def _usable(name: str, read: Callable[[str], Key], text: str) -> Key:
    try:
        return read(text)
    except KeyFault as fault:
        raise StartError(f"{name} is {fault}") from None
