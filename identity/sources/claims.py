"""What a verified token says about its user, and the readers that JWTs and introspection responses share. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from watchout.identity.grants import Grants

#: Longest JWT that is read: one with the largest grants (`common.toolbox.wildcards`) has 35 KiB. It comes in an `auth`
#: message; headers and queries take less.
MAX_JWT_BYTES: Final = 48 << 10
#: Longest other token that is read: what the header of a request to the introspection endpoint takes.
MAX_OPAQUE_BYTES: Final = 8 << 10


#: Longest user id, session id and role, in characters.
MAX_NAME: Final = 255


#: Most roles of one user.
MAX_ROLES: Final = 100


#: Claims that may hold the user's id, in order of preference; after them ``user.id``.
SUBJECTS: Final = ("sub", "userId", "user_id", "uid")


#: A date above this is in milliseconds: in seconds it would be in the year 5138.
_MILLISECONDS: Final = 1e11


class TokenRefused(Exception):
    """A token is not valid; raised by `read_jwt`, `SignedJwt.verify` and `read_introspection`.

    The text is a fixed sentence without any part of the token. The verifiers log it and return None, and the client is
    refused.
    """


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says about its user. Returned by `JwtVerifier` and `Introspection`.

    Attributes:
        user_id: The user's id in the app.
        expires_at: End of the token in seconds since the Unix epoch, with the leeway; infinite when it has none.
        session_id: The session that the token names, None when it names none.
        roles: The user's roles.
        grants: What the token itself permits, None when it says nothing of that.
    """

    user_id: str
    expires_at: float = math.inf
    session_id: str | None = None
    roles: frozenset[str] = frozenset()
    grants: Grants | None = None


def _moment(number: float) -> float:
    """Return seconds since the Unix epoch for a number of seconds or milliseconds."""
    return number / 1000 if number > _MILLISECONDS else number


def _name(value: object, what: str) -> str:
    """Return an id as text; some databases have integers. Raises `TokenRefused` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if -(1 << 63) <= value < 1 << 64 else None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise TokenRefused(f"{what} is not printable text of 1 to {MAX_NAME} characters")
    return value


def _roles(about: dict[str, Any]) -> frozenset[str]:
    """Return the roles in ``role`` (comma-separated, from Better Auth's admin plugin) and ``roles`` (a list)."""
    found: set[str] = set()
    for value in (about.get("role"), about.get("roles")):
        listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {one.strip() for one in listed if isinstance(one, str)}
    roles = frozenset(one for one in found if 0 < len(one) <= MAX_NAME and one.isprintable())
    if len(roles) > MAX_ROLES:
        raise TokenRefused(f"it has over {MAX_ROLES} roles")
    return roles


def _check_not_banned(about: dict[str, Any], now: float) -> None:
    """Raise `TokenRefused` for a banned user: Better Auth puts all fields of the user into JWTs and responses."""
    if about.get("banned") is not True:
        return
    try:
        over = about.get("banExpires") is not None and _date(about["banExpires"]) <= now
    except ValueError:
        over = False
    if not over:
        raise TokenRefused("its user is banned")


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
    """Return seconds since the Unix epoch for a date as JavaScript writes it: ISO 8601 with its zone, or milliseconds.

    Raises `ValueError`.
    """
    if not isinstance(value, str):
        return _number(value) / 1000
    date = datetime.fromisoformat(value)
    if date.tzinfo is None:
        raise ValueError("no time zone")
    return date.timestamp()


def _first(claims: dict[str, Any], names: Iterable[str]) -> object:
    return next((claims[name] for name in names if claims.get(name) is not None), None)
