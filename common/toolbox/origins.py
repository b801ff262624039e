"""Parses and compares web origins as a whole: scheme, host and port (RFC 6454 section 5). Pure."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from watchout.common.toolbox import default_ports

#: Longest origin that is parsed: a host name has at most 253 characters (RFC 1035 section 2.3.4).
MAX_ORIGIN: Final = 280
DEFAULT_PORTS: Final = {scheme: default_ports.DEFAULT_PORTS[scheme] for scheme in ("http", "https")}

_AUTHORITY: Final = r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
_ORIGIN: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}", re.IGNORECASE | re.ASCII)
_HOST: Final = re.compile(_AUTHORITY, re.IGNORECASE | re.ASCII)


class Origin(NamedTuple):
    """A web origin (RFC 6454): scheme, host and port of a page, in lower case. Made by the functions of this module.

    `port` is the scheme's default port where the text names none, and None when that is not known either.
    """

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """Return it as a browser sends it."""
        port = "" if self.port in (None, DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse(text: str | None) -> Origin | None:
    """Return the origin in the value of an ``Origin`` header, None when the value is not exactly one origin.

    ``null`` is not an origin: sandboxed frames, `data:` pages and redirected requests of any site send it.
    """
    if text is None or len(text) > MAX_ORIGIN or (match := _ORIGIN.fullmatch(text)) is None:
        return None
    scheme = match["scheme"].lower()
    return _origin(scheme, match, DEFAULT_PORTS.get(scheme))


def of_host(scheme: str, host: str | None) -> Origin | None:
    """Return the origin of `scheme` at the value of a ``Host`` header, None when it is not exactly one host."""
    if host is None or len(host) > MAX_ORIGIN or (match := _HOST.fullmatch(host)) is None:
        return None
    return _origin(scheme, match, DEFAULT_PORTS.get(scheme))


def of_url(url: str | None) -> Origin | None:
    """Return the origin of a URL, such as the value of a ``Referer`` header; None when it has none."""
    if url is None or (match := re.match(r"[^:/?#]+://[^/?#\\]*", url)) is None:
        return None
    return parse(match[0])


def from_setting(text: str) -> Origin:
    """Return the origin that an operator wrote: as browsers send it, with a slash at the end, or in another script.

    Raises:
        ValueError: It is not an origin; the text says what is wrong, as the end of a sentence.
    """
    if (fault := _fault(text)) is not None:
        raise ValueError(fault)
    scheme, _, authority = text.removesuffix("/").partition("://")
    if not authority.isascii():
        import yarl  # for names in other scripts alone

        try:
            encoded = yarl.URL(f"http://{authority}")
        except ValueError:
            raise ValueError(f"{text[:80]!r} has no host name that can be looked up") from None
        authority = (encoded.raw_host or "") + (f":{encoded.explicit_port}" if encoded.explicit_port else "")
    origin = parse(f"{scheme}://{authority}")
    if origin is None:
        raise ValueError(f"{text[:80]!r} is none")
    return origin


def _fault(text: str) -> str | None:
    shown = repr(text[:80])
    if text.lower() == "null" or text.lower().startswith("file:"):
        return f"{shown} is what pages of every site or file may send"
    if text.lower().startswith(("ws:", "wss:")):
        return f"{shown} is the address of a socket: write that of the page, http{text[2:].lower()}"
    if "*" in text:
        return f"{shown} has a wildcard: name each origin"
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme:
        return f"{shown} has no scheme: write https://{rest or scheme}"
    authority = rest.removesuffix("/")
    if "@" in authority:
        return f"{shown} has a user name"
    if re.search(r"[/?#\\]", authority):
        return f"{shown} has a path or a query: only {scheme}://{re.split(r'[/?#]', rest)[0]} counts"
    return None


def _origin(scheme: str, match: re.Match[str], default_port: int | None) -> Origin | None:
    host, port = match["host"].lower(), int(match["port"]) if match["port"] else default_port
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError:
            return None
    return Origin(scheme, host, port)
