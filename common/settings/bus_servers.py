"""The servers of `WATCHOUT_BUS`: the text of a list of NATS URLs to checked servers, or `InvalidValue`. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from watchout.common.settings.parsers import split_list
from watchout.common.settings.spec import InvalidValue

#: Port by scheme, where a URL has none. ``ws`` and ``wss`` are NATS over WebSocket.
PORTS: Final = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
#: Most servers of one list.
MAX_SERVERS: Final = 64
FORMS: Final = "nats://host:4222,… (or tls://, ws://, wss://; user:password@ or token@ before the host), or nothing"
#: Words that somebody may write in place of nothing, or for a switch; as hosts they would be looked for in vain.
_NO_HOSTS: Final = frozenset(
    ("nats", "zeromq", "zmq", "local", "none", "off", "on", "true", "false", "yes", "no", "0", "1")
)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class BusServer:
    """One NATS server of `WATCHOUT_BUS`. Its `str` has no credentials, and `repr` leaves secrets out.

    `user` and `password`, or `token`, are decoded; None: the URL has none. `path` is that of a WebSocket URL.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def is_secure(self) -> bool:
        """Whether the scheme demands TLS."""
        return self.scheme in ("tls", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether it is reached over WebSocket."""
        return self.scheme in ("ws", "wss")

    @property
    def has_credentials(self) -> bool:
        """Whether the URL has a user or a token."""
        return self.user is not None or self.token is not None


def bus_servers(raw: str) -> tuple[BusServer, ...]:
    """Parse a list of NATS servers, separated by commas or white space; an entry may be a host alone."""
    if raw.strip().lower() in _NO_HOSTS:
        raise InvalidValue(f"{FORMS} for the bus of one machine", repr(raw.strip()))
    found = tuple(dict.fromkeys(_server(item) for item in split_list(raw)))
    if not found:
        raise InvalidValue(FORMS, "a list without a server")
    if len(found) > MAX_SERVERS:
        raise InvalidValue(f"at most {MAX_SERVERS} servers", f"a list of {len(found)}")
    if len({server.is_websocket for server in found}) > 1:
        raise InvalidValue(
            "either nats:// and tls://, or ws:// and wss://", "a list with both plain NATS and WebSocket URLs"
        )
    return found


def _server(item: str) -> BusServer:
    """Parse one entry of the list. What an error shows of it has no credentials."""
    scheme, separator, rest = item.partition("://")
    if not separator:
        scheme, rest = "nats", item
    scheme = scheme.lower()
    if scheme not in PORTS:
        raise InvalidValue(FORMS, f"a {scheme}:// URL" if _SCHEME.match(scheme) else "a URL with an invalid scheme")
    before, at, after = rest.rpartition("@")
    user = password = token = None
    if at:
        name, colon, secret = before.partition(":")
        if not name:
            raise InvalidValue("user:password@ or token@ before the host, each percent-encoded", "a URL with no user")
        user, password, token = (unquote(name), unquote(secret), None) if colon else (None, None, unquote(name))
    address, slash, path = after.partition("/")
    if path and scheme not in ("ws", "wss"):
        raise InvalidValue("no path after the host and port of a nats:// URL", f"a {scheme}:// URL with a path")
    host, port = _host_and_port(scheme, address)
    return BusServer(scheme, host, port, f"/{path}" if slash and path else "", user, password, token)


def _host_and_port(scheme: str, address: str) -> tuple[str, int]:
    """Return host and port of ``host[:port]``, an IPv6 address in brackets."""
    if address.startswith("["):
        name, bracket, behind = address[1:].partition("]")
        try:
            host = ipaddress.IPv6Address(name).compressed if bracket else ""
        except ValueError:
            host = ""
        if not host or (behind and not behind.startswith(":")):
            raise InvalidValue("an IPv6 address in brackets, such as [2001:db8::7]:4222", "an address that is none")
        text = behind[1:]
    else:
        if address.count(":") > 1:
            raise InvalidValue("an IPv6 address in brackets, such as [2001:db8::7]:4222", "an address without brackets")
        host, _, text = address.partition(":")
        if not _HOST.match(host):
            what = "no host" if not host else "a host that is no name and no address"
            raise InvalidValue(f"{FORMS}; characters of a password other than letters and digits percent-encoded", what)
    if not text:
        return host, PORTS[scheme]
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise InvalidValue("a port from 1 to 65535 after the host, or none", "a URL with another port")
    return host, int(text)
