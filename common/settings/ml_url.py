"""URLs of ML services: the check of one, the addresses it leads to, and the error with a remedy. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from watchout.common.toolbox.default_ports import DEFAULT_PORTS

#: Schemes that the URL of an ML service may have.
SCHEMES: Final = (
    "http", "https", "ws", "wss", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "nats", "tls", "tcp",
)  # fmt: skip
_SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
_EXPECTED: Final = (
    "http(s)://host[:port][/path], ws(s)://…, redis(s)://…, redis(s)+sentinel://…, nats://…, tls://… (NATS) or "
    "tcp://host:port"
)
#: Schemes that are refused, with the remedy.
_INSTEAD: Final = {
    "unix": "redis://host:port: Redis over a Unix socket is not supported",
    "redis+unix": "redis://host:port: Redis over a Unix socket is not supported",
    "redis+socket": "redis://host:port: Redis over a Unix socket is not supported",
    "redis+cluster": "redis://any-node:port, with ML_REDIS_MODE=pubsub: streams of a Redis Cluster are not supported",
    "rediss+cluster": "rediss://any-node:port, with ML_REDIS_MODE=pubsub: streams of a Redis Cluster are not supported",
    "valkey": "redis://host[:port], which Valkey speaks",
    "valkeys": "rediss://host[:port], which Valkey speaks",
    "zmq": "tcp://host:port, which is ZeroMQ",
    "zmq+tcp": "tcp://host:port, which is ZeroMQ",
    "nats+tls": "tls://host[:port], which is NATS over TLS",
    "natss": "tls://host[:port], which is NATS over TLS",
    "grpc": f"{_EXPECTED}; gRPC is not supported",
}
_UNREADABLE: Final = "a URL whose host or port cannot be read"
_CHANNEL: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.:-]{1,128}(?<!\.)")
#: A host that an error may show: one with a dot, localhost, or an IPv6 address. A single word may be a secret that was
#: pasted into the wrong setting, unless a port follows it.
_HOST: Final = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|localhost|\[[0-9A-Fa-f:.]+\])"
_BARE: Final = re.compile(rf"(?:(?:{_HOST})(?::\d{{1,5}})?|[A-Za-z0-9-]{{1,63}}:\d{{1,5}})(?:/[A-Za-z0-9._/-]*)?")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]:@/,]+)(?::(\d{1,5}))?")


class InvalidMlUrl(ValueError):
    """A URL of an ML service that `check` or `sentinels_of` refuses.

    Args:
        expected: what would have been accepted.
        received: what may be shown of the URL; None where it may hold a secret.
    """

    def __init__(self, expected: str, received: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.received = received


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A parsed URL of Redis behind Sentinel: ``redis+sentinel://[user:password@]host[:port][,…]/name[/database]``.

    Attributes:
        hosts: (host, port) of each Sentinel.
        name: name under which the Sentinels know the master.
        database: number of the database.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int
    username: str | None
    password: str | None


def check(raw: str) -> str:
    """Return the URL with its scheme in lower case, for HTTP without a final slash. Raises `InvalidMlUrl`."""
    shown = None if "@" in raw or "?" in raw else raw[:80]
    if "://" not in raw:
        raise _without_scheme(shown)
    scheme = raw.partition("://")[0].lower()
    raw = scheme + raw[len(scheme) :]
    if scheme in _INSTEAD:
        raise InvalidMlUrl(_INSTEAD[scheme], f"a {scheme}:// URL")
    if scheme not in SCHEMES:
        received = (
            f"a {scheme}:// URL" if shown is not None and re.fullmatch(r"[a-z][a-z0-9+.-]{0,31}", scheme) else None
        )
        raise InvalidMlUrl(_EXPECTED, received)
    try:
        parts = urlsplit(raw)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = None if scheme in _SENTINEL else parts.port
    except ValueError:
        raise InvalidMlUrl(
            f"a port from 1 to 65535 after the host, or none: {_EXPECTED}", shown and _UNREADABLE
        ) from None
    if not parts.hostname or port == 0 or any(c.isspace() for c in raw):
        what = "space" if any(c.isspace() for c in raw) else "port 0" if port == 0 else "no host"
        raise InvalidMlUrl(_EXPECTED, shown and f"a {scheme}:// URL with {what}")
    _check_parts(parts, port, options)
    return raw.rstrip("/") if scheme in ("http", "https") else raw


def addresses(url: str) -> list[tuple[str, int]]:
    """Return the (host, port) that a checked URL leads to, or those of all its Sentinels."""
    parts = urlsplit(url)
    if parts.scheme in _SENTINEL:
        return list(sentinels_of(url).hosts)
    return [(parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0))]


def sentinels_of(url: str) -> SentinelUrl:
    """Return the parts of a URL of Redis behind Sentinel. Raises `InvalidMlUrl`."""
    expected = "redis+sentinel://[user:password@]host[:port][,host[:port]…]/name-of-the-master[/number of the database]"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidMlUrl(expected) from None
    credentials, _, netloc = parts.netloc.rpartition("@")
    hosts: list[tuple[str, int]] = []
    for word in netloc.split(","):
        found = _HOST_PORT.fullmatch(word)
        if found is None or not 0 < int(found[2] or 1) < 65536:
            raise InvalidMlUrl(expected)
        hosts.append((found[1].strip("[]"), int(found[2] or DEFAULT_PORTS["redis+sentinel"])))
    path = re.fullmatch(r"/([A-Za-z0-9_.-]{1,128})(?:/(\d{0,4}))?", parts.path)
    if path is None or parts.fragment:
        raise InvalidMlUrl(expected)
    user, _, password = credentials.partition(":")
    return SentinelUrl(tuple(hosts), path[1], int(path[2] or 0), unquote(user) or None, unquote(password) or None)


def _check_parts(parts: SplitResult, port: int | None, options: dict[str, str]) -> None:
    """Raise `InvalidMlUrl` unless path and options are those of the scheme."""
    match parts.scheme:
        case "redis" | "rediss" | "nats" | "tls" | "redis+sentinel" | "rediss+sentinel":
            if parts.scheme in _SENTINEL:
                sentinels_of(parts.geturl())
            elif parts.fragment or not re.fullmatch(
                r"/?" if parts.scheme in ("nats", "tls") else r"(/\d*)?", parts.path
            ):
                raise InvalidMlUrl("redis://host[:port][/number of the database], nats://host[:port]")
            if not options.keys() <= {"frames", "alerts"} or not all(map(_CHANNEL.fullmatch, options.values())):
                raise InvalidMlUrl("no options but frames and alerts, each 1 to 128 of A-Z a-z 0-9 _ . : -")
        case "tcp":
            alerts = options.get("alerts", "1")
            plain = not parts.fragment and not parts.path and parts.username is None and options.keys() <= {"alerts"}
            if not plain or port in (None, 65535) or not re.fullmatch(r"[1-9]\d{0,4}", alerts) or int(alerts) > 65535:
                raise InvalidMlUrl("tcp://host:port, or tcp://host:port?alerts=port")


def _without_scheme(shown: str | None) -> InvalidMlUrl:
    """Return the error for a value without ``://``; `shown`: the value if it may be shown."""
    if shown is None:
        return InvalidMlUrl(f"a URL: its scheme is missing, such as http://. {_EXPECTED}")
    slip = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/?(?=[^/\d])", shown)
    if slip is not None and slip[1].lower() in SCHEMES:
        rest = shown[slip.end() :]
        known = f"{slip[0]}{rest}" if _BARE.fullmatch(rest) else None
        return InvalidMlUrl(f"two slashes after {slip[1].lower()}: , as in {slip[1].lower()}://host[:port]", known)
    bare = shown.lstrip("/")
    if _BARE.fullmatch(bare):
        return InvalidMlUrl(f"http:// (or another scheme) before it, which is missing: http://{bare}", shown)
    return InvalidMlUrl(f"a URL: its scheme is missing, such as http://. {_EXPECTED}")
