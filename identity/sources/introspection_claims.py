"""Reads the response of an introspection endpoint: RFC 7662, plain claims, or Better Auth's ``get-session``. Pure."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from watchout.identity.sources.claims import (
    MAX_ROLES,
    MAX_TOKEN_BYTES,
    SUBJECTS,
    Claims,
    TokenRefused,
    _check_not_banned,
    _date,
    _first,
    _moment,
    _name,
    _number,
    _roles,
)

#: When a token ends, in an introspection's answer.
_ENDS: Final = ("exp", "expiresAt", "expires_at", "expires")


#: Objects of an answer in which it may say these things, besides the answer itself.
_PARTS: Final = ("claims", "data", "session", "user")


#: What an answer may call it that a token is good.
_VERDICTS: Final = ("active", "valid", "authenticated", "success")


#: What may be sent to an endpoint: nothing that ends a header line or a field.
_OPAQUE: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_TOKEN_BYTES}}}")


class UnreadableResponse(Exception):
    """An endpoint's answer that is not of a known form: it cannot be said whose the token is."""


def well_formed(token: str) -> bool:
    """Whether an opaque token may be shown to an endpoint: printable ASCII without spaces, up to 8 KiB."""
    return _OPAQUE.fullmatch(token) is not None


def read_introspection(body: bytes, now: float) -> Claims:
    """Who a token is by an endpoint's answer: RFC 7662, plain claims, Better Auth's ``get-session``, or such in parts.

    The claims stand in the answer itself, or in objects `claims`, `data`, `session` and `user` of it, or of its
    `claims` or `data`. The earliest end counts. They have no session id: there is no row of ours behind it.
    Raises `TokenRefused` when it is nobody, and `UnreadableResponse`.
    """
    try:
        answer = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))  # as `fetch(…).json()` of browsers has it
    except (ValueError, RecursionError):
        raise UnreadableResponse("its answer is not JSON") from None
    if answer is None:
        raise TokenRefused("the endpoint knows nobody by it")
    if not isinstance(answer, dict):
        raise UnreadableResponse("its answer is neither an object nor null")
    if "session" in answer and answer["session"] is None:
        raise TokenRefused("the endpoint knows no session by it")
    parts = _parts(answer)
    for _, part in parts:
        for name in _VERDICTS:
            if name in part and not _is_true(part[name]):
                raise TokenRefused("the endpoint says that it is not active")
    ends = [_answered(part[name], name) for kind, part in parts if kind != "user" for name in _ENDS
            if part.get(name) is not None]  # fmt: skip
    lives = [
        _answered_number(part["expires_in"], "expires_in") for _, part in parts if part.get("expires_in") is not None
    ]
    expires_at = min([*ends, *(now + life for life in lives)], default=math.inf)
    user_id = _introspected_user(parts)
    if now >= expires_at:
        raise TokenRefused("it has expired")
    roles: frozenset[str] = frozenset()
    for kind, part in parts:
        _check_not_banned(part, now)
        roles |= _roles(part) if kind != "session" else frozenset()
    if len(roles) > MAX_ROLES:
        raise TokenRefused(f"it has over {MAX_ROLES} roles")
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
        raise TokenRefused("its session is another user's")
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
        raise UnreadableResponse(f"its answer has an {name} that is no date") from None


def _answered_number(value: object, name: str) -> float:
    try:
        return _number(float(value) if isinstance(value, str) else value)
    except ValueError:
        raise UnreadableResponse(f"its answer has an {name} that is no number") from None
