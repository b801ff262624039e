"""From which address a client comes, also behind reverse proxies, and by what addresses are counted. Pure.

Only what a trusted proxy says is believed (`TRUSTED_PROXIES`): anybody can write a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

#: Most entries of `X-Forwarded-For` that are looked at.
MAX_HOPS: Final = 32
#: Bits of an IPv6 address that count: what one customer gets at least (RFC 6177).
IPV6_PREFIX: Final = 64
#: Longest text that can be an address with brackets, zone and port.
MAX_TEXT: Final = 80

Address = IPv4Address | IPv6Address
Networks = Iterable[IPv4Network | IPv6Network]


def parse(text: str) -> Address | None:
    """An address as proxies write it: with a port or without, IPv6 in brackets or without, quoted or not.

    A zone is dropped, and an IPv4 address inside IPv6 (RFC 4291 section 2.5.5.2) is that IPv4 address.
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
    """Whether this is a trusted proxy."""
    return _is_in(parse(address), trusted)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """The client's address: the peer's, unless that is a trusted proxy.

    `forwarded_for` are the values of all X-Forwarded-For headers, in order. Each proxy appends whom it heard from, so
    they are read from the right: the first that is no trusted proxy is the client, and what stands left of it is the
    client's own invention. What is no address, or more than `MAX_HOPS` of them, ends the walk at the last good one.
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
    """Whether the client came over TLS: what the nearest trusted proxy says, else `secure`, as it came here."""
    said = _last(forwarded_proto).lower()
    if said in ("http", "https", "ws", "wss") and is_trusted(peer, trusted):
        return said in ("https", "wss")
    return secure


def own_hosts(
    peer: str, hosts: Sequence[str], forwarded_host: Sequence[str], forwarded_port: Sequence[str], trusted: Networks
) -> list[str]:
    """Return the names, with ports, under which the client knows this server: its `Host`, and what a proxy made of it.

    `hosts`, `forwarded_host` and `forwarded_port` are the values of those headers (Host, X-Forwarded-Host,
    X-Forwarded-Port); the latter two count only when `peer` is a trusted proxy. Of a list the nearest proxy's entry
    counts. More than one `Host` is none.
    """
    names = list(hosts) if len(hosts) == 1 else []
    if is_trusted(peer, trusted):
        if said := _last(forwarded_host):
            names.append(said)
        if _is_port(port := _last(forwarded_port)):  # a proxy may pass the name on without it
            names += [f"{name}:{port}" for name in names if not re.search(r":[0-9]+\Z", name)]
    return names


def _last(values: Sequence[str]) -> str:
    return ",".join(values).rpartition(",")[2].strip()


def limit_key(address: str) -> str:
    """By what an address is counted: IPv4 as a whole, IPv6 by its first 64 bits."""
    parsed = parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return address[:MAX_TEXT] if parsed is None else str(parsed)


def _is_in(address: Address | None, networks: Networks) -> bool:
    return address is not None and any(address in network for network in networks)


def _is_port(text: str) -> bool:
    return text.isdigit() and len(text) <= 5 and int(text) <= 65535
