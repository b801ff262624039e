"""Reads the response of an introspection endpoint: RFC 7662, plain claims, or Better Auth's ``get-session``. Pure."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from watchout.identity.grants import GrantsFault, read_grants
from watchout.identity.sources.claims import (
    MAX_OPAQUE_BYTES,
    MAX_ROLES,
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

#: Members of a response that hold the end of the token.
_ENDS: Final = ("exp", "expiresAt", "expires_at", "expires")


#: Objects in a response that may hold claims, besides the response itself.
_PARTS: Final = ("claims", "data", "session", "user")


#: Members that say whether the token is valid.
_VERDICTS: Final = ("active", "valid", "authenticated", "success")


#: A token that may be sent to an endpoint: nothing that could end a header line or a form field.
_OPAQUE: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_OPAQUE_BYTES}}}")


class UnreadableResponse(Exception):
    """The response of an introspection endpoint is in no known form, so it says nothing about the token.

    Raised by `read_introspection`; the text is safe to log. `Introspection.verify` then raises `StoreUnavailable`.
    """


def well_formed(token: str) -> bool:
    """Return whether a token may be sent to an endpoint: printable ASCII without spaces, up to 8 KiB."""
    return _OPAQUE.fullmatch(token) is not None


def read_introspection(body: bytes, now: float) -> Claims:
    """Return the claims in a response: RFC 7662, plain claims, or Better Auth's ``get-session``.

    The claims are members of the response, or of objects `claims`, `data`, `session` and `user` in it, or in its
    `claims` or `data`. Of several ends the earliest counts. There is no session id, as no row of the session store
    belongs to the token.

    Args:
        body: The body of a response with status 200.
        now: Seconds since the Unix epoch.

    Raises:
        TokenRefused: The token is not valid: unknown, inactive, expired, or its user is banned.
        UnreadableResponse: The response is not in a known form.
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
    try:
        # Not of `user` and `session`: users may write fields of those themselves.
        found = [read_grants(part) for kind, part in parts if kind in ("", "claims")]
    except GrantsFault as malformed:
        raise TokenRefused(str(malformed)) from None
    grants = next((each for each in found if each is not None), None)
    return Claims(_name(user_id, "the user's id"), expires_at, None, roles, grants)


def _parts(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the response and the objects in it that hold claims, each with its name ("" for the response).

    When the response itself has the user's id, `claims` and `data` are other data about the user and are left out.
    """
    found = [("", answer)]
    for kind in _PARTS if _first(answer, SUBJECTS) is None else ("session", "user"):
        if isinstance(part := answer.get(kind), dict):
            found.append((kind, part))
            if kind in ("claims", "data"):
                found += [(name, each) for name in _PARTS if isinstance(each := part.get(name), dict)]
    return found


def _introspected_user(parts: list[tuple[str, dict[str, Any]]]) -> object:
    """Return the user's id. An ``id`` counts only outside of a session object, and when no other member has it."""
    named = [_first(part, SUBJECTS) for _, part in parts]
    users = [_first(part, ("id", *SUBJECTS)) for kind, part in parts if kind == "user"]
    owners = [_first(part, ("userId", "user_id")) for kind, part in parts if kind == "session"]
    ids = [each for each in (*owners, *users) if each is not None]
    if owners and len({str(each) for each in ids}) > 1:
        raise TokenRefused("its session is another user's")
    others = [_first(part, ("id",)) for kind, part in parts if kind != "session"]
    others += [_first(parts[0][1], ("username",))] if "active" in parts[0][1] else []
    return next((each for each in (*named, *users, *others) if each is not None), None)


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _answered(value: object, name: str) -> float:
    """Return seconds since the Unix epoch for a date: seconds or milliseconds, also as text, or ISO 8601."""
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
