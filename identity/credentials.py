"""Finds the credential in a request or message, and the session token in a credential. Pure.

Better Auth (seen in 1.3 and 1.7) issues these forms: the session token itself, 32 letters and digits; signed,
``token.base64(HMAC-SHA256(secret, token))``, as the bearer plugin's ``set-auth-token`` and percent-encoded as the
cookie; and the ticket of the one-time-token plugin. A token may also be a JWT, or any text that an introspection
endpoint knows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

#: Most fields of a query string; one with more is refused.
MAX_QUERY_FIELDS: Final = 32
#: Put in front of a cookie's name by https sites; browsers let only https set it (RFC 6265bis section 4.1.3).
SECURE_PREFIX: Final = "__Secure-"

#: What may be a session token. A NUL or a lone surrogate would make a database driver raise instead of finding nothing.
TOKEN: Final = re.compile(r"[\x21-\x7e]{16,512}")
_WHITE_SPACE: Final = " \t\r\n"
#: 32 bytes in base64 with padding.
_SIGNATURE_CHARACTERS: Final = 44


@dataclass(frozen=True, slots=True)
class Token:
    """A credential: a session token, JWT or opaque token, from the `Authorization` header, the query ``?token=`` or an
    `auth` message. Made by `find_credential` and `ClientHandler`, verified by `Authenticator`.
    """

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cookie:
    """A credential: the value of Better Auth's session cookie as it was received. Made by `find_credential`.

    Used only for requests of an allowed page (`Origin`), so that other sites cannot act for the user.
    """

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A credential: a token of Better Auth's one-time-token plugin, from the query ``?ticket=``. Made by
    `find_credential`; `Authenticator` redeems it.
    """

    text: str = field(repr=False)


Credential = Token | Cookie | Ticket


def find_credential(
    authorization: Sequence[str], cookies: Sequence[str], query: str, *, cookie_name: str, secure_only: bool
) -> Credential | None:
    """Return the credential that counts for a request: the bearer token, else that of the query, else the cookie.

    What a client sends on purpose goes before the cookie that its browser adds.

    Args:
        authorization: The values of all ``Authorization`` header fields.
        cookies: The values of all ``Cookie`` header fields.
        query: The query string without ``?``.
        cookie_name: Name of the session cookie, without ``__Secure-``.
        secure_only: Accept only the cookie with the prefix ``__Secure-``.

    Returns:
        None when the request has no credential.

    Raises:
        ValueError: The request is ambiguous, such as with two ``Authorization`` headers; the text is for the client.
    """
    if len(authorization) > 1:
        raise ValueError("more than one Authorization header")
    if authorization:
        scheme, _, text = authorization[0].partition(" ")
        if scheme.lower() == "bearer" and text.strip():
            return Token(text.strip())
    fields = _query(query)
    if token := clean_token(fields.get("token", "")):
        return Token(token)
    if ticket := fields.get("ticket", "").strip(_WHITE_SPACE):
        return Ticket(ticket)
    value = cookie_value(cookies, SECURE_PREFIX + cookie_name)
    if value is None and not secure_only:
        value = cookie_value(cookies, cookie_name)
    return None if value is None else Cookie(value)


def clean_token(text: str) -> str:
    """Return a token without what is often copied along with it: white space around it, and `Bearer ` in front."""
    text = text.strip(_WHITE_SPACE)
    scheme, _, token = text.partition(" ")
    return token.strip(_WHITE_SPACE) if scheme.lower() == "bearer" else text


def cookie_value(cookies: Sequence[str], name: str) -> str | None:
    """Return the first cookie of this name, as Better Auth does; Python's own parser returns the last."""
    for line in cookies:
        for pair in line.split(";"):
            found, equals, value = pair.partition("=")
            if equals and found.strip(" \t") == name:
                value = value.strip(" \t")
                quoted = len(value) > 1 and value[0] == value[-1] == '"'  # RFC 6265 section 4.1.1
                return value[1:-1] if quoted else value
    return None


def signed_session_token(value: str, secret: str | None) -> str | None:
    """Return the session token in a signed one, percent-encoded or not; None for a wrong form or signature.

    Without `secret` only the form of the signature is checked: the token in front of it is the credential, and the
    signature only guards against tokens from a stolen database.
    """
    try:
        if "%" in value:
            value = unquote(value, errors="strict")  # not unquote_plus: base64 has a plus
        token, _, signature = value.rpartition(".")
        if len(signature) != _SIGNATURE_CHARACTERS or not signature.endswith("=") or not TOKEN.fullmatch(token):
            return None
        signed = base64.b64decode(signature, validate=True)
    except ValueError:  # base64 and UTF-8 raise subclasses of it
        return None
    if secret is None:
        return token
    return token if hmac.compare_digest(signed, hmac.digest(secret.encode(), token.encode(), hashlib.sha256)) else None


def session_token(credential: Token | Cookie, secret: str | None, *, require_signed: bool) -> str | None:
    """Return the session token of a credential, None when it cannot hold one. A cookie is always signed."""
    if isinstance(credential, Cookie):
        return signed_session_token(credential.value, secret)
    text = credential.text
    if "." in text:
        return signed_session_token(text, secret)
    return text if not require_signed and TOKEN.fullmatch(text) else None


def _query(query: str) -> dict[str, str]:
    """Return the first value of each field; ``+`` is not decoded to a space, because a token may contain one."""
    fields: dict[str, str] = {}
    if query.count("&") >= MAX_QUERY_FIELDS:
        raise ValueError(f"the query has over {MAX_QUERY_FIELDS} fields")
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        fields.setdefault(name, unquote(value))
    return fields
