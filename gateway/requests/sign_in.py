"""Authenticates an HTTP request or a WebSocket handshake by the credential that it carries.

Browsers, and the cookie jars of phones, attach cookies without being asked. So a cookie is used or ignored, never
refused: it signs in only for pages that may act for its user, and never hinders a client that signs in with a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from watchout.common import metric_names
from watchout.common.errors import ErrorCode, StoreUnavailable
from watchout.common.settings import Settings
from watchout.common.toolbox.origins import of_url
from watchout.gateway.context import Context
from watchout.gateway.model import IgnoredCookie
from watchout.gateway.requests.addresses import forwarded_secure, own_hosts
from watchout.gateway.requests.origins import allowed
from watchout.identity import Cookie, Credential, Identity, find_credential

#: Text of the error for a token that is not valid.
BAD_TOKEN: Final = "the token is not valid, sign in again"  # noqa: S105 - a sentence
_NOT_USED: Final = "the session cookie was not used"


@dataclass(frozen=True, slots=True)
class Sender:
    """The parts of a request by which its sender is authenticated: headers, query, peer; argument of `sign_in`."""

    #: Returns the values of a header, one for each line with its name.
    values: Callable[[str], Sequence[str]]
    #: The query of the request's target, which may hold a token.
    query: str
    #: Address of the peer, a proxy perhaps; "" when it has none.
    peer: str
    #: Whether the peer's connection to this process is TLS.
    secure: bool


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Result of `sign_in`: the identity that signed in, or why none did. Empty for a request without credential."""

    identity: Identity | None = None
    #: Why the session cookie was not used; None: there was none, or it was used.
    ignored_cookie: IgnoredCookie | None = None
    #: The token or ticket of the request is not valid.
    refused: bool = False
    #: The token or ticket of the request could not be verified: the session store is away.
    unavailable: bool = False


def credential_of(sender: Sender, settings: Settings) -> Credential | None:
    """Return the credential of a request, None when it has none.

    Raises ValueError as `identity.find_credential` does.
    """
    return find_credential(
        sender.values("Authorization"),
        sender.values("Cookie"),
        sender.query,
        cookie_name=settings.session_cookie,
        secure_only=settings.secure_cookie_only,
    )


def page_fault(sender: Sender, settings: Settings, *, handshake: bool) -> str | None:
    """Return why the page that sent a request may not use the cookie, None when it may.

    Browsers send the page's origin in every WebSocket handshake, and in every request whose response the page could
    read. In other requests, such as for an `img`, they send it in `Referer`, which a page can suppress but not forge,
    or send that page and server have the same origin (Fetch Metadata, only to https and loopback).
    """
    pages = sender.values("Origin")
    if len(pages) > 1:
        return "more than one Origin header"
    if pages:
        if _may_use_cookie(pages[0], sender, settings):
            return None
        return f"a page of {pages[0][:100]!a} may not use it, see ALLOWED_ORIGINS"
    if handshake:
        return "without an Origin header the page is not known"
    if list(sender.values("Sec-Fetch-Site")) in (["same-origin"], ["none"]):  # none: the user entered the URL
        return None
    referers = sender.values("Referer")
    page = of_url(referers[0]) if len(referers) == 1 else None
    if page is not None and _may_use_cookie(str(page), sender, settings):
        return None
    return "neither Origin nor Referer names a page that may use it, see ALLOWED_ORIGINS"


def _may_use_cookie(origin: str, sender: Sender, settings: Settings) -> bool:
    """Whether a page of this origin may act with the session cookie of its user."""
    values, proxies = sender.values, settings.trusted_proxies
    return allowed(
        origin,
        own_hosts(
            sender.peer, values("Host"), values("X-Forwarded-Host"), values("X-Forwarded-Port"), proxies
        ),
        settings.allowed_origins,
        secure=forwarded_secure(sender.peer, values("X-Forwarded-Proto"), proxies, secure=sender.secure),
    )  # fmt: skip


async def sign_in(context: Context, sender: Sender, *, handshake: bool, changes: bool = False) -> SignedIn:
    """Authenticate a request.

    Args:
        context: What the gateway's connections share: the authenticator, the limits.
        sender: What the request tells about its sender.
        handshake: Whether it is a WebSocket handshake; the identity then outlives the request.
        changes: Whether the request changes something: a cookie then counts only with an `Origin` that may use it, as
            for a handshake, and the session is looked up anew.

    Raises:
        ValueError: The request carries contradicting credentials; the text is for the client, status 400.
    """
    credential = credential_of(sender, context.settings)
    if credential is None:
        return SignedIn()
    by_cookie = isinstance(credential, Cookie)
    if by_cookie and (fault := page_fault(sender, context.settings, handshake=handshake or changes)) is not None:
        context.metrics.count(metric_names.ORIGIN_REFUSED)
        return SignedIn(ignored_cookie=IgnoredCookie(f"{_NOT_USED}: {fault}"))
    try:
        identity = await context.authenticator.verify(credential, fresh=handshake or changes)
    except StoreUnavailable:
        context.metrics.count(metric_names.AUTH_UNAVAILABLE)
        if by_cookie:
            reason = f"{_NOT_USED}: sessions cannot be checked now, try again"
            return SignedIn(ignored_cookie=IgnoredCookie(reason, ErrorCode.AUTH_UNAVAILABLE))
        return SignedIn(unavailable=True)
    if identity is None:
        context.metrics.count(metric_names.AUTH_REFUSED)
        if by_cookie:
            return SignedIn(ignored_cookie=IgnoredCookie(f"{_NOT_USED}: it is not valid, or its session has ended"))
        return SignedIn(refused=True)
    if handshake and by_cookie and (full := context.connections.limit_of_user(identity.user_id)) is not None:
        reason = f"{_NOT_USED}: too many connections {full.what}"
        return SignedIn(ignored_cookie=IgnoredCookie(reason, ErrorCode.TOO_MANY_CONNECTIONS))
    return SignedIn(identity=identity)
