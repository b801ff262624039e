"""Takes a JWT apart and checks everything that needs no key; `SignedJwt.verify` then checks the signature. Pure.

Claims are read here and not by PyJWT, which accepts a number in quotes as a date and refuses a token from a clock that
is a little ahead.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from watchout.common.settings import Settings
from watchout.identity.sources.claims import (
    MAX_TOKEN_BYTES,
    SUBJECTS,
    Claims,
    TokenRefused,
    _check_not_banned,
    _moment,
    _name,
    _number,
    _roles,
)
from watchout.identity.sources.keys import VerificationKey

#: What Better Auth 1.7 signs with the same keys for its session cookie: the raw session token is in it (`sid`).
SESSION_CACHE_TYPE: Final = "better-auth.session-cache+jwt"


SESSION_CACHE_AUDIENCE: Final = "better-auth:session-cache"


#: The clock of who made a token may be ahead by so much.
_AHEAD_S: Final = 60.0


#: RFC 7515 section 7.1: base64url without padding.
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtPolicy:
    """What is demanded of a JWT besides its signature; None: not looked at."""

    issuer: str | None = None
    audience: str | None = None
    session_claim: str | None = None
    leeway_s: float = 0.0
    max_age_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings, *, published: bool | None = None) -> JwtPolicy:
        """For tokens of the issuer's published keys the audience is the issuer unless said otherwise, as Better Auth
        has it. `published`: it is for them; None: where there is a JWKS address.
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
    """A JWT that says the right things; whether they are true, only `verify` tells."""

    algorithm: str
    kid: str | None
    _signed: bytes = field(repr=False)
    _signature: bytes = field(repr=False)
    _claims: Claims = field(repr=False)

    def verify(self, keys: Iterable[VerificationKey]) -> Claims:
        """The claims, if one of these keys signed them with an algorithm that is this key's. Raises `TokenRefused`."""
        fitting = [key for key in keys if self.algorithm in key.algorithms]
        if not fitting:
            raise TokenRefused("no key of its kid takes its alg")
        if not any(key.verifies(self.algorithm, self._signed, self._signature) for key in fitting):
            raise TokenRefused("its signature is wrong")
        return self._claims


def looks_like_jwt(token: str) -> bool:
    """Whether this text has the form of a signed JWT (RFC 7515 section 7.1), whoever signed it. Never raises."""
    try:
        _header(_split(token)[0])
    except TokenRefused:
        return False
    return True


def is_symmetric(token: str) -> bool:
    """Return whether a JWT names an algorithm with a shared secret (HS256, HS384, HS512). Raises `TokenRefused`."""
    return str(_header(_split(token)[0])["alg"]).startswith("HS")


def read_jwt(token: str, policy: JwtPolicy, now: float) -> SignedJwt:
    """Take a JWT apart and check all that needs no key, so that a hopeless one never makes us fetch any.

    Raises `TokenRefused`.
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
    claims = _claims(_object(_decode(body)), policy, now)
    return SignedJwt(header["alg"], kid, f"{head}.{body}".encode("ascii"), _decode(tail), claims)


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
    """When a JWT ends: at its `exp`, or by the policy a while after its `iat`."""
    if "exp" in payload or "iat" not in payload or not policy.max_age_s:
        return _claimed(payload, "exp")
    made_at = _claimed(payload, "iat")
    if made_at > now + max(policy.leeway_s, _AHEAD_S):
        raise TokenRefused("its iat is in the future")
    return made_at + policy.max_age_s


def _subject(payload: dict[str, Any]) -> object:
    """The user's id: the first claim of the usual ones, or the id in an object `user`."""
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
    if len(token) > MAX_TOKEN_BYTES:
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
