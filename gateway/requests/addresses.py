"""Finds the address and the scheme of a client, also behind reverse proxies, and the key under which it counts. Pure.

Only headers of trusted proxies are believed (`TRUSTED_PROXIES`): any client can send them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

#: Most entries of `X-Forwarded-For` that are read.
MAX_HOPS: Final = 32
#: Bits of an IPv6 address that count for limits: the smallest prefix that one site gets (RFC 6177).
IPV6_PREFIX: Final = 64
#: Longest text that is parsed as an address, with brackets, zone and port.
MAX_TEXT: Final = 80

Address = IPv4Address | IPv6Address
Networks = Iterable[IPv4Network | IPv6Network]


def parse(text: str) -> Address | None:
    """Return an address as proxies write it: with or without a port, brackets and quotes; None: it is not an address.

    A zone is ignored, and an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) becomes the IPv4 address.
    """
    text = text.strip(" \t").strip('"')
    if len(text) > MAX_TEXT or not text.isascii():
        return None
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in text or not (port == "" or (port.startswith(":") and _is_port(port[1:]))):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port):
            return None
    try:
        address = ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_trusted(address: str, trusted: Networks) -> bool:
    """Whether an address belongs to a trusted proxy; False when it is not an address."""
    return _is_in(parse(address), trusted)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """Return the client's address: the peer's, unless the peer is a trusted proxy.

    `forwarded_for` are the values of all X-Forwarded-For headers, in order. Each proxy appends the address of its peer,
    so the entries are read from the right: the first that is not a trusted proxy is the client, and entries left of it
    were sent by the client itself. An entry that is not an address, or the limit `MAX_HOPS`, ends the search at the
    last valid one.
    """
    networks = tuple(trusted)
    last = parse(peer)
    if last is None:
        return peer[:MAX_TEXT]
    if not _is_in(last, networks):
        return str(last)
    for text in reversed(",".join(forwarded_for).rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        address = parse(text)
        if address is None:
            break
        last = address
        if not _is_in(address, networks):
            break
    return str(last)


def forwarded_secure(peer: str, forwarded_proto: Sequence[str], trusted: Networks, *, secure: bool) -> bool:
    """Whether the client uses TLS: as X-Forwarded-Proto of a trusted proxy states, else `secure`, as the peer does."""
    scheme = _last(forwarded_proto).lower()
    if scheme in ("http", "https", "ws", "wss") and is_trusted(peer, trusted):
        return scheme in ("https", "wss")
    return secure


def own_hosts(
    peer: str, hosts: Sequence[str], forwarded_host: Sequence[str], forwarded_port: Sequence[str], trusted: Networks
) -> list[str]:
    """Return the names, with ports, under which the client knows this server: `Host`, and what a proxy passed on.

    `hosts`, `forwarded_host` and `forwarded_port` are the values of the headers Host, X-Forwarded-Host and
    X-Forwarded-Port. The latter two count only when `peer` is a trusted proxy; of several entries, the last, which the
    nearest proxy has added. More than one `Host` header counts as none.
    """
    names = list(hosts) if len(hosts) == 1 else []
    if is_trusted(peer, trusted):
        if host := _last(forwarded_host):
            names.append(host)
        if _is_port(port := _last(forwarded_port)):  # a proxy may pass on the name without the port
            names += [f"{name}:{port}" for name in names if not re.search(r":[0-9]+\Z", name)]
    return names


def _last(values: Sequence[str]) -> str:
    """Return the last entry of a header with one or more lines, "" when there is none."""
    return ",".join(values).rpartition(",")[2].strip()


def limit_key(address: str) -> str:
    """Return the key under which limits count an address: all of an IPv4 address, the first 64 bits of IPv6."""
    parsed = parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return address[:MAX_TEXT] if parsed is None else str(parsed)


def _is_in(address: Address | None, networks: Networks) -> bool:
    return address is not None and any(address in network for network in networks)


def _is_port(text: str) -> bool:
    return text.isdigit() and len(text) <= 5 and int(text) <= 65535
