"""Which web origins may use a cookie, and read answers over HTTP. Pure.

Origins are compared as a whole (`common.toolbox.origins`): scheme, host and port, never a part of a text. What is not
one origin as a browser sends it (``null``, a list, a path, a user name) is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from watchout.common.toolbox.origins import Origin, of_host, parse

#: What a page elsewhere may read of an answer, besides the body and what every page may (Fetch, "CORS-safelisted").
EXPOSED: Final = "X-Stream-Id, X-Frame-Id, X-Frame-Time, ETag, Retry-After, WWW-Authenticate, Allow"
#: What such a page may send besides what every page may.
SENDABLE: Final = "authorization, content-type, if-none-match"
#: How long a browser may go without asking again, in seconds.
PREFLIGHT_S: Final = 600


def allowed(
    origin: str | None, hosts: Sequence[str], allowed_origins: tuple[str, ...], *, secure: bool = False
) -> bool:
    """Whether a page of `origin` may act with the caller's cookie: one of the list, or of the gateway itself.

    `origin` is the value of that header, None when there is none or more than one. `hosts` are the names, with ports,
    under which the client knows the gateway. `secure` says that the client came over TLS: an http page is then another
    origin. When it is false, TLS may have ended at a proxy that nobody spoke of, so the scheme of `origin` is believed.
    """
    page = parse(origin)
    return page is not None and (_is_listed(page, allowed_origins) or is_own(page, hosts, secure=secure))


def is_own(page: Origin, hosts: Sequence[str], *, secure: bool) -> bool:
    """Whether a page comes from the gateway itself; the arguments are those of `allowed`."""
    if page.scheme not in ("http", "https") or (secure and page.scheme != "https"):
        return False
    return any(of_host(page.scheme, host) == page for host in hosts)


def _is_listed(page: Origin, allowed_origins: tuple[str, ...]) -> bool:
    return any(parse(each) == page for each in allowed_origins)


def cors_headers(origin: str | None, allowed_origins: tuple[str, ...]) -> dict[str, str]:
    """The headers by which a page of `origin` may read an answer (Fetch standard, "CORS protocol").

    Without a list there is nothing to say: a page of the own origin needs no leave.
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
    """The headers of the answer to a preflight for a path with these methods; None: refuse it."""
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
