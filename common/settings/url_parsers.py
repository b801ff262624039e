"""Parsers of URLs, hosts, addresses and origins: text of a variable to a checked value, or `InvalidValue`. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from watchout.common.ml_targets.declaration import InvalidMlUrl
from watchout.common.settings import ml_url
from watchout.common.settings.parsers import split_list
from watchout.common.settings.spec import InvalidValue
from watchout.common.toolbox.origins import from_setting


def host(raw: str) -> str:
    """Parse a host name or an IP address, without a port."""
    if any(c.isspace() or c in "/@?#" for c in raw):
        raise InvalidValue("a host name or an IP address")
    if raw.count(":") == 1 or "]:" in raw:
        raise InvalidValue("a host name or an IP address alone: the port is WATCHOUT_PORT")
    return raw


def database_url(raw: str) -> str:
    """Parse the URL of Better Auth's database: PostgreSQL in any of its common spellings, or ``sqlite:``."""
    from watchout.common.settings.database_url import InvalidDatabaseUrl, as_url, parse  # for one setting alone

    raw = as_url(raw)
    scheme, _, rest = raw.partition(":")
    if scheme == "sqlite":
        if not rest.strip("/"):
            raise InvalidValue("sqlite:/path/to/file.db")
        return raw
    try:
        parse(raw)
    except InvalidDatabaseUrl as exc:
        raise InvalidValue(f"{exc} (or sqlite:/path/to/file.db)" if "://" in str(exc) else str(exc)) from None
    return raw


def ml_service_url(raw: str) -> str:
    """Parse the URL of an ML service (`ml_url.check`)."""
    try:
        return ml_url.check(raw)
    except InvalidMlUrl as exc:
        raise InvalidValue(exc.expected, exc.received) from None


def http_url(raw: str) -> str:
    """Parse an ``http`` or ``https`` URL."""
    try:
        parts = urlsplit(raw)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise InvalidValue("http(s)://host[:port]/path") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise InvalidValue("http(s)://host[:port]/path")
    return raw


def public_url(raw: str) -> str:
    """Parse the address that clients use: ``http`` or ``https``, a path perhaps; the slash at its end is dropped."""
    expected = "http(s)://host[:port] as clients use it, without a user, a query or a fragment"
    try:
        parts = urlsplit(http_url(raw))
    except InvalidValue:
        raise InvalidValue(expected) from None
    if parts.username is not None or "?" in raw or "#" in raw or not raw.isascii() or any(c.isspace() for c in raw):
        raise InvalidValue(expected)
    return raw.rstrip("/")


def webhook_url(raw: str) -> str:
    """Parse the URL that alerts are delivered to. Ports below 1024 other than 80 and 443 are refused (SSRF)."""
    expected = "https://host[:port]/path (or http://) without a user or a fragment, on port 80, 443 or one from 1024 on"
    try:
        parts = urlsplit(raw)
        port = parts.port
    except ValueError:
        raise InvalidValue(expected) from None
    if (
        parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment
        or not raw.isascii() or any(c.isspace() for c in raw)
        or (port is not None and port not in (80, 443) and port < 1024)
    ):  # fmt: skip
        raise InvalidValue(expected)
    return raw


def tcp_address(raw: str) -> str:
    """Parse ``tcp://host:port``."""
    try:
        parts = urlsplit(raw)
        fits = parts.scheme == "tcp" and parts.hostname and parts.port and not parts.path and not parts.query
    except ValueError:
        fits = False
    if not fits or "@" in raw or "#" in raw or any(c.isspace() for c in raw):
        raise InvalidValue("tcp://host:port, such as tcp://192.0.2.7:5550 or tcp://[2001:db8::7]:5550")
    return raw


def origins(raw: str) -> tuple[str, ...]:
    """Parse a list of origins as browsers and hybrid apps send them (RFC 6454)."""
    try:
        return tuple(str(from_setting(item)) for item in split_list(raw))
    except ValueError as exc:
        raise InvalidValue(
            "origins as browsers send them, such as https://app.example.com or capacitor://localhost, separated by "
            f"commas; {exc}"
        ) from None


def networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse a list of IP addresses and networks; bits of a host behind the prefix are cleared."""
    try:
        return tuple(ip_network(item, strict=False) for item in split_list(raw))
    except ValueError:
        raise InvalidValue("addresses or networks such as 10.0.0.0/8 or ::1, separated by commas") from None
