"""The check of the URL of an ML service, and the error with a remedy when it is refused. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from watchout.common.ml_targets.declaration import InvalidMlUrl, expected_forms, instead_of, of_scheme, schemes

_UNREADABLE: Final = "a URL whose host or port cannot be read"
#: A host that an error may show: one with a dot, localhost, or an IPv6 address. A single word may be a secret that was
#: pasted into the wrong setting, unless a port follows it.
_HOST: Final = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|localhost|\[[0-9A-Fa-f:.]+\])"
_BARE: Final = re.compile(rf"(?:(?:{_HOST})(?::\d{{1,5}})?|[A-Za-z0-9-]{{1,63}}:\d{{1,5}})(?:/[A-Za-z0-9._/-]*)?")


def check(raw: str) -> str:
    """Return the URL with its scheme in lower case, for HTTP without a final slash. Raises `InvalidMlUrl`.

    The parts that differ between kinds of services are checked by their declaration (`common.ml_targets`).
    """
    shown = None if "@" in raw or "?" in raw else raw[:80]
    if "://" not in raw:
        raise _without_scheme(shown)
    scheme = raw.partition("://")[0].lower()
    raw = scheme + raw[len(scheme) :]
    expected = expected_forms()
    remedy = f"{expected}; gRPC is not supported" if scheme == "grpc" else instead_of(scheme)
    if remedy is not None:
        raise InvalidMlUrl(remedy, f"a {scheme}:// URL")
    declaration = of_scheme(scheme)
    if declaration is None:
        received = (
            f"a {scheme}:// URL" if shown is not None and re.fullmatch(r"[a-z][a-z0-9+.-]{0,31}", scheme) else None
        )
        raise InvalidMlUrl(expected, received)
    try:
        parts = urlsplit(raw)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = None if scheme in declaration.several_hosts else parts.port
    except ValueError:
        raise InvalidMlUrl(
            f"a port from 1 to 65535 after the host, or none: {expected}", shown and _UNREADABLE
        ) from None
    if not parts.hostname or port == 0 or any(c.isspace() for c in raw):
        what = "space" if any(c.isspace() for c in raw) else "port 0" if port == 0 else "no host"
        raise InvalidMlUrl(expected, shown and f"a {scheme}:// URL with {what}")
    declaration.check_parts(parts, options)
    return raw.rstrip("/") if scheme in ("http", "https") else raw


def _without_scheme(shown: str | None) -> InvalidMlUrl:
    """Return the error for a value without ``://``; `shown`: the value if it may be shown."""
    if shown is None:
        return InvalidMlUrl(f"a URL: its scheme is missing, such as http://. {expected_forms()}")
    slip = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/?(?=[^/\d])", shown)
    if slip is not None and slip[1].lower() in schemes():
        rest = shown[slip.end() :]
        known = f"{slip[0]}{rest}" if _BARE.fullmatch(rest) else None
        return InvalidMlUrl(f"two slashes after {slip[1].lower()}: , as in {slip[1].lower()}://host[:port]", known)
    bare = shown.lstrip("/")
    if _BARE.fullmatch(bare):
        return InvalidMlUrl(f"http:// (or another scheme) before it, which is missing: http://{bare}", shown)
    return InvalidMlUrl(f"a URL: its scheme is missing, such as http://. {expected_forms()}")
