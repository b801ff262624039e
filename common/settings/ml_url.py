"""The URL of an ML service: which are taken, where they lead, and what is said of one that is not taken. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from watchout.common.toolbox.default_ports import DEFAULT_PORTS

#: What the URL of an ML service may begin with.
SCHEMES: Final = (
    "http", "https", "ws", "wss", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "nats", "tls", "tcp",
)  # fmt: skip
_SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
_EXPECTED: Final = (
    "http(s)://host[:port][/path], ws(s)://…, redis(s)://…, redis(s)+sentinel://…, nats://…, tls://… (NATS) or "
    "tcp://host:port"
)
#: Schemes that are known and not taken, with the remedy.
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
#: A host that can be shown: one that has a dot, is localhost or an address, or has a port behind it. A single word may
#: be a secret in the wrong place.
_HOST: Final = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|localhost|\[[0-9A-Fa-f:.]+\])"
_BARE: Final = re.compile(rf"(?:(?:{_HOST})(?::\d{{1,5}})?|[A-Za-z0-9-]{{1,63}}:\d{{1,5}})(?:/[A-Za-z0-9._/-]*)?")
_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]:@/,]+)(?::(\d{1,5}))?")


class MlUrlFault(ValueError):
    """A URL that is not taken: `expected` in its place. `came`: what came, where it can be shown, else None."""

    def __init__(self, expected: str, came: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.came = came


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """``redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/database]``."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int
    username: str | None
    password: str | None


def check(raw: str) -> str:
    """The URL as it is used. Raises `MlUrlFault`."""
    shown = None if "@" in raw or "?" in raw else raw[:80]
    if "://" not in raw:
        raise _without_scheme(shown)
    scheme = raw.partition("://")[0].lower()
    raw = scheme + raw[len(scheme) :]
    if scheme in _INSTEAD:
        raise MlUrlFault(_INSTEAD[scheme], f"a {scheme}:// URL")
    if scheme not in SCHEMES:
        came = f"a {scheme}:// URL" if shown is not None and re.fullmatch(r"[a-z][a-z0-9+.-]{0,31}", scheme) else None
        raise MlUrlFault(_EXPECTED, came)
    try:
        parts = urlsplit(raw)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = None if scheme in _SENTINEL else parts.port
    except ValueError:
        raise MlUrlFault(
            f"a port from 1 to 65535 after the host, or none: {_EXPECTED}", shown and _UNREADABLE
        ) from None
    if not parts.hostname or port == 0 or any(c.isspace() for c in raw):
        what = "space" if any(c.isspace() for c in raw) else "port 0" if port == 0 else "no host"
        raise MlUrlFault(_EXPECTED, shown and f"a {scheme}:// URL with {what}")
    _check_parts(parts, port, options)
    return raw.rstrip("/") if scheme in ("http", "https") else raw


def addresses(url: str) -> list[tuple[str, int]]:
    """The hosts and ports that a checked URL leads to: one, or those of its sentinels."""
    parts = urlsplit(url)
    if parts.scheme in _SENTINEL:
        return list(sentinels_of(url).hosts)
    return [(parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0))]


def sentinels_of(url: str) -> SentinelUrl:
    """The parts of the URL of Redis behind Sentinel. Raises `MlUrlFault`."""
    expected = "redis+sentinel://[user:password@]host[:port][,host[:port]…]/name-of-the-master[/number of the database]"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise MlUrlFault(expected) from None
    credentials, _, netloc = parts.netloc.rpartition("@")
    hosts: list[tuple[str, int]] = []
    for word in netloc.split(","):
        found = _HOST_PORT.fullmatch(word)
        if found is None or not 0 < int(found[2] or 1) < 65536:
            raise MlUrlFault(expected)
        hosts.append((found[1].strip("[]"), int(found[2] or DEFAULT_PORTS["redis+sentinel"])))
    path = re.fullmatch(r"/([A-Za-z0-9_.-]{1,128})(?:/(\d{0,4}))?", parts.path)
    if path is None or parts.fragment:
        raise MlUrlFault(expected)
    user, _, password = credentials.partition(":")
    return SentinelUrl(tuple(hosts), path[1], int(path[2] or 0), unquote(user) or None, unquote(password) or None)


def _check_parts(parts: SplitResult, port: int | None, options: dict[str, str]) -> None:
    match parts.scheme:
        case "redis" | "rediss" | "nats" | "tls" | "redis+sentinel" | "rediss+sentinel":
            if parts.scheme in _SENTINEL:
                sentinels_of(parts.geturl())
            elif parts.fragment or not re.fullmatch(
                r"/?" if parts.scheme in ("nats", "tls") else r"(/\d*)?", parts.path
            ):
                raise MlUrlFault("redis://host[:port][/number of the database], nats://host[:port]")
            if not options.keys() <= {"frames", "alerts"} or not all(map(_CHANNEL.fullmatch, options.values())):
                raise MlUrlFault("no options but frames and alerts, each 1 to 128 of A-Z a-z 0-9 _ . : -")
        case "tcp":
            alerts = options.get("alerts", "1")
            plain = not parts.fragment and not parts.path and parts.username is None and options.keys() <= {"alerts"}
            if not plain or port in (None, 65535) or not re.fullmatch(r"[1-9]\d{0,4}", alerts) or int(alerts) > 65535:
                raise MlUrlFault("tcp://host:port, or tcp://host:port?alerts=port")


def _without_scheme(shown: str | None) -> MlUrlFault:
    """What is said of a value without ``://``."""
    if shown is None:
        return MlUrlFault(f"a URL: its scheme is missing, such as http://. {_EXPECTED}")
    slip = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/?(?=[^/\d])", shown)
    if slip is not None and slip[1].lower() in SCHEMES:
        rest = shown[slip.end() :]
        known = f"{slip[0]}{rest}" if _BARE.fullmatch(rest) else None
        return MlUrlFault(f"two slashes after {slip[1].lower()}: , as in {slip[1].lower()}://host[:port]", known)
    bare = shown.lstrip("/")
    if _BARE.fullmatch(bare):
        return MlUrlFault(f"http:// (or another scheme) before it, which is missing: http://{bare}", shown)
    return MlUrlFault(f"a URL: its scheme is missing, such as http://. {_EXPECTED}")
