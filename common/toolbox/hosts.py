"""Host names and IP addresses as settings and addresses write them: checked, with and without brackets. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
#: A host name as DNS, /etc/hosts and container networks have them; an IPv4 address has this form as well.
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)


def checked_host(text: str) -> str | None:
    """Return a host as it is used in connections, without brackets and in lower case; None for one that is invalid.

    Args:
        text: A host name, an IPv4 address, or an IPv6 address in brackets.

    """
    if text.startswith("[") and text.endswith("]"):
        try:
            address = IPv6Address(text[1:-1])
        except ValueError:
            return None
        return None if address.scope_id is not None else str(address)
    if not _HOST_NAME.fullmatch(text):
        return None
    if text.rpartition(".")[2].isdecimal():  # no host name ends in a number: it is an IPv4 address, or a wrong one
        try:
            return str(ip_address(text))
        except ValueError:
            return None
    return text.lower()


def bracketed(host: str) -> str:
    """Return a host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_address(host: str) -> bool:
    """Whether a host is an IP address, without brackets, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_unspecified(host: str) -> bool:
    """Whether a host is ``0.0.0.0`` or ``::``, which stand for all addresses of a machine and can be told to nobody."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
