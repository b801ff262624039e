"""Whether an IP address is one of this machine's."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address
from typing import Final

#: No machine has these: they are for documentation (RFC 5737, RFC 3849).
_NOBODYS: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
#: Any port: nothing is sent.
_PORT: Final = 9


def is_own_address(address: str) -> bool:
    """Return whether an IP address is one of this machine's.

    A socket can be bound to an own address. Where the system lets sockets be bound to any address
    (``net.ipv4.ip_nonlocal_bind``, usual beside HAProxy and keepalived), it is one that the system would use itself
    to reach it; further addresses of the same network are not known as own ones there.

    Args:
        address: The address, without brackets.

    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if ip_address(address).is_loopback:
        return True
    if not _can_bind(family, address):
        return False
    return not _can_bind(family, _NOBODYS[family]) or _source_to(family, address) == ip_address(address)


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False


def _source_to(family: socket.AddressFamily, address: str) -> object:
    """Return the address that this machine has for whoever has the given one; None: that cannot be reached."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, _PORT))
        return ip_address(probe.getsockname()[0])
    return None
