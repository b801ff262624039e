"""Which addresses the router may call: only public ones, so that a webhook's name leads nobody inside. Pure.

OWASP "Server-Side Request Forgery Prevention"; what is public is what the IANA registries call globally reachable
(RFC 6890), as `ipaddress` has them. An IPv6 address that stands for an IPv4 address is judged by that.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

#: IPv4-compatible (RFC 4291, 2.5.5.1), NAT64 (RFC 6052), ISATAP-like forms are not judged further: none is needed.
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether this address, as `getaddrinfo` gives it, is on the public internet. What is no address is not."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _COMPATIBLE or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None)
