"""Decides which web origins may act with a session cookie, and read responses over HTTP (CORS). Pure.

Origins are compared by scheme, host and port (`common.toolbox.origins`), never by a part of their text. A value that is
not a single origin as browsers send it (``null``, a list, with a path or a user name) is never allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from watchout.common.toolbox.origins import Origin, of_host, parse

#: Response headers that a page of an allowed origin may read, besides the CORS-safelisted ones (Fetch standard).
EXPOSED: Final = "X-Stream-Id, X-Frame-Id, X-Frame-Time, ETag, Retry-After, WWW-Authenticate, Allow"
#: Request headers that such a page may send, besides the CORS-safelisted ones.
SENDABLE: Final = "authorization, content-type, if-none-match"
#: Seconds for which a browser may cache the response to a preflight request.
PREFLIGHT_S: Final = 600


def allowed(
    origin: str | None, hosts: Sequence[str], allowed_origins: tuple[str, ...], *, secure: bool = False
) -> bool:
    """Whether a page may act with the cookie of its user: a page of an allowed origin, or of the gateway itself.

    Args:
        origin: Value of the `Origin` header; None when there is none, or more than one.
        hosts: Names with ports under which the client knows the gateway.
        allowed_origins: The setting `ALLOWED_ORIGINS`.
        secure: Whether the client uses TLS: an http page is another origin then. When false, TLS may still have ended
            at a proxy that does not tell, so the scheme of `origin` is believed.
    """
    page = parse(origin)
    return page is not None and (_is_listed(page, allowed_origins) or is_own(page, hosts, secure=secure))


def is_own(page: Origin, hosts: Sequence[str], *, secure: bool) -> bool:
    """Whether a page was served under one of the gateway's own names; the arguments are those of `allowed`."""
    if page.scheme not in ("http", "https") or (secure and page.scheme != "https"):
        return False
    return any(of_host(page.scheme, host) == page for host in hosts)


def _is_listed(page: Origin, allowed_origins: tuple[str, ...]) -> bool:
    return any(parse(each) == page for each in allowed_origins)


def cors_headers(origin: str | None, allowed_origins: tuple[str, ...]) -> dict[str, str]:
    """Return the headers that let a page of `origin` read a response (Fetch standard, "CORS protocol").

    Empty without `allowed_origins`: a page of the gateway's own origin needs none.
    """
    if not allowed_origins:
        return {}
    headers = {"Vary": "Origin"}
    page = parse(origin)
    if origin is not None and page is not None and _is_listed(page, allowed_origins):
        headers |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": EXPOSED,
        }
    return headers


def preflight_headers(origin: str | None, methods: str, allowed_origins: tuple[str, ...]) -> dict[str, str] | None:
    """Return the headers of the response to a preflight request; None: the origin is not allowed.

    `methods` is the value of `Access-Control-Allow-Methods` for the path.
    """
    headers = cors_headers(origin, allowed_origins)
    if "Access-Control-Allow-Origin" not in headers:
        return None
    del headers["Access-Control-Expose-Headers"]
    return {
        **headers,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": SENDABLE,
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
