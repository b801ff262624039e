"""Who sends an HTTP request or a handshake, by what it carries; and why a cookie that it carries does not count.

A browser, or the cookie jar of a phone, attaches cookies unasked. So a cookie is used or ignored, never refused: it
counts only for pages that may act for its user, and a client that means to sign in with a token is not hindered by it.
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

#: What is told of a token that nobody knows.
BAD_TOKEN: Final = "the token is not good, sign in again"  # noqa: S105 - a sentence
_NOT_USED: Final = "the session cookie was not used"


@dataclass(frozen=True, slots=True)
class Sender:
    """What a request says of its sender. `values` gives those of a header, one for each line of it."""

    values: Callable[[str], Sequence[str]]
    query: str
    #: Address of the peer, "" when it has none.
    peer: str
    #: Whether the peer speaks TLS with this process.
    secure: bool


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The outcome: an identity, or why there is none."""

    identity: Identity | None = None
    #: Why the cookie did not count; None when none came, or when it did.
    ignored: IgnoredCookie | None = None
    #: A token or ticket came that is not good.
    refused: bool = False
    #: A token or ticket came and nobody who could know it can be asked.
    unavailable: bool = False


def credential_of(sender: Sender, settings: Settings) -> Credential | None:
    """Return the one credential that decides. Raises ValueError as `identity.find_credential` does."""
    return find_credential(
        sender.values("Authorization"),
        sender.values("Cookie"),
        sender.query,
        cookie_name=settings.session_cookie,
        secure_only=settings.secure_cookie_only,
    )


def page_fault(sender: Sender, settings: Settings, *, handshake: bool) -> str | None:
    """Return why the page that a request comes from may not use the cookie, None when it may.

    A browser names the page's origin in every handshake of a WebSocket, and in every request whose answer the page
    could read. In other requests, such as those for an `img`, it names it in `Referer`, which a page can hold back but
    not forge, or says that page and server have one origin (Fetch Metadata, which is sent to https and loopback only).
    """
    pages = sender.values("Origin")
    if len(pages) > 1:
        return "more than one Origin came"
    if pages:
        return (
            None if _may(pages[0], sender, settings) else f"a page of {pages[0][:100]!a} may not, see ALLOWED_ORIGINS"
        )
    if handshake:
        return "no Origin says which page opens the socket"
    if list(sender.values("Sec-Fetch-Site")) in (["same-origin"], ["none"]):  # none: the user's own doing
        return None
    referers = sender.values("Referer")
    if len(referers) == 1 and (page := of_url(referers[0])) is not None and _may(str(page), sender, settings):
        return None
    return "neither Origin nor Referer names a page that may, see ALLOWED_ORIGINS"


def _may(origin: str, sender: Sender, settings: Settings) -> bool:
    values, proxies = sender.values, settings.trusted_proxies
    return allowed(
        origin,
        own_hosts(
            sender.peer, values("Host"), values("X-Forwarded-Host"), values("X-Forwarded-Port"), proxies
        ),
        settings.allowed_origins,
        secure=forwarded_secure(sender.peer, values("X-Forwarded-Proto"), proxies, secure=sender.secure),
    )  # fmt: skip


async def sign_in(context: Context, sender: Sender, *, handshake: bool) -> SignedIn:
    """Find out who sends this. Raises ValueError, with a text for the client, for what can be read in two ways."""
    credential = credential_of(sender, context.settings)
    if credential is None:
        return SignedIn()
    by_cookie = isinstance(credential, Cookie)
    if by_cookie and (fault := page_fault(sender, context.settings, handshake=handshake)) is not None:
        context.metrics.count(metric_names.ORIGIN_REFUSED)
        return SignedIn(ignored=IgnoredCookie(f"{_NOT_USED}: {fault}"))
    try:
        identity = await context.authenticator.verify(credential, fresh=handshake)
    except StoreUnavailable:
        context.metrics.count(metric_names.AUTH_UNAVAILABLE)
        if by_cookie:
            why = f"{_NOT_USED}: sessions cannot be checked now, try again"
            return SignedIn(ignored=IgnoredCookie(why, ErrorCode.AUTH_UNAVAILABLE))
        return SignedIn(unavailable=True)
    if identity is None:
        context.metrics.count(metric_names.AUTH_REFUSED)
        if by_cookie:
            return SignedIn(ignored=IgnoredCookie(f"{_NOT_USED}: it is not good, or its session has ended"))
        return SignedIn(refused=True)
    if handshake and by_cookie and (full := context.connections.limit_of_user(identity.user_id)) is not None:
        why = f"{_NOT_USED}: too many connections {full.what}"
        return SignedIn(ignored=IgnoredCookie(why, ErrorCode.TOO_MANY_CONNECTIONS))
    return SignedIn(identity=identity)
