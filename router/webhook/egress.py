"""Whether an address is public: the webhook must not reach services inside the network. Pure.

Against server-side request forgery (OWASP). Public is what the IANA registries call globally reachable (RFC 6890), as
`ipaddress` has them. An IPv6 address that embeds an IPv4 address is treated as that one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

#: IPv4-compatible (RFC 4291, 2.5.5.1), NAT64 (RFC 6052), ISATAP-like forms are not judged further: none is needed.
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Return whether this address, as `getaddrinfo` returns it, is public; False for text that is not an address."""
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
    """Return the IPv4 address that an IPv6 address embeds, None when there is none."""
    if address in _COMPATIBLE or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None)
