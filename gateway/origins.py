"""Which web origins may use a cookie, and read answers over HTTP. Pure.

Origins are compared as a whole (RFC 6454 section 5): scheme, host and port, never a part of a text. What is not one
origin as a browser sends it (``null``, a list, a path, a user name) is nobody's.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

#: What a page elsewhere may read of an answer, besides the body and what every page may (Fetch, "CORS-safelisted").
EXPOSED: Final = "X-Stream-Id, X-Frame-Id, X-Frame-Time, ETag, Retry-After, WWW-Authenticate, Allow"
#: What such a page may send besides what every page may.
SENDABLE: Final = "authorization, content-type, if-none-match"
#: How long a browser may go without asking again, in seconds.
PREFLIGHT_S: Final = 600
#: Longest origin that is looked at: a host name has at most 253 characters (RFC 1035 section 2.3.4).
MAX_ORIGIN: Final = 280

#: What a page that is not allowed is told.
REFUSED: Final = "a page of this origin may not use the session cookie, see ALLOWED_ORIGINS"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
_ORIGIN: Final = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}", re.IGNORECASE | re.ASCII)
_HOST: Final = re.compile(_AUTHORITY, re.IGNORECASE | re.ASCII)

Authority = tuple[str, int]


def allowed(origin: str | None, host: str | None, allowed_origins: tuple[str, ...], *, secure: bool = False) -> bool:
    """Whether a page of `origin` may act with the caller's cookie.

    `origin` and `host` are the values of those headers, None when there is none or more than one. With an empty
    list only the own origin is allowed: host and port of `host`. `secure` says that the client came over TLS: an
    http page is then another origin. When it is false, TLS may have ended at a proxy that nobody spoke of, so the
    scheme of `origin` is believed.
    """
    came = _parse(origin)
    if came is None:
        return False
    if allowed_origins:
        return came in {_parse(each) for each in allowed_origins}
    scheme, authority = came
    return not (secure and scheme != "https") and authority == _authority(host, _DEFAULT_PORTS[scheme])


def cors_headers(origin: str | None, allowed_origins: tuple[str, ...]) -> dict[str, str]:
    """The headers by which a page of `origin` may read an answer (Fetch standard, "CORS protocol").

    Without a list there is nothing to say: a page of the own origin needs no leave.
    """
    if not allowed_origins:
        return {}
    headers = {"Vary": "Origin"}
    if origin is not None and allowed(origin, None, allowed_origins):
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


def _parse(origin: str | None) -> tuple[str, Authority] | None:
    if origin is None or len(origin) > MAX_ORIGIN or (match := _ORIGIN.fullmatch(origin)) is None:
        return None
    scheme = match["scheme"].lower()
    authority = _normal(match, _DEFAULT_PORTS[scheme])
    return None if authority is None else (scheme, authority)


def _authority(host: str | None, default_port: int) -> Authority | None:
    if host is None or len(host) > MAX_ORIGIN or (match := _HOST.fullmatch(host)) is None:
        return None
    return _normal(match, default_port)


def _normal(match: re.Match[str], default_port: int) -> Authority | None:
    host, port = match["host"].lower(), int(match["port"] or default_port)
    if port > 65535:
        return None
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            return None
    return host, port
