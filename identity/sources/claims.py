"""What a verified token says about its user, and the readers that JWTs and introspection responses share. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

#: Longest token that is looked at.
MAX_TOKEN_BYTES: Final = 8 << 10


#: Longest user id, session id and role, in characters.
MAX_NAME: Final = 255


#: Most roles of one user.
MAX_ROLES: Final = 100


#: Where the user's id stands, in the order in which it is looked for; then in an object ``user``.
SUBJECTS: Final = ("sub", "userId", "user_id", "uid")


#: A date above this is in milliseconds: as seconds it would be in the year 5138.
_MILLISECONDS: Final = 1e11


class TokenRefused(Exception):
    """This token is nobody's; the text is a fixed sentence that holds nothing of the token."""


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token's bearer. `expires_at` is in seconds since the epoch, the leeway included."""

    user_id: str
    expires_at: float = math.inf
    session_id: str | None = None
    roles: frozenset[str] = frozenset()


def _moment(number: float) -> float:
    """Seconds since the epoch, out of seconds or milliseconds."""
    return number / 1000 if number > _MILLISECONDS else number


def _name(value: object, what: str) -> str:
    """An id as text; integers are what some databases have for ids."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if -(1 << 63) <= value < 1 << 64 else None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise TokenRefused(f"{what} is not printable text of 1 to {MAX_NAME} characters")
    return value


def _roles(about: dict[str, Any]) -> frozenset[str]:
    """``role`` as Better Auth's admin plugin has it, a list in one text; ``roles`` as others have it."""
    found: set[str] = set()
    for value in (about.get("role"), about.get("roles")):
        listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {one.strip() for one in listed if isinstance(one, str)}
    roles = frozenset(one for one in found if 0 < len(one) <= MAX_NAME and one.isprintable())
    if len(roles) > MAX_ROLES:
        raise TokenRefused(f"it has over {MAX_ROLES} roles")
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
    """A date as JavaScript writes it: ISO 8601 with its zone, or milliseconds since the epoch."""
    if not isinstance(value, str):
        return _number(value) / 1000
    date = datetime.fromisoformat(value)
    if date.tzinfo is None:
        raise ValueError("no time zone")
    return date.timestamp()


def _first(claims: dict[str, Any], names: Iterable[str]) -> object:
    return next((claims[name] for name in names if claims.get(name) is not None), None)
