"""Takes a JWT apart and checks everything that needs no key; `SignedJwt.verify` then checks the signature. Pure.

Claims are read here and not by PyJWT, which accepts a number in quotes as a date and refuses a token from a clock that
is a little ahead.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watchout.common.settings import Settings
from watchout.identity.grants import GrantsFault, read_grants
from watchout.identity.sources.claims import (
    MAX_JWT_BYTES,
    SUBJECTS,
    Claims,
    TokenRefused,
    _check_not_banned,
    _moment,
    _name,
    _number,
    _roles,
)

if TYPE_CHECKING:  # a gateway without JWTs loads no library for keys
    from watchout.identity.sources.keys import VerificationKey

#: Type and audience of the session cookie cache, which Better Auth 1.7 signs with the same keys. It contains the raw
#: session token, and is refused.
SESSION_CACHE_TYPE: Final = "better-auth.session-cache+jwt"


SESSION_CACHE_AUDIENCE: Final = "better-auth:session-cache"


#: How far the issuer's clock may be ahead, in seconds.
_AHEAD_S: Final = 60.0


#: RFC 7515 section 7.1: base64url without padding.
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtPolicy:
    """What the claims of a JWT must be; a field that is None is not checked. Made by `JwtVerifier`, applied by
    `read_jwt`.

    Attributes:
        issuer: The expected `iss`.
        audience: A value that `aud` must contain.
        session_claim: The claim that holds the session's id.
        leeway_s: Tolerance for clocks that differ, in seconds.
        max_age_s: How long a JWT without `exp` counts from its `iat`, in seconds; 0: it is refused.
    """

    issuer: str | None = None
    audience: str | None = None
    session_claim: str | None = None
    leeway_s: float = 0.0
    max_age_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings, *, published: bool | None = None) -> JwtPolicy:
        """Return the policy of the settings.

        Args:
            settings: The ``JWT_*`` settings.
            published: Whether it is for tokens signed with published keys: their audience is the issuer unless
                `JWT_AUDIENCE` is set, as Better Auth does it. None: if `JWT_JWKS_URL` is set.
        """
        audience = settings.jwt_audience
        if audience is None and (settings.jwt_jwks_url is not None if published is None else published):
            audience = settings.jwt_issuer
        claim = settings.jwt_session_claim
        return cls(
            issuer=settings.jwt_issuer,
            audience=audience,
            session_claim=None if claim.lower() == "none" else claim,
            leeway_s=settings.jwt_leeway_s,
            max_age_s=settings.jwt_max_age_s,
        )


@dataclass(frozen=True, slots=True)
class SignedJwt:
    """A JWT whose claims satisfy the policy and whose signature is not checked yet. Created by `read_jwt`.

    `JwtVerifier` looks for the keys that fit `algorithm` and `kid` (None: the token names none), and calls `verify`,
    which alone gives the claims out.
    """

    algorithm: str
    kid: str | None
    _signed: bytes = field(repr=False)
    _signature: bytes = field(repr=False)
    _claims: Claims = field(repr=False)
    _grants_fault: str | None = None

    def verify(self, keys: Iterable[VerificationKey]) -> Claims:
        """Return the claims when one of `keys` made the signature.

        Raises:
            TokenRefused: No key made it, or none is for its algorithm; the client has to sign in again.
            GrantsFault: The token is genuine, but what it grants is malformed. No other method may accept it.
        """
        fitting = [key for key in keys if self.algorithm in key.algorithms]
        if not fitting:
            raise TokenRefused("no key of its kid takes its alg")
        if not any(key.verifies(self.algorithm, self._signed, self._signature) for key in fitting):
            raise TokenRefused("its signature is wrong")
        if self._grants_fault is not None:
            raise GrantsFault(self._grants_fault)
        return self._claims


def looks_like_jwt(token: str) -> bool:
    """Return whether a text has the form of a signed JWT (RFC 7515 section 7.1), whoever signed it. Never raises."""
    try:
        _header(_split(token)[0])
    except TokenRefused:
        return False
    return True


def is_symmetric(token: str) -> bool:
    """Return whether a JWT names an algorithm with a shared secret (HS256, HS384, HS512).

    Raises:
        TokenRefused: The text has not the form of a JWT.
    """
    return str(_header(_split(token)[0])["alg"]).startswith("HS")


def read_jwt(token: str, policy: JwtPolicy, now: float) -> SignedJwt:
    """Parse a JWT and check its claims, so that a token that is refused anyway never causes a fetch of keys.

    Args:
        token: The JWT as text.
        policy: What it must say.
        now: Seconds since the Unix epoch.

    Raises:
        TokenRefused: It is malformed, expired, not valid yet, its user is banned, or it violates the policy.
    """
    head, body, tail = _split(token)
    header = _header(head)
    kid = header.get("kid")
    if "crit" in header:  # RFC 7515 section 4.1.11: to be refused by whoever does not know the extension
        raise TokenRefused("its header has crit")
    if not (kid is None or isinstance(kid, str)):
        raise TokenRefused("its kid is no text")
    if str(header.get("typ", "")).lower().removeprefix("application/") == SESSION_CACHE_TYPE:
        raise TokenRefused("it is a session cookie's cache")
    payload = _object(_decode(body))
    claims, fault = _claims(payload, policy, now), None
    try:
        claims = replace(claims, grants=read_grants(payload))
    except GrantsFault as malformed:
        fault = str(malformed)
    return SignedJwt(header["alg"], kid, f"{head}.{body}".encode("ascii"), _decode(tail), claims, fault)


def _claims(payload: dict[str, Any], policy: JwtPolicy, now: float) -> Claims:
    audiences = payload.get("aud")
    listed = audiences if isinstance(audiences, list) else [] if audiences is None else [audiences]
    if not all(isinstance(audience, str) for audience in listed):
        raise TokenRefused("its aud is neither text nor a list of texts")
    if SESSION_CACHE_AUDIENCE in listed:
        raise TokenRefused("it is a session cookie's cache")
    if policy.issuer is not None and payload.get("iss") != policy.issuer:
        raise TokenRefused("its iss is not JWT_ISSUER")
    if policy.audience is not None and policy.audience not in listed:
        raise TokenRefused("its aud is not the one expected")
    expires_at = _end(payload, policy, now) + policy.leeway_s
    if now >= expires_at:
        raise TokenRefused("it has expired")
    if "nbf" in payload and now + policy.leeway_s < _claimed(payload, "nbf"):
        raise TokenRefused("it is not valid yet")
    _check_not_banned(payload, now)
    session = payload.get(policy.session_claim) if policy.session_claim is not None else None
    return Claims(
        user_id=_name(_subject(payload), "its sub"),
        expires_at=expires_at,
        session_id=None if session is None else _name(session, "its session"),
        roles=_roles(payload),
    )


def _end(payload: dict[str, Any], policy: JwtPolicy, now: float) -> float:
    """Return when a JWT ends: at its `exp`, or `max_age_s` after its `iat`."""
    if "exp" in payload or "iat" not in payload or not policy.max_age_s:
        return _claimed(payload, "exp")
    made_at = _claimed(payload, "iat")
    if made_at > now + max(policy.leeway_s, _AHEAD_S):
        raise TokenRefused("its iat is in the future")
    return made_at + policy.max_age_s


def _subject(payload: dict[str, Any]) -> object:
    """Return the user's id: the first of `SUBJECTS` that is present, else ``user.id``, else ``id``."""
    user = payload.get("user")
    nested = user.get("id") if isinstance(user, dict) else None
    found = (*(payload.get(name) for name in SUBJECTS), nested, payload.get("id"))
    return next((each for each in found if each is not None), None)


def _claimed(payload: dict[str, Any], name: str) -> float:
    try:
        return _moment(_number(payload.get(name)))
    except ValueError:
        raise TokenRefused(f"its {name} is not a number") from None


def _split(token: str) -> tuple[str, str, str]:
    if len(token) > MAX_JWT_BYTES:
        raise TokenRefused("it is too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise TokenRefused("it has not three segments in base64url")
    return parts[1], parts[2], parts[3]


def _header(segment: str) -> dict[str, Any]:
    header = _object(_decode(segment))
    if not isinstance(header.get("alg"), str):
        raise TokenRefused("its header has no alg")
    return header


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenRefused("a segment is not a JSON object")
    return value


def _decode(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode("ascii"):  # one text for one token
        raise TokenRefused("a segment is not base64url")
    return data
