"""What a token says of its bearer: a JWT by itself, an opaque one by the answer of an introspection endpoint. Pure.

Text, policy and `now` (seconds since the epoch) go in, `Claims` come out, or `Refused` with a fixed sentence. Claims
are read here and not by PyJWT, because it takes a number in quotes for a date and a clock that is ahead for a fraud.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from watchout.common.settings import Settings
from watchout.identity.sources.keys import Key

#: Longest token that is looked at.
MAX_TOKEN_BYTES: Final = 8 << 10
#: Longest user id, session id and role, in characters.
MAX_NAME: Final = 255
#: Most roles of one user.
MAX_ROLES: Final = 100

#: What Better Auth 1.7 signs with the same keys for its session cookie: the raw session token is in it (`sid`).
SESSION_CACHE_TYPE: Final = "better-auth.session-cache+jwt"
SESSION_CACHE_AUDIENCE: Final = "better-auth:session-cache"

#: Where the user's id stands, in the order in which it is looked for; then in an object ``user``.
SUBJECTS: Final = ("sub", "userId", "user_id", "uid")
#: When a token ends, in an introspection's answer.
_ENDS: Final = ("exp", "expiresAt", "expires_at", "expires")
#: Objects of an answer in which it may say these things, besides the answer itself.
_PARTS: Final = ("claims", "data", "session", "user")
#: What an answer may call it that a token is good.
_VERDICTS: Final = ("active", "valid", "authenticated", "success")
#: A date above this is in milliseconds: as seconds it would be in the year 5138.
_MILLISECONDS: Final = 1e11
#: The clock of who made a token may be ahead by so much.
_AHEAD_S: Final = 60.0

#: RFC 7515 section 7.1: base64url without padding.
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
#: What may be sent to an endpoint: nothing that ends a header line or a field.
_OPAQUE: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_TOKEN_BYTES}}}")


class Refused(Exception):
    """This token is nobody's; the text is a fixed sentence that holds nothing of the token."""


class Unreadable(Exception):
    """An endpoint's answer that is not of a known form: it cannot be said whose the token is."""


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token's bearer. `expires_at` is in seconds since the epoch, the leeway included."""

    user_id: str
    expires_at: float = math.inf
    session_id: str | None = None
    roles: frozenset[str] = frozenset()


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
    """A JWT that says the right things; whether they are true, only `proven` tells."""

    algorithm: str
    kid: str | None
    _signed: bytes = field(repr=False)
    _signature: bytes = field(repr=False)
    _claims: Claims = field(repr=False)

    def proven(self, keys: Iterable[Key]) -> Claims:
        """The claims, if one of these keys signed them with an algorithm that is this key's. Raises `Refused`."""
        fitting = [key for key in keys if self.algorithm in key.algorithms]
        if not fitting:
            raise Refused("no key of its kid takes its alg")
        if not any(key.verifies(self.algorithm, self._signed, self._signature) for key in fitting):
            raise Refused("its signature is wrong")
        return self._claims


def looks_like_jwt(token: str) -> bool:
    """Whether this text has the form of a signed JWT (RFC 7515 section 7.1), whoever signed it. Never raises."""
    try:
        _header(_split(token)[0])
    except Refused:
        return False
    return True


def is_symmetric(token: str) -> bool:
    """Whether a JWT says that a shared secret signed it (HS256, HS384, HS512). Raises `Refused` for what is none."""
    return str(_header(_split(token)[0])["alg"]).startswith("HS")


def well_formed(token: str) -> bool:
    """Whether an opaque token may be shown to an endpoint: printable ASCII without spaces, up to 8 KiB."""
    return _OPAQUE.fullmatch(token) is not None


def read_jwt(token: str, policy: JwtPolicy, now: float) -> SignedJwt:
    """Take a JWT apart and check all that needs no key, so that a hopeless one never makes us fetch any.

    Raises `Refused`.
    """
    head, body, tail = _split(token)
    header = _header(head)
    kid = header.get("kid")
    if "crit" in header:  # RFC 7515 section 4.1.11: to be refused by whoever does not know the extension
        raise Refused("its header has crit")
    if not (kid is None or isinstance(kid, str)):
        raise Refused("its kid is no text")
    if str(header.get("typ", "")).lower().removeprefix("application/") == SESSION_CACHE_TYPE:
        raise Refused("it is a session cookie's cache")
    claims = _claims(_object(_decode(body)), policy, now)
    return SignedJwt(header["alg"], kid, f"{head}.{body}".encode("ascii"), _decode(tail), claims)


def read_introspection(body: bytes, now: float) -> Claims:
    """Who a token is by an endpoint's answer: RFC 7662, plain claims, Better Auth's ``get-session``, or such in parts.

    The claims stand in the answer itself, or in objects `claims`, `data`, `session` and `user` of it, or of its
    `claims` or `data`. The earliest end counts. They have no session id: there is no row of ours behind it.
    Raises `Refused` when it is nobody, and `Unreadable`.
    """
    try:
        answer = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))  # as `fetch(…).json()` of browsers has it
    except (ValueError, RecursionError):
        raise Unreadable("its answer is not JSON") from None
    if answer is None:
        raise Refused("the endpoint knows nobody by it")
    if not isinstance(answer, dict):
        raise Unreadable("its answer is neither an object nor null")
    if "session" in answer and answer["session"] is None:
        raise Refused("the endpoint knows no session by it")
    parts = _parts(answer)
    for _, part in parts:
        for name in _VERDICTS:
            if name in part and not _is_true(part[name]):
                raise Refused("the endpoint says that it is not active")
    ends = [_answered(part[name], name) for kind, part in parts if kind != "user" for name in _ENDS
            if part.get(name) is not None]  # fmt: skip
    lives = [
        _answered_number(part["expires_in"], "expires_in") for _, part in parts if part.get("expires_in") is not None
    ]
    expires_at = min([*ends, *(now + life for life in lives)], default=math.inf)
    user_id = _introspected_user(parts)
    if now >= expires_at:
        raise Refused("it has expired")
    roles: frozenset[str] = frozenset()
    for kind, part in parts:
        _check_not_banned(part, now)
        roles |= _roles(part) if kind != "session" else frozenset()
    if len(roles) > MAX_ROLES:
        raise Refused(f"it has over {MAX_ROLES} roles")
    return Claims(_name(user_id, "the user's id"), expires_at, None, roles)


def _parts(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The answer, and the objects in it that say something of the token, each with its name.

    Where the answer itself says whose the token is, `claims` and `data` are whatever else the endpoint keeps of him.
    """
    found = [("", answer)]
    for kind in _PARTS if _first(answer, SUBJECTS) is None else ("session", "user"):
        if isinstance(part := answer.get(kind), dict):
            found.append((kind, part))
            if kind in ("claims", "data"):
                found += [(name, each) for name in _PARTS if isinstance(each := part.get(name), dict)]
    return found


def _introspected_user(parts: list[tuple[str, dict[str, Any]]]) -> object:
    """The user's id. An ``id`` is the user's only where the object is not a session, and nothing says it better."""
    named = [_first(part, SUBJECTS) for _, part in parts]
    users = [_first(part, ("id", *SUBJECTS)) for kind, part in parts if kind == "user"]
    owners = [_first(part, ("userId", "user_id")) for kind, part in parts if kind == "session"]
    said = [each for each in (*owners, *users) if each is not None]
    if owners and len({str(each) for each in said}) > 1:
        raise Refused("its session is another user's")
    others = [_first(part, ("id",)) for kind, part in parts if kind != "session"]
    others += [_first(parts[0][1], ("username",))] if "active" in parts[0][1] else []
    return next((each for each in (*named, *users, *others) if each is not None), None)


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _answered(value: object, name: str) -> float:
    """A date of an answer: a number or text of one, in seconds or milliseconds, or ISO 8601 with its zone."""
    try:
        try:
            return _moment(_number(float(value) if isinstance(value, str) else value))
        except ValueError:  # also of a text that is no number
            return _date(value)
    except ValueError:
        raise Unreadable(f"its answer has an {name} that is no date") from None


def _answered_number(value: object, name: str) -> float:
    try:
        return _number(float(value) if isinstance(value, str) else value)
    except ValueError:
        raise Unreadable(f"its answer has an {name} that is no number") from None


def _moment(number: float) -> float:
    """Seconds since the epoch, out of seconds or milliseconds."""
    return number / 1000 if number > _MILLISECONDS else number


def _claims(payload: dict[str, Any], policy: JwtPolicy, now: float) -> Claims:
    audiences = payload.get("aud")
    listed = audiences if isinstance(audiences, list) else [] if audiences is None else [audiences]
    if not all(isinstance(audience, str) for audience in listed):
        raise Refused("its aud is neither text nor a list of texts")
    if SESSION_CACHE_AUDIENCE in listed:
        raise Refused("it is a session cookie's cache")
    if policy.issuer is not None and payload.get("iss") != policy.issuer:
        raise Refused("its iss is not JWT_ISSUER")
    if policy.audience is not None and policy.audience not in listed:
        raise Refused("its aud is not the one expected")
    expires_at = _end(payload, policy, now) + policy.leeway_s
    if now >= expires_at:
        raise Refused("it has expired")
    if "nbf" in payload and now + policy.leeway_s < _claimed(payload, "nbf"):
        raise Refused("it is not valid yet")
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
        raise Refused("its iat is in the future")
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
        raise Refused(f"its {name} is not a number") from None


def _name(value: object, what: str) -> str:
    """An id as text; integers are what some databases have for ids."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if -(1 << 63) <= value < 1 << 64 else None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise Refused(f"{what} is not printable text of 1 to {MAX_NAME} characters")
    return value


def _roles(about: dict[str, Any]) -> frozenset[str]:
    """``role`` as Better Auth's admin plugin has it, a list in one text; ``roles`` as others have it."""
    found: set[str] = set()
    for value in (about.get("role"), about.get("roles")):
        listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {one.strip() for one in listed if isinstance(one, str)}
    roles = frozenset(one for one in found if 0 < len(one) <= MAX_NAME and one.isprintable())
    if len(roles) > MAX_ROLES:
        raise Refused(f"it has over {MAX_ROLES} roles")
    return roles


def _check_not_banned(about: dict[str, Any], now: float) -> None:
    """Better Auth puts every field of the user into its JWTs and answers, the admin plugin's ban as well."""
    if about.get("banned") is not True:
        return
    try:
        over = about.get("banExpires") is not None and _date(about["banExpires"]) <= now
    except ValueError:
        over = False
    if not over:
        raise Refused("its user is banned")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError("not finite") from None
    if not math.isfinite(seconds):
        raise ValueError("not finite")
    return seconds


def _date(value: object) -> float:
    """A date as JavaScript writes it: ISO 8601 with its zone, or milliseconds since the epoch."""
    if not isinstance(value, str):
        return _number(value) / 1000
    date = datetime.fromisoformat(value)
    if date.tzinfo is None:
        raise ValueError("no time zone")
    return date.timestamp()


def _first(claims: dict[str, Any], names: Iterable[str]) -> object:
    return next((claims[name] for name in names if claims.get(name) is not None), None)


def _split(token: str) -> tuple[str, str, str]:
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused("it is too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise Refused("it has not three segments in base64url")
    return parts[1], parts[2], parts[3]


def _header(segment: str) -> dict[str, Any]:
    header = _object(_decode(segment))
    if not isinstance(header.get("alg"), str):
        raise Refused("its header has no alg")
    return header


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused("a segment is not a JSON object")
    return value


def _decode(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode("ascii"):  # one text for one token
        raise Refused("a segment is not base64url")
    return data
